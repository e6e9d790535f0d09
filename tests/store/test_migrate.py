"""The migration tree makes exactly the tables the code speaks of."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from skylift.store.connect import normal, writing_engine
from skylift.store.db import migrate
from skylift.store.tables import metadata
from skylift.testkit.postgresql import Cluster


def differences(url: str) -> list[object]:
    engine = writing_engine(normal(url))
    with engine.connect() as conn:
        dialect = conn.dialect.name

        def is_here(thing: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
            """Whether the tables of the code have it on this dialect."""
            only = getattr(thing, "_ddl_if", None)
            return reflected or only is None or only.dialect == dialect

        context = MigrationContext.configure(conn, opts={"compare_type": True, "include_object": is_here})
        found = compare_metadata(context, metadata)
    engine.dispose()
    return list(found)


def test_the_migrated_schema_is_the_tables_of_the_code(database_url: str) -> None:
    assert differences(database_url) == []


def test_migrating_again_changes_nothing(database_url: str) -> None:
    migrate(database_url)
    migrate(database_url)
    assert differences(database_url) == []


def test_a_database_without_tables_differs(tmp_path: Path) -> None:
    assert differences(f"sqlite:///{tmp_path}/empty.db")


@pytest.mark.postgresql
def test_a_migration_that_fails_leaves_nothing_half_done(cluster: Cluster) -> None:
    name = cluster.fresh()
    engine = writing_engine(normal(cluster.url(name)))
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE updates (taken int)")  # in the tree's way
    with pytest.raises(Exception, match="already exists"):
        migrate(cluster.url(name))
    with engine.connect() as conn:
        tables = conn.exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert [row[0] for row in tables] == ["updates"]
    engine.dispose()
    cluster.drop(name)
