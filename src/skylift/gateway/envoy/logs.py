"""Logs of some routes' requests, in Envoy's words: one access log for each file, with the routes it is for.

A line has the fields of Kong's that Envoy knows of a request. It is written when the exchange has ended, also
where the gateway itself answered.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from skylift.gateway.access import PerConsumer, Policy
from skylift.gateway.envoy.formats import CONSUMER
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.envoy.transforms import ASKED, ASKED_PATH
from skylift.gateway.policies import FileLog

FILE = TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog"
CEL = TYPE + "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
ROUTED, UNROUTED = f"%DYNAMIC_METADATA({ASKED}:{ASKED_PATH})%", "%REQ(:PATH)%"
FIELDS: Json = {
    "request": {
        "id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "uri": ROUTED,
        "url": f"%REQ(X-FORWARDED-PROTO)%://%REQ(X-FORWARDED-HOST?:AUTHORITY)%{ROUTED}",
        "size": "%BYTES_RECEIVED%",
        "headers": {"host": "%REQ(X-FORWARDED-HOST?:AUTHORITY)%", "user-agent": "%REQ(USER-AGENT)%"},
    },
    "response": {"status": "%RESPONSE_CODE%", "size": "%BYTES_SENT%"},
    "latencies": {
        "request": "%DURATION%",
        "kong": "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ms)%",
        "proxy": "%COMMON_DURATION(US_TX_END:US_RX_BEG:ms)%",
    },
    "upstream_uri": "%REQ(:PATH)%",
    "route": {"name": "%ROUTE_NAME%"},
    "service": {"name": "%UPSTREAM_CLUSTER%"},
    "consumer": {"username": f"%REQ({CONSUMER})%", "id": "%REQ(X-CONSUMER-ID)%"},
    "client_ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "started_at": "%START_TIME(%s%3f)%",
}


@dataclass(frozen=True, slots=True)
class Told:
    """A file, and whose requests: of one of `consumers`, or (`others`) of none of them."""

    path: str
    consumers: tuple[str, ...] = ()
    others: bool = True


def told(policy: Policy) -> Iterator[Told]:
    match policy:
        case FileLog(path):
            yield Told(path)
        case PerConsumer(otherwise, plans):
            for name, plan in plans:
                if isinstance(plan, FileLog):
                    yield Told(plan.path, (name,), others=False)
            if isinstance(otherwise, FileLog):
                yield Told(otherwise.path, tuple(name for name, _ in plans))
        case _:
            pass


def access_logs(
    routes: Sequence[tuple[str, Iterable[Told]]], no_route: str, nobodys: Iterable[Told]
) -> Iterator[Json]:
    """Of all routes of a listener, by their names; and of requests that no route takes (`nobodys`)."""
    names: dict[Told, list[str]] = {}
    for route, listed in routes:
        for each in listed:
            names.setdefault(each, []).append(route)
    everything = {no_route, *(route for route, _ in routes)}
    for each, those in names.items():
        conditions = [_of_routes(dict.fromkeys(those), everything), _of_consumers(each)]
        yield _file(each.path, FIELDS, " && ".join(filter(None, conditions)))
    for each in nobodys:
        conditions = [_of_routes([no_route], everything), _of_consumers(each)]
        yield _file(each.path, _without_route(FIELDS), " && ".join(filter(None, conditions)))


def _of_routes(those: Iterable[str], everything: set[str]) -> str:
    """Which requests are meant: told by the shorter list."""
    wanted, rest = sorted(those), sorted(everything.difference(those))
    if not rest:
        return ""
    few, no = (rest, "!") if len(rest) < len(wanted) else (wanted, "")
    return f"{no}(xds.route_name in [{', '.join(map(_quoted, few))}])"


def _of_consumers(each: Told) -> str:
    if not each.consumers:
        return ""
    listed = f"request.headers['{CONSUMER}'] in [{', '.join(map(_quoted, each.consumers))}]"
    known = f"'{CONSUMER}' in request.headers"
    return f"(!({known}) || !({listed}))" if each.others else f"({known} && {listed})"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _without_route(fields: Json) -> Json:
    """Nothing has changed the path, and nobody noted it."""
    request = {name: _unrouted(value) for name, value in fields["request"].items()}
    return {**{name: value for name, value in fields.items() if name != "route"}, "request": request}


def _unrouted(value: object) -> object:
    return value.replace(ROUTED, UNROUTED) if isinstance(value, str) else value


def _file(path: str, fields: Json, expression: str) -> Json:
    said: Json = {
        "name": "file",
        "typed_config": {"@type": FILE, "path": path, "log_format": {"json_format": fields}},
    }
    if expression:
        cel = {"name": "cel", "typed_config": {"@type": CEL, "expression": expression}}
        said["filter"] = {"extension_filter": cel}
    return said
