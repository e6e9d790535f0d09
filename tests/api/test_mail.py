"""People are told by mail: through a real mail server, the same sentence, never a password in clear."""

import email
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from conftest import TestClock, certificate
from skylift.core.errors import Rejected
from skylift.engine.post import WAITS, Mail, check_public_url
from skylift.testkit.ports import free_port

from .conftest import Api, closed, opened
from .test_telling import add, carry, log, stopped


@dataclass
class MailServer:
    """What a real SMTP server took."""

    controller: Any = None
    letters: list[EmailMessage] = field(default_factory=list)
    logins: list[bytes] = field(default_factory=list)
    refuse: str = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's
        if self.refuse:
            return self.refuse
        made = email.message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(made, EmailMessage)
        made["X-To"] = ",".join(envelope.rcpt_tos)
        self.letters.append(made)
        return "250 taken"

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login)
        return AuthResult(success=data.password == b"p@ss word")

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.controller.port}"


@contextmanager
def mail_server(**options: Any) -> Iterator[MailServer]:
    """On any free port; with a TLS context it wants TLS and a password before anything else."""
    made = MailServer()
    if "tls_context" in options:
        options |= {"require_starttls": True, "authenticator": made.login, "auth_required": True}
    made.controller = Controller(made, hostname="127.0.0.1", port=free_port(), **options)
    made.controller.start()
    try:
        yield made
    finally:
        made.controller.stop()


@contextmanager
def mailing(tmp_path: Path, clock: TestClock, url: str) -> Iterator[Api]:
    """A server that hands its mail in there, and a channel to the people on duty."""
    given = {"smtp_url": url, "mail_from": "skylift@ota.example", "public_url": "https://ota.example/"}
    made = opened(tmp_path / "mailing", f"sqlite:///{tmp_path / 'mailing.db'}", clock, **given)
    try:
        add(made, "mail", "ops@example.com")
        yield made
    finally:
        closed(made)


def test_mail_carries_the_same_sentence_and_the_way_to_the_page(
    tmp_path: Path, clock: TestClock, image: bytes
) -> None:
    with mail_server() as post, mailing(tmp_path, clock, f"smtp://{post.where}") as api:
        api.hold_ceremony()
        api.publish("1.1.0", image)
        api.check("a", api.device("a"))
        made = stopped(api)
        carry(api)
        sentence = api.get(f"/api/deployments/{made}").json()["sentence"]
        letter = post.letters[-1]
        assert letter["X-To"] == letter["To"] == "ops@example.com"
        assert letter["From"] == "skylift@ota.example"
        assert letter["Subject"] == sentence
        assert letter["Auto-Submitted"] == "auto-generated"
        lines = letter.get_content().splitlines()
        assert lines[:3:2] == [sentence, f"https://ota.example/ui/deployments/{made}"]
        api.post(f"/api/deployments/{made}:abort", {"reason": "evil\r\nBcc: all@example.com\r\n\r\nboo"})
        carry(api)
        assert post.letters[-1]["Bcc"] is None
        assert "evil Bcc: all@example.com boo" in post.letters[-1]["Subject"]


def test_a_password_goes_through_tls_only(
    tmp_path: Path, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, key = certificate(tmp_path, "mail")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(public, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    with mail_server(tls_context=tls) as post:
        with mailing(tmp_path, clock, f"smtp://mailer:p%40ss%20word@{post.where}") as api:
            api.post("/api/channels/the-mail:test")
            carry(api)
            assert log(api)[0]["answer"] == "taken by the mail server"
        assert post.logins == [b"mailer"]
        assert len(post.letters) == 1
    with mail_server() as clear, mailing(tmp_path / "2", clock, f"smtp://mailer:x@{clear.where}") as api:
        api.post("/api/channels/the-mail:test")
        carry(api)
        assert "the password is not sent in clear" in log(api)[0]["answer"]
        assert not clear.letters


def test_what_a_mail_server_refuses_is_in_the_log_and_tried_again(tmp_path: Path, clock: TestClock) -> None:
    with mail_server() as post, mailing(tmp_path, clock, f"smtp://{post.where}") as api:
        post.refuse = "451 come back later"
        api.post("/api/channels/the-mail:test")
        carry(api)
        assert "451" in log(api)[0]["answer"]
        post.refuse = ""
        clock.now += WAITS[0]
        carry(api)
        assert log(api)[0]["state"] == "delivered"


@pytest.mark.parametrize(
    ("url", "sender", "field"),
    [
        ("mail.example", "a@b.example", "smtp_url"),
        ("http://x", "a@b.example", "smtp_url"),
        ("smtp://x", "", "mail_from"),
    ],
)
def test_a_server_with_half_a_mail_setting_does_not_start(url: str, sender: str, field: str) -> None:
    with pytest.raises(Rejected) as refused:
        Mail.read(url, sender)
    assert refused.value.field == field
    with pytest.raises(Rejected, match="public_url"):
        check_public_url("ota.example")
