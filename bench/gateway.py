"""The gateway beside bare Envoy, caddy and a Python proxy: CPU for a request, medians of interleaved rounds.

One worker each, on one core; the load (wrk) and the backend (nginx) on the other; kept-alive connections, the
same headers for everybody. What a proxy costs is the CPU its processes used, divided by the requests that
were answered: that holds on a machine where others work too. Ratios are medians over rounds in which every
proxy had its turn. Then: the last of 2,000 routes against the first, reloads and swaps under load, how long
2,000 routes take to be compiled, validated and in place, and a region that comes back at once before a real
fleet server.

What is not installed (wrk, nginx, caddy) is left out, and so are its figures.

    python3 dev.py bench gateway [--json] [--rounds N] [--seconds N] [--herd N]
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.snapshot import HCM, TYPE, Snapshot
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.loading import loads
from skylift.gateway.policies import Algorithm, Limit, RateLimit
from skylift.gateway.read import read_documents
from skylift.store.db import Database, migrate
from skylift.testkit.identity import Identity
from skylift.testkit.seed import seed
from skylift.testkit.server import Server

LOAD_CORE, PROXY_CORE = "0", "1"
CONNECTIONS = 32
SECRET = "a secret that is longer than thirty-two bytes"  # noqa: S105 - the bench's own
BODY = '{"update_available":false,"retry_after":300,"padding":"0123456789"}'
TICKS = os.sysconf("SC_CLK_TCK")

SERVICE = """
_format_version: "3.0"
services:
  - name: things
    url: http://127.0.0.1:{backend}
    retries: 0
    routes: [{{name: things, paths: [/things], strip_path: false}}]
"""
FULL = """
plugins:
  - {name: jwt, config: {claims_to_verify: [exp]}}
  - {name: rate-limiting, config: {minute: 100000000, policy: local}}
  - name: request-transformer
    config:
      add: {headers: ["X-Request-ID:$(uuid)", "X-Forwarded-Service:things"]}
      remove: {headers: [X-Internal]}
consumers:
  - username: ada
    jwt_secrets: [{key: fleet, secret: SECRET}]
