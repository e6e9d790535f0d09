"""A maintenance window: the hours, and days, in which new offers are made.

Devices that have begun may finish outside it. The window is in the offset its author gave, default UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import Any

from skylift.core.errors import invalid

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to `end` (which may lie past midnight) on `days` (the day it starts)."""

    start: time
    end: time
    days: tuple[str, ...] = DAYS
    utc_offset_minutes: int = 0

    @classmethod
    def parse(cls, field: str, value: Any) -> "Window":
        """From `{"start": "22:00", "end": "04:00", "days": ["mon"], "utc_offset_minutes": 60}`."""
        if not isinstance(value, Mapping):
            raise invalid(field, value, 'an object with "start" and "end" as HH:MM')
        for name in value:
            if name not in ("start", "end", "days", "utc_offset_minutes"):
                raise invalid(
                    f"{field}.{name}", value[name], "is not a field of a window", code="unknown_field"
                )
        start, end = (_clock(f"{field}.{name}", value.get(name)) for name in ("start", "end"))
        if start == end:
            raise invalid(field, str(value["start"]), "start and end differ, or nothing is ever offered")
        days = value.get("days", list(DAYS))
        if not isinstance(days, list) or not days or not set(map(str, days)) <= set(DAYS):
            raise invalid(f"{field}.days", days, f"a list of {', '.join(DAYS)}")
        offset = value.get("utc_offset_minutes", 0)
        if not isinstance(offset, int) or isinstance(offset, bool) or not -840 <= offset <= 840:
            raise invalid(f"{field}.utc_offset_minutes", offset, "between -840 and 840")
        return cls(start, end, tuple(day for day in DAYS if day in days), offset)

    def dump(self) -> dict[str, Any]:
        """The object that `parse` reads."""
        return {
            "start": f"{self.start:%H:%M}",
            "end": f"{self.end:%H:%M}",
            "days": list(self.days),
            "utc_offset_minutes": self.utc_offset_minutes,
        }

    def open_at(self, now: datetime) -> bool:
        """Whether an offer may be made at `now`."""
        here = now.astimezone(timezone(timedelta(minutes=self.utc_offset_minutes)))
        clock = here.time()
        today, yesterday = DAYS[here.weekday()], DAYS[here.weekday() - 1]
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        return (today in self.days and clock >= self.start) or (yesterday in self.days and clock < self.end)


def _clock(field: str, value: Any) -> time:
    try:
        return datetime.strptime(value, "%H:%M").time() if isinstance(value, str) else _no_clock()  # noqa: DTZ007 - a time of day has no zone
    except ValueError as e:
        raise invalid(field, value, "a time of day as HH:MM") from e


def _no_clock() -> time:
    raise ValueError("not a text")
