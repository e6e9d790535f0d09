"""Route tables that do not grow slow: hosts by hash, paths by their longest prefix, order kept exactly.

Envoy tries the routes of a table one after the other: the last of two thousand costs twice what the first
does. Here every request finds, by its host and by the longest prefix that is known, the few routes that could
take it, in the order in which they would have been tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from skylift.gateway.envoy.matching import Match
from skylift.gateway.envoy.snapshot import TYPE, Json

FEW = 12  # tried one after the other: looking up costs more
MOST_COPIES = 200_000  # routes a table may hold once those that any request could want stand in every place
ANY = "/"


@dataclass(frozen=True, slots=True)
class Entry:
    """A route, without its match, and when it is meant."""

    match: Match
    route: Json


def virtual_hosts(entries: Sequence[Entry], last: Json, two_hosts: Json) -> list[Json]:
    """The hosts of a table. `last`: the route that takes what nothing else does. `two_hosts`: a route,
    without its match, for requests with several Host headers, which Envoy joins by commas."""
    hosts = sorted({host for entry in entries for host in entry.match.hosts or ()})
    anywhere = [entry for entry in entries if entry.match.hosts is None]
    if len(hosts) * len(anywhere) > MOST_COPIES:
        all_of_them = [_written(entry, True) for entry in entries]
        return [_guarded(_virtual_host("*", ["*"], all_of_them, last), two_hosts)]
    found = [
        _by_path(host, [host], [e for e in entries if e.match.hosts is None or host in e.match.hosts], last)
        for host in hosts
    ]
    # A host of its own is compared exactly: one with a comma is none of them.
    return [*found, _guarded(_by_path("*", ["*"], anywhere, last), two_hosts)]


COMMA: Json = {"contains": ","}


def _guarded(host: Json, two_hosts: Json) -> Json:
    """The same, but that what names two hosts never gets to its routes."""
    compared = [{"name": ":authority", "string_match": COMMA}]
    first = {"match": {"prefix": "/", "headers": compared}, **two_hosts}
    if "matcher" not in host:
        return {**host, "routes": [first, *host["routes"]]}
    asked = {"single_predicate": {"input": _header(":authority"), "value_match": COMMA}}
    matchers = [{"predicate": asked, "on_match": _action([first])}]
    rest = {"matcher": host["matcher"]}
    return {**host, "matcher": {"matcher_list": {"matchers": matchers}, "on_no_match": rest}}


def _written(entry: Entry, host: bool = False) -> Json:
    return {"match": entry.match.with_host if host else entry.match.json, **entry.route}


def _virtual_host(name: str, domains: list[str], routes: list[Json], last: Json) -> Json:
    return {"name": name, "domains": domains, "routes": [*routes, last]}


def _by_path(name: str, domains: list[str], entries: Sequence[Entry], last: Json) -> Json:
    """Where a prefix is the longest that is known, routes with a longer one cannot be meant: its list has
    those with a shorter one, and those that look at no prefix."""
    prefixes = sorted({entry.match.prefix for entry in entries} - {ANY})
    wide = sum(entry.match.prefix == ANY for entry in entries)
    if len(entries) <= FEW or not prefixes or wide * len(prefixes) > MOST_COPIES:
        return _virtual_host(name, domains, [_written(entry) for entry in entries], last)
    by_prefix: dict[str, list[tuple[int, Entry]]] = {}
    for number, entry in enumerate(entries):
        by_prefix.setdefault(entry.match.prefix, []).append((number, entry))
    lists = {prefix: _list(_reachable(prefix, by_prefix), last) for prefix in prefixes}
    tree = {"input": _header(":path"), "prefix_match_map": {"map": lists}}
    rest = _list([entry for _, entry in by_prefix.get(ANY, [])], last)
    return {"name": name, "domains": domains, "matcher": {"matcher_tree": tree, "on_no_match": rest}}


def _reachable(prefix: str, by_prefix: dict[str, list[tuple[int, Entry]]]) -> list[Entry]:
    found = [pair for length in range(1, len(prefix) + 1) for pair in by_prefix.get(prefix[:length], ())]
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


def _list(entries: Sequence[Entry], last: Json) -> Json:
    return _action([*(_written(entry) for entry in entries), last])


def _action(routes: list[Json]) -> Json:
    listed = {"@type": TYPE + "envoy.config.route.v3.RouteList", "routes": routes}
    return {"action": {"name": "routes", "typed_config": listed}}


def _header(name: str) -> Json:
    kind = TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
    return {"name": name, "typed_config": {"@type": kind, "header_name": name}}
