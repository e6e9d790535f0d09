"""Every command teaches by example, its examples hold, shells complete its words; `top` shows the fleet."""

import json
import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.main import get_command

from skylift.cli.app import app
from skylift.cli.examples import EXAMPLES
from skylift.cli.speed import Speed
from skylift.cli.top import Screen
from skylift.testkit.stage import Stage

from .conftest import Cli
from .test_words import leaves

COMMANDS = dict(leaves(get_command(app)))


def examples(command: Any) -> list[str]:
    """The lines of its help that can be copied."""
    paragraphs = re.split(r"\n\s*\n", command.help or "")
    flat = [" ".join(part.split()) for part in paragraphs]
    return [line for line in flat if line.startswith("skylift ")]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_teaches_by_an_example_that_it_takes(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    found = examples(command)
    assert found, f"skylift {' '.join(path)} has no example"
    for line in found:
        words = shlex.split(line)[1:]
        assert tuple(words[: len(path)]) == path
        try:
            command.make_context("skylift", words[len(path) :])
        except typer.BadParameter as e:  # files need not be there; all else must be right
            if "does not exist" not in e.format_message():
                raise


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert set(EXAMPLES) <= {" ".join(path) for path in COMMANDS}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("skylift dep", ["deploy"]), ("skylift deploy wat", ["watch"]), ("skylift top --on", ["--once"])],
)
def test_a_shell_completes(typed: str, completed: list[str]) -> None:
    asked = {"_SKYLIFT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    code = "import sys; sys.argv = ['skylift']; from skylift.cli.app import run; sys.exit(run())"
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == completed


# --- top ---------------------------------------------------------------------------------------------


def test_top_shows_the_fleet_what_runs_and_what_needs_a_person(cli: Cli, stage: Stage) -> None:
    said = cli("top", "--once", "--json")
    assert said.code == 0, said.err
    (line,) = said.out.splitlines()
    found = json.loads(line)
    assert set(found) == {"at", "devices", "versions", "heard", "deployments", "needs"}
    assert sum(row["devices"] for row in found["versions"]) == found["devices"]
    shown = cli("top", "--once")
    assert shown.code == 0
    assert shown.out.splitlines()[0] == f"{found['devices']:,} devices"


def look(**changes: Any) -> dict[str, Any]:
    """A deployment as the API shows it."""
    states = ("pending", "downloading", "installing", "validating", "complete", "failed", "rolled_back")
    tally = dict.fromkeys(states, 0) | {"waiting": 60, "complete": 38, "failed": 2} | changes
    phase = {"name": "phase 2", "state": "open", "size": 100, "tally": tally, "failure_rate_percent": 5.0}
    closed = {**phase, "name": "phase 3", "state": "closed"}
    return {
        "id": "dep_01jb",
        "status": "running",
        "sentence": "sensor 2.4.0 is running",
        "totals": tally,
        "devices": 200,
        "failure_threshold_percent": 10.0,
        "phases": [phase, closed],
    }


def test_the_screen_says_how_fast_it_goes_and_when_the_phase_is_decided() -> None:
    screen, drawn = Screen(), Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the process
    fleet = {
        "devices": 200,
        "versions": [{"device_type": "sensor-v2", "version": "2.3.0", "devices": 200}],
        "heard": {"hour": 190, "day": 10, "month": 0, "longer": 0, "never": 0, "unhealthy": 3},
        "needs": [{"what": "half signed", "sentence": "sensor version 3: 1 more signature is needed"}],
    }
    screen.draw(0.0, {**fleet, "deployments": [look()]})
    drawn.print(screen.draw(10.0, {**fleet, "deployments": [look(complete=48, waiting=50)]}))
    text = drawn.export_text()
    for part in (
        "200 devices",
        "190 within the hour, 10 within a day; 3 say they are unhealthy",
        "sensor 2.4.0 is running  dep_01jb",
        "48/200, 2 failed  phase 2 5.0 % of 10 %  60 devices a minute; phase 2 is decided in about 50 s",
        "half signed: sensor version 3: 1 more signature is needed",
    ):
        assert part in text, text


def test_a_speed_is_said_when_there_is_one() -> None:
    speed = Speed()
    speed.note(0.0, look())
    assert speed.words(look()) == ""
    speed.note(1.0, look(complete=40))
    assert speed.words(look()) == ""  # watched too shortly to say
    speed.note(60.0, look())  # fewer than before: a retry began; counted anew
    speed.note(120.0, look())
    assert speed.words(look()) == "0 devices a minute; phase 2 waits for 60 devices"
    speed.note(130.0, look(complete=98))
    assert speed.words(look(complete=98, waiting=0)).endswith("devices a minute")
    assert speed.words(look() | {"status": "paused"}) == ""
