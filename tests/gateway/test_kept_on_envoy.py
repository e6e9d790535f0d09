"""Answers that are kept, on a real Envoy of several workers: the last good one while the backend fails, a
cache that says what it did. Error pages in the place of what a backend says when it fails."""

from collections.abc import Iterator

import pytest

from gateway.backends import Echo, serving
from gateway.door import Door
from skylift.testkit.ports import free_port


@pytest.fixture
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


STALE = """
gateway: 1
services: {s: {targets: ['@backend'], timeout: {connect: 500ms, idle: 500ms}}}
consumers: {ada: {keys: [a-long-random-key-of-ada]}, bob: {keys: [a-long-random-key-of-bob]}}
routes:
  - {name: own, path: /own, to: s, policies: [{api_key: {}}, {stale: {max_age: 1h}}]}
  - {name: r%d, path: /, to: s, policies: [{stale: {max_age: 1h, max_bytes: 1000}}]}
"""
turn = iter(range(1000))


def stale(door: Door, backend: Echo) -> str:
    text = STALE % next(turn)
    door.open(text, {"backend": backend})
    return text


@pytest.mark.parametrize("how", ["500", "503", "no answer", "gone"])
def test_the_last_good_answer_is_given_while_the_backend_fails(door: Door, backend: Echo, how: str) -> None:
    text = stale(door, backend)
    backend.body, backend.headers = '{"good": 1}', {"x-version": "7", "cache-control": "max-age=1"}
    assert door.ask("/x?a=1").body == '{"good": 1}'
    backend.body, backend.headers = "trouble inside", {}
    match how:
        case "no answer":
            backend.gate.clear()
        case "gone":
            door.open(text.replace("@backend", f"127.0.0.1:{free_port()}"))
        case _:
            backend.status = int(how)
    for _ in range(4):  # whichever worker is asked
        answer = door.ask("/x?a=1")
        assert (answer.status, answer.body) == (200, '{"good": 1}')
        assert answer.headers["x-version"] == "7"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["warning"].startswith("111")
        assert int(answer.headers["age"]) >= 0
    assert door.ask("/never").status in (500, 503, 504)


def test_a_good_answer_takes_the_place_of_the_one_before(door: Door, backend: Echo) -> None:
    stale(door, backend)
    for body in ("first", "second"):
        backend.body = body
        assert door.ask("/x").body == body
    backend.status = 500
    assert door.ask("/x").body == "second"
    backend.status, backend.body = 200, "third"
    assert door.ask("/x").body == "third"


@pytest.mark.parametrize(
    ("method", "headers", "size"),
    [
        ("POST", {}, 10),
        ("GET", {"set-cookie": "a=b"}, 10),
        ("GET", {"cache-control": "private, no-store"}, 10),
        ("GET", {}, 1001),
    ],
    ids=["a POST", "a cookie", "no-store", "too large"],
)
def test_what_is_not_to_be_kept_is_not(
    door: Door, backend: Echo, method: str, headers: dict[str, str], size: int
) -> None:
    stale(door, backend)
    backend.body, backend.headers = "x" * size, headers
    assert door.ask("/x", method).status == 200
    backend.status = 500
    assert door.ask("/x", method).status == 500


def test_nobody_gets_what_was_anothers(door: Door, backend: Echo) -> None:
    stale(door, backend)
    backend.body = "ada's"
    ada, bob = ({"x_api_key": f"a-long-random-key-of-{name}"} for name in ("ada", "bob"))
    assert door.ask("/own", **ada).status == 200
    backend.status = 500
    assert door.ask("/own", **ada).body == "ada's"
    assert door.ask("/own", **bob).status == 500
    assert door.ask("/own").status == 401  # and who may not come gets nothing old either


def test_what_is_kept_outlives_a_reload(door: Door, backend: Echo) -> None:
    text = stale(door, backend)
    backend.body = "kept"
    assert door.ask("/x").body == "kept"
    door.open(
        text.replace("routes:", "routes:\n  - {name: new, path: /new, policies: [{respond: {}}]}"),
        {"backend": backend},
    )
    assert door.ask("/new").status == 200
    backend.status = 500
    assert door.ask("/x").body == "kept"


CACHE = """
_format_version: "3.0"
services: [{name: s%d, url: 'http://@backend', routes: [{name: r%d, paths: [/]}]}]
plugins:
  - {name: proxy-cache, config: {strategy: memory, cache_ttl: %d%s}}
"""


