"""Which proxy is believed when it says whose certificate it saw: the configured one, where it is clear."""

import pytest

from skylift.api.hop import SAID, SECRET, Hop
from skylift.core.errors import Rejected

SEEN = "ab" * 32
HEADER = (SAID, f'By=x;Hash={SEEN};Subject="CN=dev-1,O=\\"y\\""'.encode())


def test_only_a_configured_address_is_believed() -> None:
    hop = Hop.read("127.0.0.0/8, ::1", "")
    assert hop.certificate("127.0.0.9", [HEADER]) == SEEN
    assert hop.certificate("::1", [HEADER]) == SEEN
    assert hop.certificate("10.0.0.1", [HEADER]) is None
    assert hop.certificate("", [HEADER]) is None
    assert Hop.read("", "").certificate("127.0.0.1", [HEADER]) is None


def test_a_secret_must_come_once_and_be_right() -> None:
    hop = Hop.read("10.1.0.0/16", "a" * 16)
    right, wrong = (SECRET, b"a" * 16), (SECRET, b"a" * 15 + b"b")
    assert hop.certificate("10.1.2.3", [HEADER, right]) == SEEN
    for said in ([HEADER], [HEADER, wrong], [HEADER, right, right], [HEADER, wrong, right]):
        assert hop.certificate("10.1.2.3", said) is None


@pytest.mark.parametrize(
    "said",
    [
        f"Hash={SEEN},Hash={SEEN}",
        f"Hash={SEEN};Hash={SEEN}",
        f'Subject="Hash={SEEN}"',
        f'Subject="a\\";Hash={SEEN}"',
        f"NoHash={SEEN}",
        f"Hash={SEEN}ab",
        "Hash=",
        "",
    ],
)
def test_what_is_not_one_clear_element_says_nothing(said: str) -> None:
    hop = Hop.read("127.0.0.1", "")
    assert hop.certificate("127.0.0.1", [(SAID, said.encode())]) is None
    assert hop.certificate("127.0.0.1", [HEADER, HEADER]) is None


@pytest.mark.parametrize(
    ("proxies", "secret", "field"),
    [
        ("10.0.0.1/8", "a" * 16, "trusted_proxies"),
        ("everybody", "a" * 16, "trusted_proxies"),
        ("0.0.0.0/0", "a" * 16, "trusted_proxies"),
        ("::/0", "a" * 16, "trusted_proxies"),
        ("10.0.0.0/8", "", "proxy_secret"),
        ("127.0.0.1", "short", "proxy_secret"),
    ],
)
def test_settings_that_would_believe_strangers_are_refused_by_name(
    proxies: str, secret: str, field: str
) -> None:
    with pytest.raises(Rejected) as refused:
        Hop.read(proxies, secret)
    assert refused.value.field == field
