"""The fuzzer of the C++ client's parsers: a few inputs for each (a million: `dev.py bench esp32 --full`), and
that it finds what a careless parser does with them."""

import re
from pathlib import Path

import pytest

from conftest import missing
from skylift.testkit import esp32, esp32fuzz

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> esp32fuzz.Corpora:
    if esp32fuzz.compilers() is None:
        missing("clang, with libFuzzer")
    return esp32fuzz.Corpora(tmp_path_factory.mktemp("corpora"))


@pytest.mark.parametrize("parser", esp32fuzz.PARSERS)
def test_what_a_stranger_sends_breaks_no_parser(corpora: esp32fuzz.Corpora, parser: str) -> None:
    begun = len(list((corpora.home / parser).iterdir()))
    ran = esp32fuzz.run(esp32fuzz.program(), corpora, parser, 1000, seed=5)
    assert not ran.finding, ran.finding
    assert ran.inputs + 2 >= 1000
    assert len(list((corpora.home / parser).iterdir())) > begun, "nothing new was reached"


@pytest.mark.parametrize(
    ("parser", "file", "right", "wrong"),
    [
        ("order", "trust.cpp", "sig.size > 2 * sizeof der || ", ""),
        ("role", "trust.cpp", "sig.size > 2 * sizeof der || ", ""),
        ("mqtt", "mqtt.cpp", "topic + 4 > size || topic + 4 > sizeof in_ || ", ""),
        ("http", "http1.cpp", "if (line_size_ < sizeof line_ - 1) line_", "line_"),
    ],
)
def test_a_careless_parser_is_found(
    corpora: esp32fuzz.Corpora, tmp_path: Path, parser: str, file: str, right: str, wrong: str
) -> None:
    """Where a check is left out that only somebody with the keys would come to, too."""
    careless = (esp32.CORE / file).read_text()
    assert right in careless
    path = tmp_path / file
    path.write_text(re.sub(r'#include "(\w+.hpp)"', r'#include "skylift/\1"', careless.replace(right, wrong)))
    ran = esp32fuzz.run(_with(path), corpora, parser, 300_000, seed=5)
    assert re.search(r"ERROR: (AddressSanitizer|libFuzzer)|runtime error: ", ran.finding), ran


def _with(path: Path) -> Path:
    """The fuzzer with this file in the place of the core's."""
    return esp32.build(
        "fuzz",
        [*esp32fuzz.sources(), path],
        esp32fuzz.SANITIZE,
        ["-fsanitize=fuzzer"],
        without=("p256.cpp", path.name),
        compilers=esp32fuzz.compilers(),
    )
