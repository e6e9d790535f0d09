"""People are told: webhooks that verify, chats; retried, logged. Mail: `test_mail`."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook, WebhookVerificationError

from skylift.core import telling
from skylift.core.telling import Told
from skylift.engine.post import GIVE_UP, PATIENCE_S, WAITS
from skylift.store import tables
from skylift.testkit.receivers import Receiver, receiver

from .conftest import Api, Furnished


@pytest.fixture
def ear() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def fleet(furnished: Furnished, image: bytes) -> Api:
    """A ceremony, a published 1.1.0, three devices on 1.0.0."""

    def furnish(api: Api) -> None:
        api.hold_ceremony()
        api.publish("1.1.0", image)
        for name in ("a", "b", "c"):
            api.check(name, api.device(name))

    return furnished("three", furnish)


def add(api: Api, kind: str, address: str, **more: Any) -> Any:
    body = {"name": f"the-{kind}", "kind": kind, "address": address, **more}
    answer = api.post("/api/channels", body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def carry(api: Api) -> None:
    """The courier, as far as it has to go now."""
    while api.server.courier.carry_one(api.clock(), ["delivery"]):
        pass


def log(api: Api, **chosen: str) -> list[dict[str, Any]]:
    """The delivery log, oldest first."""
    found: list[dict[str, Any]] = api.get("/api/deliveries", params=chosen).json()["items"]
    return found[::-1]


def stopped(api: Api) -> str:
    """A deployment that stopped itself."""
    made = api.deploy("1.1.0", failure_threshold_percent=10, failure_min_devices=1)
    token = "dev_a-0123456789abcdef"
    assert api.check("a", token).json()["update_available"]
    assert api.report("a", token, made, "failed", reason="no_space").status_code == 200
    api.tick()
    return made


def test_a_webhook_verifies_and_says_the_sentence_that_everybody_else_reads(
    fleet: Api, ear: Receiver
) -> None:
    secret = add(fleet, "webhook", f"{ear.url}/hook")["secret"]
    made = stopped(fleet)
    carry(fleet)
    shown = fleet.get(f"/api/deployments/{made}").json()
    told = [json.loads(one.body) for one in ear.taken]
    kinds = [one["type"] for one in told]
    assert kinds == ["deployment.created", "deployment.started", "deployment.stopped"]
    assert told[-1]["data"]["sentence"] == shown["sentence"]
    assert shown["sentence"] == f"sensor 1.1.0 is paused: {shown['status_reason']}"
    assert "1 of 1 decided device failed or rolled back (100.0 %)" in shown["sentence"]
    assert told[-1]["data"]["deployment"] == made
    for one in ear.taken:
        verify(secret, one, fleet)


def verify(secret: str, one: Any, api: Api) -> Any:
    """By the library of those who wrote the standard; its clock is the wall's."""
    judge = Webhook(secret)
    judge._Webhook__verify_timestamp = lambda text: api.clock()  # type: ignore[attr-defined] # or it compares with today
    assert one.headers["webhook-timestamp"] == str(int(api.clock().timestamp()))
    return judge.verify(one.body, one.headers)


def test_a_message_that_was_touched_does_not_verify(api: Api, ear: Receiver) -> None:
    secret = add(api, "webhook", ear.url)["secret"]
    api.post("/api/channels/the-webhook:test")
    carry(api)
    (one,) = ear.taken
    verify(secret, one, api)
    one.body = one.body.replace(b"test", b"tess", 1)
    with pytest.raises(WebhookVerificationError):
        verify(secret, one, api)


def test_a_renewed_secret_signs_beside_the_old_one_for_a_day(api: Api, ear: Receiver) -> None:
    old = add(api, "webhook", ear.url)["secret"]
    new = api.post("/api/channels/the-webhook:renew").json()["secret"]
    api.post("/api/channels/the-webhook:test")
    carry(api)
    assert new != old
    for secret in (old, new):
        verify(secret, ear.taken[-1], api)
    api.clock.forward(hours=24)
    api.post("/api/channels/the-webhook:test")
    carry(api)
    verify(new, ear.taken[-1], api)
    with pytest.raises(WebhookVerificationError):
        verify(old, ear.taken[-1], api)


