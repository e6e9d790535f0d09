"""What Envoy has no filter for, in its Lua: bodies changed, turned from JSON to XML and back, replaced by
error pages. The scripts are files of this package (`lua/`)."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import Gateway
from skylift.gateway.policies import ConvertBody, Edit, ErrorPages, Media
from skylift.gateway.template import Var, shown

LUA = TYPE + "envoy.extensions.filters.http.lua.v3.Lua"


@cache
def _source(*names: str) -> str:
    """Scripts put one behind the other: Envoy's Lua finds no files by itself."""
    place = files("skylift.gateway.envoy") / "lua"
    return "\n".join((place / f"{name}.lua").read_text() for name in names)


def _script(kind: str, names: tuple[str, ...], context: Json) -> Piece:
    shared = {"@type": LUA, "source_codes": {kind: {"inline_string": _source(*names)}}}
    own = {"@type": LUA + "PerRoute", "name": kind, "filter_context": context}
    return Piece(f"lua-{kind}", shared, own)


def convert_body(policy: ConvertBody, gateway: Gateway, book: Book) -> list[Piece]:
    if policy.client is policy.backend:
        return []
    to_backend = "json" if policy.backend is Media.JSON else "xml"
    context = {"to_backend": to_backend, "root": policy.root, "limit": policy.limit}
    return [_script("convert", ("json", "xml", "convert"), context)]


def edit_body(edits: Iterable[Edit], side: str) -> list[Piece]:
    """Kong's five verbs on the fields of a JSON object, of the request or of the answer."""
    listed = []
    for edit in edits:
        if any(isinstance(part, Var) for part in edit.value):
            raise Refused(
                [Problem("", "body", "a body's field is set to plain text here", shown(edit.value))]
            )
        words = {"verb": str(edit.verb), "name": edit.name, "value": shown(edit.value)}
        listed.append({**words, "type": str(edit.json_type)})
    return [_script("edit", ("json", "edit"), {"side": side, "edits": listed})]


def method(name: str) -> list[Piece]:
    """Another method: Envoy's header mutation may not touch it."""
    return [_script("method", ("method",), {"method": name})]


def redirect(statuses: Json) -> Piece:
    """To the address that RE2 has made (`redirects`). `statuses`: for `get`, and for the `others`."""
    return _script("redirect", ("redirect",), statuses)


def error_pages(policy: ErrorPages, gateway: Gateway, book: Book) -> list[Piece]:
    """The service is asked by a script, so its cluster is named here; the status stays."""
    service = gateway.services[policy.service]
    target = next(iter(gateway.upstreams[service.upstream].targets), None)
    context = {
        "ranges": [{"low": low, "high": high} for low, high in policy.statuses],
        "cluster": policy.service,
        "path": policy.path,
        "host": service.host_header or (f"{target.host}:{target.port}" if target else policy.service),
    }
    return [_script("pages", ("pages",), context)]
