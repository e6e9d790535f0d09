"""What the fleet bench is measured against: each figure with its goal, and whether it is reached."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """At most, or at least, so much; `each` may differ by database."""

    figure: str
    each: dict[str, float]
    least: bool = False
    said: str = ""

    def reached(self, kind: str, value: float) -> bool:
        return value >= self.each[kind] if self.least else value <= self.each[kind]


def _both(much: float) -> dict[str, float]:
    return {"sqlite": much, "postgresql": much}


GOALS = (
    Goal("create_s", _both(1.0), said="s to create a deployment on all"),
    Goal("pause_ms", _both(20.0), said="ms for pause, resume, abort"),
    Goal("tick_ratio_1m_to_1k", _both(2.0), said="a tick over all, against one over 1,000"),
    Goal("poll_cpu_vs_nginx", {"sqlite": 3.0, "postgresql": 4.0}, said="CPU of a poll, kept-alive, to nginx"),
    Goal("poll_cpu_vs_nginx_new_connection", _both(2.0), said="the same on a new connection"),
    Goal("herd_core_percent", _both(60.0), said="% of a core for a million devices' polls"),
    Goal("poll_p99_ms", _both(25.0), said="ms, their 99th percentile"),
    Goal("herd_failed", _both(0), said="of them refused or failed"),
    Goal("tls_p99_ms", _both(100.0), said="ms, the same through Envoy's TLS"),
    Goal("tls_failed", _both(0), said="of those refused or failed"),
    Goal("reports_per_s", _both(10_000), least=True, said="durable final reports a second"),
    Goal("server_rss_mb", _both(300), said="MB of memory"),
)
CLEAN = {"reports_lost": 0, "devices_doubled": 0, "phases_wrong": 0, "counters_equal": True}


def judged(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row per goal and database, of what was measured."""
    for goal in GOALS:
        for kind, value in told.get(goal.figure, {}).items():
            yield {
                "figure": goal.figure,
                "database": kind,
                "value": value,
                "goal": goal.each[kind],
                "reached": goal.reached(kind, value),
                "said": goal.said,
            }
    for figure, clean in CLEAN.items():
        if figure in told:
            value = told[figure]
            row = {"figure": figure, "database": "", "value": value, "goal": clean, "reached": value == clean}
            yield row | {"said": f"{figure.replace('_', ' ')} after {told['kills']} kills"}


def shown(row: dict[str, Any]) -> str:
    sign = ">=" if row["figure"] == "reports_per_s" else "=" if row["figure"] in CLEAN else "<="
    verdict = "reached" if row["reached"] else "MISSED"
    return (
        f"  {row['said']:45} {row['database']:11} {row['value']!s:>9}   {sign} {row['goal']!s:<7} {verdict}"
    )
