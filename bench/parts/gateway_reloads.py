"""Of bench gateway: reloads and swaps under load, and how long 2,000 routes take to be in place."""

import json
import os
import threading
import time
from dataclasses import replace
from http.client import HTTPConnection
from statistics import median

from parts.box import cpu_s
from parts.shell import say
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.snapshot import Snapshot
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.loading import loads
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port


def many(port_of_backend: int, count: int = 2000) -> str:
    """A file of so many routes, each with a path of its own."""
    routes = [
        {"name": f"r{n}", "paths": [f"/area{n % 40}/route{n:04d}"], "strip_path": False} for n in range(count)
    ]
    service = {"name": "things", "url": f"http://127.0.0.1:{port_of_backend}", "retries": 0, "routes": routes}
    return json.dumps({"_format_version": "3.0", "services": [service]})


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
            except Exception:  # noqa: BLE001 - whatever goes wrong is what is counted
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


def publishing(rounds: int = 3) -> dict[str, float]:
    """From a text of 2,000 routes to all of them in place: seconds, and seconds of CPU, of ours, of the Envoy
    that validates and of the one that runs."""
    port, took, spent = free_port(), [], []
    now = [answering(port, "first")]
    supervisor = Supervisor(lambda: now[0], lambda _: None, Options(concurrency=1))
    supervisor.start()
    try:
        for turn in range(rounds):
            began, before = time.monotonic(), sum(os.times()[:4]) + cpu_s([supervisor.envoy.pid])
            gateway = read_documents(loads(many(9000 + turn), "kong.json"))
            listener = replace(gateway.listeners[0], address="127.0.0.1", port=port)
            now[0] = compiled(replace(gateway, listeners=(listener,)))
            supervisor.look()
            if supervisor.status.error:
                raise SystemExit(supervisor.status.error)
            took.append(time.monotonic() - began)
            spent.append(sum(os.times()[:4]) + cpu_s([supervisor.envoy.pid]) - before)
    finally:
        supervisor.stop()
    found = {"publish_2000_s": round(median(took), 2), "publish_2000_cpu_s": round(median(spent), 2)}
    say(f"2,000 routes read, compiled, validated and in place: {found}")
    return found
