"""A fleet on one server: deployments, polls and durable reports, on SQLite and on PostgreSQL.

    python3 dev.py bench fleet [--json] [--full] [--devices N] [--database sqlite|postgresql] [--part NAME]

The short form takes 50,000 devices, `--full` a million. Real `skylift serve` processes with devices written
straight into their database; requests come from this process over bare sockets. The poll is measured against
nginx serving a file of the same size, in the same run, each on one core; without nginx that key is absent,
and so is TLS without Envoy. What is acknowledged is on the disk: SQLite syncs in full, PostgreSQL runs with
fsync on.

`--part` takes any of PARTS, several times; `gate` and `kills` are benches of their own, whose figures stand
beside these. At the end every figure that has a goal is laid beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import sqlalchemy as sa

from parts import goals, tls
from parts.box import cpu_s, every_core, nginx, pin, rss_mb
from parts.fleet_stage import INTERVAL_S, Bench, opened, say, staged
from skylift.core.deadlines import Deadlines
from skylift.core.lifecycle import UpdateState
from skylift.engine import moves
from skylift.engine.checkin import recount
from skylift.store import counters, outbox
from skylift.store.db import Connection, Database
from skylift.store.tables import devices, phases, updates
from skylift.testkit import press
from skylift.testkit.server import wait

SHORT, FULL, FEW = 50_000, 1_000_000, 1_000
PHASES = [{"percent": 1}, {"percent": 10}, {"percent": 50}, {"percent": 100}]
LINES = 32
REPORTING = 1_000  # devices with a report under way at the same time
ROUNDS = 3
BETWEEN_S = 0.2  # an operator's verbs: the loop has looked at what the one before did
TICKS = 40
HERD_PER_S = FULL / INTERVAL_S  # a million devices, also where fewer take turns
SHORT_GATE, FULL_GATE = 10, 100  # deployments per defect rate
FULL_KILLS = ("--kills", "300", "--devices", "250")
SHORT_KILLS = ("--kills", "3", "--devices", "40", "--phases", "10,100")
PARTS = ("deployments", "polls", "herd", "tls", "tick", "reports", "gate", "kills")


def timed(deed: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    deed()
    return time.perf_counter() - begun


# --- one database -------------------------------------------------------------------------------------


def deployments(bench: Bench) -> dict[str, float]:
    """Create one on everybody, then the verbs; seconds and milliseconds, medians."""
    client = bench.stage.client
    body = {"firmware_version": "1.1.0", "target_devices": "all", "phases": PHASES}
    created, paused = [], []
    for _ in range(ROUNDS):
        made: dict[str, Any] = {}
        created.append(timed(lambda made=made: made.update(client.post("/api/deployments", body))))  # type: ignore[misc]
        wait(lambda: _is_carried(bench.database), "what follows from it is done: everybody is counted again")
        for verb in ("pause", "resume", "pause", "resume", "abort"):
            time.sleep(BETWEEN_S)
            paused.append(timed(partial(client.post, f"/api/deployments/{made['id']}:{verb}")))
    return {"create_s": round(median(created), 3), "pause_ms": round(median(paused) * 1000, 1)}


def _is_carried(database: Database) -> bool:
    with database.read() as conn:
        return outbox.depth(conn) == 0


def ticks(kind: str, bench: Bench, deployment: str) -> dict[str, float]:
    """Load, plan, audit, apply: a look at a running deployment, in turns with one over a thousand."""
    deadlines = Deadlines()

    def look(database: Database, deployment: str) -> None:
        now = datetime.now(UTC)
        database.write(lambda conn: moves.step(conn, deployment, now, deadlines))

    with ExitStack() as stack:
        small = staged(stack, kind, FEW)
        fleets = ((bench.database, deployment), (small.database, opened(small.stage)))
        turns = [[timed(partial(look, *one)) for one in fleets] for _ in range(TICKS)]
    many, few = (median(seconds) * 1000 for seconds in zip(*turns, strict=True))
    return {"tick_ms": round(many, 2), "tick_ratio_1m_to_1k": round(many / few, 2)}


def polls(bench: Bench, other: tuple[int, int] | None, seconds: float) -> dict[str, float]:
    """CPU per poll against nginx's per file: kept-alive, and with a new connection each."""
    pids, draw = [bench.pid, *bench.base], Random(2)
    found: dict[str, float] = {}
    # Saturated both times: at a low rate it is mostly waking up that is measured.
    for close, name in ((False, "poll_cpu"), (True, "poll_new_connection_cpu")):
        ours, theirs, ratios = [], [], []
        for _ in range(ROUNDS):
            request = partial(bench.poll, draw, close)
            ours.append(_per_request(pids, bench.port, request, close, seconds))
            if other is not None:
                pid, port = other
                head = (
                    f"GET / HTTP/1.1\r\nHost: x\r\n{'Connection: close' if close else 'Accept: */*'}\r\n\r\n"
                )
                file = partial(_same, head.encode())
                theirs.append(_per_request([pid], port, file, close, seconds))
                ratios.append(ours[-1] / theirs[-1])
        found[f"{name}_us"] = round(median(ours) * 1e6, 1)
        said = f"  {name:24} {median(ours) * 1e6:6.0f} us"
        if ratios:
            found[f"nginx{name[4:]}_us"] = round(median(theirs) * 1e6, 1)
            found[_RATIOS[name]] = round(median(ratios), 2)
            said += f"   nginx {median(theirs) * 1e6:5.0f} us   {found[_RATIOS[name]]:.2f}x"
        say(said)
    return found


