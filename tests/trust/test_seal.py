"""Sealed secrets: opened under their key, for their purpose, whole."""

from pathlib import Path
from threading import Barrier, Thread

import pytest

from skylift.core.errors import Rejected, Unavailable
from skylift.trust.seal import PREFIX, Seal


def test_a_secret_is_opened_with_its_key_for_its_purpose_only() -> None:
    seal = Seal(bytes(range(32)))
    box = seal.close("JBSWY3DPEHPK3PXP", "code of usr_1")
    assert seal.read(box, "code of usr_1") == "JBSWY3DPEHPK3PXP"
    assert seal.close("JBSWY3DPEHPK3PXP", "code of usr_1") != box
    cut = PREFIX + box.removeprefix(PREFIX)[:-4] + "AAAA"
    for other, text, purpose in (
        (Seal(bytes(32)), box, "code of usr_1"),
        (seal, box, "code of usr_2"),
        (seal, cut, "code of usr_1"),
        (seal, "JBSWY3DPEHPK3PXP", "code of usr_1"),
        (seal, "", "code of usr_1"),
    ):
        with pytest.raises(Unavailable):
            other.read(text, purpose)


def test_of_servers_that_start_together_one_makes_the_key(tmp_path: Path) -> None:
    together, found = Barrier(8), []

    def start() -> None:
        together.wait()
        found.append(Seal.open(tmp_path / "keys").fingerprint)

    threads = [Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert (tmp_path / "keys" / "seal.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["seal.key"]


def test_a_key_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_text("short")
    with pytest.raises(Rejected, match="keys_dir is"):
        Seal.open(tmp_path)
