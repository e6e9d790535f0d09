"""What is bad, hostile or broken, each with a clear answer; whatever a file says, what ran before runs on."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.backends import Echo, serving
from gateway.conftest import ask
from gateway.door import Door
from skylift.gateway import tokens
from skylift.gateway.envoy.edge import Extras
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.source import source
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.lint import lint
from skylift.gateway.loading import loads
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port

SECRET = "a secret that is longer than thirty-two bytes"
GOOD = """
_format_version: "3.0"
services:
  - {name: s, url: 'http://127.0.0.1:9', routes: [{name: r, paths: [/r]}]}
plugins: [{name: request-termination, config: {status_code: 200, message: good}}]
"""


# --- files ----------------------------------------------------------------------------------------------


class Files:
    """A gateway of one file, which is written anew."""

    def __init__(self, place: Path) -> None:
        self.file = place / "gateway.yaml"
        self.file.write_text(GOOD)
        self.port = free_port()
        origin = source([str(self.file)], {"http": ("127.0.0.1", self.port)}, Extras())
        self.supervisor = Supervisor(origin, lambda _: None, Options(concurrency=1, drain_s=1))
        self.supervisor.start()

    def take(self, text: str) -> str:
        """What is said against it."""
        self.file.write_text(text)
        self.supervisor.look()
        return self.supervisor.status.error


@pytest.fixture(scope="module")
def files(envoy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    made = Files(tmp_path_factory.mktemp("files"))
    yield made
    made.supervisor.stop()


def refused(files: Files, text: str, *says: str) -> None:
    error = files.take(text)
    assert all(word in error for word in says), error
    assert "good" in ask(files.port, "/r").body


def test_a_yaml_bomb_is_refused_before_it_is_unfolded(files: Files) -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    refused(files, f"a0: &a0 [x]\n{levels}", "gateway.yaml", "unfolded")


def test_a_yaml_that_holds_itself_is_refused(files: Files) -> None:
    refused(files, "services: &s [{routes: *s}]\n", "gateway.yaml")


def test_a_chain_that_leads_to_itself_is_refused_with_its_way(files: Files) -> None:
    chains = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [a]}}
  services: {s: {loadBalancer: {servers: [{url: 'http://127.0.0.1:9'}]}}}
  middlewares: {a: {chain: {middlewares: [b]}}, b: {chain: {middlewares: [a]}}}
"""
    refused(files, chains, "it leads to itself", "a -> b -> a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('_format_version: "3.0"\nroutes: [{name: r, service: nobody, paths: [/]}]', "nobody"),
        ("http: {routers: {r: {rule: 'PathPrefix(`/`)', service: nobody}}}", "nobody"),
        ("gateway: 1\nroutes: [{path: /, to: nobody}]", "nobody"),
    ],
    ids=["kong", "traefik", "native"],
)
def test_an_unknown_upstream_is_refused_by_name(files: Files, text: str, says: str) -> None:
    refused(files, text, says)


def test_an_unknown_field_is_refused_with_the_right_one(files: Files) -> None:
    refused(files, GOOD.replace("name: r,", "nme: r,"), "services[0].routes[0].nme", "did you mean 'name'?")


def test_a_key_in_a_body_is_refused_by_name_and_not_passed_over(files: Files) -> None:
    plugin = "plugins: [{name: key-auth, config: {key_in_body: true}}]\n"
    refused(files, GOOD.partition("plugins:")[0] + plugin, "plugins[0].key_in_body", "a key in a body")


def test_of_two_equal_routes_the_first_is_taken_and_check_names_the_other(files: Files) -> None:
    equal = """
_format_version: "3.0"
services:
  - {name: s, url: 'http://127.0.0.1:9', routes: [{name: first, paths: [/r]}, {name: second, paths: [/r]}]}
plugins:
  - {name: request-termination, route: first, config: {status_code: 200, message: the first}}
  - {name: request-termination, route: second, config: {status_code: 200, message: the second}}
"""
    assert files.take(equal) == ""
    assert "the first" in ask(files.port, "/r").body
    found = [
        finding for finding in lint(read_documents(loads(equal, "kong.yaml"))) if "second" in str(finding)
    ]
    assert any("first" in finding.sentence for finding in found)
    files.take(GOOD)


