"""Three real servers on one real PostgreSQL: any of them may answer, any of them may die, and so may it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest

from skylift.testkit.behaviours import Behaviour
from skylift.testkit.fleet import Fleet, Pace
from skylift.testkit.identity import Identity
from skylift.testkit.image import build
from skylift.testkit.judge import clean, judge_fleet
from skylift.testkit.postgresql import Cluster
from skylift.testkit.server import Failed, Server
from skylift.testkit.stage import DEVICE_TYPE, PRODUCT, Stage

pytestmark = [pytest.mark.slow, pytest.mark.postgresql]
ENDS, SOAK_MINUTES = (10, 40, 100), 0.02
THINK_S = (0.2, 1.2)
BEHAVIOURS = (
    Behaviour("well", 80, think_s=THINK_S),
    Behaviour("repeats", 12, think_s=THINK_S, repeats=2),
    Behaviour("late", 8, think_s=THINK_S, late=True),
)
# Polls with nothing to do are most of what a small fleet costs three servers, and prove nothing here.
PACE = Pace(again_s=0.1, longest_check=3.0)


@pytest.fixture(scope="module")
def own(cluster: Cluster) -> Iterator[Cluster]:
    """A PostgreSQL of these tests' own, that they may restart."""
    made = Cluster.make()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def stage(own: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Three servers, started at once on an empty database."""
    made = Stage(tmp_path_factory.mktemp("stage"))
    made.settings["SKYLIFT_DATABASE_URL"] = own.url(own.fresh())
    for name in ("CHECK_INTERVAL_S", "CHECK_INTERVAL_WAITING_S", "CHECK_INTERVAL_BUSY_S"):
        made.settings[f"SKYLIFT_{name}"] = "2"
    try:
        made.serve("--mqtt", "off", servers=3)
        made.ceremony()
        for number in (1, 2):
            version = f"1.{number}.0"
            made.publish(build(made.home / f"{version}.pyz", version), version)
        yield made
    finally:
        made.close()


def ask(stage: Stage, number: int, method: str, path: str, **options: Any) -> httpx2.Response:
    """One request of the admin to one of the servers."""
    headers = {"Authorization": f"Bearer {stage.environment['SKYLIFT_TOKEN']}"} | options.pop("headers", {})
    return httpx2.request(method, stage.urls[number] + path, headers=headers, timeout=30, **options)


def everywhere(deed: Callable[[int], httpx2.Response], times: int = 1) -> list[httpx2.Response]:
    """The same on all three servers at the same time."""
    with ThreadPoolExecutor(3 * times) as pool:
        return list(pool.map(deed, [0, 1, 2] * times))


# --- what they share ------------------------------------------------------------------------------------


def test_servers_that_started_together_are_one(stage: Stage) -> None:
    tokens = [server.data / "admin.token" for server in stage.servers]
    assert sum(path.exists() for path in tokens) == 1
    assert not list(stage.home.glob("data*/admin.token.*"))
    keys = everywhere(lambda n: ask(stage, n, "GET", "/api/trust/online-keys"))
    assert keys[0].json() == keys[1].json() == keys[2].json()
    seen = everywhere(lambda n: ask(stage, n, "GET", "/api/releases"))
    assert [len(answer.json()["items"]) for answer in seen] == [2, 2, 2]


def test_an_image_uploaded_to_one_server_is_downloaded_from_another(stage: Stage) -> None:
    found = ask(stage, 0, "GET", "/api/releases").json()["items"][0]["artifacts"][0]
    answers = everywhere(lambda n: ask(stage, n, "GET", found["url"], headers={"Range": "bytes=10-19"}))
    assert [answer.status_code for answer in answers] == [206] * 3
    assert len({answer.content for answer in answers}) == 1


def test_a_request_repeated_at_every_server_is_done_once(stage: Stage) -> None:
    body = {"product": PRODUCT, "version": "7.0.0"}
    key = {"Idempotency-Key": "the same"}
    answers = everywhere(lambda n: ask(stage, n, "POST", "/api/releases", json=body, headers=key), 3)
    assert [answer.status_code for answer in answers] == [201] * 9
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_claim_is_used_as_often_as_it_says_at_all_servers_together(stage: Stage) -> None:
    claim = ask(stage, 0, "POST", "/api/claims", json={"uses": 4}).json()["claim"]
    names = iter(range(100))

    def enroll(number: int) -> httpx2.Response:
        name = f"claimed-{next(names)}"
        body = {"claim": claim, "device_id": name, "device_type": DEVICE_TYPE, "token": f"{name}-{'x' * 30}"}
        return httpx2.post(f"{stage.urls[number]}/api/enroll", json=body, timeout=30)

    answers = everywhere(enroll, 5)
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [403] * 11


def test_a_server_with_other_keys_does_not_start(stage: Stage, tmp_path: Path) -> None:
    stranger = Server(
        tmp_path / "data", {**stage.server.settings, "SKYLIFT_KEYS_DIR": str(tmp_path / "keys")}
    )
    with pytest.raises(Failed, match="exit code 2"):
        stranger.start()
    said = stranger.log.read_text().strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("skylift: keys_dir is ")
    assert "the online keys of this fleet are" in said[0]


# --- under load -----------------------------------------------------------------------------------------


def prepare(stage: Stage, count: int, seed: int) -> Fleet:
    """A fleet of its own for every test: names and tokens follow from the seed."""
    return Fleet(stage.urls, Identity(seed, count, BEHAVIOURS, prefix=f"fleet{seed}"), pace=PACE)


def claim(stage: Stage, fleet: Fleet) -> str:
    uses = str(fleet.identity.count)
    return str(stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", uses)["claim"])


def deploy(stage: Stage, fleet: Fleet, version: str) -> str:
    body = {
        "firmware_version": version,
        "target_devices": [fleet.identity.name(number) for number in range(fleet.identity.count)],
        "failure_threshold_percent": 50,
        "failure_min_devices": 20,
        "phases": [{"percent": end, "min_minutes": SOAK_MINUTES, "wait_minutes": 60} for end in ENDS],
    }
    made: str = stage.client.post("/api/deployments", body)["id"]
    return made


def live_through(stage: Stage, fleet: Fleet, version: str, trouble: Callable[[], None]) -> dict[str, Any]:
    """A deployment over the fleet with trouble in the middle; what the judge finds."""

    async def story() -> None:
        assert await fleet.enroll(claim(stage, fleet)) == fleet.identity.count
        deployment = await asyncio.to_thread(deploy, stage, fleet, version)
        working = asyncio.create_task(fleet.run())
        await asyncio.to_thread(trouble)
        ended = await asyncio.to_thread(stage.ended, deployment, 300)
        assert ended["status"] == "complete", ended["status_reason"]
        fleet.stop()
        await working

    asyncio.run(story())
    found = judge_fleet(stage.settings["SKYLIFT_DATABASE_URL"], fleet)
    assert found["deployments_complete"] == found["deployments"] == 1
    return found


def wrong(found: dict[str, Any], stage: Stage) -> str:
    """What the judge found, in words; "" where it is nothing."""
    if clean(found):
        return ""
    logs = (server.log.read_text(errors="replace") for server in stage.servers)
    bugs = [log[log.index("bug") :][:3000] for log in logs if "bug" in log]
    return "\n".join([str(found), *bugs])


def test_nothing_is_lost_or_done_twice_whichever_server_is_killed(stage: Stage) -> None:
    fleet = prepare(stage, 80, 1)
    draw = Random(1)

    def kill_some() -> None:
        for number in range(6):
            asyncio.run(asyncio.sleep(draw.uniform(0.2, 1.5)))
            victims = draw.sample(stage.servers, 2 if number == 3 else 1)
            for victim in victims:
                victim.kill()
            for victim in victims:
                victim.start()

    found = live_through(stage, fleet, "1.1.0", kill_some)
    assert not wrong(found, stage)
    assert found["requests_unanswered"] > 0


def test_a_stream_shows_on_one_server_what_happens_on_the_others(stage: Stage) -> None:
    """Devices ask the first two; the third one tells, every event once and in order."""
    fleet = prepare(stage, 30, 2)
    del fleet.wires[2]
    numbers: list[int] = []
    seen: list[tuple[str, str]] = []

    def follow(deployment: str) -> None:
        url = f"{stage.urls[2]}/api/deployments/{deployment}/events"
        headers = {"Authorization": f"Bearer {stage.environment['SKYLIFT_TOKEN']}"}
        while True:  # a line that is cut is taken up again behind the last event, as browsers do
            with (
                suppress(httpx2.RemoteProtocolError),
                httpx2.stream("GET", url, headers=headers, timeout=60) as answer,
            ):
                for line in answer.iter_lines():
                    note(line)
                return
            headers["Last-Event-ID"] = str(numbers[-1] if numbers else 0)

    def note(line: str) -> None:
        if line.startswith("id:"):
            numbers.append(int(line[3:]))
        elif line.startswith("data:"):
            event = json.loads(line[5:])
            seen.append((event["kind"], event["data"].get("state", "")))

    followers = ThreadPoolExecutor(1)
    made: list[Any] = []

    def watch() -> None:
        newest = stage.client.get("/api/deployments", limit=1)["items"][0]["id"]
        made.append(followers.submit(follow, newest))

    found = live_through(stage, fleet, "1.1.0", watch)
    made[0].result(60)
    assert not wrong(found, stage)
    assert numbers == sorted(set(numbers))
    for state in ("pending", "downloading", "installing", "validating", "complete"):
        assert seen.count(("update", state)) == 30, state
    assert [kind for kind, _ in seen if kind.startswith("phase_")] == ["phase_opened", "phase_through"] * 3


def test_a_database_that_is_restarted_is_waited_for(stage: Stage, own: Cluster) -> None:
    fleet = prepare(stage, 60, 3)
    before = [server.process.pid for server in stage.servers if server.process]

    def restart() -> None:
        for deed in (own.restart, own.crash, own.restart):
            asyncio.run(asyncio.sleep(3))
            deed()
            if own.server is None:
                asyncio.run(asyncio.sleep(2))
                answer = ask(stage, 1, "GET", "/readyz")
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert int(answer.headers["Retry-After"]) > 0
                assert ask(stage, 1, "GET", "/healthz").status_code == 200
                own.start()

    found = live_through(stage, fleet, "1.2.0", restart)
    assert not wrong(found, stage)
    assert [server.process.pid for server in stage.servers if server.process] == before
    assert not any(server.check() for server in stage.servers)
