"""Kong's entities as they stand in files, before anything is looked up.

Nested children are read where they stand and given their parent; at top level they name it. A plugin, a
credential or a target may stand in another file than what it names.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

from skylift.gateway.access import JwtKey, Policy, Secret
from skylift.gateway.conditions import Test
from skylift.gateway.errors import Problem, nearest
from skylift.gateway.kong.upstreams import KongUpstream
from skylift.gateway.model import Consumer, Origin, Target, Timeouts, Tls
from skylift.gateway.reading import Fields, Problems
from skylift.gateway.text import Text

Scope = tuple[str | None, str | None, str | None]  # route, service, consumer
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Ref:
    """A name that must lead to another entity, and where it stands."""

    name: str
    at: Fields
    field: str


@dataclass(frozen=True, slots=True)
class KongService:
    name: str
    id: str
    protocol: str
    host: str
    port: int
    path: str
    retries: int
    timeouts: Timeouts
    tls: Tls | None
    enabled: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class KongRoute:
    name: str
    id: str
    service: Ref | str | None
    schemes: tuple[str, ...]
    methods: tuple[str, ...]
    hosts: tuple[tuple[Text, str], ...]
    headers: tuple[Test, ...]
    paths: tuple[Text, ...]
    snis: tuple[str, ...]
    strip_path: bool
    preserve_host: bool
    regex_priority: int
    redirect_status: int
    origin: Origin

    def problem(self, rule: str, code: str = "invalid_value") -> Problem:
        return Problem(self.origin.file, self.origin.path, rule, code=code)


@dataclass(frozen=True, slots=True)
class KongPlugin:
    name: str
    policy: Policy
    route: Ref | str | None
    service: Ref | str | None
    consumer: Ref | str | None
    base64_secrets: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Attached:
    """A plugin with its references looked up."""

    name: str
    policy: Policy
    scope: Scope
    base64_secrets: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class JwtSecret:
    """`jwt_secrets`, before `secret_is_base64` says how its secret is read."""

    key: str
    secret: str
    algorithm: str
    public_key: str
    consumer: str
    at: Fields

    def model(self, in_base64: bool) -> JwtKey:
        secret = self.secret.encode()
        if in_base64 and self.algorithm.startswith("HS"):
            try:
                secret = base64.b64decode(self.secret, validate=True)
            except (ValueError, binascii.Error):
                self.at.wrong("secret", None, "it must be base64: the jwt plugin says secret_is_base64")
        hmac = self.algorithm.startswith("HS")
        return JwtKey(
            self.key,
            (self.algorithm,),
            secret=secret if hmac else b"",
            public_key="" if hmac else self.public_key,
            consumer=self.consumer,
        )


@dataclass
class Deck:
    """What the document that is read says for its own entities. `unmarked`: its format is older than 3.0, so
    that regexes among paths have no mark; `defaults`: fields of each kind; `configs`: of plugins, by name."""

    unmarked: bool = False
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def fill(self, kind: str, at: Fields) -> None:
        """What an entity does not say itself."""
        at.value = under(self.defaults.get(kind, {}), at.value)


def under(defaults: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults, under what is written; tables inside each other too."""
    merged = {**defaults, **value}
    for name in defaults.keys() & value.keys():
        if isinstance(defaults[name], dict) and isinstance(value[name], dict):
            merged[name] = under(defaults[name], value[name])
    return merged


