"""Who is measured in bench gateway: our gateway, bare Envoy, caddy, a Python proxy; their cores, their CPU,
and the backend behind them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from parts.box import cpu_s, listens, pin
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.edge import NOTHING_MORE, Extras
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.snapshot import HCM, TYPE, Snapshot
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.loading import loads
from skylift.gateway.model import Gateway
from skylift.gateway.policies import Algorithm, Limit, RateLimit
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port
from skylift.testkit.server import end, wait

LOAD_CORE, PROXY_CORE = "0", "1"
CONNECTIONS = 32
BODY = '{"update_available":false,"retry_after":300,"padding":"0123456789"}'
START_S = 20.0


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
        wait(lambda: listens(port), f"{Path(command[0]).name} listens", START_S)
        yield process.pid
    finally:
        end(process)


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


@dataclass
class Proxy:
    """`pids`: whose CPU counts, and that of all that they started."""

    name: str
    port: int
    pids: Callable[[], list[int]]
    path: str = "/things"
    cost: list[float] = field(default_factory=list)  # us a request, a round each


def load(proxy: Proxy, seconds: float, token: str) -> None:
    """One round of one proxy; again where it was not given time to answer even once."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    command += ["-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{proxy.port}{proxy.path}"]
    proxy.cost.append(wait(lambda: _round(proxy, command), f"{proxy.name} answers", START_S))


def _round(proxy: Proxy, command: list[str]) -> float:
    """us a request; 0 where none was answered."""
    before = cpu_s(proxy.pids())
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_s(proxy.pids()) - before
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    wrong = re.findall(r"Non-2xx or 3xx responses: (\d+)", said)
    if wrong:
        raise SystemExit(f"{proxy.name}: {wrong[0]} of {requests} were not answered well")
    return used / requests * 1e6 if requests else 0.0


@dataclass(frozen=True)
class Setup:
    """An Envoy to be measured: its one listener's port, all of its configuration, what it is asked for."""

    name: str
    port: int
    snapshot: Snapshot
    path: str = "/things"


def ours(
    name: str, files: str | list[tuple[str, str]], path: str = "/things", *, counted: bool = False
) -> Setup:
    """A gateway of this file, or of these (text, name). `counted`: as with `--admin`."""
    texts = [(files, "kong.yaml")] if isinstance(files, str) else files
    gateway = read_documents([document for text, file in texts for document in loads(text, file)])
    return _setup(name, gateway, path, Extras(counted=counted))


def _setup(name: str, gateway: Gateway, path: str, extras: Extras = NOTHING_MORE) -> Setup:
    port = free_port()
    listener = replace(gateway.listeners[0], address="127.0.0.1", port=port)
    return Setup(name, port, compiled(replace(gateway, listeners=(listener,)), extras), path)


@contextmanager
def running(setup: Setup) -> Iterator[Proxy]:
    """With one worker on its core."""
    with supervised(setup.snapshot) as supervisor:
        yield Proxy(setup.name, setup.port, lambda: [supervisor.envoy.pid], setup.path)


@contextmanager
def supervised(snapshot: Snapshot) -> Iterator[Supervisor]:
    supervisor = Supervisor(lambda: snapshot, lambda _: None, Options(concurrency=1, drain_s=2))
    try:
        supervisor.start()
        pin([supervisor.envoy.pid], {int(PROXY_CORE)})
        yield supervisor
    finally:
        supervisor.stop()


def bare(port_of_backend: int) -> Setup:
    """Envoy as somebody would write it who wants a proxy and nothing else: one listener, one table with one
    route, one cluster with one address, Envoy's own defaults for all the rest, its numbers for each cluster
    too. Nobody logs a request, neither it nor ours; both are started by the same bootstrap, with one worker,
    and follow their tables by file."""
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
    table = {"name": "bare", "virtual_hosts": hosts}
    return Setup("bare Envoy", port, Snapshot((listener,), (table,), (cluster,)))


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
        yield Proxy("granian + aiohttp", port, lambda: [pid])


def sliding_window(text: str) -> Setup:
    """An exact sliding window so wide that nobody meets its end: only its cost is seen."""
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
    return _setup("ours, exact sliding window", replace(gateway, routes=routes), "/things")
