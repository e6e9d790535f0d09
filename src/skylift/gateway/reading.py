"""Strict reading of plain values: whoever asks for a field names it, and what nobody asked for is an error.

    at = Fields.of(document, problems)
    name = at.text("name")
    port = at.whole("port", 80, low=1, high=65535)
    for route in at.tables("routes"): ...
    at.done()        # every field that was not asked for is a problem, with the nearest name

A reader never stops at the first mistake: a wrong value is reported and its default goes on, and `Problems`
raises all of them together at the end.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from skylift.gateway.errors import Problem, Refused, nearest
from skylift.gateway.loading import Document
from skylift.gateway.model import Note, Origin
from skylift.gateway.text import regex_fault

Choice = TypeVar("Choice", bound=StrEnum)
MAX_PROBLEMS = 100  # a file with more is another kind of file
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(slots=True)
class Problems:
    """What is wrong, and what is worth saying."""

    found: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def check(self) -> None:
        """Raise what was found, if anything was."""
        if self.found:
            raise Refused({str(problem): problem for problem in self.found[:MAX_PROBLEMS]}.values())


def texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text inside a value, behind its path."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from texts(inner, f"{path}[{number}]")
    elif isinstance(value, str):
        yield path, value


@dataclass(slots=True)
class Fields:
    """One table of a file, and where it stands. `any_case`: names are read without regard to case."""

    document: Document
    path: str
    value: dict[str, Any]
    problems: Problems
    asked: set[str] = field(default_factory=set)
    any_case: bool = False

    @classmethod
    def of(cls, document: Document, problems: Problems) -> "Fields":
        at = cls(document, "", {}, problems)
        if isinstance(document.value, dict):
            at.value = document.value
        else:
            at.wrong("", document.value, "the file must be a table of fields")
        return at

    def _inner(self, name: str, value: dict[str, Any]) -> "Fields":
        return Fields(self.document, self.where(name), value, self.problems, any_case=self.any_case)

    def _asked(self, name: str) -> str:
        """The field as it is written, which is known from here on."""
        if self.any_case and name not in self.value:
            name = next((key for key in self.value if key.lower() == name.lower()), name)
        self.asked.add(name)
        return name

    @property
    def origin(self) -> Origin:
        return Origin(self.document.file, self.path)

    def where(self, name: str) -> str:
        if not name or name.startswith("["):
            return self.path + name
        return f"{self.path}.{name}" if self.path else name

    def wrong(
        self, name: str, value: object, rule: str, code: str = "invalid_value", suggestion: str | None = None
    ) -> None:
        path = self.where(name)
        line = self.document.lines.get(path)
        problem = Problem(self.document.file, path, rule, value, suggestion, code, line)
        self.problems.found.append(problem)

    def note(self, code: str, sentence: str, name: str = "") -> None:
        self.problems.notes.append(Note(code, sentence, Origin(self.document.file, self.where(name))))

    def done(self) -> None:
        """Whatever was not asked for is not known here."""
        for name in self.value:
            if name not in self.asked:
                hint = nearest(name, self.asked)
                self.wrong(name, None, "unknown field", "unknown_field", hint)

    def has(self, name: str) -> bool:
        return self.value.get(self._asked(name)) is not None

    def ignored(self, *names: str) -> None:
        """Fields that mean nothing to a gateway: labels, comments, dates."""
        for name in names:
            self._asked(name)

    def lacking(self, name: str, why: str, harmless: Iterable[Any] = (None, False, (), [])) -> None:
        """A field the dialect has and we do not: said by name, unless it says nothing."""
        name = self._asked(name)
        value = self.value.get(name)
        if not any(value == each and type(value) is type(each) for each in harmless):
            self.wrong(name, None, why, "not_supported")

    # --- single values -------------------------------------------------------------------------------

    def raw(self, name: str) -> Any:
        return self.value.get(self._asked(name))

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        value = self.raw(name)
        if value is None:
            if required:
                self.wrong(name, None, "it must be given", "missing_field")
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.wrong(name, value, "it must be text")
            return default
        if _CONTROL.search(str(value)) and "-----BEGIN" not in str(value):
            self.wrong(name, value, "it must have no control characters or line breaks")
            return default
        return str(value)

    def block(self, name: str, default: str = "") -> str:
        """Text that may have lines: a body, a key."""
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            self.wrong(name, value, "it must be text")
            return default
        return default if value is None else value

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(name, value, "it must be true or false")
            return default
        return value

    def number(
        self, name: str, default: float, *, low: float = 0, high: float = 2**53, over: bool = False
    ) -> float:
        """A number from `low` (above it, with `over`) to `high`."""
        value = self.raw(name)
        if value is None:
            return default
        wrong = isinstance(value, bool) or not isinstance(value, int | float)
        if wrong or not low <= value <= high or (over and value == low):
            bound = f"above {low:g}" if over else f"from {low:g}"
            self.wrong(name, value, f"it must be a number {bound} to {high:g}")
            return default
        return float(value)

    def whole(self, name: str, default: int, *, low: int = 0, high: int = 2**53) -> int:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong(name, value, f"it must be a whole number from {low} to {high}")
            return default
        return value

    def choice(self, name: str, choices: Mapping[str, Choice] | type[Choice], default: Choice) -> Choice:
        value = self.raw(name)
        if value is None:
            return default
        known = choices if isinstance(choices, Mapping) else {str(each): each for each in choices}
        if isinstance(value, str) and value in known:
            return known[value]
        hint = nearest(str(value), known)
        self.wrong(name, value, f"it must be one of {', '.join(known)}", suggestion=hint)
        return default

    def word(self, name: str, words: Iterable[str], default: str) -> str:
        value = self.raw(name)
        if value is None:
            return default
        known = list(words)
        if isinstance(value, str) and value in known:
            return value
        self.wrong(
            name, value, f"it must be one of {', '.join(known)}", suggestion=nearest(str(value), known)
        )
        return default

    def path_text(self, name: str, default: str = "") -> str:
        value = self.text(name, default)
        if value and not value.startswith("/"):
            self.wrong(name, value, "a path begins with /")
            return default
        return value

    def header_name(self, name: str, default: str = "") -> str:
        value = self.text(name, default)
        if value and not is_header(value):
            self.wrong(name, value, "it must be a header's name: letters, digits and -")
            return default
        return value

    def regex(self, name: str, value: str) -> bool:
        """Whether the value, which stands at `name`, is a usable regular expression."""
        fault = regex_fault(value)
        if fault:
            self.wrong(name, value, fault, "unusable_regex")
        return not fault

    # --- lists and tables ----------------------------------------------------------------------------

    def texts(self, name: str, default: tuple[str, ...] = (), *, single: bool = False) -> tuple[str, ...]:
        """A list of texts; with `single` one text stands for a list of one."""
        value = self.raw(name)
        if value is None:
            return default
        if single and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            self.wrong(name, value, "it must be a list of texts")
            return default
        found = []
        for number, each in enumerate(value):
            if isinstance(each, bool) or not isinstance(each, str | int | float):
                self.wrong(f"{name}[{number}]", each, "it must be text")
            elif _CONTROL.search(str(each)):
                self.wrong(f"{name}[{number}]", each, "it must have no control characters or line breaks")
            else:
                found.append(str(each))
        return tuple(found)

    def wholes(self, name: str, default: tuple[int, ...], *, low: int, high: int) -> tuple[int, ...]:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, list) or any(
            isinstance(each, bool) or not isinstance(each, int) or not low <= each <= high for each in value
        ):
            self.wrong(name, value, f"it must be a list of whole numbers from {low} to {high}")
            return default
        return tuple(value)

    def each(
        self, name: str, rule: Callable[[str], str | None], default: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        """A list of texts of which each passes a rule, which says what is wrong or None."""
        found = []
        for number, value in enumerate(self.texts(name, default)):
            fault = rule(value)
            if fault:
                self.wrong(f"{name}[{number}]", value, fault)
            else:
                found.append(value)
        return tuple(found)

    def table(self, name: str) -> "Fields | None":
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.wrong(name, value, "it must be a table of fields")
            return None
        return self._inner(name, value)

    def must_table(self, name: str) -> "Fields":
        """The table, or an empty one."""
        return self.table(name) or self._inner(name, {})

    def tables(self, name: str) -> list["Fields"]:
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(name, value, "it must be a list")
            return []
        found = []
        for number, each in enumerate(value):
            if isinstance(each, dict):
                found.append(self._inner(f"{name}[{number}]", each))
            else:
                self.wrong(f"{name}[{number}]", each, "it must be a table of fields")
        return found

    def named(self, name: str) -> list[tuple[str, "Fields"]]:
        """A table of tables: (name, its fields), in the order of the file."""
        inner = self.table(name)
        if inner is None:
            return []
        return [(key, table) for key in inner.value if (table := inner.table_or_empty(key))]

    def table_or_empty(self, name: str) -> "Fields | None":
        """Like `table`; a name with nothing behind it is an empty table."""
        if self.raw(name) is None:
            return self._inner(name, {})
        return self.table(name)

    def mapping(self, name: str) -> tuple[tuple[str, str], ...]:
        """A table of texts."""
        inner = self.table(name)
        if inner is None:
            return ()
        return tuple((key, inner.text(key)) for key in inner.value)


def is_header(name: str) -> bool:
    return bool(_HEADER.fullmatch(name))


# --- durations -----------------------------------------------------------------------------------------

_GO = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float | None:
    """A duration in Go's words (`1m30s`), or a bare number of seconds; None where it is neither."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not text or not re.fullmatch(f"(?:{_GO.pattern})+", text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _GO.findall(text))


def duration(at: Fields, name: str, default: float, *, over: bool = False) -> float:
    """A field that is a duration."""
    value = at.text(name, "")
    if not value:
        return default
    found = seconds(value)
    if found is None or (over and found <= 0):
        at.wrong(name, value, "it must be a duration such as 30s, 1m30s or 250ms" + (", above 0" * over))
        return default
    return found
