"""The front door: which dialect, several files, the inventory."""

from pathlib import Path

import pytest

from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.read import read, read_documents

KONG = "services: [{name: s, url: 'http://user-service:8080', routes: [{name: r, paths: [/]}]}]"


def test_an_inventory_says_where_names_are(tmp_path: Path) -> None:
    (tmp_path / "kong.yaml").write_text(KONG)
    (tmp_path / "inventory.yaml").write_text(
        "inventory: {'user-service:8080': ['127.0.0.1:9001', 127.0.0.2]}"
    )
    (tmp_path / "notes.txt").write_text("not read")
    made = read([tmp_path])
    assert made.endpoints("user-service", 8080) == (("127.0.0.1", 9001), ("127.0.0.2", 8080))
    assert made.endpoints("user-service.default", 8080) == (("127.0.0.1", 9001), ("127.0.0.2", 8080))
    assert made.endpoints("user-service", 81) == (("user-service", 81),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inventory: {a: []}", "at least one address"),
        ("inventory: {a: ['b:99999']}", "it must be a host or host:port"),
        ("something: 1", "none of Kong's, Traefik's or our own files"),
        ("service: []", "did you mean 'services'?"),
        ("[1]", "the file must be a table of fields"),
        ("", "there is nothing to read"),
    ],
)
def test_what_is_no_configuration_is_said(text: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        read_documents(loads(text, "x.yaml"))
    assert says in str(refused.value)
