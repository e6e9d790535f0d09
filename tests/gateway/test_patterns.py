"""The page of patterns names tests that are there."""

import ast
from pathlib import Path

import pytest

from skylift.gateway.loading import load

HERE = Path(__file__).parent
PATTERNS = load([HERE.parents[1] / "conformance" / "gateway-patterns.yaml"])[0].value


def functions(file: str) -> set[str]:
    tree = ast.parse((HERE / f"{file}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", PATTERNS, ids=lambda row: str(row["pattern"]))
def test_a_pattern_is_shown_by_tests_that_are_there(row: dict[str, list[str]]) -> None:
    assert row["tests"]
    for test in row["tests"]:
        file, _, name = test.partition("::")
        assert name in functions(file), test
