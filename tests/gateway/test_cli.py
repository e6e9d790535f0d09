"""`skylift gateway ...` as people run it: output, JSON, exit codes."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skylift.cli.app import run

SEED = Path(__file__).parent / "seed"
KONG = tuple(str(SEED / f"kong-{name}.yaml") for name in ("routes", "rate-limiting", "request-transformer"))
TRAEFIK = tuple(str(file) for file in sorted(SEED.glob("traefik-*.yaml")))


@pytest.fixture
def skylift(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs `skylift gateway WORDS`: exit code, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["skylift", "gateway", *words])
        code = run()
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_check_of_a_good_configuration(skylift) -> None:  # type: ignore[no-untyped-def] # a local fixture
    code, out, err = skylift("check", *KONG)
    assert code == 0
    assert "[uuid_is_ours]" in out
    assert "2 routes, 2 services: 0 errors" in err
    assert skylift("check", *KONG, "--strict")[0] == 3, "a limit per consumer, and nobody is authenticated"


def test_check_says_every_problem_with_its_line(skylift, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # as above
    (tmp_path / "kong.yaml").write_text(
        "services:\n  - name: a\n    ulr: http://a\n    host: a\nplugins: [{name: jwtt}]"
    )
    code, out, err = skylift("check", str(tmp_path))
    assert code == 3
    assert err.strip() == "skylift: kong.yaml:3: services[0].ulr: unknown field (did you mean 'url'?)"
    assert "there is no such plugin (did you mean 'jwt'?)" in out
    code, out, _ = skylift("check", str(tmp_path), "--json")
    found = json.loads(out)
    assert code == 3
    assert not found["ok"]
    assert [(each["code"], each["line"]) for each in found["findings"]] == [
        ("unknown_field", 3),
        ("unknown_plugin", 5),
    ]


def test_explain_a_request_that_passes(skylift) -> None:  # type: ignore[no-untyped-def] # as above
    code, out, _ = skylift("explain", *KONG, "--request", "GET /api/users/7 -H 'X-Internal-Header: 1'")
    assert code == 0
    for line in (
        "  order-route: path /api/users/7 does not begin with /api/orders",
        "  1. path: path /api/users/7 becomes /7",
        "the backend user-service sees: GET /7",
        "  Host: user-service:8080",
        "  X-RateLimit-Remaining-Minute: 99",
    ):
        assert line in out.splitlines()
    assert "X-Internal-Header: 1" not in out


def test_explain_why_a_429_and_a_401(skylift, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # as above
    words = ("--request", "GET /api/users", "--repeat", "101", "--at", "2026-11-28T12:00:30", "--json")
    code, out, _ = skylift("explain", *KONG, *words)
    found = json.loads(out)
    assert code == 0
    assert found["answer"]["status"] == 429
    assert ["Retry-After", "30"] in found["answer"]["headers"]
    assert "100 per 60 s, 0 left" in found["answer"]["why"]
    _, out, _ = skylift("explain", *KONG, str(SEED / "kong-jwt.yaml"), "--request", "GET /api/users")
    assert "the gateway answers 401: jwt: no credential" in out
    _, out, _ = skylift("explain", *TRAEFIK, "--request", "GET /api/users", "--all")
    assert "http://auth-service:8080/verify is asked" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("explain", *KONG, "--request", "users"), "expected a METHOD, a /path or URL"),
        (("explain", *KONG, "--request", "GET / -H nothing"), "a header is written 'Name: value'"),
        (("explain", *KONG, "--request", "GET '/"), "words as a shell reads them"),
        (("test", str(SEED / "kong-routes.yaml")), "tests: it must be a list with at least one test"),
    ],
)
def test_what_cannot_be_asked_is_one_line(skylift, words: tuple[str, ...], says: str) -> None:  # type: ignore[no-untyped-def] # as above
    code, out, err = skylift(*words)
    assert code in (2, 3)
    assert says in err + out


TABLE = """
tests:
  - request: GET /api/users/7
    expect: {status: 200, route: user-route, path: /7, answer: {RateLimit-Limit: 100}}
  - name: too many
    request: GET /api/users
    repeat: 101
    expect: {status: 429, body: API rate limit, why: over the limit}
  - {request: GET /nothing, expect: {status: 404, route: ''}}
  - request: "GET /api/orders -H 'X-Internal-Header: 1'"
    expect: {headers: {X-Internal-Header: null, X-Forwarded-Service: user-service}}
"""


def test_a_table_of_requests_runs_on_paper(skylift, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # as above
    table = tmp_path / "table.yaml"
    table.write_text(TABLE)
    code, out, err = skylift("test", str(table), *KONG)
    assert (code, err) == (0, ""), out
    assert out.count("ok ") == 4
    table.write_text(TABLE.replace("path: /7", "path: /8").replace("why: over", "why: under"))
    code, out, err = skylift("test", str(table), *KONG)
    assert code == 3
    assert "path is /7, not /8" in out
    assert "2 of 4 failed" in err


class Backend(BaseHTTPRequestHandler):
    """Answers 404 to /nothing and 200 with its own words to everything else."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/nothing" else 200)
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_same_table_runs_against_a_url(skylift, url: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # as above
    table = tmp_path / "table.yaml"
    table.write_text(
        "tests:\n"
        "  - request: GET http://a.test/x\n"
        "    expect: {status: 200, body: here, answer: {X-Host: a.test}, route: r}\n"
        "  - {request: GET /nothing, expect: {status: 404}}\n"
    )
    code, out, _ = skylift("test", str(table), "--against", url)
    assert code == 0
    assert "not seen from outside: route" in out
    table.write_text("tests: [{request: GET /nothing, expect: {status: 200, body: there}}]")
    code, out, _ = skylift("test", str(table), "--against", url)
    assert code == 3
    assert "status is 404, not 200" in out
    code, _, err = skylift("test", str(table), "--against", "http://127.0.0.1:1")
    assert code == 1
    assert "does not answer" in err
    assert skylift("test", str(table))[0] == 2
