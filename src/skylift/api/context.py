"""What the routes need, handed to them as one frozen value; never a global."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from starlette.requests import Request

from skylift.api.metrics import Metrics
from skylift.core.deadlines import Deadlines
from skylift.engine.blobs import Blobs
from skylift.engine.checkin import Checkin
from skylift.engine.identity import Authorities
from skylift.engine.oidc import Oidc
from skylift.engine.online import OnlineKeys
from skylift.engine.proofs import Proofs, Word
from skylift.engine.sealed import Seal
from skylift.engine.serving import Tally
from skylift.engine.uploads import Uploads
from skylift.store.db import Connection, Database
from skylift.store.gather import Gather

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """The server's parts, as far as HTTP touches them. `poke`: something changed, let the loop look.
    `settled`: an update ended well; nothing else did."""

    database: Database
    blobs: Blobs
    online: OnlineKeys
    checkin: Checkin
    deadlines: Deadlines
    clock: Callable[[], datetime]
    poke: Callable[[], None]
    settled: Callable[[], None]
    seen: Callable[[int, datetime], None]
    reports: Gather
    health: Callable[[int, Word], None]
    metrics: Metrics
    proofs: Proofs
    authorities: Authorities
    seal: Seal
    revocations: Callable[[], str]
    max_body: int
    max_image: int
    max_trust_file: int
    uploads: Uploads
    tally: Tally
    can_mail: bool = False
    oidc: Oidc | None = None
    approval_above: int | None = None
    certificates_required: bool = False
    metrics_public: bool = False
    poll_in_loop: bool = field(default=True)  # an indexed SQLite read is cheaper than a thread

    def write(self, deed: Callable[[Connection], T]) -> T:
        """Durable when it returns; for routes that run in a thread."""
        result = self.database.write(deed)
        self.poke()
        return result

    async def write_async(self, deed: Callable[[Connection], T]) -> T:
        """The same for routes that live in the event loop; it does not poke."""
        return await asyncio.wrap_future(self.database.submit(deed))


def context_of(request: Request) -> Context:
    found: Context = request.app.state.context
    return found
