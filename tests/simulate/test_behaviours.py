"""Behaviours are data: three file formats, one meaning; what is wrong is named."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from skylift.core.errors import Rejected
from skylift.core.lifecycle import UpdateState
from skylift.testkit.behaviours import DEFAULT, Behaviour, parse, read
from skylift.testkit.identity import Identity
from skylift.testkit.walk import Step, Word, script

JSON = json.dumps(
    {
        "behaviours": [
            {"name": "well", "share": 90},
            {"name": "revision B", "share": 10, "labels": {"hw": "B"}, "ends": {"rolled_back": 60}},
        ]
    }
)
TOML = """
[[behaviours]]
name = "well"
share = 90

[[behaviours]]
name = "revision B"
share = 10
labels = { hw = "B" }
ends = { rolled_back = 60 }
"""
YAML = """
behaviours:
  - {name: well, share: 90}
  - name: revision B
    share: 10
    labels: {hw: B}
    ends: {rolled_back: 60}
"""


@pytest.mark.parametrize(("name", "text"), [("b.json", JSON), ("b.toml", TOML), ("b.yaml", YAML)])
def test_three_formats_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    well, bad = read(tmp_path / name)
    assert well == Behaviour("well", 90.0)
    assert (bad.labels, bad.ends) == ({"hw": "B"}, {"rolled_back": 60.0})


WELL = {"name": "well", "share": 100}


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ([], "behaviours", "a list of at least one behaviour"),
        ({"behaviours": [WELL], "speed": 2}, "speed", "is not a field: only behaviours"),
        (["well"], "behaviours[0]", "is not an object"),
        ([{"share": 100}], "behaviours[0].name", "is needed"),
        ([{"name": "well"}], "behaviours[0].share", "is needed"),
        ([{**WELL, "share": 90}], "behaviours", "the shares add up to 100"),
        ([{**WELL, "share": "all"}], "behaviours[0].share", "is not a number"),
        ([{**WELL, "share": float("nan")}], "behaviours[0].share", "is not a number"),
        ([{**WELL, "loss_percent": 96}], "behaviours[0].loss_percent", "between 0 and 95"),
        ([{**WELL, "losses": 1}], "behaviours[0].losses", "is not a field of a behaviour"),
        ([{**WELL, "think_s": [9, 3]}], "behaviours[0].think_s", "at least comes before at most"),
        ([{**WELL, "think_s": 5}], "behaviours[0].think_s", "two numbers: at least and at most"),
        ([{**WELL, "repeats": 0}], "behaviours[0].repeats", "a whole number between 1 and 10"),
        ([{**WELL, "late": "yes"}], "behaviours[0].late", "is not true or false"),
        ([{**WELL, "ends": {"complete": 5}}], "behaviours[0].ends.complete", "one of failed, rolled_back"),
        ([{**WELL, "ends": {"failed": 60, "silent": 60}}], "behaviours[0].ends", "at most 100 together"),
        ([{**WELL, "silent_at": "pending"}], "behaviours[0].silent_at", "one of downloading"),
        ([{**WELL, "reason": "gremlins"}], "behaviours[0].reason", "one of download_error"),
        ([{**WELL, "labels": {"a b": "x"}}], "behaviours[0].labels.a b", ""),
        (
            [{"name": "a", "share": 50}, {"name": "a", "share": 50}],
            "behaviours[1].name",
            "is the name of an earlier one",
        ),
    ],
)
def test_what_is_wrong_is_named_with_field_value_and_rule(body: Any, field: str, rule: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse(body)
    assert refused.value.field == field
    assert rule in str(refused.value.rule)
    assert str(refused.value).startswith(f"{field} is ")


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("b.ini", "", "ends in .json"),
        ("b.json", "{", "must be JSON"),
        ("b.toml", "= 5", "must be TOML"),
        ("b.yaml", "a: [", "must be YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, rule: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Rejected, match=rule):
        read(tmp_path / name)


def test_the_default_holds_its_own_rules_and_its_shares_come_out() -> None:
    assert sum(behaviour.share for behaviour in DEFAULT) == pytest.approx(100)
    identity = Identity(5, 20_000)
    counted = Counter(identity.behaviour(number).name for number in range(identity.count))
    for behaviour in DEFAULT:
        assert counted[behaviour.name] / 200 == pytest.approx(behaviour.share, abs=1.0)
        assert counted[behaviour.name] > 0


def test_a_seed_makes_the_same_devices_and_another_one_others() -> None:
    one, again, other = Identity(1, 100), Identity(1, 100), Identity(2, 100)
    assert [one.token(n) for n in range(100)] == [again.token(n) for n in range(100)]
    assert len({one.token(n) for n in range(100)} | {other.token(n) for n in range(100)}) == 200
    assert one.number(one.name(42)) == 42
    assert one.number("sim-0000100") is None
    assert one.number("desk-7") is None


def states(end: str, **changes: Any) -> list[str]:
    behaviour = Behaviour(**changes)
    steps = script(behaviour, end, (0, 50), download=True)
    return [step.state.value if isinstance(step, Word) else step.name for step in steps]


def test_scripts_say_what_the_behaviour_is() -> None:
    whole = ["downloading", "downloading", "DOWNLOAD", "installing", "validating"]
    assert states("complete") == [*whole, "complete"]
    assert states("rolled_back") == [*whole, "rolled_back"]
    assert states("failed") == [*whole[:4], "failed"]
    assert states("silent") == [Step.SILENCE.name]
    assert states("silent", silent_at=UpdateState.VALIDATING) == [*whole[:4], Step.SILENCE.name]
    assert states("complete", late=True)[-4:] == ["complete", "downloading", "installing", "validating"]
    assert states("complete", withdraws=True)[-2:] == ["complete", "rolled_back"]
