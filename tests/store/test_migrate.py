"""The migration tree makes exactly the tables the code speaks of."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from skylift.store import devices
from skylift.store.connect import normal, writing_engine
from skylift.store.db import Database, migrate
from skylift.store.migrate import config
from skylift.store.tables import metadata
from skylift.testkit.postgresql import Cluster

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    name = cluster.fresh()
    yield cluster.url(name)
    cluster.drop(name)


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


def test_what_is_there_survives_the_way_up(empty_url: str) -> None:
    """Tables that are made anew, indexes that change their kind: tokens and last contacts stay."""
    engine = writing_engine(normal(empty_url))
    with engine.begin() as conn:
        command.upgrade(config(conn), "0018_ways")
        conn.exec_driver_sql(
            "INSERT INTO devices (pk, device_id, device_type, h, token_hash, labels, status, enrolled_at)"
            " VALUES (7, 'd', 't', 1, 'hash', '{}', 'active', 1)"
        )
        conn.exec_driver_sql("INSERT INTO seen (device_pk, at) VALUES (7, 1234567)")
    engine.dispose()
    migrate(empty_url)
    assert differences(empty_url) == []
    database = Database(empty_url)
    with database.read() as conn:
        known = devices.by_token(conn, "hash")
        assert known is not None
        assert known.pk == 7
        assert set(devices.last_seen(conn, [7])) == {7}
    database.close()


@pytest.mark.postgresql
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("table", "percent"), [("seen", 50), ("devices", 85)])
def test_rows_have_room_for_what_they_will_be(database_url: str, table: str, percent: int) -> None:
    engine = writing_engine(normal(database_url))
    with engine.connect() as conn:
        asked = sa.text("SELECT reloptions FROM pg_class WHERE relname = :name")
        options = conn.execute(asked, {"name": table}).scalar_one()
    engine.dispose()
    assert options == [f"fillfactor={percent}"]


def test_no_index_of_devices_holds_what_an_update_changes(database_url: str) -> None:
    engine = writing_engine(normal(database_url))
    found = sa.inspect(engine)
    indexed = {name for index in found.get_indexes("devices") for name in index["column_names"]}
    indexed |= {name for rule in found.get_unique_constraints("devices") for name in rule["column_names"]}
    engine.dispose()
    assert {"device_type", "device_id"} <= indexed
    assert not indexed & {"current_version", "config_version", "image_sha256", "deployment_id", "attempt"}


@pytest.mark.postgresql
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_device_that_is_done_is_changed_in_place(database_url: str) -> None:
    """PostgreSQL says so itself: none of the indexes was touched."""
    database = Database(database_url)

    def deed(conn: Any) -> tuple[int, int]:
        rows = [(f"d-{number}", "t", f"hash-{number}", "1.0.0", {}) for number in range(50)]
        devices.insert_many(conn, rows, NOW)
        pks = [device.pk for device in devices.page(conn, limit=50)]
        devices.finish_many(conn, [(pk, "1.1.0", None, "digest") for pk in pks[:3]])
        asked = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'devices'"
        changed, in_place = conn.exec_driver_sql(asked).one()
        return changed, in_place

    assert database.write(deed) == (3, 3)
    database.close()


def test_a_database_without_tables_differs(empty_url: str) -> None:
    assert differences(empty_url)


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
