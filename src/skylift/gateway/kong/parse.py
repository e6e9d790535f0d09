"""Reading Kong's documents: each kind of entity, its fields, and what of them is not here."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from skylift.gateway.access import Secret
from skylift.gateway.errors import nearest
from skylift.gateway.kong import match
from skylift.gateway.kong.absent import ABSENT, BUILT_IN
from skylift.gateway.kong.entities import (
    Deck,
    Entities,
    JwtSecret,
    KongPlugin,
    KongRoute,
    KongService,
    Ref,
    made_id,
    under,
)
from skylift.gateway.kong.plugins import PLUGINS
from skylift.gateway.kong.upstreams import read_target, read_upstream
from skylift.gateway.loading import Document
from skylift.gateway.model import Timeouts, Tls
from skylift.gateway.reading import Fields, texts
from skylift.gateway.tokens import ALGORITHMS

FORMATS = ("1.1", "2.1", "3.0")
ENTITIES = (
    *("services", "routes", "consumers", "plugins", "upstreams", "targets"),
    *("jwt_secrets", "keyauth_credentials", "basicauth_credentials", "acls"),
)
ABSENT_ENTITIES: Mapping[str, str] = {
    "certificates": "certificates are files, named by the gateway's listeners",
    "snis": "certificates are files, named by the gateway's listeners",
    "ca_certificates": "authorities are files, named by the gateway's listeners",
    "vaults": "secrets are not fetched from vaults",
    "hmacauth_credentials": "there is no hmac-auth here",
    "oauth2_credentials": "tokens are not issued here",
    "oauth2_tokens": "tokens are not issued here",
    "consumer_groups": "consumers are grouped by acls",
    "filter_chains": "WebAssembly is not run",
}
_META = ("id", "tags", "created_at", "updated_at", "ws_id")


def read_document(document: Document, found: Entities) -> None:
    """Everything in one document."""
    at = Fields.of(document, found.problems)
    version = at.text("_format_version")
    if version and version not in FORMATS:
        at.wrong("_format_version", version, f"it must be one of {', '.join(FORMATS)}")
    at.ignored("_transform", "_comment", "_ignore")
    for name in ("_workspace", "_konnect"):
        if at.has(name):
            at.note("one_workspace", f"{name}: there is one gateway here, whatever it is called there", name)
    found.deck = _deck(at, unmarked=version in FORMATS[:2])
    _no_vaults(at)
    for name, why in ABSENT_ENTITIES.items():
        at.lacking(name, why)
    for name, read in _ENTITIES.items():
        for child in at.tables(name):
            read(child, found)
    at.done()


DEFAULTS = ("service", "route", "upstream", "target")


def _deck(at: Fields, *, unmarked: bool) -> Deck:
    """decK's own fields: defaults of entities, configurations that plugins share."""
    info = at.must_table("_info")
    info.ignored("select_tags", "default_lookup_tags")
    table = info.must_table("defaults")
    defaults = {kind: dict(inner.value) for kind in DEFAULTS if (inner := table.table(kind))}
    table.done()
    info.done()
    return Deck(unmarked, defaults, {name: dict(each.value) for name, each in at.named("_plugin_configs")})


def _no_vaults(at: Fields) -> None:
    """A reference to a vault is no value: whoever took it for one would have a secret that all know."""
    rule = 'secrets are not fetched from vaults; ${{ env "DECK_NAME" }} reads the environment'
    for path, text in texts(at.value):
        if text.startswith("{vault://"):
            at.wrong(path, text, rule, "not_supported")


def _ref(at: Fields, name: str, given: str | None) -> Ref | str | None:
    """A reference to a parent: given by nesting, or a name, or a table with a name or an id."""
    if given is not None:
        at.lacking(name, "it stands inside its parent already")
        return given
    value = at.raw(name)
    if isinstance(value, dict):
        inner = at.must_table(name)
        value = inner.text("name") or inner.text("username") or inner.text("id")
        inner.done()
    if value is None or isinstance(value, str):
        return Ref(value, at, name) if value else None
    at.wrong(name, value, "it must be a name or an id")
    return None


def read_service(at: Fields, found: Entities) -> None:
    found.deck.fill("service", at)
    at.ignored(*_META)
    protocol, host, port, path = _address(at)
    name = at.text("name") or host
    found.once("service", name, at)
    at.lacking("client_certificate", "a certificate for the backend is not shown here")
    at.lacking("ca_certificates", "authorities are files of the gateway")
    at.ignored("tls_verify_depth")
    verify = at.flag("tls_verify", False)
    milliseconds = {
        field: at.whole(field, 60_000, low=1, high=2**31 - 2) / 1000
        for field in ("connect_timeout", "read_timeout", "write_timeout")
    }
    timeouts = Timeouts(
        milliseconds["connect_timeout"], max(milliseconds["read_timeout"], milliseconds["write_timeout"])
    )
    found.services.append(
        KongService(
            name,
            at.text("id") or made_id("services", name),
            protocol,
            host,
            port,
            path or "/",
            at.whole("retries", 5, high=32767),
            timeouts,
            Tls(verify, host) if protocol in ("https", "grpcs") else None,
            at.flag("enabled", True),
            at.origin,
        )
    )
    for route in at.tables("routes"):
        read_route(route, found, service=name)
    for plugin in at.tables("plugins"):
        read_plugin(plugin, found, service=name)
    at.done()


