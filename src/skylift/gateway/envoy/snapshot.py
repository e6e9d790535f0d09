"""One configuration as Envoy takes it: plain JSON values, in the order in which they may be swapped.

A snapshot is compared by digest, so that publishing what is there already does nothing. `problems` are ours
to find: Envoy takes a route to a cluster that is not there, and answers 503.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

Json = dict[str, Any]

TYPE = "type.googleapis.com/"
LISTENER = TYPE + "envoy.config.listener.v3.Listener"
ROUTES = TYPE + "envoy.config.route.v3.RouteConfiguration"
CLUSTER = TYPE + "envoy.config.cluster.v3.Cluster"
SECRET = TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret"
HCM = TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


PLACE = "@place/"  # begins a path in the directory of whoever runs this Envoy
SDS = "skylift:secret"  # a value with this name alone is a secret, by its name


@dataclass(frozen=True)
class Snapshot:
    """Listeners, route tables and clusters, each a tuple of Envoy's JSON objects with a name. `secrets`:
    Envoy's too, each read where a value says `{SDS: NAME}`. `helper`: the rules of the helper beside Envoy,
    by name."""

    listeners: tuple[Json, ...]
    routes: tuple[Json, ...]
    clusters: tuple[Json, ...]
    secrets: tuple[Json, ...] = ()
    helper: Json = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        return _digest(_written((self.listeners, self.routes, self.clusters, self.secrets, self.helper)))

    def with_clusters(self, further: Iterable[Json]) -> "Snapshot":
        """This one, and clusters of another that it does not name: while routes are swapped both are
        there."""
        names = {cluster["name"] for cluster in self.clusters}
        kept = tuple(cluster for cluster in further if cluster["name"] not in names)
        return replace(self, clusters=self.clusters + kept)

    def problems(self) -> Iterator[str]:
        """What Envoy would take without a word and get wrong."""
        there = {cluster["name"] for cluster in self.clusters}
        for wanted, where in _clusters_named(self.routes, "routes"):
            if wanted not in there:
                yield f"{where} names the cluster {wanted!r}, which is not there"
        tables = {table["name"] for table in self.routes}
        for listener in self.listeners:
            for table in _tables_named(listener):
                if table not in tables:
                    yield f"listener {listener['name']!r} names the route table {table!r}, which is not there"


@dataclass(frozen=True, slots=True)
class Discovery:
    """A file that Envoy reads. `version`: the digest of what it lists."""

    version: str
    body: bytes


def discovery(listed: list[Json]) -> Discovery:
    """The file of these resources with their `@type`. Written out once and without indentation: a thousand
    routes are a megabyte, and Python indents by itself, without the encoder in C."""
    resources = _written(listed)
    version = _digest(resources)
    return Discovery(version, f'{{"version_info":"{version}","resources":{resources}}}\n'.encode())


def _written(what: object) -> str:
    return json.dumps(what, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def static_resources(snapshot: Snapshot) -> Json:
    """The same as one static configuration, for `envoy --mode validate`, which follows no files."""
    tables = {table["name"]: table for table in snapshot.routes}
    return {
        "listeners": [_inlined(listener, tables) for listener in snapshot.listeners],
        "clusters": list(snapshot.clusters),
        "secrets": list(snapshot.secrets),
    }


def _inlined(what: Any, tables: Mapping[str, Json]) -> Any:
    """The same value with each reference to a route table replaced by the table."""
    if isinstance(what, dict):
        if "rds" in what:
            rest = {name: _inlined(value, tables) for name, value in what.items() if name != "rds"}
            return {**rest, "route_config": tables[what["rds"]["route_config_name"]]}
        if SDS in what:
            return {"name": what[SDS]}
        if str(what.get("path", "")).startswith(PLACE):  # only looked at: nothing is opened
            return {**what, "path": "/" + what["path"].removeprefix(PLACE)}
        return {name: _inlined(value, tables) for name, value in what.items()}
    if isinstance(what, list):
        return [_inlined(value, tables) for value in what]
    return what


def _tables_named(what: Any) -> Iterator[str]:
    if isinstance(what, dict):
        if "rds" in what:
            yield what["rds"]["route_config_name"]
        for value in what.values():
            yield from _tables_named(value)
    elif isinstance(what, list):
        for value in what:
            yield from _tables_named(value)


def _clusters_named(what: Any, where: str) -> Iterator[tuple[str, str]]:
    """(cluster, where) of every action in route tables."""
    if isinstance(what, dict):
        place = f"{where} {what['name']!r}" if isinstance(what.get("name"), str) else where
        for name, value in what.items():
            if name == "cluster" and isinstance(value, str):
                yield value, place
            elif name == "weighted_clusters":
                yield from ((part["name"], place) for part in value["clusters"])
            else:
                yield from _clusters_named(value, place)
    elif isinstance(what, list | tuple):
        for value in what:
            yield from _clusters_named(value, where)
