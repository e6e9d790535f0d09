"""A release is taken back: offered to nobody from this moment, installed by nobody once its keys have signed.

The server stops at once, by its own word: its deployments are aborted with the reason, and no new one is
made. What makes devices refuse is the product's next role without it, which two of three release keys must
sign: until then a server that was taken could still order it.
"""

from datetime import datetime

from skylift.core.deadlines import Deadlines
from skylift.core.errors import invalid
from skylift.core.telling import Told
from skylift.engine import signing, verbs
from skylift.store import channels, events, releases, trustfiles
from skylift.store import deployments as stored
from skylift.store.db import Connection

MAX_REASON = 300


def withdraw(
    conn: Connection, release_id: str, reason: str, actor: str, now: datetime, deadlines: Deadlines
) -> list[str]:
    """The deployments it ended. A release that is withdrawn already changes nothing."""
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        raise invalid("reason", reason[:40], f"says in 1 to {MAX_REASON} characters why")
    release = releases.find(conn, release_id)
    if release is None:
        raise signing.unknown_release(release_id)
    if release.status in (releases.WITHDRAWING, releases.WITHDRAWN):
        return []
    published = release.status == releases.PUBLISHED
    releases.set_status(conn, release_id, releases.WITHDRAWING if published else releases.WITHDRAWN)
    channels.of_release(conn, Told.WITHDRAWN, release_id, now, reason)
    events.record(conn, actor, "release.withdraw", release_id, {"reason": reason}, now)
    _next_role(conn, release_id, release.product, published, now)
    sentence = f"{release.product} {release.version} was withdrawn: {reason}"
    ended = stored.live_of_release(conn, release_id)
    for deployment_id in ended:
        verbs.abort(conn, deployment_id, actor, now, deadlines, sentence)
    return ended


def _next_role(conn: Connection, release_id: str, product: str, published: bool, now: datetime) -> None:
    """Without the release; where it had only been waiting, what else waits begins again."""
    waiting = trustfiles.pending(conn, product)
    others = [other for other in (waiting.release_ids if waiting else []) if other != release_id]
    still = releases.of_status(conn, product, releases.WITHDRAWING)
    if published or others or (waiting is not None and still):
        signing.rebuild(conn, product, others, now)
    elif waiting is not None and release_id in waiting.release_ids:
        trustfiles.drop_pending(conn, product)
