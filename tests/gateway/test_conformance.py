"""The conformance rows of both dialects: each configuration does what its row says. The docs' tables are made
of the same rows."""

from pathlib import Path
from typing import Any

import pytest

from skylift.gateway.decision import World
from skylift.gateway.loading import Document, load, loads
from skylift.gateway.read import read_documents
from skylift.gateway.trial import read_cases, run

ROWS = Path(__file__).resolve().parents[2] / "conformance" / "gateway"
HALF_PAST = 1_795_867_230.0  # 2026-11-28 12:00:30 UTC


def rows() -> list[Any]:
    return [
        pytest.param(file.stem, row, id=f"{file.stem}: {row['feature']}")
        for file in sorted(ROWS.glob("*.yaml"))
        for row in load([file])[0].value["rows"]
    ]


@pytest.mark.parametrize(("dialect", "row"), rows())
def test_a_row_does_what_it_says(dialect: str, row: dict[str, Any]) -> None:
    gateway = read_documents(loads(row["config"], f"{dialect}.yaml"))
    assert gateway.dialect == dialect
    cases = read_cases([Document("row", {"tests": row["tests"]})])
    failures = [
        f"{result.case.name}: {failure}"
        for result in run(gateway, cases, World(now=HALF_PAST))
        for failure in result.failures
    ]
    assert failures == []


def test_every_row_says_what_it_means_once() -> None:
    names = [param.id for param in rows()]
    assert len(names) == len(set(names)) >= 40
    assert all(param.values[1]["means"] for param in rows())
