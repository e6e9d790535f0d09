"""Prometheus: what a person on call wants to see, and nothing per device."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skylift.store import counters, deployments, devices, outbox, pieces
from skylift.store.db import Database

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _Counts(Collector):
    """Read from the database when asked, O(deployments)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> list[Metric]:
        with self._database.read() as conn:
            by_status = deployments.count_by_status(conn)
            by_state = counters.by_state(conn)
            waiting = outbox.depth(conn)
            fleet = devices.count(conn, status=devices.ACTIVE)
            made = pieces.by_state(conn)
        statuses = GaugeMetricFamily("skylift_deployments", "Deployments by status.", labels=["status"])
        for status, n in by_status.items():
            statuses.add_metric([status], n)
        states = GaugeMetricFamily("skylift_updates", "Updates by state.", labels=["state"])
        for state, n in by_state.items():
            states.add_metric([state], n)
        files = GaugeMetricFamily("skylift_pieces", "Deltas, packed images.", labels=["kind", "state"])
        size = GaugeMetricFamily("skylift_pieces_bytes", "Of those that are kept.", labels=["kind"])
        for (kind, state), (n, total) in made.items():
            files.add_metric([kind, state], n)
            if state == pieces.MADE:
                size.add_metric([kind], total)
        stats = self._database.stats
        return [
            statuses,
            states,
            files,
            size,
            GaugeMetricFamily("skylift_devices", "Active devices.", value=fleet),
            GaugeMetricFamily("skylift_outbox_depth", "Side effects that wait.", value=waiting),
            GaugeMetricFamily("skylift_writes_waiting", "Writes queued.", value=self._database.waiting()),
            CounterMetricFamily("skylift_commits", "Group commits.", value=stats.commits),
            CounterMetricFamily("skylift_deeds", "Writes in them.", value=stats.deeds),
        ]


class Metrics:
    """One registry per server."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Counts(database))
        self.requests = Histogram(
            "skylift_request_seconds",
            "HTTP requests.",
            ["route", "status"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.reports = Counter(
            "skylift_reports", "Status reports.", ["state", "recorded"], registry=self.registry
        )
        self.refused = Counter(
            "skylift_reports_refused",
            "Words of devices that are not theirs, or not new.",
            ["code"],
            registry=self.registry,
        )
        self.ways = Counter(
            "skylift_ways",
            "Updates' bytes: how they travelled, or why not so (counted by this server).",
            ["way", "reason"],
            registry=self.registry,
        )
        self.offers = Counter("skylift_checks", "Checks.", ["answer"], registry=self.registry)
        # Looking a label's counter up costs more than counting.
        self.reported = cache(lambda state, recorded: self.reports.labels(state, str(recorded).lower()))
        self.requested = cache(lambda route, status: self.requests.labels(route, str(status)))

    def text(self) -> bytes:
        return generate_latest(self.registry)