@dataclass
class Entities:
    """Everything of all documents, and the looking up."""

    problems: Problems
    services: list[KongService] = field(default_factory=list)
    routes: list[KongRoute] = field(default_factory=list)
    plugins: list[KongPlugin] = field(default_factory=list)
    consumers: dict[str, Fields] = field(default_factory=dict)
    consumer_ids: dict[str, str] = field(default_factory=dict)  # id or custom_id -> username
    upstreams: dict[str, KongUpstream] = field(default_factory=dict)
    groups: list[tuple[Ref | str, str]] = field(default_factory=list)
    secrets: list[tuple[Ref | str, Callable[[str], JwtSecret]]] = field(default_factory=list)
    keys: list[tuple[Ref | str, Callable[[str], Secret]]] = field(default_factory=list)
    users: list[tuple[Ref | str, Callable[[str], Secret]]] = field(default_factory=list)
    targets: list[tuple[Ref | str, Target]] = field(default_factory=list)
    seen: dict[tuple[str, str], Origin] = field(default_factory=dict)
    deck: Deck = field(default_factory=Deck)

    def look_up_all(self) -> None:
        """Every reference, also of what nobody asks for later: each that leads nowhere is a problem."""
        for route in self.routes:
            self.service_of(route)
        _ = self.attached, self.api_keys, self.passwords, self._jwt_secrets

    # --- looking up ----------------------------------------------------------------------------------

    def look_up(self, ref: Ref | str | None, what: str, known: Mapping[str, str]) -> str | None:
        """The name behind a reference by name or id; a problem where there is none."""
        if ref is None or isinstance(ref, str):
            return ref
        if ref.name in known:
            return known[ref.name]
        hint = nearest(ref.name, known)
        ref.at.wrong(ref.field, ref.name, f"there is no {what} of this name", f"unknown_{what}", hint)
        return None

    @cached_property
    def _services(self) -> dict[str, KongService]:
        return {service.name: service for service in reversed(self.services)}

    @cached_property
    def _service_names(self) -> dict[str, str]:
        return {key: each.name for each in self.services for key in (each.name, each.id)}

    @cached_property
    def _consumer_names(self) -> dict[str, str]:
        return self.consumer_ids | {name: name for name in self.consumers}

    def consumer_named(self, name: str | None, plugin: "Attached") -> str | None:
        """The consumer that a plugin's `anonymous` means, by its name or its id."""
        if name is None or name in self._consumer_names:
            return None if name is None else self._consumer_names[name]
        hint = nearest(name, self._consumer_names)
        where = f"{plugin.origin.path}.config.anonymous"
        rule = "there is no consumer of this name"
        self.problems.found.append(
            Problem(plugin.origin.file, where, rule, name, hint, code="unknown_consumer")
        )
        return None

    def service_of(self, route: KongRoute) -> KongService | None:
        name = self.look_up(route.service, "service", self._service_names)
        return self._services.get(name) if name else None

    def consumer_models(self) -> dict[str, Consumer]:
        known = self._consumer_names
        groups: dict[str, list[str]] = {}
        for ref, group in self.groups:
            name = self.look_up(ref, "consumer", known)
            if name is not None:
                groups.setdefault(name, []).append(group)
        return {
            name: Consumer(
                name,
                at.text("custom_id"),
                at.text("id") or made_id("consumers", name),
                tuple(dict.fromkeys(groups.get(name, ()))),
                origin=at.origin,
            )
            for name, at in self.consumers.items()
        }

    @cached_property
    def attached(self) -> dict[str, dict[Scope, Attached]]:
        """Plugins by name and by what they name."""
        routes = {key: each.name for each in self.routes for key in (each.name, each.id)}
        found: dict[str, dict[Scope, Attached]] = {}
        for plugin in self.plugins:
            scope = (
                self.look_up(plugin.route, "route", routes),
                self.look_up(plugin.service, "service", self._service_names),
                self.look_up(plugin.consumer, "consumer", self._consumer_names),
            )
            here = found.setdefault(plugin.name, {})
            if scope in here:
                rule = f"{plugin.name} is configured for the same by {here[scope].origin}"
                origin = plugin.origin
                self.problems.found.append(Problem(origin.file, origin.path, rule, code="duplicate_plugin"))
            here.setdefault(
                scope,
                Attached(plugin.name, plugin.policy, scope, plugin.base64_secrets, plugin.origin),
            )
        return found

    def _owned(self, entries: list[tuple[Ref | str, Callable[[str], Made]]]) -> list[Made]:
        """What consumers own, made with their names."""
        names = [(self.look_up(ref, "consumer", self._consumer_names), make) for ref, make in entries]
        return [make(name) for name, make in names if name is not None]

    @cached_property
    def api_keys(self) -> tuple[Secret, ...]:
        return tuple(self._owned(self.keys))

    @cached_property
    def passwords(self) -> tuple[Secret, ...]:
        return tuple(self._owned(self.users))

    @cached_property
    def _jwt_secrets(self) -> list[JwtSecret]:
        return self._owned(self.secrets)

    def jwt_keys(self, in_base64: bool) -> tuple[JwtKey, ...]:
        return tuple(secret.model(in_base64) for secret in self._jwt_secrets)

    def once(self, kind: str, name: str, at: Fields) -> None:
        """Names are unique, over all files."""
        if name and (kind, name) in self.seen:
            rule = f"there is one of this name already: {self.seen[kind, name]}"
            at.wrong("name", name, rule, "duplicate_name")
        self.seen[kind, name] = at.origin


def made_id(kind: str, name: str) -> str:
    """A missing id is made from the name, so that a reload keeps it."""
    return str(uuid5(NAMESPACE_URL, f"{kind}:{name}"))
