"""A snapshot brought to Envoy: files by rename, then Envoy's own numbers say whether it took them.

The order matters: new clusters before the routes that name them, old clusters away after. What Envoy refuses
is taken back: the files are the former ones again, and Envoy has never let go of what it had.
"""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylift.core.errors import Rejected, Unavailable
from skylift.gateway.envoy import process
from skylift.gateway.envoy.admin import Admin
from skylift.gateway.envoy.snapshot import (
    CLUSTER,
    LISTENER,
    PLACE,
    ROUTES,
    SDS,
    SECRET,
    Discovery,
    Json,
    Snapshot,
    discovery,
    static_resources,
)
from skylift.gateway.helper.asked import RULES

TAKEN_S = 15.0  # measured: milliseconds; a cluster warms while its name is looked up
LOOK_S = 0.005
EMPTY = Snapshot((), (), ())


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of Envoy's file kinds. `stats`: where its numbers stand."""

    name: str
    type_url: str
    of: Callable[[Snapshot], tuple[Json, ...]]
    stats: str


CDS = _Kind("cds", CLUSTER, lambda s: s.clusters, r"cluster_manager.cds")
LDS = _Kind("lds", LISTENER, lambda s: s.listeners, r"listener_manager.lds")


class Files:
    """The directory that Envoy watches, and the snapshot in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.current = EMPTY
        for kind in ("cds", "lds", "rds", "sds"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        self.write(EMPTY)

    def write(self, snapshot: Snapshot) -> None:
        """All of it at once: for an Envoy that is not there yet."""
        self._beside(snapshot, snapshot.helper)
        for kind in (CDS, LDS):
            self._write(kind.name, kind.name, self._listed(kind, snapshot).body)
        for table in snapshot.routes:
            self._write("rds", table["name"], self._table(table).body)
        self._beside(snapshot, snapshot.helper)
        self.current = snapshot

    def _beside(self, snapshot: Snapshot, rules: Json) -> None:
        """What must be there before Envoy hears of it: secrets, and the helper's rules."""
        for secret in snapshot.secrets:
            self._write("sds", secret["name"], discovery([{"@type": SECRET, **secret}]).body)
        self._write(".", RULES.removesuffix(".json"), json.dumps(rules).encode())

    def _write(self, kind: str, name: str, body: bytes) -> None:
        path = self.root / kind / f"{name}.json"
        if path.exists() and path.read_bytes() == body:
            return
        fresh = path.with_suffix(".new")
        with open(fresh, "wb", opener=_private) as f:
            f.write(body)
            f.flush()
            os.fsync(f.fileno())
        os.replace(fresh, path)

    def publish(self, snapshot: Snapshot, admin: Admin) -> bool:
        """Bring it to a running Envoy. False when it has it already. Raises Rejected, with Envoy's reason,
        when it is refused: what was there before is there still."""
        before = self.current
        if snapshot.digest == before.digest:
            return False
        check(snapshot)
        try:
            self._beside(snapshot, {**before.helper, **snapshot.helper})
            self._step(CDS, snapshot.with_clusters(before.clusters), admin)
            self._tables(snapshot, admin)
            self._step(LDS, snapshot, admin)
            self._step(CDS, snapshot, admin)
            self._beside(snapshot, snapshot.helper)
        except (Rejected, Unavailable):
            self.write(before)
            raise
        self.current = snapshot
        return True

    def _step(self, kind: _Kind, snapshot: Snapshot, admin: Admin) -> None:
        listed = self._listed(kind, snapshot)
        seen = _Watch(admin, kind.stats)
        if seen.version != listed.version:
            self._write(kind.name, kind.name, listed.body)
            seen.wait_for(listed.version)

    def _tables(self, snapshot: Snapshot, admin: Admin) -> None:
        """A table that Envoy follows is confirmed here; a new one comes with its listener."""
        for table in snapshot.routes:
            listed = self._table(table)
            seen = _Watch(admin, rf"http\..*\.rds\.{re.escape(table['name'])}")
            self._write("rds", table["name"], listed.body)
            if seen.there and seen.version != listed.version:
                seen.wait_for(listed.version)

    def _table(self, table: Json) -> Discovery:
        return discovery([self._followed({"@type": ROUTES, **table})])

    def _listed(self, kind: _Kind, snapshot: Snapshot) -> Discovery:
        resources = (self._followed(resource) for resource in kind.of(snapshot))
        return discovery([{"@type": kind.type_url, **resource} for resource in resources])

    def _followed(self, what: Any) -> Any:
        """The same value, each route table and secret that it names to be read from its file, each path in
        the place of this Envoy."""
        if isinstance(what, dict):
            if "route_config_name" in what:
                return {
                    **what,
                    "config_source": process.watched(self.root / "rds", what["route_config_name"]),
                }
            if SDS in what:
                return {"name": what[SDS], "sds_config": process.watched(self.root / "sds", what[SDS])}
            if str(what.get("path", "")).startswith(PLACE):
                return {**what, "path": str(self.root / what["path"].removeprefix(PLACE))}
            return {name: self._followed(value) for name, value in what.items()}
        return [self._followed(value) for value in what] if isinstance(what, list) else what


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Watch:
    """One subscription's numbers, before and after."""

    def __init__(self, admin: Admin, prefix: str) -> None:
        self._admin = admin
        self._pattern = rf"^{prefix}\.(version_text|update_rejected|update_failure)$"
        now = self._read()
        self.there = bool(now)
        self.version = now.get("version_text", "")
        self._refused = _count(now)

    def _read(self) -> dict[str, str]:
        found = self._admin.stats(self._pattern)
        return {name.rpartition(".")[2]: value for name, value in found.items()}

    def wait_for(self, version: str) -> None:
        until = time.monotonic() + TAKEN_S
        while True:
            now = self._read()
            if now.get("version_text") == version:
                return
            if _count(now) > self._refused:
                raise Rejected("envoy_refuses", f"Envoy refused an update it had validated ({self._pattern})")
            if time.monotonic() > until:
                raise Unavailable(f"Envoy has not taken the update within {TAKEN_S:.0f} s", 1.0)
            time.sleep(LOOK_S)


def _count(stats: dict[str, str]) -> int:
    return sum(int(stats.get(name, 0)) for name in ("update_rejected", "update_failure"))


def check(snapshot: Snapshot) -> None:
    """What can be known before anything runs. Raises Rejected."""
    problem = next(snapshot.problems(), None)
    if problem:
        raise Rejected("envoy_refuses", problem)
    process.validate(static_resources(snapshot))
