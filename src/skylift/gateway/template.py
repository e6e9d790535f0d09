"""Text with holes: what a header is set to, what an answer's body says.

    X-Request-ID:$(uuid)        ->  (Var(UUID),)
    v=$(headers.accept or 'x')  ->  ("v=", Var(HEADER, "accept", default="x"))

A template is a tuple of strings and `Var`s. The data plane fills it with its own formatters; `fill` does so
on paper, from a function that knows the values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where a variable's value comes from."""

    HEADER = "headers"
    QUERY = "query_params"
    CAPTURE = "uri_captures"  # of the route's path regex, by number or name
    UUID = "uuid"  # a fresh one for every request
    REQUEST_ID = "request_id"
    CLAIM = "claims"  # of the verified token
    CONSUMER = "consumer"
    CLIENT = "client"  # the client's address
    PATH = "path"
    HOST = "host"
    ABOUT = "about"  # the claim a token was refused for
    LIMIT_RESET = "reset"  # of the limit that refused, in whole seconds


@dataclass(frozen=True, slots=True)
class Var:
    """A hole; `default` fills it where the request has no value."""

    source: Source
    name: str = ""
    default: str = ""

    def __str__(self) -> str:
        inner = f"{self.source}.{self.name}" if self.name else str(self.source)
        return f"$({inner} or '{self.default}')" if self.default else f"$({inner})"


Template = tuple[str | Var, ...]


def plain(text: str) -> Template:
    """A template without holes."""
    return (text,) if text else ()


def shown(template: Template) -> str:
    """The template as it is written."""
    return "".join(str(part) for part in template)


def fill(template: Template, value_of: Callable[[Var], str | None]) -> str:
    """The text, its holes filled."""
    return "".join(part if isinstance(part, str) else value_of(part) or part.default for part in template)


def uses(template: Template, source: Source) -> bool:
    return any(isinstance(part, Var) and part.source is source for part in template)
