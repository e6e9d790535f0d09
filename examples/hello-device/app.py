"""An image for trying things: says its version, and whether it is well."""

import http.server
import json
import os

VERSION = os.environ.get("SKYLIFT_VERSION", "?")
CONFIG = os.environ.get(
    "SKYLIFT_CONFIG", ""
)  # the path of the active configuration document, if there is one


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        config = json.loads(open(CONFIG).read()) if CONFIG else {}  # noqa: SIM115 - read once, at once
        body = json.dumps({"version": VERSION, "config": config}).encode()
        self.send_response(500 if config.get("break") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.HTTPServer(("127.0.0.1", int(os.environ["SKYLIFT_PORT"])), Health).serve_forever()