def test_a_regex_that_explodes_is_named_and_holds_nobody_up(files: Files) -> None:
    explodes = GOOD.replace("paths: [/r]", "paths: ['~/(a+)+$', /r]")
    codes = {finding.code for finding in lint(read_documents(loads(explodes, "kong.yaml")))}
    assert "explosive_regex" in codes
    assert files.take(explodes) == ""
    # RE2 takes steps in proportion to the length; a backtracking engine would not come back from this.
    assert ask(files.port, "/" + "a" * 8000 + "!").status == 404
    files.take(GOOD)


def test_a_regex_of_too_many_states_never_replaces_what_runs(files: Files) -> None:
    refused(files, GOOD.replace("paths: [/r]", "paths: ['~/((((a{99}){99}){99}){99})$']"), "repetition")


# --- requests -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


KONG = f"""
_format_version: "3.0"
services:
  - name: s
    url: http://@backend
    read_timeout: 300
    write_timeout: 300
    retries: 0
    routes:
      - {{name: plain, paths: [/plain], strip_path: false}}
      - {{name: token, paths: [/token], plugins: [{{name: jwt}}]}}
      - name: body
        paths: [/body]
        plugins: [{{name: request-transformer, config: {{add: {{body: ["a:1"]}}}}}}]
consumers:
  - {{username: ada, jwt_secrets: [{{key: fleet, secret: {SECRET}}}]}}
"""


@pytest.fixture
def kong(door: Door, backend: Echo) -> Door:
    door.open(KONG, {"backend": backend}, "kong.yaml")
    backend.asked.clear()
    return door


def test_a_token_of_no_algorithm_is_told_so_and_reaches_nobody(kong: Door, backend: Echo) -> None:
    _, claims, signature = tokens.make({"iss": "fleet", "exp": 9999999999}, SECRET.encode()).split(".")
    for alg in ("none", "None", "NONE", "nOnE", "", "HS999"):
        head = tokens.encoded(json.dumps({"alg": alg, "typ": "JWT"}).encode())
        for end in ("", signature):
            answer = kong.ask("/token", authorization=f"Bearer {head}.{claims}.{end}")
            assert answer.status == 401
            assert json.loads(answer.body) == {"message": "Bad token; invalid alg"}
    assert backend.asked == []


def rss_mib(pid: int) -> float:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * 4096 / (1 << 20)


@pytest.mark.parametrize("how", ["content-length: 1073741824", "transfer-encoding: chunked"])
def test_a_gigabyte_for_a_transformed_route_is_413_in_bounded_memory(
    kong: Door, backend: Echo, how: str
) -> None:
    before = rss_mib(kong.supervisor.envoy.pid)
    block = b"x" * 65536
    chunk = b"10000\r\n" + block + b"\r\n" if "chunked" in how else block
    with socket.create_connection(("127.0.0.1", kong.port), 20) as line:
        head = f"POST /body HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{how}\r\n\r\n"
        line.sendall(head.encode())
        sent = 0
        try:
            while sent < 1 << 30:
                line.sendall(chunk)
                sent += len(block)
        except OSError:
            pass  # it hung up: it had said why
        line.settimeout(20)
        said = line.recv(4096).decode()
    assert said.startswith("HTTP/1.1 413")
    assert "Payload too large" in said
    assert sent < 64 << 20
    assert rss_mib(kong.supervisor.envoy.pid) - before < 64
    assert backend.asked == []


SMUGGLED = [
    "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /plain/smuggled HTTP/1.1\r\n\r\n",
    "content-length: 0\r\ncontent-length: 44\r\n\r\nGET /plain/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    "transfer-encoding: xchunked\r\n\r\nGET /plain/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "transfer-encoding : chunked\r\n\r\n0\r\n\r\nGET /plain/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    "content-length: +5\r\n\r\nGET /plain/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    "x-a: b\r\n folded: c\r\ncontent-length: 0\r\nx: a\x00b\r\n\r\n",
    "x\x00y: 1\r\n\r\n",
    "host: b\r\nconnection: close\r\n\r\n",
    "Host: a\r\nconnection: close\r\n\r\n",
]


