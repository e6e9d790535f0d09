"""Another attempt for devices that failed or fell back.

Each gets a row, a slot and a signed order of its own, so it is done some at a time: with all of a hundred
thousand in one transaction, every report of the fleet would wait behind them. A server that dies in the
middle has retried some; asked again, it retries the others.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import NamedTuple

from skylift.core.deadlines import Deadlines
from skylift.core.lifecycle import DeploymentStatus, UpdateState
from skylift.engine import moves, verbs
from skylift.store import outbox, updates
from skylift.store.db import Connection, Database

AT_ONCE = 100  # devices in one transaction
OVER = (DeploymentStatus.ABORTED, DeploymentStatus.FAILED, DeploymentStatus.DRAFT)

OrderAgain = Callable[[Connection, int, str, int], None]


class _Asked(NamedTuple):
    """What stays the same from page to page."""

    deployment: str
    actor: str
    now: datetime
    deadlines: Deadlines
    order_again: OrderAgain
    devices: tuple[str, ...] | None


class _Page(NamedTuple):
    """How many got another attempt, and behind which device the next page begins; None at the end."""

    again: int
    after: int | None


def retry(
    database: Database,
    deployment_id: str,
    actor: str,
    now: datetime,
    deadlines: Deadlines,
    order_again: OrderAgain,
    device_ids: tuple[str, ...] | None = None,
) -> int:
    """Failed and rolled-back devices get another attempt; how many. A complete deployment runs again.
    `max_parallel` bounds what the server offers by itself, not what an operator asks for again.

    `order_again(conn, device_pk, deployment_id, attempt)` writes the device's signed order for the attempt.
    """
    asked = _Asked(deployment_id, actor, now, deadlines, order_again, device_ids)
    again, after = 0, -1
    while True:
        page = database.write(partial(_some, asked, after, again > 0))
        again += page.again
        if page.after is None:
            return again
        after = page.after


def _some(asked: _Asked, after: int, told: bool, conn: Connection) -> _Page:
    """One page. `told`: that it was retried is on record already."""
    found = verbs.load(conn, asked.deployment)
    if found.status in OVER:
        sentence = "only a running, paused or complete deployment can be retried"
        raise verbs.conflict("not_retryable", found, sentence)
    again = 0
    page = updates.failed_of(conn, asked.deployment, asked.devices, after, AT_ONCE)
    for update in page:
        if not updates.take_slot(conn, update.device_pk, asked.deployment, update.attempt + 1, None):
            continue  # it is busy with another deployment
        moved = moves.move(conn, update, UpdateState.PENDING, asked.now, asked.deadlines)
        if moved is not None:
            asked.order_again(conn, update.device_pk, asked.deployment, moved.attempt)
            again += 1
    if again and not told:
        runs = {"status": "running", "status_reason": ""}
        values = runs if found.status is DeploymentStatus.COMPLETE else {}
        verbs.change(conn, found, asked.actor, "retry", asked.now, **values)
    bell = {"deployment": asked.deployment, "phase": None}
    if again and not outbox.is_waiting(conn, "doorbell", bell):
        outbox.put(conn, "doorbell", bell, asked.now)
    return _Page(again, page[-1].device_pk if len(page) == AT_ONCE else None)
