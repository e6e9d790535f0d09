"""The device's own key: on disk before it is told, renewed in time, never lost to a power cut."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.identity import Identity
from skylift.trust import identity, keys
from skylift.trust.authority import Authorities
from skylift.trust.identity import Purpose

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Cut(Exception):
    """The power failed."""


class CutDisk(Disk):
    """The power fails at operation number `at`, in the middle of it where that is a write."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def _do(self, operation: str, path: Path, act: Callable[[], Any], data: bytes = b"") -> Any:
        self.count += 1
        if self.count == self.at:
            raise Cut
        return act()


class Bench:
    """A device's folder, and the server's side as far as certificates go: which key it has now."""

    def __init__(self, home: Path) -> None:
        self.config = Config("http://127.0.0.1:1", "dev-1", "board", home, home, claim="clm_x")
        (home / "shared").mkdir()
        self.authorities = Authorities.open(home / "ca", "of the test", NOW)
        self.public = ""
        self.issued = 0

    def identity(self, disk: Disk | None = None) -> Identity:
        return Identity(disk or Disk(), self.config)

    def answer(self, asked: dict[str, str], now: datetime = NOW) -> dict[str, Any]:
        public = identity.read_request("csr", asked["csr"], "dev-1")
        if self.public not in ("", public):
            proof = asked.get("proof", "")
            assert identity.verifies(self.public, Purpose.RENEWAL, asked["csr"].encode(), proof)
        self.public = public
        self.issued += 1
        made = self.authorities.issue("dev-1", public, now)
        dates = {"issued_at": made.issued_at.isoformat(), "expires_at": made.expires_at.isoformat()}
        return {"certificate": made.pem, **dates}

    def certified(self, mine: Identity) -> bool:
        """Whether key and certificate belong together, and to what the server knows."""
        if mine.file is None:
            return False
        body = mine.file.read_bytes()
        key = identity.point(x509.load_pem_x509_certificate(body).public_key())  # type: ignore[arg-type]
        return key == identity.public_of(body) == self.public


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_device_that_is_enrolled_without_a_claim_makes_no_key_unless_told(bench: Bench) -> None:
    from dataclasses import replace

    bench.config = replace(bench.config, claim="")
    assert not bench.identity().is_due(NOW)
    bench.config = replace(bench.config, own_key=True)
    assert bench.identity().is_due(NOW)


def test_the_certificate_is_renewed_when_a_third_of_its_life_is_left(bench: Bench) -> None:
    mine = bench.identity()
    assert mine.is_due(NOW)
    assert mine.take(bench.answer(mine.renewal()))
    assert bench.certified(mine)
    first = bench.public
    mine = bench.identity()  # the next boot
    assert not mine.is_due(NOW + timedelta(days=240))
    assert mine.is_due(NOW + timedelta(days=245))
    assert mine.take(bench.answer(mine.renewal(), NOW + timedelta(days=245)))
    assert bench.certified(mine)
    assert bench.public != first
    assert not bench.identity().is_due(NOW + timedelta(days=245))


def test_an_answer_for_another_key_or_device_is_not_kept(bench: Bench) -> None:
    mine = bench.identity()
    asked = mine.renewal()
    other = identity.public_of(identity.new_key())
    dates = {"issued_at": NOW.isoformat(), "expires_at": NOW.isoformat()}
    for wrong in (
        {},
        {"certificate": 7, **dates},
        {"certificate": "no PEM", **dates},
        {"certificate": bench.authorities.issue("dev-1", other, NOW).pem, **dates},
        {"certificate": bench.authorities.issue("dev-2", bench.public or other, NOW).pem, **dates},
        {**bench.answer(asked), "expires_at": "soon"},
    ):
        assert not mine.take(wrong)
    assert mine.file is None
    assert mine.take(bench.answer(asked))


@pytest.mark.parametrize("renews", [False, True], ids=["first", "next"])
def test_a_power_cut_at_any_write_costs_the_same_question_again(tmp_path: Path, renews: bool) -> None:
    at, finished = 0, False
    while not finished:
        at += 1
        home = tmp_path / f"{at}"
        home.mkdir()
        bench = Bench(home)
        if renews:
            mine = bench.identity()
            mine.take(bench.answer(mine.renewal()))
        late = NOW + timedelta(days=300 if renews else 0)
        disk = CutDisk(at)
        try:
            mine = bench.identity(disk)
            mine.take(bench.answer(mine.renewal(), late))
            finished = True
        except Cut:
            again = bench.identity()
            while again.is_due(late):
                assert again.take(bench.answer(again.renewal(), late))
            assert bench.certified(again)
            assert not (home / "shared" / "device.next.pem").exists()
    assert at > 8  # it was cut often


def test_a_signed_report_bears_a_number_that_grows_also_over_a_lost_file(bench: Bench) -> None:
    mine = bench.identity()
    mine.take(bench.answer(mine.renewal()))
    numbers = []
    for lost in (False, False, True):
        if lost:
            (bench.config.state_dir / "shared" / "sequence").unlink()
        body, signature = mine.signed({"state": "complete"})
        assert identity.verifies(bench.public, Purpose.REPORT, body, signature)
        numbers.append(json.loads(body)["sequence"])
    assert numbers == sorted(set(numbers))
    (bench.config.state_dir / "shared" / "sequence").write_text(str(1 << 60))  # nonsense on the disk
    assert json.loads(mine.signed({})[0])["sequence"] < 1 << 53


def test_the_authoritys_keys_never_lie_in_clear(tmp_path: Path) -> None:
    from skylift.core.errors import Rejected

    made = Authorities.open(tmp_path, "long enough", NOW)
    made.make(2, NOW)
    path = tmp_path / "device-ca-1.pem"
    clear = keys.load(path, b"long enough")
    path.unlink()
    keys.save(clear, path, None)  # as an earlier server left it
    assert Authorities.open(tmp_path, "long enough", NOW).newest == 2
    assert all(b"ENCRYPTED" in path.read_bytes() for path in tmp_path.glob("device-ca-*.pem"))
    with pytest.raises(Rejected, match=r"device-ca-2\.pem"):
        Authorities.open(tmp_path, "another", NOW)
    Authorities.open(tmp_path, "another", NOW, former="long enough")
    assert Authorities.open(tmp_path, "another", NOW).issue("dev-1", own_public(), NOW)
    with pytest.raises(Rejected, match=r"device-ca-2\.pem"):
        Authorities.open(tmp_path, "long enough", NOW)
    with pytest.raises(AssertionError):
        Authorities.open(tmp_path, "", NOW)


def own_public() -> str:
    return identity.public_of(identity.new_key())