""".replace("SECRET", SECRET)


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# --- processes ------------------------------------------------------------------------------------------


def pinned(pid: int, core: str) -> None:
    os.sched_setaffinity(pid, {int(core) % (os.cpu_count() or 1)})


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process and all its threads used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


@contextmanager
def program(command: list[str], core: str, port: int, **env: str) -> Iterator[int]:
    """A server on a core, until the block ends; its pid, once it listens."""
    process = subprocess.Popen(
        ["taskset", "-c", str(int(core) % (os.cpu_count() or 1)), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **env},
    )
    try:
        listens(port)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


NGINX = """
daemon off; worker_processes 1; error_log /dev/null; pid {place}/pid;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{body}'; }} }}
}}
"""


@contextmanager
def backend(place: Path) -> Iterator[int]:
    port = free_port()
    file = place / "nginx.conf"
    file.write_text(NGINX.format(place=place, port=port, body=BODY))
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    with program([nginx, "-c", str(file), "-e", "/dev/null"], LOAD_CORE, port):
        yield port


# --- what is measured -------------------------------------------------------------------------------------


@dataclass
class Proxy:
    """`pids`: whose CPU counts."""

    name: str
    port: int
    pids: Callable[[], list[int]]
    path: str = "/things"
    cost: list[float] = field(default_factory=list)  # us a request, a round each


def load(proxy: Proxy, seconds: float, token: str) -> None:
    """One round of one proxy."""
    before = sum(map(cpu_of, proxy.pids()))
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    command += ["-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{proxy.port}{proxy.path}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = sum(map(cpu_of, proxy.pids())) - before
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    wrong = re.findall(r"Non-2xx or 3xx responses: (\d+)", said)
    if wrong:
        raise SystemExit(f"{proxy.name}: {wrong[0]} of {requests} were not answered well")
    proxy.cost.append(used / requests * 1e6)


@contextmanager
def ours(name: str, files: str | list[tuple[str, str]], path: str = "/things") -> Iterator[Proxy]:
    """A gateway of this file, or of these (text, name), with one worker on its core."""
    port = free_port()
    texts = [(files, "kong.yaml")] if isinstance(files, str) else files
    gateway = read_documents([document for text, file in texts for document in loads(text, file)])
    listener = replace(gateway.listeners[0], address="127.0.0.1", port=port)
    snapshot = compiled(replace(gateway, listeners=(listener,)))
    with supervised(snapshot) as supervisor:
        yield Proxy(name, port, lambda: [supervisor.envoy.pid], path)


@contextmanager
def supervised(snapshot: Snapshot) -> Iterator[Supervisor]:
    supervisor = Supervisor(lambda: snapshot, lambda _: None, Options(concurrency=1, drain_s=2))
    try:
        supervisor.start()
        pinned(supervisor.envoy.pid, PROXY_CORE)
        for task in Path(f"/proc/{supervisor.envoy.pid}/task").iterdir():
            pinned(int(task.name), PROXY_CORE)
        yield supervisor
    finally:
        supervisor.stop()


@contextmanager
def bare(port_of_backend: int) -> Iterator[Proxy]:
    """Envoy as somebody would write it who wants a proxy and nothing else."""
    port = free_port()
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": HCM,
        "stat_prefix": "bare",
        "rds": {"route_config_name": "bare"},
        "http_filters": [router],
    }
    listener = {
        "name": "bare",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    hosts = [
        {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}
    ]
    place = {"socket_address": {"address": "127.0.0.1", "port_value": port_of_backend}}
    cluster = {
        "name": "b",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "b",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place}}]}],
        },
    }
    with supervised(Snapshot((listener,), ({"name": "bare", "virtual_hosts": hosts},), (cluster,))) as s:
        yield Proxy("bare Envoy", port, lambda: [s.envoy.pid])


@contextmanager
def caddy(port_of_backend: int, place: Path) -> Iterator[Proxy]:
    port = free_port()
    file = place / "Caddyfile"
    file.write_text(
        "{\n admin off\n auto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\n reverse_proxy 127.0.0.1:{port_of_backend}\n}}\n"
    )
    command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    with program(command, PROXY_CORE, port, GOMAXPROCS="1", HOME=str(place)) as pid:
        yield Proxy("caddy", port, lambda: [pid])


PYTHON_PROXY = """
import os
import aiohttp
BACKEND = os.environ["BENCH_BACKEND"]
session = None
async def app(scope, receive, send):
    global session
    if scope["type"] != "http":
        return
    if session is None:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
    headers = [(k.decode(), v.decode()) for k, v in scope["headers"] if k != b"host"]
    async with session.request(scope["method"], BACKEND + scope["path"], headers=headers) as answer:
        body = await answer.read()
        told = answer.headers.items()
        kept = [(k.lower().encode(), v.encode()) for k, v in told if k != "Transfer-Encoding"]
        await send({"type": "http.response.start", "status": answer.status, "headers": kept})
        await send({"type": "http.response.body", "body": body})