@pytest.mark.parametrize("rest", SMUGGLED, ids=range(len(SMUGGLED)))
def test_a_request_that_two_readers_read_differently_is_refused(kong: Door, backend: Echo, rest: str) -> None:
    with socket.create_connection(("127.0.0.1", kong.port), 20) as line:
        line.sendall(f"POST /plain HTTP/1.1\r\nhost: a\r\n{rest}".encode("latin1"))
        said = b""
        while part := line.recv(4096):
            said += part
    assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
    assert said.count(b"HTTP/1.1 ") == 1  # and the connection is closed
    assert backend.asked == []


@pytest.mark.parametrize("routes", [1, 40], ids=["a list of routes", "a tree of routes"])
def test_a_request_with_two_hosts_reaches_nobody_however_routes_are_found(
    door: Door, backend: Echo, routes: int
) -> None:
    text = "gateway: 1\nservices: {s: {targets: ['@backend']}}\nroutes:\n"
    text += "  - {hosts: [a.test], path: /, to: s}\n"
    door.open(text + "".join(f"  - {{path: /r{n}, to: s}}\n" for n in range(routes)), {"backend": backend})
    backend.asked.clear()
    for hosts in (("a.test", "b"), ("b", "a.test")):
        with socket.create_connection(("127.0.0.1", door.port), 20) as line:
            both = "".join(f"host: {host}\r\n" for host in hosts)
            line.sendall(f"GET /r0 HTTP/1.1\r\n{both}connection: close\r\n\r\n".encode())
            assert line.recv(4096).startswith(b"HTTP/1.1 400")
    assert backend.asked == []
    assert door.ask("/r0").status == 200
    assert door.ask("/r0", host="a.test").status == 200


@pytest.mark.parametrize(
    "name", ["X_Consumer_Username", "X-Consumer-Username", "X-SL-Credential", "X-SL-Groups"]
)
def test_nobody_says_himself_who_he_is(kong: Door, backend: Echo, name: str) -> None:
    with socket.create_connection(("127.0.0.1", kong.port), 20) as line:
        line.sendall(f"GET /plain HTTP/1.1\r\nhost: a\r\n{name}: root\r\nconnection: close\r\n\r\n".encode())
        while line.recv(4096):
            pass
    assert "root" not in json.dumps(backend.asked)


@pytest.mark.parametrize("path", ["/plain/../token", "/plain/%2e%2e/token", "//token", "/./token"])
def test_a_path_with_detours_is_the_path_it_leads_to(kong: Door, backend: Echo, path: str) -> None:
    assert kong.ask(path).status == 401
    assert backend.asked == []


def test_an_upstream_that_never_answers_is_504_in_the_dialects_words(kong: Door, backend: Echo) -> None:
    backend.gate.clear()
    try:
        answer = kong.ask("/plain")
    finally:
        backend.gate.set()
    assert answer.status == 504
    assert json.loads(answer.body)["message"] == "The upstream server is timing out"


def test_an_upstream_that_is_not_there_is_503_and_tells_nothing_of_the_inside(
    door: Door, backend: Echo
) -> None:
    door.open(KONG.replace("@backend", f"127.0.0.1:{free_port()}"), {}, "kong.yaml")
    answer = door.ask("/plain")
    assert answer.status in (502, 503)
    assert "127.0.0.1" not in answer.body + str(answer.headers)
    assert set(json.loads(answer.body)) == {"message", "request_id"}


def test_an_upstream_that_hangs_up_in_the_middle_is_said_and_others_are_served(
    door: Door, backend: Echo
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        line, _ = listening.accept()
        line.recv(4096)
        line.sendall(b"HTTP/1.1 200 OK\r\ncontent-le")
        line.close()

    threading.Thread(target=hang_up, daemon=True).start()
    port = listening.getsockname()[1]
    door.open(KONG.replace("@backend", f"127.0.0.1:{port}"), {}, "kong.yaml")
    assert door.ask("/plain").status in (502, 503)
    listening.close()
    door.open(KONG, {"backend": backend}, "kong.yaml")
    assert door.ask("/plain").status == 200
