"""The quickstart runs as it is printed: its commands are typed into a shell, its outputs must appear.

A block marked `console` is typed into the reader's terminal; with a second word (`console server`) it is a
terminal of its own, which keeps running; a block of another language with a path is that file. A line `$ `
is a command, anything else is output that must appear, where `...` stands for anything. The page's fixed
ports become free ones: two test runs must not meet.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import wait_until
from skylift.testkit.ports import free_port

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quickstart.md"
PATIENCE_S = 90.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Typed:
    """One command and the output lines the page shows after it."""

    command: str
    expected: list[str] = field(default_factory=list)


@dataclass
class Block:
    """One code block: its language, the second word after it, what is in it."""

    language: str
    name: str
    body: str

    def typed(self) -> list[Typed]:
        """The commands of a console block."""
        found: list[Typed] = []
        for line in self.body.splitlines():
            if line.startswith("$ "):
                found.append(Typed(line[2:]))
            elif line.strip():
                found[-1].expected.append(line.strip())
        return found


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page that are marked with a language."""
    for found in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(*found)


def shown(expected: str, output: str) -> bool:
    """Whether the output has a line like the page's; blanks in any number are one."""
    words = (re.escape(part) for part in re.split(r"\s*\.\.\.\s*", " ".join(expected.split())))
    flat = "\n".join(" ".join(line.split()) for line in _ANSI.sub("", output).splitlines())
    return re.search(".*".join(words), flat) is not None


class Terminal:
    """A shell that is typed into."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, command: str) -> tuple[str, int]:
        """Output and exit code of a command; `$?` stays what it was for the next one."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        mark = "this command has ended:"
        watchdog = threading.Timer(PATIENCE_S, self._shell.kill)
        watchdog.start()
        self._shell.stdin.write(f'{command}\nended=$?; echo; echo "{mark} $ended"; (exit $ended)\n')
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(mark):
                watchdog.cancel()
                return "".join(lines), int(line.removeprefix(mark))
            lines.append(line)
        watchdog.cancel()
        pytest.fail(f"not within {PATIENCE_S:g} s: {command}\n{''.join(lines)}")

    def close(self) -> None:
        self._shell.kill()
        self._shell.communicate()


class Running:
    """A terminal in which one command keeps running."""

    def __init__(self, typed: Typed, home: Path, environment: dict[str, str]) -> None:
        self._typed = typed
        self._log = home / f"{'-'.join(typed.command.split()[:2])}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", f"exec {typed.command}"],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Until it has said what the page says."""
        said = f"{self._typed.command} says {self._typed.expected}"
        wait_until(self._has_said_it, PATIENCE_S, said)

    def _has_said_it(self) -> bool:
        output = self._log.read_text(errors="replace")
        assert self._process.poll() is None, output
        return all(shown(line, output) for line in self._typed.expected)

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.mark.slow
def test_the_quickstart_does_what_it_says(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for port in ("8080", "1883"):
        assert port in text
        text = text.replace(port, str(free_port()))
    server, broker = re.findall(r'^(?:server|mqtt) = ".*:(\d+)"$', text, re.MULTILINE)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SKYLIFT_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SKYLIFT_PORT": server,  # the page relies on the defaults for both
        "SKYLIFT_MQTT_PORT": broker,
        "NO_COLOR": "1",
    }
    with ExitStack() as terminals:
        desk = Terminal(tmp_path, environment)
        terminals.callback(desk.close)
        for block in blocks(text):
            if block.language != "console":
                (tmp_path / block.name).parent.mkdir(exist_ok=True)
                (tmp_path / block.name).write_text(block.body)
            elif block.name:
                (only,) = block.typed()
                running = Running(only, tmp_path, environment)
                terminals.callback(running.close)
                running.wait()
            else:
                _type(desk, block.typed())


def _type(desk: Terminal, typed: list[Typed]) -> None:
    for number, one in enumerate(typed):
        output, code = desk.type(one.command)
        asked_for = number + 1 < len(typed) and typed[number + 1].command == "echo $?"
        assert code == 0 or asked_for, f"$ {one.command}\n{output}\nexit code {code}"
        for line in one.expected:
            assert shown(line, output), f"$ {one.command}\nthe page says: {line}\nit says:\n{output}"