"""


@contextmanager
def python_proxy(port_of_backend: int, place: Path) -> Iterator[Proxy]:
    port = free_port()
    (place / "benchproxy.py").write_text(PYTHON_PROXY)
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "benchproxy:app"]
    env = {"BENCH_BACKEND": f"http://127.0.0.1:{port_of_backend}", "PYTHONPATH": str(place)}
    with program(command, PROXY_CORE, port, **env) as pid:
        yield Proxy("granian + aiohttp", port, lambda: [pid, *children(pid)])


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def many(port_of_backend: int, count: int = 2000) -> str:
    """A file of so many routes, each with a path of its own."""
    routes = [
        {"name": f"r{n}", "paths": [f"/area{n % 40}/route{n:04d}"], "strip_path": False} for n in range(count)
    ]
    service = {"name": "things", "url": f"http://127.0.0.1:{port_of_backend}", "retries": 0, "routes": routes}
    return json.dumps({"_format_version": "3.0", "services": [service]})


def costs(rounds: int, seconds: float, place: Path) -> dict[str, float]:
    """CPU for a request of everybody, in us, and the ratios."""
    token = jwt.encode({"alg": "HS256"}, {"iss": "fleet", "exp": 9999999999}, OctKey.import_key(SECRET))
    with backend(place) as port, ExitStack() as stack:
        plain = SERVICE.format(backend=port)
        sliding = plain + "plugins:\n  - {name: rate-limiting, config: {minute: 1, policy: local}}\n"
        proxies = {
            "bare": stack.enter_context(bare(port)),
            "plain": stack.enter_context(ours("ours, plain", plain)),
            "full": stack.enter_context(ours("ours, JWT + limit + headers", plain + FULL)),
            "sliding": stack.enter_context(sliding_window(sliding)),
            "first": stack.enter_context(ours("first of 2,000", many(port), "/area0/route0000")),
            "last": stack.enter_context(ours("last of 2,000", many(port), "/area39/route1999")),
        }
        if shutil.which("caddy"):
            proxies["caddy"] = stack.enter_context(caddy(port, place))
        proxies["python"] = stack.enter_context(python_proxy(port, place))
        for turn in range(rounds + 1):
            for proxy in proxies.values():
                load(proxy, seconds if turn else 1, token)
            say(f"round {turn} of {rounds}" if turn else "warm")
        for proxy in proxies.values():
            proxy.cost.pop(0)
            say(f"{proxy.name:32} {median(proxy.cost):7.1f} us")
        return ratios({name: proxy.cost for name, proxy in proxies.items()})


@contextmanager
def sliding_window(text: str) -> Iterator[Proxy]:
    """An exact sliding window so wide that nobody meets its end: only its cost is seen."""
    port = free_port()
    gateway = read_documents(loads(text, "kong.yaml"))

    def slid(policy: Any) -> Any:
        if not isinstance(policy, RateLimit):
            return policy
        return replace(
            policy, algorithm=Algorithm.SLIDING_WINDOW, limits=(Limit(4_000_000, 1.0, name="second"),)
        )

    routes = tuple(
        replace(route, steps=tuple(replace(step, policy=slid(step.policy)) for step in route.steps))
        for route in gateway.routes
    )
    listener = replace(gateway.listeners[0], address="127.0.0.1", port=port)
    with supervised(compiled(replace(gateway, routes=routes, listeners=(listener,)))) as supervisor:
        yield Proxy("ours, exact sliding window", port, lambda: [supervisor.envoy.pid])


RATIOS = {
    "plain_vs_envoy": ("plain", "bare"),
    "full_vs_envoy": ("full", "bare"),
    "sliding_vs_envoy": ("sliding", "bare"),
    "vs_caddy": ("plain", "caddy"),
    "vs_granian_aiohttp": ("plain", "python"),
    "full_vs_granian_aiohttp": ("full", "python"),
    "last_of_2000_vs_first": ("last", "first"),
}


def ratios(cost: dict[str, list[float]]) -> dict[str, float]:
    """Medians over rounds of what one costs against another in the same round."""
    return {
        name: round(median(a / b for a, b in zip(cost[one], cost[other], strict=True)), 3)
        for name, (one, other) in RATIOS.items()
        if one in cost and other in cost
    }


# --- reloads, publishing --------------------------------------------------------------------------------


def reloads(count: int = 100, swaps: int = 5) -> dict[str, int]:
    """Reloads, swaps of Envoy among them, while requests come on new and on kept connections."""
    port = free_port()
    now = [answering(port, "0")]
    supervisor = Supervisor(lambda: now[0], lambda _: None, Options(concurrency=1, drain_s=2))
    supervisor.start()
    stop, tally = threading.Event(), {"requests": 0, "failed": 0}
    lock = threading.Lock()

    def knock(kept: bool) -> None:
        line: HTTPConnection | None = None
        while not stop.is_set():
            try:
                line = line or HTTPConnection("127.0.0.1", port, timeout=10)
                line.request("GET", "/")
                answer = line.getresponse()
                answer.read()
                good = answer.status == 200
                if not kept or answer.getheader("connection") == "close":
                    line.close()
                    line = None
            except (OSError, Exception):  # noqa: BLE001 - whatever goes wrong is what is counted
                good, line = False, None
            with lock:
                tally["requests"] += 1
                tally["failed"] += not good

    callers = [threading.Thread(target=knock, args=(n % 2 == 0,)) for n in range(4)]
    for caller in callers:
        caller.start()
    try:
        for turn in range(1, count + 1):
            now[0] = answering(port, str(turn))
            supervisor.look()
            if turn % (count // swaps) == 0:
                supervisor.swap()
    finally:
        stop.set()
        for caller in callers:
            caller.join()
        supervisor.stop()
    say(f"{count} reloads, {swaps} swaps: {tally['requests']} requests, {tally['failed']} failed")
    return {
        "reloads": count,
        "swaps": swaps,
        "reload_requests": tally["requests"],
        "failed_requests": tally["failed"],
    }


def answering(port: int, words: str) -> Snapshot:
    plugin = {"name": "request-termination", "config": {"status_code": 200, "message": words}}
    service = {
        "name": "t",
        "url": "http://127.0.0.1:9",
        "routes": [{"name": "t", "paths": ["/"]}],
        "plugins": [plugin],
    }
    gateway = read_documents(
        loads(json.dumps({"_format_version": "3.0", "services": [service]}), "kong.json")
    )
    listener = replace(gateway.listeners[0], address="127.0.0.1", port=port)
    return compiled(replace(gateway, listeners=(listener,)))


def publishing(rounds: int = 3) -> float:
    """Seconds from a text of 2,000 routes to all of them in place."""
    port, took = free_port(), []
    now = [answering(port, "first")]
    supervisor = Supervisor(lambda: now[0], lambda _: None, Options(concurrency=1))
    supervisor.start()
    try:
        for turn in range(rounds):
            began = time.monotonic()
            gateway = read_documents(loads(many(9000 + turn), "kong.json"))
            listener = replace(gateway.listeners[0], address="127.0.0.1", port=port)
            now[0] = compiled(replace(gateway, listeners=(listener,)))
            supervisor.look()
            if supervisor.status.error:
                raise SystemExit(supervisor.status.error)
            took.append(time.monotonic() - began)
    finally:
        supervisor.stop()
    say(f"2,000 routes read, compiled, validated and in place: {median(took):.2f} s")
    return round(median(took), 2)


# --- a region comes back --------------------------------------------------------------------------------


FRONT = Path(__file__).resolve().parents[1] / "deploy" / "gateway"


def herd(devices: int) -> dict[str, int]:
    """Devices that all ask within a second, through the gateway as it is shipped, at a real fleet server that
    knows them: answered, or told when to come back, or failed."""
    identity = Identity(seed=7, count=devices)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "fleet"
        data.mkdir()
        url = f"sqlite:///{data / 'skylift.db'}"
        migrate(url)
        database = Database(url)
        seed(database, identity, device_type="sensor-v2", version="1.0.0", now=datetime.now(UTC))
        database.close()
        server = Server(data)
        server.start()
        try:
            where = json.dumps({"inventory": {"fleet:8080": server.url.removeprefix("http://")}})
            text = (FRONT / "fleet.yaml").read_text()
            with ours("herd", [(text, "fleet.yaml"), (where, "inventory.json")], "/") as proxy:
                found = asyncio.run(_herd(proxy.port, identity))
            server.check()  # raises when it has ended
        finally:
            server.stop()
    say(f"herd of {devices}: {found}")
    return {"devices": devices, **found}


async def _herd(port: int, identity: Identity) -> dict[str, int]:
    tally = {"answered": 0, "told_to_wait": 0, "failed": 0}
    request = (
        "GET /api/updates/check?device_id={}&device_type=sensor-v2&current_version=1.0.0 HTTP/1.1\r\n"
        "Host: fleet\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n"
    )
    at_once = asyncio.Semaphore(2000)

    async def one(number: int) -> None:
        await asyncio.sleep(number / identity.count)
        async with at_once:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request.format(identity.name(number), identity.token(number)).encode())
                head = (await asyncio.wait_for(reader.read(), 60)).decode("latin1").lower()
                writer.close()
            except (OSError, TimeoutError):
                tally["failed"] += 1
                return
        status = head.split(" ", 2)[1] if head.startswith("http/1.1 ") else ""
        if status == "429" and "retry-after:" in head:
            tally["told_to_wait"] += 1
        elif status == "200":
            tally["answered"] += 1
        else:
            tally["failed"] += 1

    await asyncio.gather(*(one(number) for number in range(identity.count)))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="the last line is JSON either way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--herd", type=int, default=20_000)
    given = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        nginx = shutil.which("nginx") or Path("/usr/sbin/nginx").exists()
        if shutil.which("wrk") and nginx:
            result |= costs(given.rounds, given.seconds, Path(place))
        else:
            say("wrk or nginx is not installed: no CPU figures")
    result |= reloads()
    result["publish_2000_s"] = publishing()
    result["herd"] = herd(given.herd)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
