"""What is half signed, about to expire, or expired, as `skylift trust status` says it, with the days left."""

import re
import sys
from typing import Any

import pytest

from skylift.cli.app import run

from .conftest import Api

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@ON_SQLITE
def test_what_is_due_is_plain_to_see(api: Api, image: bytes, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("SKYLIFT_SERVER", str(api.client.base_url))
    monkeypatch.setenv("SKYLIFT_TOKEN", api.admin)
    monkeypatch.setattr(sys, "argv", ["skylift", "trust", "status"])

    def status() -> tuple[dict[tuple[str, str], tuple[int, str]], str]:
        """(repository, role) -> days left and state; and the sentences beside the table."""
        capsys.readouterr()
        assert run() == 0
        said = capsys.readouterr()
        row = re.compile(r"^(image|director) +(\S+) +(\d+) +(-?\d+) +(good|about to expire|EXPIRED) +(.+)$")
        found = [match.groups() for line in said.out.splitlines() if (match := row.match(line.strip()))]
        return {(repo, role): (int(days), state) for repo, role, _, days, state, _ in found}, said.err

    api.hold_ceremony()
    api.publish("1.0.0", image)
    waiting = api.draft("1.1.0")
    api.upload(waiting, image + b"2")
    api.post(f"/api/releases/{waiting}:seal")
    api.sign(2)
    found, said = status()
    assert found["image", "root"] == (365, "good")
    assert found["image", "targets"] == (180, "good")
    assert found["director", "root"] == (365, "good")
    assert found["image", "sensor"] == (90, "good")
    assert "sensor version 2: 1 of 2 signatures; sign with `skylift trust sign sensor`" in said
    assert "renew it" not in said
    api.clock.forward(days=68)  # of 90: less than a quarter is left
    found, said = status()
    assert found["image", "sensor"] == (22, "about to expire")
    assert found["image", "targets"] == (112, "good")
    assert "image sensor: 22 days left; renew it with `skylift trust renew sensor`" in said
    api.clock.forward(days=70)
    found, said = status()
    assert found["image", "sensor"] == (-48, "EXPIRED")
    assert found["image", "targets"] == (42, "about to expire")
    assert "image targets: 42 days left; renew it with `skylift trust renew targets`" in said
    api.clock.forward(days=240)
    found, said = status()
    assert found["director", "root"][1] == "EXPIRED"
    assert "director root: -13 days left; renew it with `skylift trust renew root`" in said
