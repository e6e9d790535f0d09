"""What policies change of a request: its path, headers, query and body, on paper.

Each function takes the flow and a policy, changes the flow and says in a sentence what it did. Path functions
are pure (`joined`, `stripped`, ...): the compiler's rewrites are tested against them.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from skylift.gateway.flow import Flow
from skylift.gateway.policies import (
    AddPrefix,
    CorrelationId,
    Edit,
    JoinBase,
    JsonType,
    ReplacePath,
    ReplacePathRegex,
    RequestTransform,
    StripPrefix,
    StripPrefixRegex,
    Verb,
    Where,
)
from skylift.gateway.text import Text, compile_regex

# --- paths ---------------------------------------------------------------------------------------------


def joined(path: str, matched: Text | None, policy: JoinBase) -> str:
    """Kong's path handling v0. `matched` is the route's path comparison; None cuts nothing."""
    base = policy.base.removesuffix("/")
    if not policy.strip:
        return base or "/" if path == "/" else base + path
    consumed = (matched.consumed(path) or 0) if matched else 0
    rest = path[consumed:]
    if rest:
        return f"{base}/{rest.removeprefix('/')}"
    return f"{base}/" if not base or (len(path) > 1 and path.endswith("/")) else base


def stripped(path: str, prefixes: tuple[str, ...]) -> tuple[str, str | None]:
    """The path without the first prefix it begins with, and that prefix."""
    for prefix in prefixes:
        if path.startswith(prefix):
            return "/" + path.removeprefix(prefix).removeprefix("/"), prefix.rstrip("/") or prefix
    return path, None


def expanded(pattern: str, replacement: str, text: str, count: int = 0) -> str:
    """`text` with what the pattern matches replaced, in Go's way: groups that do not exist are empty."""
    compiled = compile_regex(pattern)
    known = {str(number) for number in range(compiled.groups + 1)} | set(compiled.groupindex)

    def one(found: re.Match[str]) -> str:
        def group(name: str) -> str:
            if name not in known:
                return ""
            return found[int(name) if name.isdecimal() else name] or ""

        return re.sub(r"\$(\$)|\$\{(\w+)\}|\$(\w+)", lambda m: m[1] or group(m[2] or m[3]), replacement)

    return compiled.sub(one, text, count=count)


def join_base(flow: Flow, policy: JoinBase) -> str:
    cut = flow.route.path.consumed(flow.path) if flow.route.path and policy.strip else 0
    prefix = flow.path[: cut or 0]
    if flow.gateway.forwarding.path:
        flow.put("X-Forwarded-Path", flow.request.path)
    if prefix and flow.gateway.forwarding.prefix and prefix != "/":
        flow.put("X-Forwarded-Prefix", prefix.rstrip("/"))
    before, flow.path = flow.path, joined(flow.path, flow.route.path, policy)
    return f"path {before} becomes {flow.path}" if before != flow.path else f"path {before} stays"


def strip_prefix(flow: Flow, policy: StripPrefix) -> str:
    before = flow.path
    flow.path, prefix = stripped(flow.path, policy.prefixes)
    if prefix is None:
        return f"{before} begins with none of {', '.join(policy.prefixes)}: path stays"
    flow.headers.append(("X-Forwarded-Prefix", prefix))
    return f"path {before} becomes {flow.path}"


def strip_prefix_regex(flow: Flow, policy: StripPrefixRegex) -> str:
    before = flow.path
    for regex in policy.regexes:
        found = compile_regex(regex).match(before)
        if found and found.end():
            flow.path = "/" + before[found.end() :].removeprefix("/")
            flow.headers.append(("X-Forwarded-Prefix", found[0]))
            return f"path {before} becomes {flow.path}"
    return f"{before} begins with no match of {', '.join(policy.regexes)}: path stays"


def add_prefix(flow: Flow, policy: AddPrefix) -> str:
    before = flow.path
    flow.path = "/" + f"{policy.prefix}{before}".lstrip("/")
    return f"path {before} becomes {flow.path}"


def replace_path(flow: Flow, policy: ReplacePath) -> str:
    flow.put("X-Replaced-Path", flow.path)
    before, flow.path = flow.path, policy.path
    return f"path {before} becomes {flow.path}"


def replace_path_regex(flow: Flow, policy: ReplacePathRegex) -> str:
    before = flow.path
    if not compile_regex(policy.regex).search(before):
        return f"{before} has no match of {policy.regex}: path stays"
    flow.put("X-Replaced-Path", before)
    flow.path = expanded(policy.regex, policy.replacement, before)
    return f"path {before} becomes {flow.path}"


# --- headers, query, body ------------------------------------------------------------------------------


def transform_request(flow: Flow, policy: RequestTransform) -> str:
    said = []
    if policy.path is not None:
        before, flow.path = flow.path, flow.text(policy.path)
        said.append(f"path {before} becomes {flow.path}")
    if policy.method is not None:
        said.append(f"method {flow.method} becomes {policy.method}")
        flow.method = policy.method
    said += [_EDITS[edit.where](flow, edit) for edit in policy.edits]
    return "; ".join(word for word in said if word) or "nothing to change"


