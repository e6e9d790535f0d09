"""What the command line says, and where: results on stdout, everything else on stderr, errors in one line."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from skylift.cli.app import app
from skylift.testkit.image import build
from skylift.testkit.ports import free_port
from skylift.testkit.stage import Stage

from .conftest import Cli, Said
from .test_deploy import deployments

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
        "audit",
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
    assert {command.callback.__name__ for command in app.registered_commands} == {
        "serve",
        "demo",
        "simulate",
        "top",
    }  # type: ignore[union-attr] # as above


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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("release", "list", "--server", "http://[::1"), "--server"),
        (("release", "list", "--server", "http://a\nb"), "--server"),
        (("release", "list", "--token", "é"), "--token"),
        (("release", "list", "--token", "a\nb"), "--token"),
        (("release", "list", "--product", "\udcff"), "surrogates"),  # half a character in a terminal's bytes
        (("group", "create", "\udcff"), "surrogates"),
        (("release", "show", "x" * 70_000), "too long"),
        (("group", "show", ".."), "no names"),
        (("group", "show", "a\nb"), "name is"),
    ],
    ids=lambda part: part[-1][:9] if isinstance(part, tuple) else "",
)
def test_words_that_no_request_can_say_are_one_line(cli: Cli, words: tuple[str, ...], says: str) -> None:
    said = cli(*words)
    assert said.code == 2
    assert says in one_line(said)


def test_a_name_is_one_name_whatever_is_in_it(cli: Cli) -> None:
    """No query, no fragment, no other place: what was meant is not there, and nothing else is touched."""
    assert cli("group", "create", "web").code == 0
    for name in ("web#old", "web?old", "../groups/web", "web/", "web%23"):
        assert cli("group", "delete", name, "--yes").code != 0, name
    assert cli("group", "delete", "web", "--yes").code == 0


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


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by its words."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, part in command.commands.items():
        yield from leaves(part, (*path, name))


def test_every_command_that_ends_speaks_json() -> None:
    """A server and an agent run until they are stopped; a show has one way to be told."""
    silent = {("serve",), ("agent", "run"), ("gateway", "run")}
    shows = {("demo",), ("simulate",)}
    for path, command in leaves(get_command(app)):
        if path in silent:
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, path
        assert "-o" in options or path in shows, path


def test_progress_is_for_terminals_and_never_on_stdout(cli: Cli, stage: Stage) -> None:
    image = build(stage.home / "progress.pyz", "5.0.0")
    about = ("--product", "sensor", "--version", "5.0.0", "--device-type", "sensor-v2")
    said = cli("release", "create", image, *about, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["status"] == "signing"
    assert said.err == ""


def on_a_terminal(stage: Stage, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout (a pipe), and what a terminal on stderr is shown."""
    ours, theirs = pty.openpty()
    environment = {**stage.environment, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "skylift", *map(str, words)],
        env=environment,
        cwd=stage.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how a terminal says that nobody is left to write
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out.decode(), shown.decode(errors="replace")


def test_a_terminal_sees_uploads_signing_and_downloads_move(stage: Stage) -> None:
    image = build(stage.home / "moves.pyz", "5.1.0")
    about = ("--product", "sensor", "--version", "5.1.0", "--device-type", "sensor-v2")
    code, out, shown = on_a_terminal(stage, "release", "create", image, *about, "--json")
    assert code == 0, shown
    made = json.loads(out)
    size = f"{image.stat().st_size / 1000:.1f}/{image.stat().st_size / 1000:.1f} kB"
    for what in ("hashing moves.pyz", "uploading moves.pyz"):
        assert re.search(rf"{what} ━+ {re.escape(size)}", shown), shown
    signers = [word for n in (1, 2) for word in ("--key", f"desk/keys/release-sensor-{n}.pem")]
    code, out, shown = on_a_terminal(
        stage, "release", "sign", made["id"], "--keys", "desk", *signers, "--yes", "--json"
    )
    assert code == 0, shown
    assert json.loads(out)["published"] is True
    for what in ("downloading what waits for sensor", "downloading what sensor has published"):
        assert re.search(rf"{what} ━+ ([\d.]+)/\1 kB", shown), shown
    assert re.search(r"signing sensor ━+ 2/2", shown), shown
    code, _, shown = on_a_terminal(stage, "release", "verify", made["id"], image, "--keys", "desk")
    assert code == 0, shown
    assert re.search(rf"hashing moves.pyz ━+ {re.escape(size)}", shown), shown


def test_signing_what_is_published_already_shows_it(cli: Cli, stage: Stage) -> None:
    made = json.loads(cli("release", "show", "sensor/1.1.0", "--json").out)
    said = cli(
        "release", "sign", made["id"], "--key", stage.home / "desk/keys/release-sensor-1.pem", "--json"
    )
    assert (said.code, json.loads(said.out)) == (0, made)
    assert "published already" in said.err


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
    before = deployments(stage)
    said = cli("deploy", "create", "1.1.0", *words)
    assert said.code == 2, said.err
    assert sentence in one_line(said)
    assert deployments(stage) == before


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
