"""Last contacts are written behind: a poll with nothing to do writes nothing, and an outage loses none."""

from collections.abc import Callable
from typing import Any

import pytest

from skylift.core.errors import Unavailable
from skylift.engine import behind
from skylift.store.db import Database

from .conftest import Api


def last_seen(api: Api, name: str) -> Any:
    return api.get(f"/api/devices/{name}").json()["last_seen"]


def quiet(api: Api, count: int) -> dict[str, str]:
    """Devices that have said already what they run, and their tokens."""
    tokens = {f"dev-{number}": api.device(f"dev-{number}") for number in range(count)}
    for name, token in tokens.items():
        api.check(name, token)
    api.server.seen.flush()
    return tokens


def test_polls_of_many_are_one_commit_and_that_is_later(api: Api) -> None:
    tokens = quiet(api, 10)
    before = {name: last_seen(api, name) for name in tokens}
    api.clock.forward(minutes=5)
    commits = api.database.stats.commits
    for name, token in tokens.items():
        assert api.check(name, token).status_code == 200
    assert api.database.stats.commits == commits, "a poll with nothing to do writes nothing"
    assert {name: last_seen(api, name) for name in tokens} == before
    api.server.seen.flush()
    assert api.database.stats.commits == commits + 1
    assert all(last_seen(api, name) > before[name] for name in tokens)
    api.server.seen.flush()
    assert api.database.stats.commits == commits + 1, "what is written is not written again"


def test_many_are_written_in_pieces_and_an_outage_between_loses_none(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write in between, and nobody waits for a whole fleet's contacts."""
    tokens = quiet(api, 5)
    before = {name: last_seen(api, name) for name in tokens}
    api.clock.forward(minutes=5)
    for name, token in tokens.items():
        api.check(name, token)
    monkeypatch.setattr(behind, "PIECE", 2)
    write, commits = Database.write, api.database.stats.commits
    written: list[Any] = []

    def gone_after_two(self: Database, deed: Callable[..., Any]) -> Any:
        if len(written) == 2:
            raise Unavailable("the database does not answer")
        written.append(deed)
        return write(self, deed)

    monkeypatch.setattr(Database, "write", gone_after_two)
    with pytest.raises(Unavailable):
        api.server.seen.flush()
    assert api.database.stats.commits == commits + 2
    monkeypatch.setattr(Database, "write", write)
    assert [last_seen(api, name) > before[name] for name in tokens].count(True) == 4
    api.server.seen.flush()
    assert api.database.stats.commits == commits + 3, "what was written is not written again"
    assert all(last_seen(api, name) > before[name] for name in tokens)


def test_an_outage_loses_no_contact_and_the_later_one_counts(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = quiet(api, 2)
    write = Database.write

    def away(self: Database, deed: Callable[..., Any]) -> Any:
        raise Unavailable("the database does not answer")

    api.clock.forward(minutes=5)
    for name, token in tokens.items():
        api.check(name, token)
    first = api.clock()
    monkeypatch.setattr(Database, "write", away)
    with pytest.raises(Unavailable):
        api.server.seen.flush()
    api.clock.forward(minutes=5)
    assert api.check("dev-1", tokens["dev-1"]).status_code == 200, "who only asks does not notice"
    monkeypatch.setattr(Database, "write", write)
    api.server.seen.flush()
    stamp = "%Y-%m-%dT%H:%M:%S"
    assert last_seen(api, "dev-0").startswith(first.strftime(stamp))
    assert last_seen(api, "dev-1").startswith(api.clock().strftime(stamp))


def test_what_ends_an_update_is_durable_before_it_is_acknowledged(api: Api, image: bytes) -> None:
    """No stage of it is written behind: its commit comes first, and its answer only then."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token = api.device("dev-1")
    deployment = api.deploy("1.1.0")
    api.check("dev-1", token)
    commits = api.database.stats.commits
    for number, state in enumerate(("downloading", "installing", "complete"), 1):
        assert api.report("dev-1", token, deployment, state).json()["recorded"] is True
        assert api.database.stats.commits == commits + number, state
        with api.database.read() as conn:
            seen = conn.exec_driver_sql("SELECT state FROM updates").scalar_one()
        assert seen == state
    assert api.report("dev-1", token, deployment, "complete").json()["recorded"] is False


def at_work(api: Api, image: bytes) -> tuple[str, str]:
    """(token, deployment) of a device that downloads."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token = api.device("dev-1")
    deployment = api.deploy("1.1.0")
    api.check("dev-1", token)
    assert api.report("dev-1", token, deployment, "downloading", progress=10).json()["recorded"] is True
    api.server.seen.flush()
    return token, deployment


def stands(api: Api) -> tuple[Any, ...]:
    with api.database.read() as conn:
        return tuple(conn.exec_driver_sql("SELECT state, progress, deadline_at FROM updates").one())


def test_progress_is_written_behind(api: Api, image: bytes) -> None:
    token, deployment = at_work(api, image)
    before = stands(api)
    assert before[:2] == ("downloading", 10)
    api.clock.forward(minutes=1)
    for progress in (20, 30):
        answer = api.report("dev-1", token, deployment, "downloading", progress=progress).json()
        assert (answer["recorded"], answer["state"]) == (True, "downloading")
    assert stands(api) == before
    api.server.seen.flush()
    state, progress, deadline = stands(api)
    assert (state, progress) == ("downloading", 30)
    assert deadline > before[2], "its silence begins anew"


def test_a_stage_takes_progress_along_that_is_not_written_yet(api: Api, image: bytes) -> None:
    token, deployment = at_work(api, image)
    api.report("dev-1", token, deployment, "downloading", progress=70)
    api.report("dev-1", token, deployment, "installing")
    assert stands(api)[:2] == ("installing", 70)
    api.server.seen.flush()
    assert stands(api)[:2] == ("installing", 70)


def test_a_word_near_the_end_of_its_time_is_written_at_once(api: Api, image: bytes) -> None:
    """Another server, which has not heard it, would give the device up."""
    token, deployment = at_work(api, image)
    before = stands(api)
    api.clock.forward(minutes=59, seconds=30)
    api.report("dev-1", token, deployment, "downloading", progress=20)
    assert stands(api)[1] == 20
    assert stands(api)[2] > before[2]


def test_what_was_said_of_a_stage_that_is_over_is_not_written(api: Api, image: bytes) -> None:
    """As another server would have moved it on."""
    token, deployment = at_work(api, image)
    api.report("dev-1", token, deployment, "downloading", progress=50)
    moved = "UPDATE updates SET state = 'installing', progress = 0"
    api.database.write(lambda conn: conn.exec_driver_sql(moved))
    api.server.seen.flush()
    assert stands(api)[:2] == ("installing", 0)


def test_an_outage_loses_no_progress(api: Api, image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    token, deployment = at_work(api, image)
    api.report("dev-1", token, deployment, "downloading", progress=50)

    def away(self: Database, deed: Callable[..., Any]) -> Any:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", away)
        with pytest.raises(Unavailable):
            api.server.seen.flush()
    api.server.seen.flush()
    assert stands(api)[:2] == ("downloading", 50)
