"""The front door: files in, one `Gateway` out, whatever dialect they are written in.

Several files are one configuration. What a file is shows by its fields, never by its name; files of two
dialects are refused, because their orders cannot be compared. An inventory (`inventory:` and nothing else,
or in a native file) may stand beside any dialect: it says where names really are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from skylift.gateway import kong, native, traefik
from skylift.gateway.errors import Problem, nearest
from skylift.gateway.inventory import INVENTORY, read_inventory
from skylift.gateway.loading import Document, load
from skylift.gateway.model import Dialect, Gateway, Note, Origin
from skylift.gateway.reading import Fields, Problems

Reader = Callable[[Iterable[Document]], Gateway]


def read(files: Iterable[Path]) -> Gateway:
    """The configuration that these files, or the YAML, JSON and TOML files of these directories, are."""
    return read_documents(load(list(_each(files))))


def _each(files: Iterable[Path]) -> Iterable[Path]:
    for file in files:
        if file.is_dir():
            yield from sorted(
                found for found in file.iterdir() if found.suffix in (".yaml", ".yml", ".json", ".toml")
            )
        else:
            yield file


def read_documents(documents: Iterable[Document]) -> Gateway:
    """The configuration that these documents are; `Refused` with every problem there is."""
    by_dialect: dict[Dialect, list[Document]] = {}
    inventory: dict[str, tuple[str, ...]] = {}
    problems = Problems()
    for document in documents:
        if _is_inventory(document):
            inventory |= _inventory(document, problems)
            continue
        dialect = dialect_of(document)
        if dialect is None:
            problems.found.append(_unknown(document))
        else:
            by_dialect.setdefault(dialect, []).append(document)
    if len(by_dialect) > 1:
        names = " and ".join(f"{found[0].file} ({dialect})" for dialect, found in by_dialect.items())
        rule = f"files of one configuration speak one dialect, not {names}"
        problems.found.append(Problem(names, "", rule, code="mixed_dialects"))
    if not by_dialect and not problems.found:
        problems.found.append(Problem("-", "", "there is nothing to read", code="empty_configuration"))
    problems.check()
    ((dialect, found),) = by_dialect.items()
    gateway = READERS[dialect](found)
    notes = {
        document.file: Note("filled", "values come from the environment", Origin(document.file))
        for document in found
        if document.filled
    }
    return replace(
        gateway, inventory={**gateway.inventory, **inventory}, notes=(*gateway.notes, *notes.values())
    )


def _is_inventory(document: Document) -> bool:
    return isinstance(document.value, dict) and set(document.value) == {INVENTORY}


def _inventory(document: Document, problems: Problems) -> dict[str, tuple[str, ...]]:
    at = Fields.of(document, problems)
    return read_inventory(at)


_SIGNS: Mapping[Dialect, frozenset[str]] = {
    Dialect.KONG: frozenset({"_format_version", "_transform", *kong.TOP_LEVEL}),
    Dialect.TRAEFIK: frozenset(traefik.TOP_LEVEL),
    Dialect.NATIVE: frozenset(native.TOP_LEVEL),
}
READERS: Mapping[Dialect, Reader] = {
    Dialect.KONG: kong.read,
    Dialect.TRAEFIK: traefik.read,
    Dialect.NATIVE: native.read,
}


def dialect_of(document: Document) -> Dialect | None:
    """What a document is written in, by the fields that only one dialect has."""
    if not isinstance(document.value, dict):
        return None
    found = [dialect for dialect, signs in _SIGNS.items() if signs & set(document.value)]
    return found[-1] if found else None  # `gateway:` says it, also beside a field that others have too


def _unknown(document: Document) -> Problem:
    rule = "it is none of Kong's, Traefik's or our own files"
    if not isinstance(document.value, dict):
        return Problem(document.file, "", "the file must be a table of fields", code="unknown_dialect")
    known = {sign for signs in _SIGNS.values() for sign in signs}
    for name in document.value:
        hint = nearest(name, known)
        if hint:
            return Problem(document.file, name, rule, suggestion=hint, code="unknown_dialect")
    first = next(iter(document.value), "")
    return Problem(document.file, first, rule, code="unknown_dialect")
