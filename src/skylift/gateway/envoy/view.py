"""The admin view, read only: what runs, since when, what was refused; the numbers for Prometheus."""

import html
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from skylift.core.errors import Unavailable
from skylift.gateway.envoy.supervisor import Supervisor

METRICS = (
    ("skylift_gateway_published_total", "counter", "configurations that Envoy took", "published"),
    ("skylift_gateway_refused_total", "counter", "configurations that were not taken", "refused"),
    ("skylift_gateway_restarts_total", "counter", "Envoys that ended and were started again", "restarts"),
    ("skylift_gateway_swaps_total", "counter", "Envoys that were replaced by a fresh one", "swaps"),
)
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Gateway</title>
<style>body{{font:16px system-ui;margin:2rem;max-width:60rem}}
td,th{{text-align:left;padding:.2rem 1rem .2rem 0}}
.bad{{color:#b00020}}</style><h1>Gateway</h1><table>{rows}</table>
<p><a href="/status">status</a> · <a href="/metrics">metrics</a></p></html>"""


class View:
    """Serves until it is closed."""

    def __init__(self, supervisor: Supervisor, address: str, port: int) -> None:
        answers: dict[str, Callable[[], tuple[int, str, str]]] = {
            "/": lambda: (200, "text/html; charset=utf-8", page(supervisor)),
            "/status": lambda: (200, "application/json", json.dumps(asdict(supervisor.status))),
            "/metrics": lambda: (200, "text/plain; version=0.0.4", metrics(supervisor)),
            "/healthz": lambda: _health(supervisor),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = answers.get(self.path.partition("?")[0])
                status, kind, body = known() if known else (404, "text/plain", "not found\n")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((address, port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="gateway-view", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def metrics(supervisor: Supervisor) -> str:
    """Ours, then Envoy's; ours alone while Envoy is away."""
    status = asdict(supervisor.status)
    lines = [
        f"# HELP {name} {help_}\n# TYPE {name} {kind}\n{name} {status[field]}"
        for name, kind, help_, field in METRICS
    ]
    lines.append(f"# TYPE skylift_gateway_up gauge\nskylift_gateway_up {int(_health(supervisor)[0] == 200)}")

    with suppress(Unavailable):
        lines.append(supervisor.envoy.admin.get("/stats/prometheus"))

    return "\n".join(lines) + "\n"


def _health(supervisor: Supervisor) -> tuple[int, str, str]:
    try:
        ready = supervisor.envoy.admin.ready()
    except Unavailable:
        ready = False
    return (200, "text/plain", "ready\n") if ready else (503, "text/plain", "not ready\n")


def page(supervisor: Supervisor) -> str:
    status = supervisor.status
    since = datetime.fromtimestamp(status.since, UTC).isoformat(timespec="seconds") if status.since else "-"
    facts = {
        "configuration": status.digest,
        "in place since": since,
        "taken": status.published,
        "refused": status.refused,
        "restarts of Envoy": status.restarts,
        "swaps of Envoy": status.swaps,
    }
    rows = [f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in facts.items()]
    if status.error:
        rows.append(f'<tr><th>not taken</th><td class="bad">{html.escape(status.error)}</td></tr>')
    return PAGE.format(rows="".join(rows))
