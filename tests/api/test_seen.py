"""Last contacts are written behind: a poll with nothing to do writes nothing, and an outage loses none."""

from collections.abc import Callable
from typing import Any

import pytest

from skylift.core.errors import Unavailable
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
    """Nothing of a report is written behind: its commit comes first, and its answer only then."""
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
