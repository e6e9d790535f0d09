"""What a load run measures: latencies in buckets of equal ratio, and a line of numbers for every second.

Memory does not grow with the number of requests: a histogram is 1,300 counters (buckets 1 % wide, 10
microseconds to 4 minutes), a second is one small row.
"""

from array import array
from dataclasses import dataclass, field
from enum import StrEnum
from math import log

_RATIO = log(1.01)
_SMALLEST_S = 1e-5
_BUCKETS = 1_720  # 1.01 ** 1720 * 10 us is 4.5 minutes; what is slower counts as that
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Kind(StrEnum):
    """A kind of request."""

    POLL = "poll"
    REPORT = "report"
    DOWNLOAD = "download"
    ENROLL = "enroll"


class Histogram:
    """Durations in seconds; percentiles within 1 %."""

    def __init__(self) -> None:
        self._counts = array("Q", [0]) * _BUCKETS
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        at = int(log(seconds / _SMALLEST_S) / _RATIO) if seconds > _SMALLEST_S else 0
        self._counts[min(at, _BUCKETS - 1)] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, percent: float) -> float | None:
        """The duration that `percent` of all stay within; None where nothing was measured."""
        wanted = self.count * percent / 100
        reached = 0
        for at, n in enumerate(self._counts):
            reached += n
            if n and reached >= wanted:
                return float(min(self.longest, _SMALLEST_S * 1.01 ** (at + 1)))
        return None

    def view(self) -> dict[str, float | int | None]:
        """Milliseconds, by percentile."""
        shown: dict[str, float | int | None] = {"count": self.count}
        for percent in PERCENTILES:
            found = self.percentile(percent)
            shown[f"p{percent:g}_ms"] = None if found is None else round(found * 1e3, 3)
        return shown | {"max_ms": round(self.longest * 1e3, 3)}


@dataclass
class Second:
    """One second of the run. Percentiles are of that second's answers, in milliseconds."""

    at: int
    polls: int = 0
    reports: int = 0
    offers: int = 0
    lost: int = 0
    in_flight: int = 0
    queued: int = 0
    percentiles: dict[str, dict[str, float]] = field(default_factory=dict)  # kind -> p50, p99


class Meter:
    """`since_due`: from the moment a request was due to its answer, waiting for a connection included (what a
    device feels, and what an overloaded server cannot hide by answering late); `since_sent`: the server's."""

    def __init__(self) -> None:
        self.since_due = {kind: Histogram() for kind in Kind}
        self.since_sent = {kind: Histogram() for kind in Kind}
        self.seconds: list[Second] = []
        self.now = Second(0)
        self._answers: dict[Kind, list[float]] = {kind: [] for kind in Kind}

    def answered(self, kind: Kind, since_due: float, since_sent: float) -> None:
        """Seconds."""
        self.since_due[kind].add(since_due)
        self.since_sent[kind].add(since_sent)
        self._answers[kind].append(since_due)
        if kind is Kind.POLL:
            self.now.polls += 1
        elif kind is Kind.REPORT:
            self.now.reports += 1

    def turn(self, in_flight: int, queued: int) -> None:
        """A second is over."""
        second, self.now = self.now, Second(self.now.at + 1)
        second.in_flight, second.queued = in_flight, queued
        for kind, answers in self._answers.items():
            if answers:
                answers.sort()
                second.percentiles[kind.value] = {
                    "p50": round(answers[len(answers) // 2] * 1e3, 3),
                    "p99": round(answers[int(len(answers) * 0.99)] * 1e3, 3),
                }
                answers.clear()
        self.seconds.append(second)

    def view(self) -> dict[str, dict[str, dict[str, float | int | None]]]:
        return {
            kind.value: {
                "since_due": self.since_due[kind].view(),
                "since_sent": self.since_sent[kind].view(),
            }
            for kind in Kind
            if self.since_due[kind].count
        }