def test_no_secret_of_a_channel_lies_in_clear_or_is_shown_twice(api: Api, ear: Receiver) -> None:
    hidden = f"{ear.url}/services/T000/very-secret-path"
    chat = add(api, "chat", hidden)
    secret = add(api, "webhook", ear.url)["secret"]
    assert chat["secret"] is None
    assert chat["address"] == f"{ear.url}/…"
    with api.database.read() as conn:
        rows = str([conn.execute(sa.select(table)).all() for table in tables.metadata.sorted_tables])
    shown = api.get("/api/channels").text + api.get("/api/audit").text
    for text in (rows, shown):
        assert "very-secret-path" not in text
        assert secret not in text


def test_what_does_not_arrive_is_tried_again_later_each_time_under_the_same_id(
    api: Api, ear: Receiver
) -> None:
    add(api, "webhook", ear.url)
    api.post("/api/channels/the-webhook:test")
    ear.answers = [500, 503, 429]
    carry(api)
    for number, wait in enumerate(WAITS[:3], 1):
        assert len(ear.taken) == number
        (found,) = log(api)
        assert (found["state"], found["attempts"]) == ("waiting", number)
        api.clock.now += wait - timedelta(seconds=1)
        carry(api)
        assert len(ear.taken) == number
        api.clock.now += timedelta(seconds=1)
        carry(api)
    (found,) = log(api)
    assert (found["state"], found["attempts"], found["answer"]) == ("delivered", 4, "204")
    assert len({one.headers["webhook-id"] for one in ear.taken}) == 1
    assert len({one.headers["webhook-timestamp"] for one in ear.taken}) == 4
    (channel,) = api.get("/api/channels").json()["items"]
    assert (channel["failures"], channel["quiet_until"]) == (0, None)