def cached(door: Door, backend: Echo, ttl: int = 300, more: str = "") -> None:
    number = next(turn)
    door.open(CACHE % (number, number, ttl, more), {"backend": backend}, "kong.yaml")


def test_a_cache_answers_for_the_backend_and_says_so(door: Door, backend: Echo) -> None:
    cached(door, backend)
    backend.body = "once"
    first, *others = [door.ask("/x?b=2&a=1") for _ in range(5)]
    assert first.headers["x-cache-status"] == "Miss"
    assert {answer.headers["x-cache-status"] for answer in others} == {"Hit"}
    assert {answer.body for answer in others} == {"once"}
    assert int(others[0].headers["age"]) >= 0
    assert len(backend.asked) == 1
    assert door.ask("/x?a=1&b=2").headers["x-cache-status"] == "Hit"  # the same parameters in another order
    assert door.ask("/x?a=2").headers["x-cache-status"] == "Miss"
    assert door.ask("/x", "POST").headers["x-cache-status"] == "Bypass"


def test_what_is_too_old_is_fetched_anew(door: Door, backend: Echo) -> None:
    cached(door, backend, 1)
    backend.body = "first"
    assert door.ask("/x").headers["x-cache-status"] == "Miss"
    backend.body = "second"
    answers = [door.ask("/x")]
    while answers[-1].headers["x-cache-status"] == "Hit":
        answers.append(door.ask("/x"))
    assert answers[-1].headers["x-cache-status"] == "Refresh"
    assert answers[-1].body == "second"


@pytest.mark.parametrize(
    ("status", "kind"), [(201, "application/json"), (500, "application/json"), (200, "image/png")]
)
def test_a_cache_keeps_its_statuses_and_types_only(door: Door, backend: Echo, status: int, kind: str) -> None:
    cached(door, backend)
    backend.status, backend.kind = status, kind
    assert [door.ask("/x").headers["x-cache-status"] for _ in range(2)] == ["Bypass", "Bypass"]
    assert len(backend.asked) == 2


def test_variants_and_cache_control_are_obeyed_where_it_is_asked_for(door: Door, backend: Echo) -> None:
    cached(door, backend, more=", cache_control: true, vary_headers: [X-Lang]")
    statuses = [door.ask("/x", x_lang=lang).headers["x-cache-status"] for lang in ("de", "en", "de")]
    assert statuses == ["Miss", "Miss", "Hit"]
    assert door.ask("/x", x_lang="de", cache_control="no-cache").headers["x-cache-status"] == "Refresh"
    assert door.ask("/x", x_lang="de", cache_control="no-store").headers["x-cache-status"] == "Bypass"
    assert door.ask("/x", x_lang="de", authorization="Bearer x").headers["x-cache-status"] == "Bypass"


PAGES = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [pages]}}
  services:
    s: {loadBalancer: {servers: [{url: 'http://@backend'}]}}
    p: {loadBalancer: {servers: [{url: 'http://@pages'}]}}
  middlewares: {pages: {errors: {status: ['500-599', '404'], service: p, query: '/{status}.html?url={url}'}}}
"""


def test_a_failed_answer_is_replaced_by_a_services_page_and_keeps_its_status(
    door: Door, backend: Echo
) -> None:
    with serving(Echo("pages", body="<h1>sorry</h1>", kind="text/html")) as pages:
        door.open(PAGES, {"backend": backend, "pages": pages}, "traefik.yaml")
        backend.status, backend.body = 503, "trouble inside"
        answer = door.ask("/x?a=1")
        assert (answer.status, answer.body, answer.headers["content-type"]) == (
            503,
            "<h1>sorry</h1>",
            "text/html",
        )
        assert pages.asked[-1]["path"] == f"/503.html?url=http%3A%2F%2F127.0.0.1%3A{door.port}%2Fx%3Fa%3D1"
        backend.status = 403
        assert door.ask("/x").body == "trouble inside"
        backend.status, pages.status = 404, 500
        assert (door.ask("/x").status, door.ask("/x").body) == (404, "trouble inside")
        door.open(PAGES.replace("@backend", f"127.0.0.1:{free_port()}"), {"pages": pages}, "traefik.yaml")
        pages.status = 200
        assert door.ask("/x").body == "<h1>sorry</h1>"  # Envoy's own failures too