_RATIOS = {
    "poll_cpu": "poll_cpu_vs_nginx",
    "poll_new_connection_cpu": "poll_cpu_vs_nginx_new_connection",
}


def _same(request: bytes, number: int) -> bytes:
    return request


def _per_request(
    pids: list[int], port: int, request: Callable[[int], bytes], close: bool, seconds: float
) -> float:
    """Seconds of CPU."""
    before = cpu_s(pids)
    if close:
        told = press.afresh("127.0.0.1", port, request, LINES, seconds)
    else:
        told = press.closed("127.0.0.1", port, request, LINES, 10**9, seconds)
    if told.wrong or told.failed:
        raise SystemExit(f"the bench failed: {told.wrong} wrong answers, {told.failed} connections broke")
    return (cpu_s(pids) - before) / told.answered


def herd(bench: Bench, seconds: float) -> dict[str, float]:
    """A million devices poll once in five minutes, each on a connection of its own."""
    draw, pids = Random(3), [bench.pid, *bench.base]
    before, begun = cpu_s(pids), time.perf_counter()
    told = press.opened("127.0.0.1", bench.port, partial(bench.poll, draw, True), HERD_PER_S, seconds)
    passed = time.perf_counter() - begun
    spent = cpu_s(pids) - before
    found = {
        "herd_per_s": round(told.answered / passed),  # below HERD_PER_S: whoever asks was too slow
        "poll_p99_ms": round(told.percentile(99) * 1000, 1),
        "poll_p50_ms": round(told.percentile(50) * 1000, 1),
        "herd_failed": told.failed + told.wrong,
        "herd_poll_us": round(spent / max(1, told.answered) * 1e6, 1),
        "herd_core_percent": round(spent / max(1, told.answered) * HERD_PER_S * 100, 1),
    }
    say(
        f"  {found['herd_per_s']} polls/s: p99 {found['poll_p99_ms']} ms, {found['herd_failed']} failed, "
        f"{found['herd_core_percent']} % of a core at {HERD_PER_S:.0f}/s"
    )
    return found


def reports(bench: Bench, deployment: str, most: int) -> dict[str, float]:
    """Final reports, each answered once it is on the disk: of devices whose rows lie together, and of others
    drawn from the whole fleet."""
    found = {}
    drawn = Random(5).sample(range(most, bench.identity.count), most)
    for name, numbers in (("report", list(range(most))), ("scattered_report", drawn)):
        each = _complete(bench, deployment, numbers, name.replace("_", " "))
        found |= {f"{name}s_per_s": each[0], f"{name}_p99_ms": each[1], f"{name}_cpu_us": each[2]}
    return found


