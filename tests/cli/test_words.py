"""What the command line says, and where: results on stdout, everything else on stderr, errors in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skylift.cli.app import app
from skylift.testkit.image import build
from skylift.testkit.postgresql import free_port
from skylift.testkit.stage import Stage

from .conftest import Cli, Said

GLOSSARY = {
    "release": {"create", "sign", "verify", "upload", "list", "show"},
    "deploy": {
        "create",
        "watch",
        "status",
        "pause",
        "resume",
        "promote",
        "abort",
        "retry",
        "rollback",
        "explain",
        "list",
    },
    "device": {"list", "show", "timeline", "enroll", "decommission"},
    "trust": {"init", "sign", "status", "export"},
    "delta": {"make", "apply", "inspect"},
    "agent": {"run"},
}


def one_line(said: Said) -> str:
    """The only line on stderr; nothing is on stdout."""
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("skylift: ")
    return lines[0]


def test_every_verb_of_the_glossary_is_there() -> None:
    groups = {part.name: part.typer_instance for part in app.registered_groups}
    for name, verbs in GLOSSARY.items():
        found = {
            command.name or command.callback.__name__  # type: ignore[union-attr] # ours all have one
            for command in groups[name].registered_commands  # type: ignore[union-attr] # and these too
        }
        assert verbs <= found, name
    assert {command.callback.__name__ for command in app.registered_commands} == {"serve", "demo", "simulate"}  # type: ignore[union-attr] # as above


def test_help_needs_no_server(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLIFT_SERVER", f"http://127.0.0.1:{free_port()}")
    for words in ((), ("deploy",), ("deploy", "create"), ("trust", "init")):
        said = cli(*words, "--help")
        assert said.code == 0
        assert "Usage" in said.out


def test_a_server_that_is_not_there_is_one_line(cli: Cli) -> None:
    said = cli("device", "list", "--server", f"http://127.0.0.1:{free_port()}")
    assert said.code == 1
    assert "does not answer" in one_line(said)


def test_an_address_that_is_none_is_one_line(cli: Cli) -> None:
    said = cli("device", "list", "--server", "ota.example")
    assert said.code == 2
    assert one_line(said).startswith("skylift: --server is 'ota.example'")


def test_a_token_nobody_knows_is_one_line(cli: Cli) -> None:
    said = cli("device", "list", "--token", "op_nobody")
    assert said.code == 1
    assert "token is not known" in one_line(said)


@pytest.mark.parametrize("words", [("-o", "json"), ("--json",)])
def test_json_is_all_there_is_on_stdout(cli: Cli, words: tuple[str, ...]) -> None:
    said = cli("release", "list", *words)
    assert said.code == 0
    assert {release["version"] for release in json.loads(said.out)} >= {"1.0.0", "1.1.0"}
    assert said.err == ""


def test_progress_is_for_terminals_and_never_on_stdout(cli: Cli, stage: Stage) -> None:
    image = build(stage.home / "progress.pyz", "5.0.0")
    about = ("--product", "sensor", "--version", "5.0.0", "--device-type", "sensor-v2")
    said = cli("release", "create", image, *about, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["status"] == "signing"
    assert said.err == ""


def test_tables_have_no_colours_where_nobody_wants_them(cli: Cli) -> None:
    said = cli("release", "list")
    assert "\x1b" not in said.out + said.err
    assert re.search(r"^id +product +version", said.out)


def test_tables_are_not_cut_in_a_pipe(cli: Cli) -> None:
    said = cli("release", "list")
    assert "…" not in said.out
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+00:00)", said.out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--threshold", "101", "--all"), "failure_threshold_percent is 101"),
        (("--threshold", "-1", "--all"), "failure_threshold_percent is -1"),
        (("--group", "nowhere"), "nowhere"),
        (("--device", "nobody"), "nobody"),
        ((), "target_devices"),
        (("--all", "--phases", "10,5,100"), "phases[1].percent is 5"),
        (("--all", "--phases", "10,50"), "the last phase ends at 100 percent"),
        (("--all", "--phases", "ten"), "--phases is 'ten'"),
        (("--all", "--starts-at", "tomorrow"), "starts_at is 'tomorrow'"),
        (("--all", "--failure-action", "shrug"), "failure_action is 'shrug'"),
    ],
)
def test_a_wrong_deployment_names_field_value_and_rule(
    cli: Cli, stage: Stage, words: tuple[str, ...], sentence: str
) -> None:
    before = stage.client.get("/api/deployments")["items"]
    said = cli("deploy", "create", "1.1.0", *words)
    assert said.code == 2, said.err
    assert sentence in one_line(said)
    assert stage.client.get("/api/deployments")["items"] == before


def test_a_version_nobody_has_is_one_line(cli: Cli) -> None:
    said = cli("deploy", "create", "9.9.9", "--all")
    assert said.code in (1, 2)
    assert "9.9.9" in one_line(said)


def test_a_broken_configuration_file_is_one_line(cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"target_devices": ')
    assert "must be JSON" in one_line(cli("deploy", "create", "1.1.0", "--config", broken))
    broken.write_text("[]")
    assert "must be one JSON object" in one_line(cli("deploy", "create", "1.1.0", "--config", broken))


def test_a_file_that_is_not_there_is_one_line(cli: Cli) -> None:
    about = ("--product", "sensor", "--version", "9.0.0", "--device-type", "sensor-v2")
    said = cli("release", "create", "nowhere.img", *about)
    assert said.code == 2
    assert "nowhere.img" in said.err
    assert "Traceback" not in said.err


def test_an_option_that_does_not_exist_is_one_line(cli: Cli) -> None:
    said = cli("device", "list", "--colour")
    assert said.code == 2
    assert "--colour" in one_line(said)


def test_a_server_with_a_wrong_setting_says_which(stage: Stage) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "skylift", "serve", "--data", stage.home / "other"],
        env={**stage.environment, "SKYLIFT_PORT": "ninety"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("skylift: port is 'ninety'")
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_cannot_have_its_port_says_so_in_one_line(stage: Stage) -> None:
    taken = stage.facts["url"].rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "skylift", "serve", "--data", stage.home / "third", "--mqtt", "off"],
        env={**stage.environment, "SKYLIFT_PORT": taken},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert taken in done.stderr
