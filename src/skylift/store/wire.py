"""PostgreSQL's wire: the driver, with one message there and one back for each statement.

pg8000 asks three times for a statement with values (parse, describe, execute), waits for each answer, and
reads the statement's text letter by letter at every use. Beside a busy event loop each wait gives the
interpreter away as well. Here

- parse, bind, describe and execute leave together, and are answered together;
- what begins a transaction or a savepoint, releases one, waits for a turn or tells the others (`_LATER`) has
  an answer that nobody reads: it leaves with the statement behind it, and what goes wrong is raised there;
- a statement's text is read once.

Everything else is the driver's. Statements stay unnamed: nothing on the server outlives a change of the
tables.
"""

import selectors
import struct
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pg8000 import legacy
from pg8000.converters import make_params
from pg8000.core import Context
from pg8000.exceptions import DatabaseError, InterfaceError

_LATER = ("begin transaction", "SAVEPOINT ", "RELEASE SAVEPOINT ", "SELECT pg_advisory_xact_lock(", "NOTIFY ")
_STATEMENTS = 1000  # texts that are kept as the server wants them
_NULL = b"\xff\xff\xff\xff"


def _message(code: bytes, body: bytes = b"") -> bytes:
    return code + struct.pack("!i", len(body) + 4) + body


_GO = _message(b"D", b"P\0") + _message(b"E", b"\0\0\0\0\0") + _message(b"S")  # describe, execute, sync
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Wire(legacy.Connection):  # type: ignore[misc] # the driver has no types
    """A connection; used by one thread at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._owed: deque[Any] = deque()  # said, and not heard yet
        super().__init__(*args, **kwargs)

    @property
    def _in_transaction(self) -> bool:
        return bool(self._owed) or bool(super()._in_transaction)

    def cursor(self) -> "_Cursor":
        return _Cursor(self)

    def execute_simple(self, statement: str) -> Any:
        context = Context(statement)
        self.send_QUERY(statement)
        if statement.startswith(_LATER):
            self._owed.append(context)
            return context
        return self._hear(context)

    def execute_unnamed(
        self, statement: str, vals: Sequence[Any] = (), oids: Sequence[int] = (), stream: Any = None
    ) -> Any:
        if stream is not None:
            raise InterfaceError("COPY is not spoken here")
        encoding = self._client_encoding
        kinds = struct.pack(f"!H{len(oids)}i", len(oids), *(max(oid, 0) for oid in oids))
        values = [_value(value, encoding) for value in make_params(self.py_types, vals)]
        parse = b"\0%s\0%s" % (statement.encode(encoding), kinds)
        bind = b"\0\0\0\0%s%s\0\0" % (struct.pack("!H", len(values)), b"".join(values))
        self._say(_message(b"P", parse) + _message(b"B", bind) + _GO)
        return self._hear(Context(statement))

    def _say(self, messages: bytes) -> None:
        if self._sock is None:
            raise InterfaceError("connection is closed")
        try:
            self._sock.write(messages)
        except OSError as e:
            raise InterfaceError("network error") from e

    def _hear(self, context: Any) -> Any:
        """The answers to all that was said, `context`'s the last. What went wrong first is raised, once all
        are there."""
        try:
            self._sock.flush()
        except OSError as e:
            raise InterfaceError("network error") from e
        wrong: Exception | None = None
        owed, self._owed = self._owed, deque()
        for each in (*owed, context):
            try:
                self.handle_messages(each)
            except DatabaseError as e:
                wrong = wrong or e
        if wrong is not None:
            raise wrong
        return context

    def is_lost(self) -> bool:
        """Whether the server has hung up, or said something that nobody asked: its last words. Looks at the
        socket and costs no round trip."""
        if self._usock is None:
            return True
        with _Selector() as ready:
            ready.register(self._usock, selectors.EVENT_READ)
            return bool(ready.select(0))


class _Cursor(legacy.Cursor):  # type: ignore[misc] # the driver has no types
    _input_oids: Sequence[int]

    def execute(self, operation: str, args: Sequence[Any] = (), stream: Any = None) -> "_Cursor":
        wire = self._c
        if wire is None:
            raise InterfaceError("Cursor closed")
        if wire._sock is None:
            raise InterfaceError("connection is closed")
        try:
            if not wire._in_transaction and not wire.autocommit:
                wire.execute_simple("begin transaction")
            if args or stream is not None:
                self._context = wire.execute_unnamed(_numbered(operation), args, self._input_oids, stream)
            else:
                self._context = wire.execute_simple(operation)
        except DatabaseError as e:
            raise _named(e) from e
        self._row_iter = iter(self._context.rows or ())
        self._input_oids = ()
        return self


@lru_cache(maxsize=_STATEMENTS)
def _numbered(operation: str) -> str:
    """With `$1`, `$2` and so on where the values go."""
    statement: str = legacy.convert_paramstyle("format", operation, ())[0]
    return statement


def _value(value: str | None, encoding: str) -> bytes:
    if value is None:
        return _NULL
    said = value.encode(encoding)
    return struct.pack("!i", len(said)) + said


# By the code's class. Of all rules that a row may break the driver knows 23505 alone: not 23502 (a column is
# missing), 23503 (what it names is not there), 23P01 (an index by hash has one like it).
_KINDS: dict[str, Any] = {"23": legacy.IntegrityError, "28": legacy.InterfaceError}


def _named(error: DatabaseError) -> Exception:
    """The driver's exception for the server's code."""
    told = error.args[0]
    code = told.get("C", "") if isinstance(told, dict) else ""
    found: Exception = _KINDS.get(code[:2], legacy.ProgrammingError)(told)
    return found
