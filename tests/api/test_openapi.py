"""The OpenAPI document holds for the application: schemathesis asks what it likes of every operation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import TestClock

from .conftest import Api, start

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
STREAM = "/api/deployments/{deployment_id}/events"  # waits for things to happen
EXAMPLES = 12


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """(application, admin's token) on SQLite."""
    made = start(tmp_path, f"sqlite:///{tmp_path / 'skylift.db'}", TestClock())
    yield made.app, (made.settings.data_dir / "admin.token").read_text().strip()
    made.database.close()


@pytest.mark.slow
def test_every_operation_keeps_to_its_schema_whatever_it_is_asked(served: Any) -> None:
    app, admin = served
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == STREAM:
            continue
        asked += 1

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def holds(case: Any) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {admin}"}, checks=CHECKS)

        holds()
    assert asked > 30


def test_every_route_is_documented_with_its_problems(api: Api) -> None:
    document = api.get("/openapi.json", token="").json()
    by_hand = {"/api/updates/check", "/api/updates/status", "/api/enroll", "/api/artifacts", STREAM}
    assert by_hand <= set(document["paths"])
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all({"401", "404", "422", "503"} <= operation["responses"].keys() for operation in operations)
