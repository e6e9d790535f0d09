"""Counting requests on paper: the reference of every rate limit, exact, without a clock.

`take(limit, state, now)` gives the verdict and the next state. Whoever counts for real (the data plane, the
rate limit service with its shared store) is held against these functions in tests.

- FIXED_WINDOW: windows aligned to the UTC calendar (a minute begins at :00). Kong reads, then counts, and
  counts refused requests too.
- TOKEN_BUCKET: `burst` tokens at most, refilled without steps at count / seconds; starts full. With
  `max_delay` a request may borrow the next token and wait for it (Traefik).
- SLIDING_WINDOW: never more than `count` in any stretch of `seconds`; refused requests leave no trace.
- LEAKY_BUCKET: a meter (GCRA): drains at count / seconds, holds `burst`; what would overflow is refused. With
  `max_delay` a queue: one leaves after the other, evenly; who would have to wait for longer is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from skylift.gateway.policies import Algorithm, Limit

DAY = 86_400


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of one limit and key. Which fields count depends on the algorithm: window start and
    count; tokens and when they were so; the times of what passed; the time the bucket is empty at."""

    since: float = 0.0
    level: float = 0.0
    times: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining` after this request; `reset`: seconds until the limit is whole again (fixed, leaky) or one
    more may pass; `retry_after`: seconds until this request would have passed, 0 where it did."""

    passed: bool
    limit: Limit
    remaining: int
    reset: float
    retry_after: float = 0.0
    delay: float = 0.0  # it passes, but is held for so long


@dataclass(frozen=True, slots=True)
class Rules:
    """`counts_refused`: a refused request counts too. `max_delay`: seconds a token bucket holds a request
    which comes too early, before it refuses, and the longest that a leaky bucket makes one wait."""

    counts_refused: bool = False
    max_delay: float = 0.0


STRICT = Rules()


def window_start(seconds: float, now: float) -> float:
    """The start of the calendar window that `now` is in: months and years by the calendar, weeks by days."""
    moment = datetime.fromtimestamp(now, UTC)
    if seconds >= 365 * DAY:
        return datetime(moment.year, 1, 1, tzinfo=UTC).timestamp()
    if seconds >= 30 * DAY:
        return datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()
    return now - now % seconds


def _fixed(limit: Limit, state: State | None, now: float, rules: Rules) -> tuple[Verdict, State]:
    start = window_start(limit.seconds, now)
    used = state.level if state and state.since == start else 0.0
    passed = used < limit.count
    reset = max(1.0, limit.seconds - (now - start))
    after = used + 1 if passed or rules.counts_refused else used
    left = max(0, int(limit.count - used) - 1)
    return Verdict(passed, limit, left, reset, 0.0 if passed else reset), State(start, after)


def _tokens(limit: Limit, state: State | None, now: float, rules: Rules) -> tuple[Verdict, State]:
    size, rate = limit.burst or limit.count, limit.count / limit.seconds
    have = size if state is None else min(size, state.level + (now - state.since) * rate)
    wait = max(0.0, (1 - have) / rate)
    passed = wait <= rules.max_delay + 1e-9  # what float arithmetic loses of a token is no reason to refuse
    left = have - 1 if passed else have
    reset = max(0.0, (1 - left) / rate) if left < 1 else 0.0
    verdict = Verdict(passed, limit, max(0, int(left + 1e-9)), reset, 0.0 if passed else wait, wait * passed)
    return verdict, State(now, left)


def _sliding(limit: Limit, state: State | None, now: float, rules: Rules) -> tuple[Verdict, State]:
    kept = tuple(at for at in (state.times if state else ()) if at > now - limit.seconds)
    passed = len(kept) < limit.count
    times = (*kept, now) if passed or rules.counts_refused else kept
    wait = 0.0 if passed or not kept else kept[-limit.count] + limit.seconds - now
    oldest = times[0] + limit.seconds - now if times else 0.0
    left = max(0, limit.count - len(times))
    return Verdict(passed, limit, left, oldest, wait), State(times=times[-limit.count :])


def _leaky(limit: Limit, state: State | None, now: float, rules: Rules) -> tuple[Verdict, State]:
    step, size = limit.seconds / limit.count, limit.burst or limit.count
    empty_at = max(now, state.since if state else now)
    if rules.max_delay:
        return _queued(limit, empty_at, now, rules.max_delay)
    level = (empty_at - now) / step
    passed = level + 1 <= size + 1e-9
    after = empty_at + step if passed else empty_at
    wait = 0.0 if passed else (level + 1 - size) * step
    left = max(0, int(size - (after - now) / step + 1e-9))
    return Verdict(passed, limit, left, max(0.0, after - now), wait), State(since=after)


def _queued(limit: Limit, empty_at: float, now: float, longest: float) -> tuple[Verdict, State]:
    wait, step = empty_at - now, limit.seconds / limit.count
    passed = wait <= longest + 1e-6  # what seconds since 1970 lose as floats
    after = empty_at + step if passed else empty_at
    retry = 0.0 if passed else wait - longest
    return Verdict(passed, limit, 0, after - now, retry, wait * passed), State(since=after)


Taker = Callable[[Limit, State | None, float, Rules], tuple[Verdict, State]]
_TAKERS: Mapping[Algorithm, Taker] = {
    Algorithm.FIXED_WINDOW: _fixed,
    Algorithm.TOKEN_BUCKET: _tokens,
    Algorithm.SLIDING_WINDOW: _sliding,
    Algorithm.LEAKY_BUCKET: _leaky,
}


def take(
    algorithm: Algorithm, limit: Limit, state: State | None, now: float, rules: Rules = STRICT
) -> tuple[Verdict, State]:
    """One request at `now` (seconds since 1970) against one limit; None is a key never seen."""
    return _TAKERS[algorithm](limit, state, now, rules)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request against all limits of a policy. `tightest`: the one with the least left, which the headers
    speak of; of equals the longest."""

    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def tightest(self) -> Verdict:
        return min(self.verdicts, key=lambda v: (v.passed, v.remaining, -v.limit.seconds))

    @property
    def retry_after(self) -> int:
        """Whole seconds until every limit would let it pass; 0 where it passed."""
        return ceil(max(verdict.retry_after for verdict in self.verdicts))


def take_all(
    algorithm: Algorithm,
    limits: tuple[Limit, ...],
    states: tuple[State | None, ...],
    now: float,
    rules: Rules = STRICT,
) -> tuple[Outcome, tuple[State | None, ...]]:
    """One request against several limits at once. Refused by one, it takes nothing from the others either,
    unless refused requests count."""
    asked = [take(algorithm, limit, state, now, rules) for limit, state in zip(limits, states, strict=True)]
    outcome = Outcome(tuple(verdict for verdict, _ in asked))
    if outcome.passed or rules.counts_refused:
        return outcome, tuple(state for _, state in asked)
    return outcome, states