def test_a_channel_that_does_not_answer_is_left_in_peace_as_a_whole_and_given_up_in_the_end(
    api: Api, ear: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(days=3) == GIVE_UP
    monkeypatch.setattr("skylift.engine.post.GIVE_UP", timedelta(hours=5))
    add(api, "webhook", ear.url)
    for _ in range(3):
        api.post("/api/channels/the-webhook:test")
    ear.answers = [500] * 1000
    carry(api)
    assert len(ear.taken) == 1
    until = api.clock() + timedelta(hours=5)
    while api.clock() <= until:
        api.clock.now += WAITS[-1]
        carry(api)
    api.clock.now += WAITS[-1] * 5
    carry(api)
    for _ in range(3):  # those that were left in peace have their last try too
        api.clock.now += WAITS[-1]
        carry(api)
    assert {found["state"] for found in log(api)} == {"given_up"}
    assert len(ear.taken) < 16
    again = api.post(f"/api/deliveries/{log(api)[0]['id']}:replay").json()
    ear.answers = []
    carry(api)
    assert log(api)[-1]["state"] == "delivered"
    assert ear.taken[-1].headers["webhook-id"] == again["message"] == log(api)[0]["message"]


def test_a_redirect_is_not_followed_and_nobody_there_is_an_answer_too(api: Api, ear: Receiver) -> None:
    add(api, "webhook", f"{ear.url}/hook")
    ear.location, ear.answers = f"{ear.url}/inside", [302, 307, 308]
    api.post("/api/channels/the-webhook:test")
    for wait in WAITS[:3]:
        carry(api)
        assert "redirects are not followed" in log(api)[0]["answer"]
        api.clock.now += wait
    assert {one.path for one in ear.taken} == {"/hook"}
    api.post("/api/channels", {"name": "nobody", "kind": "webhook", "address": "http://127.0.0.1:1/hook"})
    api.post("/api/channels/nobody:test")
    carry(api)
    assert log(api, channel="nobody")[0]["answer"].startswith("ConnectError")


def test_a_receiver_that_is_gone_is_told_nothing_more(fleet: Api, ear: Receiver) -> None:
    add(fleet, "webhook", ear.url)
    ear.answers = [410]
    fleet.post("/api/channels/the-webhook:test")
    carry(fleet)
    (channel,) = fleet.get("/api/channels").json()["items"]
    assert (channel["disabled"], channel["disabled_why"]) == (True, "410")
    assert log(fleet)[0]["state"] == "given_up"
    refused = fleet.post("/api/channels/the-webhook:test")
    assert (refused.status_code, refused.json()["code"]) == (409, "channel_disabled")
    stopped(fleet)
    carry(fleet)
    assert len(ear.taken) == 1


def test_a_receiver_that_never_ends_its_answer_has_seconds(
    api: Api, ear: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PATIENCE_S <= 30
    monkeypatch.setattr("skylift.engine.post.PATIENCE_S", 0.2)
    add(api, "webhook", ear.url)
    ear.slow_s = 3.0
    api.post("/api/channels/the-webhook:test")
    carry(api)
    found = log(api)[0]
    assert found["state"] == "waiting"
    assert "no answer within" in found["answer"] or "Timeout" in found["answer"]


def test_a_channel_hears_what_it_wants(fleet: Api, ear: Receiver) -> None:
    add(fleet, "webhook", f"{ear.url}/few", wants=["deployment.stopped", "release"])
    add(fleet, "chat", f"{ear.url}/phases", wants=["phase"], template='{"content": "{type}: {sentence}"}')
    stopped(fleet)
    carry(fleet)
    few = [json.loads(one.body)["type"] for one in ear.taken if one.path == "/few"]
    phases = [json.loads(one.body)["content"] for one in ear.taken if one.path == "/phases"]
    assert few == ["deployment.stopped"]
    assert phases == ["phase.opened: sensor 1.1.0 is running: phase 1 opened, 3 devices"]


def test_a_release_is_told_from_its_seal_to_its_end(fleet: Api, ear: Receiver, image: bytes) -> None:
    add(fleet, "webhook", ear.url, wants=["release"])
    release = fleet.publish("1.2.0", image)
    assert fleet.post(f"/api/releases/{release}:withdraw", {"reason": "it bricks"}).status_code == 200
    carry(fleet)
    assert [json.loads(one.body)["data"]["sentence"] for one in ear.taken] == [
        "sensor 1.2.0 is waiting for its signatures",
        "sensor 1.2.0 is published",
        "sensor 1.2.0 is withdrawn: it bricks",
    ]


def test_a_role_that_people_must_sign_again_is_told_of_once_before_and_once_after_its_end(
    api: Api, ear: Receiver
) -> None:
    api.hold_ceremony()
    add(api, "webhook", ear.url, wants=["trust"])
    api.tick()
    carry(api)
    assert not ear.taken
    days = {role["role"]: role["days_left"] for role in api.get("/api/trust").json()["roles"]}
    for step in (days["targets"] - 1, 0, 2, 0):
        api.clock.forward(days=step, hours=2)
        for _ in range(2):
            api.tick()
    while api.server.courier.carry_one(api.clock(), ["delivery"]):
        pass
    told = [json.loads(one.body) for one in ear.taken]
    mine = [(one["type"], one["data"]["sentence"]) for one in told if one["data"]["role"] == "targets"]
    assert mine == [
        ("trust.expires", "image/targets expires in 0 days"),
        ("trust.expired", "image/targets has expired"),
    ]
    assert {one["data"]["role"] for one in told} <= {"root", "targets", "sensor"}


def test_words_of_strangers_cannot_break_out_of_a_chats_json(fleet: Api, ear: Receiver) -> None:
    add(fleet, "chat", ear.url, template='{"text": "{sentence}", "channel": "#ops"}')
    made = fleet.deploy("1.1.0")
    reason = 'x", "channel": "#everybody", "y": "'
    fleet.post(f"/api/deployments/{made}:pause", {"reason": reason})
    carry(fleet)
    said = json.loads(ear.taken[-1].body)
    assert said == {"text": f"sensor 1.1.0 is paused: {reason}", "channel": "#ops"}


WRONG = (
    ({"address": "ftp://x.example"}, "address"),
    ({"address": "http://"}, "address"),
    ({"address": "http://x.example:99999/"}, "address"),
    ({"address": "http://user:hunter2@x.example/"}, "address"),
    ({"address": "http://x.example/ y"}, "address"),
    ({"address": "http://x.example/\r\nHost: y"}, "address"),
    ({"name": "../x"}, "name"),
    ({"wants": ["everything"]}, "wants[0]"),
    ({"wants": []}, "wants"),
    ({"template": "{}"}, "template"),
    ({"kind": "chat", "template": "[1, 2"}, "template"),
    ({"kind": "chat", "template": '{"text": "no word of it"}'}, "template"),
    ({"kind": "chat", "template": '{"a":' * 2000}, "template"),
)


def test_a_channel_that_cannot_be_is_refused_by_field_and_only_admins_see_any(api: Api) -> None:
    for given, wrong in WRONG:
        body = {"name": "x", "kind": "webhook", "address": "https://x.example/hook", **given}
        answer = api.post("/api/channels", body)
        assert (answer.status_code, answer.json()["field"]) == (422, wrong), answer.text
        assert "hunter2" not in answer.text
    assert not api.get("/api/channels").json()["items"]
    mail = api.post("/api/channels", {"name": "ops", "kind": "mail", "address": "ops@example.com"})
    assert (mail.status_code, mail.json()["code"]) == (409, "no_smtp")
    token = api.post("/api/tokens", {"name": "op", "role": "operator"}).json()["token"]
    assert api.get("/api/channels", token=token).status_code == 403
    assert api.get("/api/deliveries", token=token).status_code == 403
    body = {"name": "x", "kind": "webhook", "address": "https://x.example"}
    assert api.post("/api/channels", body, token=token).status_code == 403


def test_a_channel_comes_changes_and_goes_and_the_trail_says_so(api: Api, ear: Receiver) -> None:
    add(api, "webhook", ear.url)
    assert (
        api.post("/api/channels", {"name": "the-webhook", "kind": "webhook", "address": ear.url}).status_code
        == 409
    )
    changed = api.call("PATCH", "/api/channels/the-webhook", json={"wants": ["release"], "disabled": True})
    assert (changed.json()["wants"], changed.json()["disabled"]) == (["release"], True)
    assert api.call("PATCH", "/api/channels/the-webhook", json={"disabled": False}).json()["wants"] == [
        "release"
    ]
    assert api.call("DELETE", "/api/channels/the-webhook").status_code == 204
    assert api.call("DELETE", "/api/channels/the-webhook").status_code == 404
    trail = api.get("/api/audit", params={"action": "channel"}).json()["items"]
    actions = [row["action"] for row in trail][::-1]
    assert actions == [f"channel.{verb}" for verb in ("create", "disabled", "wants", "disabled", "delete")]


# --- the words ---------------------------------------------------------------------------------------


def test_every_event_of_a_deployment_has_its_word_or_none() -> None:
    of = telling.of_event
    assert of("deployment", {"status": "paused", "paused_by": "failure_threshold"}) is Told.STOPPED
    assert of("deployment", {"status": "paused", "paused_by": "approval"}) is Told.APPROVAL
    assert of("deployment", {"status": "paused", "verb": "pause", "by": "ada"}) is Told.PAUSED
    assert of("deployment", {"status": "running", "verb": "promote"}) is None
    assert of("update", {"state": "failed"}) is None
