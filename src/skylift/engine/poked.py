"""What threads share that look at the database again and again: when to look, how to outlast a fault."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from skylift.core.errors import SkyliftError

LONGEST_SLEEP_S = 1.0  # another server's change is seen within this time
BREATH_S = 0.01  # whoever poked answers its own request first


class Poked(threading.Event):
    """Set: something changed. `rest` until then, or until another server may have changed something."""

    def rest(self) -> None:
        if self.wait(LONGEST_SLEEP_S):
            time.sleep(BREATH_S)


@contextmanager
def survived(log: Any, what: str) -> Iterator[None]:
    """What goes wrong in one look is written down, and the thread goes on: a database that is gone for a
    while says so, and comes back; our own bug in one thing must not end all others."""
    try:
        yield
    except SkyliftError as e:
        log.warning(what, error=str(e))
    except Exception:
        log.exception(what)
