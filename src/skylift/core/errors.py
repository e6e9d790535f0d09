"""Errors named after who must act.

`TrustError`: their data is bad: never retry, tell a human. `Unavailable`: the way there is bad: retry
later. `Rejected`: the caller asked for the impossible, and the sentence says what, with the field, the
value and the rule. Our own bugs stay plain exceptions.
"""

from enum import StrEnum


class SkyliftError(Exception):
    """The root of the errors that are part of the product; `code` is stable and documented."""

    code: str = "error"


class TrustError(SkyliftError):
    """Signed data did not verify. `code` is a value of `lifecycle.Reason` where a device reports it."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Unavailable(SkyliftError):
    """Something that should answer does not. `retry_after` is in seconds."""

    code = "unavailable"

    def __init__(self, sentence: str, retry_after: float = 5.0) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class Kind(StrEnum):
    """What sort of impossible; the HTTP edge maps it to a status, the CLI to an exit code."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"


class Rejected(SkyliftError):
    """The caller asked for the impossible.

    `code` is stable (`unknown_group`), the message a whole sentence with the values in it; `field`,
    `value` and `rule` repeat its parts for machines.
    """

    def __init__(
        self,
        code: str,
        sentence: str,
        *,
        kind: Kind = Kind.INVALID,
        field: str | None = None,
        value: object = None,
        rule: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.kind = kind
        self.field = field
        self.value = value
        self.rule = rule


def invalid(field: str, value: object, rule: str, *, code: str = "invalid_value") -> Rejected:
    """A `Rejected` for one field: the sentence is made of field, value and rule."""
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return Rejected(code, f"{field} is {shown}: {rule}", field=field, value=value, rule=rule)
