"""Telling people and letting people in, from the command line, against a real server and a real receiver."""

import json
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook

from conftest import wait_until
from skylift.testkit.receivers import Receiver, receiver

from .conftest import Cli


@pytest.fixture
def ear() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def test_a_webhook_is_made_tried_logged_replayed_and_removed(cli: Cli, ear: Receiver) -> None:
    made = cli("channel", "add", "ci", "webhook", ear.url, "--want", "deployment.stopped", "--json")
    assert made.code == 0, made.err
    secret = json.loads(made.out)["secret"]
    tried = cli("channel", "test", "ci")
    assert tried.code == 0, tried.err
    assert "delivered" in tried.out
    (one,) = ear.taken
    said = Webhook(secret).verify(one.body, one.headers)
    assert said["type"] == "channel.test"
    (logged,) = json.loads(cli("channel", "log", "ci", "--json").out)
    assert (logged["state"], logged["answer"]) == ("delivered", "204")
    assert cli("channel", "replay", str(logged["id"])).code == 0
    wait_until(lambda: len(ear.taken) == 2, what="the replay")
    assert ear.taken[1].headers["webhook-id"] == one.headers["webhook-id"]
    renewed = json.loads(cli("channel", "renew", "ci", "--json").out)["secret"]
    assert renewed != secret
    assert "whsec_" not in cli("channel", "list").out
    assert cli("channel", "disable", "ci").code == 0
    refused = cli("channel", "test", "ci")
    assert (refused.code, "it is disabled" in refused.err) == (1, True)
    assert cli("channel", "remove", "ci", "--yes").code == 0
    assert json.loads(cli("channel", "list", "--json").out) == []


def test_a_channel_that_does_not_answer_is_exit_code_1_with_the_reason(cli: Cli, ear: Receiver) -> None:
    ear.answers = [500] * 10
    assert cli("channel", "add", "broken", "webhook", ear.url).code == 0
    tried = cli("channel", "test", "broken")
    assert (tried.code, "not delivered (500)" in tried.err) == (1, True)
    assert cli("channel", "remove", "broken", "--yes").code == 0


def test_a_role_for_one_product_is_given_and_taken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLIFT_PASSWORD", "correct horse battery")
    assert cli("user", "add", "olga", "--role", "viewer").code == 0
    given = cli("user", "grant", "olga", "sensor", "operator", "--json")
    assert json.loads(given.out)["products"] == {"sensor": "operator"}
    assert cli("user", "grant", "olga", "sensor", "none").code == 0
    (olga,) = [user for user in json.loads(cli("user", "list", "--json").out) if user["name"] == "olga"]
    assert olga["products"] == {}


def test_a_deployment_that_nobody_knows_is_not_approved(cli: Cli) -> None:
    refused = cli("deploy", "approve", "dep_nowhere")
    assert refused.code == 1
    assert "there is no such deployment" in refused.err