PROTOCOLS = ("http", "https", "grpc", "grpcs")


def _address(at: Fields) -> tuple[str, str, int, str]:
    """protocol, host, port, path: from `url`, or each by its name."""
    url = at.text("url")
    if url:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
            at.wrong("url", url, "its port must be a number from 1 to 65535")
        if parts.scheme not in PROTOCOLS or not parts.hostname:
            at.wrong("url", url, f"it must be {', '.join(f'{p}://' for p in PROTOCOLS)} and a host")
        for name in ("protocol", "host", "port", "path"):
            at.lacking(name, "url says it already")
        secure = parts.scheme in ("https", "grpcs")
        return parts.scheme or "http", parts.hostname or "", port or (443 if secure else 80), parts.path
    protocol = at.word("protocol", PROTOCOLS, "http")
    host = at.text("host", required=True)
    return protocol, host, at.whole("port", 80, high=65535), at.path_text("path")


def read_route(at: Fields, found: Entities, service: str | None = None) -> None:
    found.deck.fill("route", at)
    at.ignored(*_META, "response_buffering", "request_buffering")
    protocols = at.each(
        "protocols",
        lambda name: None if name in PROTOCOLS else f"it must be one of {', '.join(PROTOCOLS)}",
        ("http", "https"),
    )
    paths = match.paths(at, unmarked=found.deck.unmarked)
    hosts, headers = match.hosts(at), match.headers(at)
    methods = at.each("methods", lambda name: None if match.METHOD.fullmatch(name) else "it is upper case")
    snis = at.texts("snis")
    if not any((at.value.get("paths"), at.value.get("hosts"), at.value.get("headers"), methods, snis)):
        at.wrong("", None, "at least one of methods, hosts, headers, paths (https: snis) must be given")
    name = at.text("name") or f"route-{len(found.routes) + 1}"
    found.once("route", name, at)
    for name_of in ("sources", "destinations"):
        at.lacking(name_of, "it belongs to streams; an http route has no sources or destinations")
    at.lacking("expression", "routes are written with paths, hosts, headers, methods")
    at.lacking("priority", "it belongs to expressions")
    if at.word("path_handling", ("v0", "v1"), "v0") == "v1":
        at.wrong("path_handling", "v1", "only v0 is known here; v1 is deprecated in Kong", "not_supported")
    found.routes.append(
        KongRoute(
            name,
            at.text("id") or made_id("routes", name),
            _ref(at, "service", service),
            tuple(
                dict.fromkeys("https" if protocol in ("https", "grpcs") else "http" for protocol in protocols)
            ),
            methods,
            hosts,
            headers,
            paths,
            snis,
            at.flag("strip_path", True),
            at.flag("preserve_host", False),
            at.whole("regex_priority", 0),
            _redirect_status(at),
            at.origin,
        )
    )
    for plugin in at.tables("plugins"):
        read_plugin(plugin, found, route=name)
    at.done()


def _redirect_status(at: Fields) -> int:
    status = at.whole("https_redirect_status_code", 426)
    if status not in (426, 301, 302, 307, 308):
        at.wrong("https_redirect_status_code", status, "it must be one of 426, 301, 302, 307, 308")
    return status


def read_plugin(
    at: Fields,
    found: Entities,
    *,
    route: str | None = None,
    service: str | None = None,
    consumer: str | None = None,
) -> None:
    at.ignored(*_META, "instance_name", "_comment")
    spoken = set(at.texts("protocols", ("http", "https")))
    if not {"http", "https"} <= spoken:
        rule = "a plugin runs for http and https: routes have protocols of their own"
        at.wrong("protocols", ", ".join(sorted(spoken)), rule, "not_supported")
    at.lacking("ordering", "plugins run in Kong's own order")
    at.lacking("condition", "a plugin runs for its route, service or consumer")
    at.lacking("consumer_group", "consumers are grouped by acls")
    name = at.text("name", required=True)
    refs = [_ref(at, "route", route), _ref(at, "service", service), _ref(at, "consumer", consumer)]
    enabled = at.flag("enabled", True)
    config = _config(at, found)
    at.done()
    plugin = PLUGINS.get(name)
    if plugin is None:
        _not_a_plugin(at, name)
        return
    base64_secrets = config.value.get("secret_is_base64") is True
    policy = plugin.read(config)
    config.done()
    if refs[2] is not None and not plugin.per_consumer:
        at.wrong("consumer", None, f"{name} runs before it is known who comes: not for one consumer")
    if not enabled:
        at.note("disabled", f"plugin {name} is off")
        return  # as if it were not there: a wider one runs
    found.plugins.append(KongPlugin(name, policy, refs[0], refs[1], refs[2], base64_secrets, at.origin))


