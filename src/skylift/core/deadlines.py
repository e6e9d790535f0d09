"""Silence is a failure: how long a device may stay in each stage without a word.

A report of the same stage (progress) begins its time anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from skylift.core.lifecycle import UpdateState

S = UpdateState

# pending: the device was told at a check and only has to begin: three polls of 5 minutes, a reboot, spare.
# downloading: progress comes every few percent; an hour without any is a dead link.
# installing: writing and verifying the slot of a 4 GB image at 4 MB/s, read back: half an hour.
# validating: reboot (up to 5 min), three boot attempts with health checks of up to 3 min each, fallback.
DEFAULTS: Mapping[UpdateState, timedelta] = MappingProxyType(
    {
        S.PENDING: timedelta(minutes=30),
        S.DOWNLOADING: timedelta(minutes=60),
        S.INSTALLING: timedelta(minutes=30),
        S.VALIDATING: timedelta(minutes=20),
    }
)


@dataclass(frozen=True)
class Deadlines:
    """The time each open stage may take."""

    stages: Mapping[UpdateState, timedelta] = field(default_factory=lambda: DEFAULTS)

    def at(self, state: UpdateState, now: datetime) -> datetime | None:
        """When a device that entered or refreshed `state` now is overdue; None for final states."""
        stage = self.stages.get(state)
        return None if stage is None else now + stage
