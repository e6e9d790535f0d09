"""From the event loop to the writer, many at a time.

What comes while the writer is at work waits here and then goes together: one future between the threads for
hundreds of items, where one each cost more than the writing itself. Nothing waits when nobody is before it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from skylift.store.db import Database, Many

MOST = 500  # items per journey: where a commit stops gaining

Tell = Callable[[Any], None]  # its answer; or the exception that refuses it, or `Unavailable`
_Waiting = list[tuple[Any, Tell]]


class Gather:
    """One deed for many (`Database.submit_to`), as the event loop uses it."""

    def __init__(self, database: Database, many: Many) -> None:
        self._database, self._many = database, many
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: _Waiting = []
        self._under_way = False

    def do(self, item: Any) -> "asyncio.Future[Any]":
        """Its answer, once that is durable; raises what refuses it, or `Unavailable`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def tell(found: Any) -> None:
            if answer.done():  # whoever asked has gone
                return
            if isinstance(found, BaseException):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        self.take(item, tell)
        return answer

    def take(self, item: Any, tell: Tell) -> None:
        """The same without a future. `tell` is called in the event loop, later."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was under way belongs to the loop it began in
            self._loop, self._waiting, self._under_way = loop, [], False
        if not self._waiting and not self._under_way:
            loop.call_soon(self._send)
        self._waiting.append((item, tell))

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
        for (_, tell), answer in zip(some, answers, strict=True):
            try:
                tell(answer)
            except Exception as e:  # noqa: BLE001 - a mistake of ours; the others have their answers all the same
                loop.call_exception_handler({"message": "an answer was not told", "exception": e})
