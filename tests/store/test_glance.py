"""The poll path's one read: the right device for each token, together or alone."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from skylift.store import devices, glance
from skylift.store.connect import is_duplicate
from skylift.store.db import Database
from skylift.store.glance import AT_ONCE, ENOUGH, Glance, Glances, PostgresGlances, glances

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def enroll(database: Database, count: int) -> None:
    def fill(conn: Any) -> None:
        for number in range(count):
            made = devices.insert(
                conn,
                device_id=f"d-{number}",
                device_type="t",
                token_hash=f"hash-{number}",
                labels={},
                now=NOW,
            )
            devices.set_facts(conn, made.pk, f"1.{number}", None, None)

    database.write(fill)


def find(eyes: Glances, token_hash: str) -> "asyncio.Future[Glance | None]":
    """What is told, as a future."""
    told: asyncio.Future[Glance | None] = asyncio.get_running_loop().create_future()
    eyes.find(token_hash, told.set_result)
    return told


def test_each_token_gets_its_own_device(database: Database, database_url: str) -> None:
    enroll(database, 50)

    async def ask() -> list[Glance | None]:
        eyes = glances(database_url)
        try:
            asked = [find(eyes, f"hash-{n}") for n in (*range(50), 7, 7)] + [find(eyes, "nobody's")]
            first = list(await asyncio.gather(*asked))
            return [*first, await find(eyes, "hash-3")]
        finally:
            eyes.close()

    *known, nobody, alone = asyncio.run(ask())
    assert nobody is None
    assert [seen.device_id for seen in known if seen] == [f"d-{n}" for n in (*range(50), 7, 7)]
    assert alone is not None
    with database.read() as conn:
        row = devices.find_device(conn, "d-3")
    assert row is not None
    for field in Glance._fields:
        assert getattr(alone, field) == getattr(row, field)


def test_what_was_written_a_moment_ago_is_seen(database: Database, database_url: str) -> None:
    enroll(database, 1)

    async def ask() -> None:
        eyes = glances(database_url)
        try:
            for version in ("2.0", "3.0"):
                with database.read() as conn:
                    pk = devices.find_device(conn, "d-0").pk  # type: ignore[union-attr]
                await asyncio.to_thread(
                    database.write, lambda conn, v=version, pk=pk: devices.set_facts(conn, pk, v, None, None)
                )
                seen = await find(eyes, "hash-0")
                assert seen is not None
                assert seen.current_version == version
        finally:
            eyes.close()

    asyncio.run(ask())


@pytest.mark.parametrize(
    "url", ["sqlite:///{home}/nowhere/skylift.db", "postgresql://skylift@127.0.0.1:1/none"]
)
def test_a_database_that_is_not_there_is_a_miss_and_no_wait(url: str, tmp_path: Path) -> None:
    async def ask() -> None:
        eyes = glances(url.format(home=tmp_path))
        for _ in range(2):  # and again: nothing is left half open
            assert await asyncio.wait_for(find(eyes, "hash"), 10) is None

    asyncio.run(ask())


def test_a_token_is_one_devices(database: Database) -> None:
    enroll(database, 1)

    def again(conn: Any) -> None:
        devices.insert(conn, device_id="another", device_type="t", token_hash="hash-0", labels={}, now=NOW)

    with pytest.raises(DBAPIError) as refused:  # and not an outage, nor tried for ever
        database.write(again)
    if database.dialect == "postgresql":
        assert is_duplicate(refused.value)
    with database.read() as conn:
        assert devices.find_device(conn, "another") is None


@pytest.mark.postgresql
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_tokens_are_found_by_a_hash_and_by_nothing_else(database: Database) -> None:
    question = "SELECT indexdef FROM pg_indexes WHERE tablename = 'devices' AND indexdef LIKE '%token_hash%'"
    with database.read() as conn:
        found = conn.exec_driver_sql(question.replace("%", "%%")).scalars().all()
    assert [made.partition(" USING ")[2] for made in found] == ["hash (token_hash)"]


_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%unnest($1%'
"""


@pytest.mark.postgresql
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_lost_connection_is_made_anew(database: Database, database_url: str) -> None:
    enroll(database, 1)

    async def ask() -> None:
        eyes = glances(database_url)
        try:
            assert await find(eyes, "hash-0") is not None
            with database.read() as conn:
                conn.exec_driver_sql(_CUT)
            assert await find(eyes, "hash-0") is None
            assert await find(eyes, "hash-0") is not None
        finally:
            eyes.close()

    asyncio.run(ask())


def test_two_answers_in_one_turn_leave_nobody_waiting() -> None:
    """Both carriers end in one turn of the loop, and those whom they have just told ask again at once."""

    async def ask() -> None:
        eyes = PostgresGlances(make_url("postgresql://nobody@127.0.0.1:1/none"))
        gates: list[asyncio.Future[list[Any]]] = []

        async def held(hashes: list[str]) -> list[Any]:
            if len(gates) == AT_ONCE:
                return []
            gates.append(asyncio.get_running_loop().create_future())
            return await gates[-1]

        eyes._fetch = held  # type: ignore[method-assign]  # when answers come is what is tested

        async def twice(name: str) -> None:
            await find(eyes, name)
            await asyncio.wait_for(find(eyes, name), 5.0)

        asking = []
        for number in range(AT_ONCE):
            asking.append(asyncio.create_task(twice(f"device {number}")))
            while len(gates) <= number:
                await asyncio.sleep(0)
        for gate in gates:
            gate.set_result([])
        await asyncio.gather(*asking)

    asyncio.run(ask())


def test_enough_wait_for_no_more_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """And go as one question; one alone is asked about when its time is over."""

    async def ask() -> list[int]:
        eyes = PostgresGlances(make_url("postgresql://nobody@127.0.0.1:1/none"))
        asked: list[int] = []

        async def counted(hashes: list[str]) -> list[Any]:
            asked.append(len(hashes))
            return []

        eyes._fetch = counted  # type: ignore[method-assign]  # what goes together is what is tested
        await find(eyes, "alone")
        monkeypatch.setattr(glance, "GATHER_S", 3600.0)
        monkeypatch.setattr(glance, "GATHER_EACH_S", 3600.0)
        first = [find(eyes, f"device {number}") for number in range(ENOUGH - 1)]
        await asyncio.sleep(0)  # whoever carries them waits already
        await asyncio.gather(*first, find(eyes, "the last"))
        await asyncio.gather(*(find(eyes, f"device {number}") for number in range(ENOUGH + 5)))
        return asked

    assert asyncio.run(asyncio.wait_for(ask(), 60)) == [1, ENOUGH, ENOUGH + 5]
