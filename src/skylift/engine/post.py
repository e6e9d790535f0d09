"""The post: carries deliveries to their channels; the outbox's `delivery` handler.

Webhooks are signed as Standard Webhooks says: HMAC-SHA256 over id, time and the very bytes. What does not
arrive is tried again, later each time, for three days; a channel that does not answer is left in peace as a
whole meanwhile, so that a hundred messages do not wait for it a hundred times.

Where a channel leads, an admin says; what it answers is not believed: redirects are not followed, of an
answer the status is read and nothing else, and all of it has fifteen seconds. What a server may reach is a
question for its network (docs/operate/telling.md).
"""

import asyncio
import base64
import hmac
import json
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import structlog

from skylift import __version__
from skylift.core import telling
from skylift.core.errors import SkyliftError, invalid
from skylift.engine import channels as deeds
from skylift.engine.channels import Secrets
from skylift.engine.outbox import Later
from skylift.engine.sealed import Seal
from skylift.store import channels
from skylift.store.channels import DELIVERED, GIVEN_UP, WAITING, Channel, Delivery
from skylift.store.db import Connection, Database

LOG = structlog.get_logger("skylift.post")
PATIENCE_S = 15.0
WAITS = tuple(timedelta(seconds=s) for s in (5, 60, 300, 900, 3000))  # the last one again and again
GIVE_UP = timedelta(days=3)
GONE = 410  # the receiver wants no more, ever
MAX_SUBJECT = 180


@dataclass(frozen=True, slots=True)
class Mail:
    """Where mail is handed in. `smtp://` takes TLS where it is offered, and insists on it before a password;
    `smtps://` begins with it."""

    url: str
    sender: str

    @classmethod
    def read(cls, url: str, sender: str) -> "Mail | None":
        if not url:
            return None
        where = urlsplit(url)
        if where.scheme not in ("smtp", "smtps") or not where.hostname:
            raise invalid("smtp_url", where._replace(netloc=where.hostname or "").geturl(),
                          "smtp://[user:password@]host[:port] or smtps://...")  # fmt: skip
        if not sender or "\n" in sender or "@" not in sender:
            raise invalid("mail_from", sender, "the address that mail comes from; needed with smtp_url")
        return cls(url, sender)


@dataclass(frozen=True, slots=True)
class Undelivered(Exception):
    """It did not arrive; `final`: and never will."""

    answer: str
    final: bool = False


class Post:
    """The handler."""

    def __init__(
        self,
        database: Database,
        seal: Seal,
        clock: Callable[[], datetime],
        mail: Mail | None,
        public_url: str,
    ) -> None:
        self._database = database
        self._seal = seal
        self._clock = clock
        self._mail = mail
        self._public_url = public_url.rstrip("/")
        self._ways: dict[str, Callable[[Delivery, Secrets, Channel], str]] = {
            "webhook": self._webhook,
            "chat": self._chat,
            "mail": self._letter,
        }

    @property
    def can_mail(self) -> bool:
        return self._mail is not None

    def __call__(self, payload: dict[str, Any]) -> None:
        now = self._clock()
        with self._database.read() as conn:
            found = channels.delivery(conn, payload["delivery"])
            channel = channels.find(conn, found.channel_id) if found is not None else None
        if found is None or channel is None or found.state != WAITING:
            return  # the channel is gone, or the answer to an earlier try was written after all
        if channel.disabled_at is not None:
            self._note(found, state=GIVEN_UP, answer="the channel is disabled")
            return
        if channel.quiet_until is not None and channel.quiet_until > now:
            raise Later(f"{channel.name} does not answer", channel.quiet_until)
        self._try(found, channel, now)

    def _try(self, found: Delivery, channel: Channel, now: datetime) -> None:
        try:
            answer = self._ways[channel.kind](found, Secrets.of(self._seal, channel), channel)
        except Undelivered as e:
            self._failed(found, channel, e, now)
        except SkyliftError as e:
            self._failed(found, channel, Undelivered(str(e)), now)
        else:
            self._note(found, state=DELIVERED, answer=answer, attempts=found.attempts + 1, tried_at=now)
            if channel.failures:
                self._database.write(
                    lambda conn: channels.change(conn, channel.id, failures=0, quiet_until=None)
                )

    def _failed(self, found: Delivery, channel: Channel, why: Undelivered, now: datetime) -> None:
        LOG.warning("not delivered", channel=channel.name, delivery=found.pk, answer=why.answer)
        over = why.final or now - found.created_at >= GIVE_UP
        again = now + WAITS[min(channel.failures, len(WAITS) - 1)]

        def deed(conn: Connection) -> None:
            channels.note(
                conn, found.pk, attempts=found.attempts + 1, tried_at=now, answer=why.answer[:300],
                state=GIVEN_UP if over else WAITING,
            )  # fmt: skip
            channels.change(conn, channel.id, failures=channel.failures + 1, quiet_until=again)
            if why.final:
                deeds.set_disabled(conn, channel.id, True, "skylift", now, why.answer)

        self._database.write(deed)
        if not over:
            raise Later(why.answer, again)

    def _note(self, found: Delivery, **values: Any) -> None:
        self._database.write(lambda conn: channels.note(conn, found.pk, **values))

    # --- the ways -----------------------------------------------------------------------------------

    def _webhook(self, found: Delivery, secret: Secrets, channel: Channel) -> str:
        body = json.dumps(found.body, sort_keys=True, separators=(",", ":")).encode()
        now = self._clock()
        headers = signed(found.message_id, now, body, secret.signing(now))
        return asyncio.run(_post(secret.address, body, headers))

    def _chat(self, found: Delivery, secret: Secrets, channel: Channel) -> str:
        words = {"sentence": _sentence(found), "type": found.type, "link": self.link(found)}
        body = json.dumps(telling.filled(channel.template, words)).encode()
        return asyncio.run(_post(secret.address, body, {}))

    def _letter(self, found: Delivery, secret: Secrets, channel: Channel) -> str:
        if self._mail is None:
            raise Undelivered("this server has no smtp_url any more")
        return _hand_in(self._mail, letter(self._mail.sender, secret.address, found, self.link(found)))

    def link(self, found: Delivery) -> str:
        """The page it speaks of; empty where nobody said how people reach this server."""
        data = found.body["data"]
        for kind in ("deployment", "release"):
            if self._public_url and data.get(kind):
                return f"{self._public_url}/ui/{kind}s/{data[kind]}"
        return self._public_url and f"{self._public_url}/ui/"