def _config(at: Fields, found: Entities) -> Fields:
    """`config`, over the one of `_plugin_configs` that `_config` names."""
    config, shared = at.must_table("config"), at.text("_config")
    if shared and shared not in found.deck.configs:
        hint = nearest(shared, found.deck.configs)
        at.wrong("_config", shared, "there is no such entry of _plugin_configs", "unknown_config", hint)
    config.value = under(found.deck.configs.get(shared, {}), config.value)
    return config


def _not_a_plugin(at: Fields, name: str) -> None:
    if name in BUILT_IN:
        at.note("built_in", f"plugin {name}: {BUILT_IN[name]}")
    elif name in ABSENT:
        at.wrong("name", name, f"this plugin is not here: {ABSENT[name]}", "not_supported")
    elif name:
        hint = nearest(name, (*PLUGINS, *ABSENT))
        at.wrong("name", name, "there is no such plugin", "unknown_plugin", hint)


def read_consumer(at: Fields, found: Entities) -> None:
    at.ignored(*_META)
    at.lacking("groups", "consumers are grouped by acls")
    custom, own_id = at.text("custom_id"), at.text("id")
    name = at.text("username") or custom
    if not name:
        at.wrong("username", None, "username or custom_id must be given", "missing_field")
        name = f"consumer-{len(found.consumers) + 1}"
    found.once("consumer", name, at)
    found.consumers[name] = at
    found.consumer_ids |= {key: name for key in (custom, own_id) if key}
    for kind, read in _CREDENTIALS.items():
        for child in at.tables(kind):
            read(child, found, name)
    for plugin in at.tables("plugins"):
        read_plugin(plugin, found, consumer=name)
    for absent in ("hmacauth_credentials", "oauth2_credentials", "mtls_auth_credentials"):
        at.lacking(absent, "there is no such way to authenticate here")
    at.done()


def _owner(at: Fields, consumer: str | None) -> Ref | str:
    at.ignored(*_META)
    ref = _ref(at, "consumer", consumer)
    if ref is None:
        at.wrong("consumer", None, "it must name its consumer", "missing_field")
    return ref or ""


def read_jwt_secret(at: Fields, found: Entities, consumer: str | None = None) -> None:
    owner = _owner(at, consumer)
    algorithm = at.word("algorithm", ALGORITHMS, "HS256")
    key, secret, public = at.text("key", required=True), at.text("secret"), at.block("rsa_public_key")
    if algorithm.startswith("HS") and not secret:
        at.wrong("secret", None, f"{algorithm} needs a secret; none is made up here", "missing_field")
    if not algorithm.startswith("HS") and "-----BEGIN" not in public:
        at.wrong("rsa_public_key", None, f"{algorithm} needs a public key in PEM", "missing_field")
    found.once("jwt_secret", key, at)
    found.secrets.append((owner, lambda name: JwtSecret(key, secret, algorithm, public, name, at)))
    at.done()


def read_key(at: Fields, found: Entities, consumer: str | None = None) -> None:
    owner, key = _owner(at, consumer), at.text("key", required=True)
    at.lacking("ttl", "a key in a file does not expire: it would live again at every reload")
    found.once("key", key, at)
    found.keys.append((owner, lambda name: Secret(key, name)))
    at.done()


def read_password(at: Fields, found: Entities, consumer: str | None = None) -> None:
    owner, user = _owner(at, consumer), at.text("username", required=True)
    digest = hashlib.sha1(at.text("password", required=True).encode(), usedforsecurity=False).digest()
    value = "{SHA}" + base64.b64encode(digest).decode()
    found.once("user", user, at)
    found.users.append((owner, lambda name: Secret(value, name, user)))
    at.done()


def read_acl(at: Fields, found: Entities, consumer: str | None = None) -> None:
    owner = _owner(at, consumer)
    found.groups.append((owner, at.text("group", required=True)))
    at.done()


def _read_upstream(at: Fields, found: Entities) -> None:
    found.deck.fill("upstream", at)
    made = read_upstream(at)
    found.once("upstream", made.model.name, at)
    found.upstreams[made.model.name] = made


def _read_target(at: Fields, found: Entities) -> None:
    ref = _ref(at, "upstream", None)
    if ref is None:
        at.wrong("upstream", None, "it must name its upstream", "missing_field")
        return
    found.deck.fill("target", at)
    found.targets.append((ref, read_target(at)))
    at.done()


_CREDENTIALS: Mapping[str, Callable[..., None]] = {
    "jwt_secrets": read_jwt_secret,
    "keyauth_credentials": read_key,
    "basicauth_credentials": read_password,
    "acls": read_acl,
}
_ENTITIES: Mapping[str, Callable[..., None]] = {
    "services": read_service,
    "routes": read_route,
    "consumers": read_consumer,
    "plugins": read_plugin,
    "upstreams": _read_upstream,
    "targets": _read_target,
    **_CREDENTIALS,
}
