"""`skylift deploy` does what it says, and its exit codes are what scripts rely on."""

import json
import shlex
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import pytest

from skylift.testkit.stage import Stage

from .conftest import Cli, Unit

pytestmark = pytest.mark.slow  # it waits for the server's loop, again and again


def start(cli: Cli, group: str, *words: str) -> str:
    """A running deployment of 1.1.0 to the test's group; its id."""
    said = cli("deploy", "create", "1.1.0", "--group", group, "--interval", "0", *words, "--json")
    assert said.code == 0, said.err
    found: str = json.loads(said.out)["id"]
    return found


def deployments(stage: Stage) -> list[str]:
    """The ids of the latest: all else of one may still change, as others end."""
    return [found["id"] for found in stage.client.get("/api/deployments")["items"]]


def test_a_dry_run_counts_and_creates_nothing(cli: Cli, stage: Stage, group: str) -> None:
    before = deployments(stage)
    said = cli("deploy", "create", "1.1.0", "--group", group, "--phases", "25,100", "--dry-run", "--json")
    assert said.code == 0, said.err
    assert [phase["devices"] for phase in json.loads(said.out)["phases"]] == [1, 3]
    assert deployments(stage) == before


def test_a_rehearsal_tells_what_would_come_and_creates_nothing(cli: Cli, stage: Stage, group: str) -> None:
    before = deployments(stage)
    words = ("deploy", "create", "1.1.0", "--group", group, "--phases", "25,100", "--rehearse")
    said = cli(*words, "--defect", "50", "--defect", "100", "-o", "json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [phase["devices"] for phase in found["phases"]] == [1, 3]
    assert [trip["defect_percent"] for trip in found["gate"]] == [50, 100]
    assert found["bytes"]["full"] > 0
    shown = cli(*words)
    assert shown.code == 0, shown.err
    for word in ("phase 2", "through its phases in", "to download", "requests/s", "devices hurt", "based on"):
        assert word in shown.out
    assert deployments(stage) == before
    wrong = cli(*words, "--defect", "101")
    assert (wrong.code, "defect is 101.0" in wrong.err) == (2, True)
    alone = cli("deploy", "create", "1.1.0", "--group", group, "--defect", "5")
    assert (alone.code, "belongs to --rehearse" in alone.err) == (2, True)


def test_what_a_file_says_holds_unless_an_option_says_otherwise(
    cli: Cli, stage: Stage, group: str, units: list[Unit]
) -> None:
    file = stage.home / "careful.json"
    file.write_text(json.dumps({"target_groups": [group], "failure_threshold_percent": 3, "priority": 4}))
    said = cli("deploy", "create", "1.1.0", "--config", file, "--threshold", "7", "--json")
    assert said.code == 0, said.err
    made = json.loads(said.out)
    assert (made["failure_threshold_percent"], made["priority"]) == (7.0, 4)
    assert cli("deploy", "abort", made["id"], "--yes").code == 0
    made = json.loads(cli("deploy", "create", "1.1.0", "--config", file, "--json").out)
    assert made["failure_threshold_percent"] == 3.0


def test_a_deployment_is_forgotten_once_it_has_ended(cli: Cli, group: str) -> None:
    deployment = start(cli, group)
    early = cli("deploy", "delete", deployment, "--yes")
    assert (early.code, "abort it first" in early.err) == (1, True)
    assert cli("deploy", "delete", deployment).code != 0, "not without being asked"
    assert cli("deploy", "abort", deployment, "--yes").code == 0
    assert cli("deploy", "delete", deployment, "--yes").code == 0
    gone = cli("deploy", "status", deployment)
    assert (gone.code, "there is no such deployment" in gone.err) == (1, True)


def test_waiting_ends_with_0_when_it_is_complete(cli: Cli, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--all-at-once")
    wait_for_offers(cli, deployment)
    for unit in units:
        unit.complete()
    said = cli("deploy", "status", deployment, "--wait", "--timeout", "2m")
    assert said.code == 0, said.err
    assert "complete" in said.out


def test_waiting_ends_with_4_when_its_threshold_stopped_it(cli: Cli, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--all-at-once", "--threshold", "20")
    wait_for_offers(cli, deployment)
    units[0].fail()
    said = cli("deploy", "status", deployment, "--wait", "--timeout", "2m", "--json")
    assert said.code == 4, said.err
    found = json.loads(said.out)
    assert (found["status"], found["paused_by"]) == ("paused", "failure_threshold")
    assert "above the threshold of 20 %" in found["status_reason"]


def test_waiting_ends_with_3_when_it_was_aborted(cli: Cli, group: str) -> None:
    deployment = start(cli, group)
    assert cli("deploy", "abort", deployment, "--yes", "--reason", "second thoughts").code == 0
    said = cli("deploy", "status", deployment, "--wait", "--timeout", "2m")
    assert said.code == 3
    assert "second thoughts" in said.out


def test_waiting_ends_with_5_when_its_time_is_over(cli: Cli, group: str) -> None:
    deployment = start(cli, group)
    said = cli("deploy", "status", deployment, "--wait", "--timeout", "1s", "--json")
    assert said.code == 5
    assert json.loads(said.out)["status"] in ("scheduled", "running")
    assert "after 1s" in said.err


def test_looking_once_exits_with_0_whatever_it_sees(cli: Cli, group: str) -> None:
    deployment = start(cli, group)
    cli("deploy", "abort", deployment, "--yes")
    assert cli("deploy", "status", deployment).code == 0


@pytest.mark.parametrize("time", ["soon", "5d", ""])
def test_a_timeout_that_is_no_time_is_refused(cli: Cli, group: str, time: str) -> None:
    said = cli("deploy", "status", start(cli, group), "--wait", "--timeout", time)
    assert said.code == 2
    assert f"--timeout is {time!r}" in said.err


def test_a_deployment_nobody_knows_is_exit_code_1(cli: Cli) -> None:
    said = cli("deploy", "status", "dep_nowhere")
    assert said.code == 1
    assert "dep_nowhere" in said.err


def test_watching_a_stopped_deployment_shows_why_and_who(cli: Cli, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--all-at-once", "--threshold", "20")
    wait_for_offers(cli, deployment)
    units[0].fail()
    said = cli("deploy", "watch", deployment)
    assert said.code == 4
    assert "top reason: health_check_failed" in said.out
    assert units[0].name in said.out
    assert "the sensor is silent" in said.out
    assert said.out.endswith("\n")


def test_watching_as_json_is_a_line_for_every_change(cli: Cli, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--all-at-once")
    wait_for_offers(cli, deployment)

    def everybody() -> None:
        for unit in units:
            unit.complete()

    with ThreadPoolExecutor(1) as devices:
        working = devices.submit(everybody)
        said = cli("deploy", "watch", deployment, "-o", "json")
        working.result()
    assert said.code == 0, said.err
    seen = [json.loads(line) for line in said.out.splitlines()]
    assert all(one != before for before, one in pairwise(seen))
    assert (seen[-1]["status"], seen[-1]["totals"]["complete"]) == ("complete", 4)
    assert {one["id"] for one in seen} == {deployment}


def test_an_operator_pauses_resumes_and_promotes(cli: Cli, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--phases", "25,100", "--manual")
    wait_for_offers(cli, deployment)
    said = cli("deploy", "pause", deployment, "--reason", "lunch", "--json")
    assert json.loads(said.out)["status"] == "paused"
    assert json.loads(said.out)["paused_by"] == "operator"
    assert json.loads(cli("deploy", "resume", deployment, "--json").out)["status"] == "running"
    assert cli("deploy", "promote", deployment).code == 0
    wait_for_offers(cli, deployment, phase=1)


def test_a_breach_that_stands_is_not_resumed_by_saying_please(
    cli: Cli, group: str, units: list[Unit]
) -> None:
    deployment = start(cli, group, "--all-at-once", "--threshold", "20")
    wait_for_offers(cli, deployment)
    units[0].fail()
    assert cli("deploy", "status", deployment, "--wait", "--timeout", "2m").code == 4
    assert cli("deploy", "resume", deployment).code == 1
    assert cli("deploy", "retry", deployment, "--device", units[0].name).code == 0
    assert cli("deploy", "resume", deployment).code == 0
    for unit in units:
        unit.complete()
    assert cli("deploy", "status", deployment, "--wait", "--timeout", "2m").code == 0


def test_a_rollback_says_how_many_go_back_and_to_what(cli: Cli, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--all-at-once")
    wait_for_offers(cli, deployment)
    for unit in units:
        unit.complete()
    assert cli("deploy", "status", deployment, "--wait", "--timeout", "2m").code == 0
    said = cli("deploy", "rollback", deployment, "--yes")
    assert said.code == 0
    assert "4 devices to 1.0.0" in said.out


@pytest.mark.parametrize("verb", ["abort", "rollback"])
def test_destructive_verbs_do_nothing_unless_confirmed(cli: Cli, group: str, verb: str) -> None:
    deployment = start(cli, group)
    said = cli("deploy", verb, deployment)
    assert said.code == 2
    assert "--yes" in said.err
    assert json.loads(cli("deploy", "status", deployment, "--json").out)["status"] in ("scheduled", "running")


def test_deployments_are_listed_by_status(cli: Cli, group: str) -> None:
    deployment = start(cli, group)
    cli("deploy", "abort", deployment, "--yes")
    listed = json.loads(cli("deploy", "list", "--status", "aborted", "--json").out)
    assert deployment in {found["id"] for found in listed}
    assert {found["status"] for found in listed} == {"aborted"}


def wait_for_offers(cli: Cli, deployment: str, phase: int = 0) -> None:
    """Until this phase is open."""
    from skylift.testkit.stage import wait

    def is_open() -> bool:
        found = json.loads(cli("deploy", "status", deployment, "--json").out)
        return bool(found["phases"][phase]["state"] == "open")

    wait(is_open, f"phase {phase} opens")


def test_a_stopped_deployment_is_explained_and_goes_on_without_the_cohort(
    cli: Cli, stage: Stage, group: str, units: list[Unit]
) -> None:
    more = [Unit(f"{group}-x{n}", stage.facts["url"], f"dev_{group}-x{n}-0123456789abcdef") for n in range(6)]
    for unit in more:
        body = {"device_id": unit.name, "device_type": "sensor-v2", "token": unit.token}
        stage.client.post("/api/devices", {**body, "labels": {"hw": "rev b"}})
        unit.check()
    stage.client.put(f"/api/groups/{group}/devices", {"add": [unit.name for unit in more]})
    deployment = start(cli, group, "--all-at-once", "--gate", "statistical", "--threshold", "55")
    wait_for_offers(cli, deployment)
    for unit in units:
        unit.complete()
    offers = [unit.offered() for unit in more]
    for unit, offer in zip(more, offers, strict=True):
        unit.report(offer, "rolled_back", reason="health_check_failed")
    assert cli("deploy", "status", deployment, "--wait", "--timeout", "2m").code == 4
    said = cli("deploy", "explain", deployment)
    assert said.code == 0, said.err
    assert "label.hw rev b: 6 of 6 failed (100.0 %), of the others 0 of 4" in said.out
    command = f"skylift deploy resume {deployment} --without 'label.hw=\"rev b\"'"
    assert command in said.out
    assert f"skylift deploy rollback {deployment} --only " in said.out
    assert cli("deploy", "resume", deployment).code == 1
    assert cli(*shlex.split(command)[1:]).code == 0
    assert cli("deploy", "status", deployment, "--wait", "--timeout", "2m").code == 0
    found = json.loads(cli("deploy", "status", deployment, "--json").out)
    assert (found["left_out"], found["totals"]["complete"]) == (6, 4)
    assert "goes on without label.hw" in cli("deploy", "status", deployment).out
    for unit in more:
        stage.client.post(f"/api/devices/{unit.name}:decommission")


def test_only_a_cohort_is_rolled_back(cli: Cli, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--all-at-once")
    wait_for_offers(cli, deployment)
    for unit in units:
        unit.complete()
    only = f"device_id={units[0].name}"
    said = cli("deploy", "rollback", deployment, "--only", only, "--yes")
    assert said.code == 0, said.err
    assert "1 devices to 1.0.0" in said.out


def test_nothing_is_explained_where_nothing_failed(cli: Cli, group: str) -> None:
    deployment = start(cli, group)
    said = cli("deploy", "explain", deployment)
    assert said.code == 0, said.err
    assert "none of 0 decided devices failed" in said.out
    assert json.loads(cli("deploy", "explain", deployment, "--json").out)["suspects"] == []


def test_an_audit_counts_everything_again(cli: Cli, stage: Stage, group: str, units: list[Unit]) -> None:
    deployment = start(cli, group, "--all-at-once")
    wait_for_offers(cli, deployment)
    for unit in units[:2]:
        unit.complete()
    said = cli("deploy", "audit", deployment)
    assert said.code == 0, said.err
    assert "equal" in said.out
    (found,) = json.loads(cli("deploy", "audit", deployment, "--json").out)
    assert (found["updates"], found["phases"][0]["full_count"]["complete"]) == (2, 2)
    everything = json.loads(cli("deploy", "audit", "--json").out)
    assert everything[0]["deployment"] == deployment
    assert all(one["equal"] for one in everything)
    with closing(sqlite3.connect(stage.home / "data" / "skylift.db")) as database:
        wrong = "UPDATE counters SET n = n + 3 WHERE deployment_id = ? AND state = 'complete'"
        database.execute(wrong, (deployment,))
        database.commit()
        try:
            said = cli("deploy", "audit", deployment)
        finally:
            database.execute(wrong.replace("+", "-"), (deployment,))
            database.commit()
    assert said.code == 1
    assert "phase 1: complete is counted 5, there are 2" in said.out
    assert said.err.strip() == f"skylift: the counts of {deployment} differ from a full count"
    assert cli("deploy", "audit", "dep_nobody").code == 1
