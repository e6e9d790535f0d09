"""From the event loop to the writer, many at a time.

What comes while the writer is at work waits here and then goes together: one future between the threads for
hundreds of items, where one each cost more than the writing itself. Nothing waits when nobody is before it.
"""

import asyncio
from concurrent.futures import Future
from typing import Any

from skylift.store.db import Database, Many

MOST = 500  # items per journey: where a commit stops gaining

_Waiting = list[tuple[Any, "asyncio.Future[Any]"]]


class Gather:
    """One deed for many (`Database.submit_to`), as the event loop uses it."""

    def __init__(self, database: Database, many: Many) -> None:
        self._database, self._many = database, many
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: _Waiting = []
        self._under_way = False

    def do(self, item: Any) -> "asyncio.Future[Any]":
        """Its answer, once that is durable; raises what refuses it, or `Unavailable`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was under way belongs to the loop it began in
            self._loop, self._waiting, self._under_way = loop, [], False
        if not self._waiting and not self._under_way:
            loop.call_soon(self._send)
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((item, answer))
        return answer

    def _send(self) -> None:
        loop, some = self._loop, self._waiting[:MOST]
        self._waiting = self._waiting[MOST:]
        self._under_way = bool(some)
        if loop is None or not some:
            return

        def done(result: "Future[list[Any]]") -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._arrived, loop, some, result)

        self._database.submit_to(self._many, [item for item, _ in some]).add_done_callback(done)

    def _arrived(self, loop: asyncio.AbstractEventLoop, some: _Waiting, result: "Future[list[Any]]") -> None:
        if loop is self._loop:
            self._send()
        error = result.exception()
        answers = [error] * len(some) if error is not None else result.result()
        for (_, waiting), answer in zip(some, answers, strict=True):
            if waiting.done():  # whoever asked has gone
                continue
            if isinstance(answer, BaseException):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
