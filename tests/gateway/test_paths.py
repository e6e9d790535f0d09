"""What the backend sees as path, and how pieces of a request compare: tables, and a few properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.gateway.change import expanded, joined, stripped
from skylift.gateway.policies import JoinBase
from skylift.gateway.request import make, normal_path, parse
from skylift.gateway.text import Kind, Text, regex_fault


@pytest.mark.parametrize(
    ("base", "prefix", "strip", "path", "seen"),
    [
        ("/", "/api/users", True, "/api/users", "/"),
        ("/", "/api/users", True, "/api/users/", "/"),
        ("/", "/api/users", True, "/api/users/7", "/7"),
        ("/", "/api/users", True, "/api/users7", "/7"),
        ("/base", "/api", True, "/api", "/base"),
        ("/base", "/api", True, "/api/", "/base/"),
        ("/base/", "/api", True, "/api", "/base"),
        ("/base/", "/api/", True, "/api/", "/base/"),
        ("/base", "/api", True, "/api/x", "/base/x"),
        ("/base/", "/api", True, "/api/x", "/base/x"),
        ("/base", "/api", True, "/apix", "/base/x"),
        ("/base", "/", True, "/", "/base"),
        ("/base", "/", True, "/x", "/base/x"),
        ("/base", "/api", False, "/api/x", "/base/api/x"),
        ("/base/", "/api", False, "/api/x", "/base/api/x"),
        ("/base", "/", False, "/", "/base"),
        ("/", "/", False, "/", "/"),
        ("/", "/api", False, "/api/x", "/api/x"),
    ],
)
def test_kongs_path_handling(base: str, prefix: str, strip: bool, path: str, seen: str) -> None:
    assert joined(path, Text(Kind.PREFIX, prefix), JoinBase(base, strip)) == seen


def test_a_regex_cuts_what_it_matched() -> None:
    assert joined("/v12/users/7", Text(Kind.REGEX_START, r"/v\d+/users"), JoinBase("/u", True)) == "/u/7"


@pytest.mark.parametrize(
    ("prefixes", "path", "seen", "cut"),
    [
        (("/api",), "/api/users", "/users", "/api"),
        (("/api",), "/apix", "/x", "/api"),
        (("/api",), "/other", "/other", None),
        (("/api/", "/api"), "/api", "/", "/api"),
        (("/",), "/x", "/x", "/"),
    ],
)
def test_traefiks_strip_prefix(prefixes: tuple[str, ...], path: str, seen: str, cut: str | None) -> None:
    assert stripped(path, prefixes) == (seen, cut)


@pytest.mark.parametrize(
    ("regex", "replacement", "seen"),
    [
        (r"^/foo/(.*)", "/bar/$1", "/bar/1/2"),
        (r"^/foo/(?P<id>\d)/(.*)", "/bar/${id}x", "/bar/1x"),
        (r"^/foo/(\d)", "/$1x", "//2"),  # Go reads the name 1x, which does not exist
        (r"foo", "$$", "/$/1/2"),
        (r"nothing", "/x", "/foo/1/2"),
    ],
)
def test_go_replacements(regex: str, replacement: str, seen: str) -> None:
    assert expanded(regex, replacement, "/foo/1/2") == seen


@pytest.mark.parametrize(
    ("given_path", "normal"),
    [
        ("/a/../b", "/b"),
        ("/a/./b/", "/a/b/"),
        ("/a//b", "/a/b"),
        ("/%61/%2f/%c3", "/a/%2F/%C3"),
        ("/%2e%2e/x", "/x"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("", "/"),
    ],
)
def test_paths_are_normal_before_anything_looks_at_them(given_path: str, normal: str) -> None:
    assert normal_path(given_path) == normal


@given(st.text(st.sampled_from("/.ab%2e5Ff"), max_size=20))
def test_a_normal_path_stays(path: str) -> None:
    once = normal_path("/" + path)
    assert once.startswith("/")
    assert "//" not in once
    assert not {".", ".."} & set(once.split("/"))


@pytest.mark.parametrize(
    ("kind", "value", "text", "holds"),
    [
        (Kind.PREFIX, "/api", "/apix", True),
        (Kind.SEGMENT, "/api", "/apix", False),
        (Kind.SEGMENT, "/api", "/api/x", True),
        (Kind.SUFFIX, ".example.com", "a.b.example.com", True),
        (Kind.ONE_LABEL, ".example.com", "a.b.example.com", False),
        (Kind.ONE_LABEL, ".example.com", "a.example.com", True),
        (Kind.ONE_LABEL, ".example.com", "example.com", False),
        (Kind.REGEX_START, "/a|/b", "/bc", True),
        (Kind.REGEX_SEARCH, "b$", "/ab", True),
        (Kind.REGEX_FULL, "/a", "/ab", False),
        (Kind.NETWORK, "10.0.0.0/8", "10.1.2.3", True),
        (Kind.NETWORK, "2001:db8::/32", "10.1.2.3", False),
        (Kind.NETWORK, "10.0.0.0/8", "not an address", False),
    ],
)
def test_comparisons(kind: Kind, value: str, text: str, holds: bool) -> None:
    assert Text(kind, value).matches(text) == holds


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", "(?<!a)b", r"(a)\1", "a++", "(?>a)", "(", "a{1001}", "x" * 1001],
)
def test_what_re2_cannot_do_is_refused(pattern: str) -> None:
    assert regex_fault(pattern)


@pytest.mark.parametrize("pattern", [r"/v\d+/(?<name>[a-z*+]+)", r"(?P<x>.)\z", r"(?i)abc", "[+*]+", r"\+\+"])
def test_what_re2_can_do_is_taken(pattern: str) -> None:
    assert regex_fault(pattern) is None


def test_a_request_is_read_as_people_write_it() -> None:
    request = parse(
        "GET 'http://API.example.com:8000/a/../b?x=1&y=' -H 'Accept: text/html'", client="10.0.0.9"
    )
    assert (request.method, request.host, request.port, request.path) == (
        "GET",
        "api.example.com",
        8000,
        "/b",
    )
    assert request.query == (("x", "1"), ("y", ""))
    assert request.header("accept") == "text/html"
    assert parse("curl -X POST /a -d {}").body == b"{}"
    assert make("GET", "/", (("Host", "a.example:99"),)).port == 99