def correlation_id(flow: Flow, policy: CorrelationId) -> str:
    given = next(iter(flow.values(policy.header)), "")
    value = given or flow.world.uuid
    flow.put(policy.header, value)
    if policy.echo:
        flow.answer_headers.append((policy.header, value))
    return f"{policy.header} is the client's {given}" if given else f"{policy.header} is made: {value}"


Pairs = list[tuple[str, str]]


def edited(pairs: Pairs, edit: Edit, value: str, *, fold: bool) -> Pairs:
    """Name and value pairs after one edit. `fold`: names are compared without case (headers)."""

    def same(name: str) -> bool:
        return name.lower() == edit.name.lower() if fold else name == edit.name

    def like(name: str, other: str) -> bool:
        return name.lower() == other.lower() if fold else name == other

    present = any(same(name) for name, _ in pairs)
    rest = [(name, have) for name, have in pairs if not same(name)]
    match edit.verb:
        case Verb.REMOVE:
            return rest
        case Verb.RENAME if present:
            moved = [(value, have) for name, have in pairs if same(name)]
            return [pair for pair in rest if not like(pair[0], value)] + moved
        case Verb.REPLACE if present:
            return [*rest, (edit.name, value)]
        case Verb.ADD if not present:
            return [*pairs, (edit.name, value)]
        case Verb.APPEND:
            return [*pairs, (edit.name, value)]
        case Verb.SET:
            return [*rest, (edit.name, value)] if value else rest
        case _:
            return pairs


def _edit_header(flow: Flow, edit: Edit) -> str:
    value = flow.text(edit.value)
    if edit.name.lower() == "host":
        if edit.verb in (Verb.REPLACE, Verb.SET) and value:
            flow.host = value
            return f"Host is {value}"
        return "Host can only be replaced: it stays"
    before = list(flow.headers)
    flow.headers = edited(flow.headers, edit, value, fold=True)
    return _what(edit, value, changed=before != flow.headers, what="header")


def _edit_query(flow: Flow, edit: Edit) -> str:
    value, before = flow.text(edit.value), list(flow.query)
    flow.query = edited(flow.query, edit, value, fold=False)
    return _what(edit, value, changed=before != flow.query, what="query parameter")


def _edit_body(flow: Flow, edit: Edit) -> str:
    kind = (next(iter(flow.values("content-type")), "")).partition(";")[0].strip().lower()
    if kind not in ("application/json", "") or (not kind and not flow.body):
        return f"body field {edit.name}: the body is {kind or 'absent'}, not JSON: untouched"
    try:
        found = json.loads(flow.body or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return f"body field {edit.name}: the body is no JSON object: untouched"
    value = flow.text(edit.value)
    after = edited_json(found, edit, value)
    if after == found:
        return _what(edit, value, changed=False, what="body field")
    flow.body = json.dumps(after).encode()
    return _what(edit, value, changed=True, what="body field")


def edited_json(body: Mapping[str, Any], edit: Edit, value: str) -> dict[str, Any]:
    """A JSON object after one edit of its top level."""
    made = dict(body)
    typed = _TYPED[edit.json_type](value) if edit.verb not in (Verb.RENAME, Verb.REMOVE) else value
    match edit.verb:
        case Verb.REMOVE:
            made.pop(edit.name, None)
        case Verb.RENAME if edit.name in made:
            made[value] = made.pop(edit.name)
        case Verb.REPLACE if edit.name in made:
            made[edit.name] = typed
        case Verb.ADD if edit.name not in made:
            made[edit.name] = typed
        case Verb.SET:
            made[edit.name] = typed
        case Verb.APPEND:
            have = made.get(edit.name, [])
            made[edit.name] = [*(have if isinstance(have, list) else [have]), typed]
        case _:
            pass
    return made


def _number(text: str) -> int | float:
    return float(text) if "." in text or "e" in text.lower() else int(text)


_TYPED: Mapping[JsonType, Callable[[str], Any]] = {
    JsonType.STRING: str,
    JsonType.NUMBER: _number,
    JsonType.BOOLEAN: lambda text: text == "true",
}
_EDITS: Mapping[Where, Callable[[Flow, Edit], str]] = {
    Where.HEADER: _edit_header,
    Where.QUERY: _edit_query,
    Where.BODY: _edit_body,
}


def _what(edit: Edit, value: str, *, changed: bool, what: str) -> str:
    """The sentence of one edit."""
    name = f"{what} {edit.name}"
    if not changed:
        absent = edit.verb in (Verb.REMOVE, Verb.RENAME, Verb.REPLACE)
        return f"{name} is {'absent' if absent else 'there already'}: {edit.verb} does nothing"
    if edit.verb is Verb.REMOVE or not value:
        return f"{name} is removed"
    return f"{name} is renamed {value}" if edit.verb is Verb.RENAME else f"{name} is {value}"