def _sentence(found: Delivery) -> str:
    sentence: str = found.body["data"]["sentence"]
    return sentence


def signed(message_id: str, now: datetime, body: bytes, keys: list[str]) -> dict[str, str]:
    """Standard Webhooks' three headers."""
    at = str(int(now.timestamp()))
    content = b".".join((message_id.encode(), at.encode(), body))
    signatures = [
        "v1," + base64.b64encode(hmac.digest(base64.b64decode(key.removeprefix("whsec_")), content, "sha256"))
        .decode()
        for key in keys
    ]  # fmt: skip
    return {"webhook-id": message_id, "webhook-timestamp": at, "webhook-signature": " ".join(signatures)}


@cache
def _authorities() -> ssl.SSLContext:
    """Whom TLS trusts here; read once, it takes longer than most answers."""
    return ssl.create_default_context()


async def _post(url: str, body: bytes, headers: dict[str, str]) -> str:
    """What it answered, or `Undelivered`. Fifteen seconds for all of it, however slowly it speaks."""
    named = {"Content-Type": "application/json", "User-Agent": f"Skylift/{__version__}", **headers}
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            httpx2.AsyncClient(timeout=PATIENCE_S, verify=_authorities()) as client,
            client.stream("POST", url, content=body, headers=named) as answer,
        ):
            status = answer.status_code
    except TimeoutError as e:
        raise Undelivered(f"no answer within {PATIENCE_S:g} seconds") from e
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as e:
        raise Undelivered(f"{type(e).__name__}: {e}") from e
    if 200 <= status < 300:
        return str(status)
    if 300 <= status < 400:
        raise Undelivered(f"{status}: redirects are not followed; give the address it leads to")
    raise Undelivered(f"{status}", final=status == GONE)


def letter(sender: str, to: str, found: Delivery, link: str) -> EmailMessage:
    """The mail for this message."""
    sentence = " ".join(_sentence(found).split())
    made = EmailMessage()
    made["From"], made["To"] = sender, to
    made["Subject"] = sentence if len(sentence) <= MAX_SUBJECT else sentence[: MAX_SUBJECT - 1] + "…"
    made["Date"] = format_datetime(found.created_at)
    made["Message-ID"] = make_msgid(found.message_id, domain=sender.rpartition("@")[2].strip("> "))
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(
        "\n\n".join(part for part in (sentence, link, f"{found.type} · {found.message_id}") if part)
    )
    return made


def _hand_in(mail: Mail, made: EmailMessage) -> str:
    where = urlsplit(mail.url)
    tls = ssl.create_default_context()
    host, user = where.hostname or "", unquote(where.username or "")
    try:
        if where.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, where.port or 465, timeout=PATIENCE_S, context=tls)
        else:
            server = smtplib.SMTP(host, where.port or 25, timeout=PATIENCE_S)
        with server:
            server.ehlo()
            if where.scheme == "smtp" and server.has_extn("starttls"):
                server.starttls(context=tls)
            elif where.scheme == "smtp" and user:
                raise Undelivered(f"{host} offers no TLS: the password is not sent in clear")
            if user:
                server.login(user, unquote(where.password or ""))
            server.send_message(made)
    except smtplib.SMTPRecipientsRefused as e:
        code, said = next(iter(e.recipients.values()))
        raise Undelivered(f"{code} {said.decode(errors='replace')}") from e
    except (smtplib.SMTPException, OSError) as e:
        raise Undelivered(f"{type(e).__name__}: {e}") from e
    return "taken by the mail server"


def check_public_url(url: str) -> str:
    """How people reach this server, for links; empty: messages carry none."""
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise invalid("public_url", url, "such as https://ota.example")
    return url.rstrip("/")
