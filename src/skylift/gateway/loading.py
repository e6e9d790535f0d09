"""Files into plain values: YAML, JSON or TOML, bounded before anything is built from them.

YAML is a language of references, so a small file can mean a large one: anchors are resolved here, and what
they unfold to is counted before it is unfolded. Tags that would build objects do not exist; a key that stands
twice is an error, because whoever wrote it twice meant two things. Every value knows its line.

Bounds, each against a file that no gateway has: 8 MiB, 64 levels, 1,000 aliases, 1,000,000 values unfolded
(2,000 routes with four policies each are about 100,000).
"""

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from skylift.gateway import environment
from skylift.gateway.errors import Problem, Refused

MAX_BYTES = 8 << 20
MAX_DEPTH = 64
MAX_ALIASES = 1000
MAX_VALUES = 1_000_000
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file. `lines`: path -> line, from 1, where the format says it; `filled`: how many
    values of the file came from the environment."""

    file: str
    value: Any
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    filled: int = 0


def load(files: list[Path], environ: Mapping[str, str] = os.environ) -> list[Document]:
    """Every document of the files, in their order, filled from the environment where they ask for it."""
    found: list[Document] = []
    for file in files:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise _refused(str(file), f"a file has at most {MAX_BYTES >> 20} MiB, this one has {size} bytes")
        try:
            text = file.read_text()
        except UnicodeDecodeError as e:
            raise _refused(str(file), f"it must be UTF-8: {e.reason} at byte {e.start}") from None
        whole, holes = environment.filled(text, environ, file.name)
        found += [replace(each, filled=holes) for each in loads(whole, file.name)]
    return found


def loads(text: str, name: str = "-") -> list[Document]:
    """Every document of a text; the name's ending says what it is, YAML where it says nothing."""
    if len(text) > MAX_BYTES:
        raise _refused(name, f"a file has at most {MAX_BYTES >> 20} MiB, this one has {len(text)} characters")
    if environment.has_holes(text):
        raise _refused(name, "only files are filled from the environment", code="unset_variable")
    return _READERS.get(Path(name).suffix.lower(), _yaml)(text, name)


def _refused(file: str, rule: str, line: int | None = None, code: str = "unreadable_file") -> Refused:
    return Refused([Problem(file, "", rule, line=line, code=code)])


# --- YAML ----------------------------------------------------------------------------------------------


def _yaml(text: str, name: str) -> list[Document]:
    try:
        _bounded(text, name)
        nodes = [node for node in yaml.compose_all(text, Loader=Loader) if node is not None]
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        said = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise _refused(name, f"not YAML: {said}", mark.line + 1 if mark else None) from None
    found = []
    for node in nodes:
        _Unfolded(name).check(node)
        lines: dict[str, int] = {}
        found.append(Document(name, _value(node, "", lines, name), lines))
    return found


def _bounded(text: str, name: str) -> None:
    """Depth and aliases, counted over events: nothing is built yet, so nothing can be deep."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        line = event.start_mark.line + 1 if event.start_mark else None
        if depth > MAX_DEPTH:
            raise _refused(name, f"values are nested at most {MAX_DEPTH} deep", line, "too_deep")
        if aliases > MAX_ALIASES:
            raise _refused(name, f"at most {MAX_ALIASES} aliases", line, "too_many_aliases")


class _Unfolded:
    """How many values a node is once its aliases are unfolded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sizes: dict[int, int] = {}
        self.open: set[int] = set()

    def check(self, node: yaml.Node) -> int:
        if id(node) in self.sizes:
            return self.sizes[id(node)]
        line = node.start_mark.line + 1
        if id(node) in self.open:
            raise _refused(self.name, "an anchor contains itself", line, "cyclic_reference")
        self.open.add(id(node))
        size = 1 + sum(self.check(child) for child in _children(node))
        self.open.remove(id(node))
        if size > MAX_VALUES:
            rule = f"unfolded, its aliases make more than {MAX_VALUES} values"
            raise _refused(self.name, rule, line, "yaml_bomb")
        self.sizes[id(node)] = size
        return size


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


_COLLECTIONS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


def _value(node: yaml.Node, path: str, lines: dict[str, int], name: str) -> Any:
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
        raise _refused(name, f"{path}: the tag {node.tag} is not read here", node.start_mark.line + 1)
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, f"{path}[{n}]", lines, name) for n, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, name)
    return _scalar(node, path, name)


def _mapping(node: yaml.MappingNode, path: str, lines: dict[str, int], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, child in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refused(name, "a key is a word, not a list or a table", key_node.start_mark.line + 1)
        key = key_node.value
        inner = f"{path}.{key}" if path else key
        if key_node.tag == "tag:yaml.org,2002:merge":
            for source in child.value if isinstance(child, yaml.SequenceNode) else [child]:
                value = _value(source, path, lines, name)
                if not isinstance(value, dict):
                    raise _refused(name, "<< takes tables only", key_node.start_mark.line + 1)
                merged = {**value, **merged}
            continue
        if key in found:
            line = key_node.start_mark.line + 1
            raise _refused(name, f"{inner} stands here a second time", line, "duplicate_key")
        found[key] = _value(child, inner, lines, name)
    return {**merged, **found}


def _scalar(node: yaml.Node, path: str, name: str) -> Any:
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
    if kind not in _SCALARS:
        raise _refused(name, f"{path}: the tag {node.tag} is not read here", node.start_mark.line + 1)
    try:
        return _SCALARS[kind](text)
    except ValueError:
        raise _refused(name, f"{path}: {text[:40]!r} is no {kind}", node.start_mark.line + 1) from None


def _whole(text: str) -> int:
    if len(text) > 30:
        raise ValueError(text)
    plain = text.replace("_", "")
    sign = plain.startswith("-")
    digits = plain.lstrip("+-")
    octal = digits.isdecimal() and len(digits) > 1 and digits.startswith("0")
    return (-1 if sign else 1) * (int(digits, 8) if octal else int(digits, 0))


_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "timestamp": str,
    "int": _whole,
    "float": lambda text: float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")),
    "bool": lambda text: text.lower() in ("true", "yes", "on"),
    "null": lambda text: None,
}


# --- JSON, TOML ----------------------------------------------------------------------------------------


def _json(text: str, name: str) -> list[Document]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
            raise _refused(name, f"{twice} stands in one table twice", code="duplicate_key")
        return found

    try:
        value = json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise _refused(name, f"values are nested at most {MAX_DEPTH} deep", code="too_deep") from None
    except json.JSONDecodeError as e:
        raise _refused(name, f"not JSON: {e.msg}", e.lineno) from None
    _flat_enough(value, name)
    return [Document(name, value)]


def _toml(text: str, name: str) -> list[Document]:
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise _refused(name, f"not TOML: {e}") from None
    except RecursionError:
        raise _refused(name, f"values are nested at most {MAX_DEPTH} deep", code="too_deep") from None
    _flat_enough(value, name)
    return [Document(name, value)]


def _flat_enough(value: Any, name: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    raise _refused(name, f"values are nested at most {MAX_DEPTH} deep", code="too_deep")


_READERS: Mapping[str, Callable[[str, str], list[Document]]] = {".json": _json, ".toml": _toml}