def _complete(bench: Bench, deployment: str, numbers: list[int], name: str) -> tuple[float, float, float]:
    """How many a second, their p99 in ms, CPU each in us; then the counters against a full count."""
    most = len(numbers)
    before = _completed(bench, deployment)
    bench.database.write(
        partial(_at_the_end, deployment=deployment, names=list(map(bench.identity.name, numbers)))
    )

    def complete(n: int) -> bytes:
        body = json.dumps(
            {"device_id": bench.identity.name(n), "deployment": deployment, "state": "complete", "attempt": 1}
        ).encode()
        head = (
            "POST /api/updates/status HTTP/1.1\r\nHost: skylift\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {bench.identity.token(n)}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    requests = list(map(complete, numbers))  # beforehand: whoever asks has one core, too
    pids = [bench.pid, *bench.base]
    spent = cpu_s(pids)
    told = press.closed("127.0.0.1", bench.port, requests.__getitem__, REPORTING, most, 60.0)
    each = round((cpu_s(pids) - spent) / max(1, told.answered) * 1e6, 1)
    done = _completed(bench, deployment) - before
    with bench.database.read() as conn:
        uneven = recount(conn, deployment)
    if told.wrong or told.failed or done != told.answered or uneven:
        raise SystemExit(f"the bench failed: {told.answered} answered, {done} in the database, {uneven}")
    per_second = round(told.answered / told.seconds)
    say(
        f"  {told.answered} final {name}s: {per_second}/s, p99 {told.percentile(99) * 1000:.0f} ms, "
        f"{each} us of CPU each"
    )
    return per_second, round(told.percentile(99) * 1000, 1), each


def _completed(bench: Bench, deployment: str) -> int:
    with bench.database.read() as conn:
        return counters.of_deployment(conn, deployment).get(0, {}).get("complete", 0)


def words_of_health(bench: Bench, most: int) -> dict[str, float]:
    """CPU of a device's word of how it is, as those say it that a statistical gate compares."""

    def word(n: int) -> bytes:
        body = b'{"healthy":true,"metrics":{"disk_free_mb":812.5,"load":0.25,"temperature":41.0}}'
        head = (
            f"POST /api/devices/{bench.identity.name(n)}/health HTTP/1.1\r\nHost: skylift\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {bench.identity.token(n)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    pids = [bench.pid, *bench.base]
    before = cpu_s(pids)
    told = press.closed("127.0.0.1", bench.port, word, LINES, most, 60.0)
    if told.wrong or told.failed:
        raise SystemExit(f"the bench failed: {told.wrong} words of health refused, {told.failed} broke")
    found = {"health_word_us": round((cpu_s(pids) - before) / max(1, told.answered) * 1e6, 1)}
    say(
        f"  a word of health: {found['health_word_us']} us of CPU; nobody is asked without a statistical gate"
    )
    return found


def _at_the_end(conn: Connection, deployment: str, names: list[str]) -> None:
    """These devices validate."""
    now = datetime.now(UTC)
    pks: list[int] = []
    for at in range(0, len(names), 500):
        pks += conn.execute(
            sa.select(devices.c.pk).where(devices.c.device_id.in_(names[at : at + 500]))
        ).scalars()
    conn.execute(
        sa.insert(updates),
        [
            {"deployment_id": deployment, "device_pk": pk, "phase": 0, "attempt": 1, "offered_at": now,
             "state": UpdateState.VALIDATING.value, "updated_at": now, "started_at": now}
            for pk in pks
        ],
    )  # fmt: skip
    ending = sa.select(updates.c.device_pk).where(updates.c.state == UpdateState.VALIDATING.value)
    conn.execute(
        sa.update(devices).where(devices.c.pk.in_(ending)).values(deployment_id=deployment, attempt=1)
    )
    conn.execute(
        sa.update(phases)
        .where(phases.c.deployment_id == deployment)
        .values(waiting=phases.c.waiting - len(names))
    )
    counters.rebuild(conn, deployment)


# --- the whole ----------------------------------------------------------------------------------------


def measure(kind: str, count: int, full: bool, parts: Collection[str]) -> dict[str, Any]:
    """These parts, on one database."""
    with ExitStack() as stack:
        bench = staged(stack, kind, count)
        found: dict[str, Any] = {}
        if "deployments" in parts:
            found |= deployments(bench)
            say(f"  create {found['create_s']} s, pause and the like {found['pause_ms']} ms")
        asked_of_the_poll(bench, stack, full, parts, found)
        if "tls" in parts:
            pids, asks = [bench.pid, *bench.base], partial(partial, bench.poll, Random(4))
            envoy = bench.stage.home / "envoy"
            found |= tls.measure(envoy, bench.port, pids, cpu_s, asks, HERD_PER_S, 15.0 if full else 2.0)
            say(f"  TLS through Envoy: { {name: found[name] for name in found if name.startswith('tls')} }")
        if {"tick", "reports"} & set(parts):
            running = opened(bench.stage)
            if "tick" in parts:
                found |= ticks(kind, bench, running)
            if "reports" in parts:
                found |= reports(bench, running, min(count // 3, 60_000 if full else 15_000))
                found |= words_of_health(bench, 1_000)
        return found | memory(bench.pid, found)


def asked_of_the_poll(
    bench: Bench, stack: ExitStack, full: bool, parts: Collection[str], found: dict[str, Any]
) -> None:
    """The server on one core, whoever asks on the other."""
    pin([bench.pid], {1})
    os.sched_setaffinity(0, {0})
    if "polls" in parts:
        other = nginx(bench.stage.home / "nginx")
        if other is not None:
            stack.callback(os.kill, other[0], 15)
            pin([other[0]], {1})
        found |= polls(bench, other, 3.0 if full else 1.0)
    if "herd" in parts:
        found |= herd(bench, 20.0 if full else 4.0)
    found |= memory(bench.pid, found)
    os.sched_setaffinity(0, every_core())
    pin([bench.pid], every_core())


def memory(pid: int, before: dict[str, Any]) -> dict[str, int]:
    """The most so far."""
    now = {"server_rss_mb": rss_mb(pid, "/fleet.db"), "server_rss_with_database_file_mb": rss_mb(pid)}
    return {name: max(mb, before.get(name, 0)) for name, mb in now.items()}


# --- the other benches, whose figures stand beside these --------------------------------------------------


def gate(full: bool) -> dict[str, Any]:
    """Devices hurt under both gates at the same false alarms, by defect rate (`bench gate`)."""
    words = ("--deployments", str(FULL_GATE)) if full else ("--deployments", str(SHORT_GATE), "--calibrated")
    found = _run("gate.py", *words)
    alarms = ("false_alarms_threshold", "false_alarms_statistical")
    return {
        "gate": {
            defect: {name: row[name] for name in ("threshold_hurt", "statistical_hurt")}
            | {name: found[name] for name in alarms}
            for defect, row in found["gate"].items()
        }
    }


def kills(full: bool) -> dict[str, Any]:
    """What is lost when the server is killed so often, under load (`bench server-kill`)."""
    found = _run("server_kill.py", *(FULL_KILLS if full else SHORT_KILLS), "--json")
    names = ("kills", "reports_lost", "devices_doubled", "phases_wrong", "counters_equal")
    return {name: found[name] for name in names}


def _run(script: str, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(script), *words],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise SystemExit(f"the bench failed: {script} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the JSON is always last")
    parser.add_argument("--full", action="store_true", help="a million devices, longer rounds")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; several times")
    given = parser.parse_args()
    total, parts = given.devices or (FULL if given.full else SHORT), given.part or PARTS
    begun = time.monotonic()
    told: dict[str, Any] = {"devices": total}
    if set(parts) - {"gate", "kills"}:
        for kind in given.database or ("sqlite", "postgresql"):
            for name, value in measure(kind, total, given.full, parts).items():
                told.setdefault(name, {})[kind] = value
    if "gate" in parts:
        told |= gate(given.full)
    if "kills" in parts:
        told |= kills(given.full)
    told["goals"] = list(goals.judged(told))
    told["seconds"] = round(time.monotonic() - begun)
    say("")
    for row in told["goals"]:
        say(goals.shown(row))
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
