"""Kong's request-transformer and response-transformer: five verbs over headers, query and body."""

from skylift.gateway.access import Policy
from skylift.gateway.kong.templates import NotData, parse
from skylift.gateway.policies import Edit, JsonType, RequestTransform, ResponseTransform, Verb, Where
from skylift.gateway.reading import Fields, is_header
from skylift.gateway.template import Source, Template, plain, uses

VERBS = (Verb.REMOVE, Verb.RENAME, Verb.REPLACE, Verb.ADD, Verb.APPEND)  # the order they run in
_REQUEST = (("headers", Where.HEADER), ("body", Where.BODY), ("querystring", Where.QUERY))
_RESPONSE = (("headers", Where.HEADER), ("json", Where.BODY))


def request_transformer(at: Fields) -> Policy:
    edits: list[Edit] = []
    path: Template | None = None
    tables = {verb: at.table(verb) for verb in VERBS}
    for field, where in _REQUEST:
        for verb, table in tables.items():
            if table is not None:
                edits += _edits(table, verb, field, where, templates=True)
    replace = tables[Verb.REPLACE]
    if replace is not None and replace.has("uri"):
        path = _template(replace, "uri", replace.text("uri"))
    for table in tables.values():
        if table is not None:
            table.done()
    method = at.text("http_method").upper() or None
    return RequestTransform(tuple(edits), method, path)


def response_transformer(at: Fields) -> Policy:
    edits: list[Edit] = []
    tables = {verb: at.table(verb) for verb in VERBS}
    for field, where in _RESPONSE:
        for verb, table in tables.items():
            if table is not None:
                found = _edits(table, verb, field, where, templates=False)
                edits += _typed(table, found) if where is Where.BODY else found
    for table in tables.values():
        if table is not None:
            table.done()
    return ResponseTransform(tuple(edits))


def _typed(table: Fields, edits: list[Edit]) -> list[Edit]:
    """`json_types` give each value's type, by position."""
    types = table.texts("json_types")
    known = {str(each): each for each in JsonType}
    for number, word in enumerate(types):
        if word not in known:
            table.wrong(f"json_types[{number}]", word, f"it must be one of {', '.join(known)}")
    if types and len(types) != len(edits):
        table.wrong("json_types", list(types), f"there must be one for each of the {len(edits)} values")
    if not types or len(types) != len(edits) or not set(types) <= set(known):
        return edits
    return [
        Edit(edit.verb, edit.where, edit.name, edit.value, known[word])
        for edit, word in zip(edits, types, strict=True)
    ]


def _edits(table: Fields, verb: Verb, field: str, where: Where, *, templates: bool) -> list[Edit]:
    """The entries of one list: `name` for remove, `name:value` for the others, split at the first colon."""
    found = []
    for number, entry in enumerate(table.texts(field)):
        place = f"{field}[{number}]"
        name, colon, value = (entry, ":", "") if verb is Verb.REMOVE else entry.partition(":")
        if not colon or not name:
            table.wrong(place, entry, "it must be name:value")
            continue
        if where is Where.HEADER and not is_header(name.strip()):
            table.wrong(place, entry, "before the colon stands a header's name: letters, digits and -")
            continue
        text = value.strip() if where is Where.HEADER else value
        made = _template(table, place, text) if templates and verb is not Verb.RENAME else plain(text)
        if where is Where.HEADER and name.lower() == "host" and verb is not Verb.REPLACE:
            table.wrong(place, entry, "Host can only be replaced")
        found.append(Edit(verb, where, name.strip(), made))
    return found


def _template(table: Fields, place: str, text: str) -> Template:
    made = parse(text)
    if isinstance(made, NotData):
        rule = (
            f"$({made.expression}) is Lua; read are headers.x, query_params.x, uri_captures.x, each with "
            "or 'text', and uuid"
        )
        table.wrong(place, text, rule, "not_supported")
        return plain(text)
    if uses(made, Source.UUID):
        table.note(
            "uuid_is_ours",
            "$(uuid) makes a fresh uuid here; Kong itself would send an empty value (its own way is the "
            "correlation-id plugin)",
            place,
        )
    return made
