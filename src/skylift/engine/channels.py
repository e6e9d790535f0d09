"""Where people are told: webhooks, mail addresses, chats. Made, changed, tried, and sent to again.

A webhook's signing secret is shown once; it lies sealed in the database, as does the whole address of a chat,
which is a secret itself. Renewed, the old secret signs beside the new one for a day.
"""

import base64
import json
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from skylift.core import telling
from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import check_name, mint
from skylift.core.telling import Told
from skylift.engine.sealed import Seal
from skylift.store import channels, events
from skylift.store.channels import Channel, Delivery
from skylift.store.db import Connection

KINDS = ("webhook", "mail", "chat")
DEFAULT_TEMPLATE = {"text": "{sentence} {link}"}
MAX_CHANNELS, MAX_ADDRESS, MAX_TEMPLATE = 100, 2000, 4000
OLD_SECRET = timedelta(days=1)
_MAIL = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,189}", re.ASCII)
_URL = re.compile(r"https?://[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewChannel:
    """What somebody asks for."""

    name: str
    kind: str
    address: str
    template: str | None = None
    wants: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    """What of a channel is sealed."""

    address: str
    secret: str = ""
    previous: str = ""
    previous_until: str = ""

    @classmethod
    def of(cls, seal: Seal, channel: Channel) -> "Secrets":
        return cls(**json.loads(seal.read(channel.sealed, _purpose(channel.id))))

    def sealed(self, seal: Seal, channel_id: str) -> str:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return seal.close(json.dumps(found), _purpose(channel_id))

    def signing(self, now: datetime) -> list[str]:
        """The secrets that sign now, the newest first."""
        old = self.previous and datetime.fromisoformat(self.previous_until) > now
        return [self.secret, *([self.previous] if old else [])]


def _purpose(channel_id: str) -> str:
    return f"channel {channel_id}"


def add(
    conn: Connection, seal: Seal, new: NewChannel, can_mail: bool, actor: str, now: datetime
) -> tuple[str, str]:
    """(id, signing secret) of a new channel; the secret, which only webhooks have, is shown this once."""
    check_name("name", new.name)
    if new.kind not in KINDS:
        raise invalid("kind", new.kind, f"one of {', '.join(KINDS)}")
    if new.kind == "mail":
        _check_mail(new.address, can_mail)
    else:
        _check_url(new.address)
    if channels.find(conn, new.name) is not None:
        raise Rejected(
            "channel_exists",
            f"name is {new.name!r}: there is a channel of that name",
            kind=Kind.CONFLICT,
            field="name",
            value=new.name,
            rule="a name no channel has",
        )
    if len(channels.everything(conn)) >= MAX_CHANNELS:
        raise invalid("channels", MAX_CHANNELS, f"at most {MAX_CHANNELS}")
    template = _template(new)
    secret = _new_secret() if new.kind == "webhook" else ""
    channel_id = mint("chn", now, secrets.token_bytes(5))
    sealed = Secrets(new.address, secret).sealed(seal, channel_id)
    shown = _shown(new.kind, new.address)
    wants = telling.check_wants(new.wants)
    row = Channel(
        channel_id, new.name, new.kind, shown, sealed, template, wants, now, actor, None, "", 0, None
    )
    channels.insert(conn, row)
    said = {"name": new.name, "kind": new.kind, "address": shown, "wants": wants}
    events.record(conn, actor, "channel.create", channel_id, said, now)
    return channel_id, secret


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _check_mail(address: str, can_mail: bool) -> None:
    if not can_mail:
        raise Rejected(
            "no_smtp",
            "kind is 'mail': this server has no smtp_url to send mail by",
            kind=Kind.CONFLICT,
            field="kind",
            value="mail",
            rule="set smtp_url and mail_from",
        )
    if not _MAIL.fullmatch(address):
        raise invalid("address", address, "one mail address, such as ops@example.com")


def _check_url(address: str) -> None:
    rule = f"http:// or https://, a host, at most {MAX_ADDRESS} printable characters"
    if len(address) > MAX_ADDRESS or not _URL.fullmatch(address):
        raise invalid("address", address, rule)
    try:
        where = urlsplit(address)
        named = where.hostname and (where.port is None or where.port > 0)
    except ValueError:
        named = False
        where = urlsplit("")
    if not named:
        raise invalid("address", address, rule)
    if where.username is not None or where.fragment:
        raise invalid("address", _shown("chat", address), "no user, no password, no #fragment")


def _shown(kind: str, address: str) -> str:
    """What people may see of it. A chat's path is its password."""
    if kind != "chat":
        return address
    where = urlsplit(address)
    port = f":{where.port}" if where.port else ""
    return f"{where.scheme}://{where.hostname}{port}/…"


def _template(new: NewChannel) -> Any:
    if new.kind != "chat":
        if new.template:
            raise invalid("template", new.template[:40], "only a chat has one")
        return None
    if not new.template:
        return DEFAULT_TEMPLATE
    rule = f'JSON with "{{sentence}}" in a text, at most {MAX_TEMPLATE} characters'
    try:
        found = json.loads(new.template) if len(new.template) <= MAX_TEMPLATE else None
    except (ValueError, RecursionError) as e:
        raise invalid("template", new.template, rule) from e
    words = {"sentence": "\x00", "type": "", "link": ""}
    if not isinstance(found, dict) or "\\u0000" not in json.dumps(telling.filled(found, words)):
        raise invalid("template", new.template, rule)
    return found


def find(conn: Connection, name: str) -> Channel:
    """By id or name, or `Rejected` (not found)."""
    found = channels.find(conn, name)
    if found is None:
        raise Rejected(
            "unknown_channel",
            f"channel is {name!r}: there is no such channel",
            kind=Kind.NOT_FOUND,
            field="channel",
            value=name,
            rule="names a channel",
        )
    return found


def set_disabled(
    conn: Connection, name: str, disabled: bool, actor: str, now: datetime, why: str = ""
) -> None:
    """Nothing more is said there, or something again."""
    found = find(conn, name)
    if (found.disabled_at is not None) == disabled:
        return
    values = {"disabled_at": now if disabled else None, "disabled_why": why if disabled else ""}
    channels.change(conn, found.id, failures=0, quiet_until=None, **values)
    before = {"disabled": found.disabled_at is not None}
    said = {"disabled": disabled, **({"why": why} if why else {})}
    events.record(conn, actor, "channel.disabled", found.id, said, now, before=before)


def set_wants(conn: Connection, name: str, wants: list[str] | None, actor: str, now: datetime) -> None:
    """What it hears from now on."""
    found = find(conn, name)
    checked = telling.check_wants(wants)
    channels.change(conn, found.id, wants=checked)
    before = {"wants": found.wants}
    events.record(conn, actor, "channel.wants", found.id, {"wants": checked}, now, before=before)


def renew_secret(conn: Connection, seal: Seal, name: str, actor: str, now: datetime) -> str:
    """A webhook's new signing secret, shown this once; for a day the old one signs beside it."""
    found = find(conn, name)
    if found.kind != "webhook":
        raise invalid("channel", name, "only a webhook has a signing secret")
    had = Secrets.of(seal, found)
    secret = _new_secret()
    new = Secrets(had.address, secret, had.secret, (now + OLD_SECRET).isoformat())
    channels.change(conn, found.id, sealed=new.sealed(seal, found.id))
    events.record(conn, actor, "channel.secret", found.id, {"renewed": True}, now)
    return secret


def remove(conn: Connection, name: str, actor: str, now: datetime) -> None:
    """With its delivery log; what is on its way goes nowhere."""
    found = find(conn, name)
    channels.delete(conn, found.id)
    before = {"name": found.name, "kind": found.kind, "address": found.address}
    events.record(conn, actor, "channel.delete", found.id, {"deleted": True}, now, before=before)


# --- deliveries --------------------------------------------------------------------------------------


def test(conn: Connection, name: str, actor: str, now: datetime) -> Delivery:
    """Say something there, to see whether it arrives."""
    found = find(conn, name)
    _check_open(found)
    sentence = f"this is a test of the channel {found.name}, asked for by {actor}"
    body = telling.message(Told.TEST, sentence, now, {"by": actor})
    channels.change(conn, found.id, quiet_until=None)
    pk = channels.put(conn, found.id, mint("msg", now, secrets.token_bytes(10)), body, now)
    return delivery(conn, pk)


def replay(conn: Connection, pk: int, actor: str, now: datetime) -> Delivery:
    """The same message once more, under its own id: whoever had it knows it again."""
    found = delivery(conn, pk)
    _check_open(find(conn, found.channel_id))
    channels.change(conn, found.channel_id, quiet_until=None)
    again = channels.put(conn, found.channel_id, found.message_id, found.body, now)
    said = {"delivery": pk, "message": found.message_id}
    events.record(conn, actor, "channel.replay", found.channel_id, said, now)
    return delivery(conn, again)


def _check_open(found: Channel) -> None:
    if found.disabled_at is not None:
        raise Rejected(
            "channel_disabled",
            f"channel is {found.name!r}: it is disabled",
            kind=Kind.CONFLICT,
            field="channel",
            value=found.name,
            rule="an enabled channel",
        )


def delivery(conn: Connection, pk: int) -> Delivery:
    found = channels.delivery(conn, pk)
    if found is None:
        raise Rejected(
            "unknown_delivery",
            f"delivery is {pk}: there is no such delivery",
            kind=Kind.NOT_FOUND,
            field="delivery",
            value=pk,
            rule="names a delivery",
        )
    return found
