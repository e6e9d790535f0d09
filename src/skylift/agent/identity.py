"""The device's own key and certificate: made here, renewed before they run out, used to sign what counts.

In `shared`, which no update touches: `device.pem` (private key, then certificate: one file, so that they
always belong together), `device.next.pem` (the next key while it is being certified), `identity.json` (the
dates of the certificate), `sequence` (of signed reports). The private key goes nowhere. A key is on disk
before the server hears of it: an answer that gets lost, or a power cut, costs nothing but the same question.

The library for it weighs half a second of start-up: it is loaded when there is something to sign or to ask.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from skylift.agent.config import Config
from skylift.agent.disk import Disk, read_json

AGAIN_S = 86400.0  # after an attempt that failed, or a clock that lies
SEQUENCES = 1 << 53  # below it, as every JSON reader can say it


class Identity:
    """One device's. It has a key where it was enrolled with a claim, or is told to have one."""

    def __init__(self, disk: Disk, config: Config, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._disk = disk
        self._device_id = config.device_id
        self._wanted = bool(config.claim) or config.own_key
        self._monotonic = monotonic
        self._not_before = monotonic()
        folder = config.state_dir / "shared"
        self._file, self._next = folder / "device.pem", folder / "device.next.pem"
        self._facts, self._numbers = folder / "identity.json", folder / "sequence"

    # --- what it signs ------------------------------------------------------------------------------

    @property
    def has_key(self) -> bool:
        return self._file.exists()

    @property
    def file(self) -> Path | None:
        """Key and certificate, for TLS; None before there is a certificate."""
        return self._file if self._facts.exists() and self.has_key else None

    def signed(self, said: dict[str, Any], purpose: str = "report") -> tuple[bytes, str]:
        """(body, signature) of a report, or a word of health: with the next number of the sequence, which is
        on disk before it is told. Where the disk forgot it the clock goes on: what was signed before has
        lower numbers."""
        from skylift.trust.identity import Purpose, sign

        known = read_json(self._numbers)
        last = known if isinstance(known, int) and 0 < known < SEQUENCES - 1 else 0
        number = max(last + 1, min(time.time_ns() // 1000, SEQUENCES - 1) if not last else 0)
        self._disk.replace_json(self._numbers, number)
        body = json.dumps(said | {"sequence": number}).encode()
        return body, sign(self._file.read_bytes(), Purpose(purpose), body)

    # --- its certificate ----------------------------------------------------------------------------

    def request(self) -> str | None:
        """The first certificate's request; None where no key is wanted, or there is one."""
        if not self._wanted or self._facts.exists():
            return None
        from skylift.trust.identity import new_key, request

        if not self.has_key:
            self._disk.replace(self._file, new_key())
        return request(self._file.read_bytes(), self._device_id)

    def is_due(self, now: datetime) -> bool:
        """Whether to ask for a certificate: none yet, a third of its life left, or asked already and cut."""
        if self._monotonic() < self._not_before:
            return False
        life = self._life()
        if life is None:
            return self._wanted
        issued, expires = life
        return self._next.exists() or expires - now <= (expires - issued) / 3

    def put_off(self, seconds: float = AGAIN_S) -> None:
        """Asked in vain: not again for so long."""
        self._not_before = self._monotonic() + seconds

    def renewal(self) -> dict[str, str]:
        """What to ask: the first certificate, or the next key's, with the present key's proof."""
        if (first := self.request()) is not None:
            return {"csr": first}
        from skylift.trust.identity import Purpose, new_key, request, sign

        if not self._next.exists():
            self._disk.replace(self._next, new_key())
        asked = request(self._next.read_bytes(), self._device_id)
        return {"csr": asked, "proof": sign(self._file.read_bytes(), Purpose.RENEWAL, asked.encode())}

    def take(self, answer: dict[str, Any]) -> bool:
        """The server's answer: keep the certificate beside its key. False where it holds none for it."""
        certificate, dates = answer.get("certificate"), [answer.get("issued_at"), answer.get("expires_at")]
        source = self._next if self._next.exists() else self._file
        if not isinstance(certificate, str) or not self.has_key:
            return False
        try:
            issued, expires = (datetime.fromisoformat(str(date)) for date in dates)
        except ValueError:
            return False
        from skylift.trust.identity import certifies

        key = source.read_bytes().partition(_END)
        if not certifies(certificate, key[0] + key[1], self._device_id):
            return False
        self._disk.replace(self._file, key[0] + key[1] + b"\n" + certificate.encode())
        self._disk.unlink(self._next)
        facts = {"issued_at": issued.isoformat(), "expires_at": expires.isoformat()}
        self._disk.replace_json(self._facts, facts)
        self.put_off()
        return True

    def _life(self) -> tuple[datetime, datetime] | None:
        facts = read_json(self._facts)
        try:
            issued, expires = (datetime.fromisoformat(facts[name]) for name in ("issued_at", "expires_at"))
        except (TypeError, KeyError, ValueError):
            return None
        return (issued, expires) if timedelta(0) < expires - issued else None


_END = b"-----END PRIVATE KEY-----"
