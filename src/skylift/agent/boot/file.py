"""The file-backed boot loader and board: `boot.json` says what boots, and a boot really executes the image.

The rules of every A/B boot loader, on files:

- A trial's tries are counted down, durably, before it is started: a boot that hangs has used one.
- Nothing runs whose digest is not the one it was armed or confirmed with (secure boot).
- Tries used up, or a bad digest: the confirmed slot boots, and the fallback is written down.
- What is confirmed and fails to come up healthy `boot_attempts` times in a row gives way to what was good
  before it, where there is such a thing: the image or the configuration, whichever was confirmed last; and
  when that was not it, the other.
"""

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from skylift.agent.boot import BootFacts, SlotFacts
from skylift.agent.disk import Disk, read_json

KINDS = ("image", "config")
NOTHING = "-"  # what was good before the first configuration: none
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # before any fork: its child may have to wait for ever for the loader
_CHUNK = 1 << 20


class Bricked(Exception):
    """No slot holds a valid image. What everything here is built never to reach."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """The state of one kind. `confirmed`: the slot that boots; `previous`: the one that was good before;
    `turn`: the higher, the later it was confirmed."""

    confirmed: str = ""
    previous: str = ""
    trial: str = ""
    tries: int = 0
    fallen_tag: str = ""
    fallen_reason: str = ""
    slots: dict[str, dict[str, Any]] = field(default_factory=dict)
    turn: int = 0

    def slot(self, name: str) -> SlotFacts:
        return SlotFacts(**self.slots[name]) if name in self.slots else SlotFacts()


class FileBoot:
    """`BootControl` on files, and the board around it: `boot`, `halt`."""

    def __init__(self, disk: Disk, directory: Path, attempts: int) -> None:
        self._disk = disk
        self._directory = directory
        self._attempts = attempts
        self._path = directory / "boot.json"
        self._copy = directory / "boot-copy.json"
        self._booted: dict[str, tuple[str, bool]] = {}  # kind -> (slot, on trial): this boot's own memory
        self._process: subprocess.Popen[bytes] | None = None

    # --- what is written down ----------------------------------------------------------------------

    def _load(self) -> tuple[dict[str, _Kind], int]:
        """What was saved last. A record that a broken disk spoiled is read from its copy."""
        for path in (self._path, self._copy):
            body = read_json(path)
            try:
                return {kind: _Kind(**body["kinds"][kind]) for kind in KINDS}, int(body["failed_boots"])
            except (KeyError, TypeError, ValueError):
                continue
        return {kind: _Kind() for kind in KINDS}, 0

    def _save(self, kinds: dict[str, _Kind], failed_boots: int) -> None:
        """The record, then its copy: if the power fails between the two, the newer one is the one that is
        read."""
        body = {"kinds": {kind: asdict(state) for kind, state in kinds.items()}, "failed_boots": failed_boots}
        self._disk.replace_json(self._path, body)
        self._disk.replace_json(self._copy, body)

    def _set(self, kind: str, **values: Any) -> None:
        kinds, failed = self._load()
        kinds[kind] = replace(kinds[kind], **values)
        self._save(kinds, failed)

    def path(self, kind: str, slot: str) -> Path:
        """The slot's file."""
        return self._directory / kind / slot

    def provision(self, image: Path, version: str) -> None:
        """The factory's work: the first image, confirmed, in slot a. Done once; again it changes nothing."""
        for kind in KINDS:
            (self._directory / kind).mkdir(parents=True, exist_ok=True)
        kinds, _ = self._load()
        if kinds["image"].confirmed:
            return
        body = image.read_bytes()
        self._disk.replace(self.path("image", "a"), body)
        holds = SlotFacts(hashlib.sha256(body).hexdigest(), version, len(body), "factory")
        kinds["image"] = _Kind(confirmed="a", slots={"a": asdict(holds)})
        self._save(kinds, 0)

    # --- BootControl -------------------------------------------------------------------------------

    def facts(self, kind: str) -> BootFacts:
        state = self._load()[0][kind]
        running, on_trial = self._booted.get(kind, ("", False))
        return BootFacts(
            running=running,
            running_trial=on_trial and state.trial == running,
            trial_tag=state.slot(state.trial).tag if state.trial else "",
            confirmed_tag=state.slot(state.confirmed).tag,
            fallen_tag=state.fallen_tag,
            fallen_reason=state.fallen_reason,
        )

    def slot(self, kind: str, slot: str) -> SlotFacts:
        return self._load()[0][kind].slot(slot)

    def idle_slot(self, kind: str) -> str:
        state = self._load()[0][kind]
        return "b" if (state.confirmed or "b") == "a" else "a"

    def forget(self, kind: str, slot: str) -> None:
        state = self._load()[0][kind]
        if slot == state.confirmed:
            raise AssertionError(f"slot {slot} of {kind} is the confirmed one")
        slots = {name: holds for name, holds in state.slots.items() if name != slot}
        previous = "" if state.previous == slot else state.previous
        trial = "" if state.trial == slot else state.trial
        self._set(kind, slots=slots, previous=previous, trial=trial)

    def arm(self, kind: str, slot: str, holds: SlotFacts) -> None:
        state = self._load()[0][kind]
        slots = {**state.slots, slot: asdict(holds)}
        self._set(kind, slots=slots, trial=slot, tries=self._attempts, fallen_tag="", fallen_reason="")

    def confirm(self, kind: str) -> None:
        kinds, _ = self._load()
        state = kinds[kind]
        if not state.trial or self._booted.get(kind) != (state.trial, True):
            raise AssertionError(f"no trial of {kind} runs")
        turn = 1 + max(each.turn for each in kinds.values())
        kinds[kind] = replace(
            state, confirmed=state.trial, previous=state.confirmed or NOTHING, trial="", tries=0, turn=turn
        )
        self._save(kinds, 0)

    def mark_bad(self, kind: str, reason: str) -> None:
        state = self._load()[0][kind]
        if state.trial:
            self._set(kind, **_fallen(state, reason))

    def healthy(self) -> None:
        kinds, failed = self._load()
        if failed:
            self._save(kinds, 0)

    def acknowledge(self, kind: str) -> None:
        self._set(kind, fallen_tag="", fallen_reason="")

    # --- the board ---------------------------------------------------------------------------------

    def boot(self, port: int) -> None:
        """Choose, verify, execute. Raises `Bricked` when no slot of the image is valid."""
        kinds, failed = self._load()
        on_trial = any(kinds[kind].trial for kind in KINDS)
        if failed >= self._attempts and not on_trial:
            kinds, failed = _give_way(kinds), 0
        chosen: dict[str, tuple[str, bool]] = {}
        for kind in KINDS:
            kinds[kind], chosen[kind] = self._choose(kind, kinds[kind])
        # Counted before anything starts: a boot that dies at its first instruction has been counted.
        self._save(kinds, failed if any(trial for _, trial in chosen.values()) else failed + 1)
        self._booted = chosen
        self._execute(port, kinds)

    def _choose(self, kind: str, state: _Kind) -> tuple[_Kind, tuple[str, bool]]:
        if state.trial:
            if state.tries > 0 and self._valid(kind, state, state.trial):
                return replace(state, tries=state.tries - 1), (state.trial, True)
            reason = "boot_failed" if state.tries <= 0 else "hash_mismatch"
            state = replace(state, **_fallen(state, reason))
        if not state.confirmed:
            return state, ("", False)  # no configuration yet is fine; no image is caught below
        if self._valid(kind, state, state.confirmed):
            return state, (state.confirmed, False)
        other = "b" if state.confirmed == "a" else "a"
        if self._valid(kind, state, other):
            tag = state.slot(state.confirmed).tag
            back = replace(state, confirmed=other, previous="", fallen_tag=tag, fallen_reason="hash_mismatch")
            return back, (other, False)
        if kind == "config":
            return replace(state, confirmed="", previous=""), ("", False)
        raise Bricked("no slot holds a valid image")

    def _valid(self, kind: str, state: _Kind, slot: str) -> bool:
        holds = state.slot(slot)
        return bool(holds.sha256) and digest(self.path(kind, slot)) == holds.sha256

    def _execute(self, port: int, kinds: dict[str, _Kind]) -> None:
        slot = self._booted["image"][0]
        if not slot:
            raise Bricked("no image was ever installed")
        config = self._booted["config"][0]
        environment = {
            **os.environ,
            "SKYLIFT_PORT": str(port),
            "SKYLIFT_VERSION": kinds["image"].slot(slot).version,
            "SKYLIFT_CONFIG": str(self.path("config", config)) if config else "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(self.path("image", slot))],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )

    def alive(self) -> bool:
        """Whether the image's process runs."""
        return self._process is not None and self._process.poll() is None

    def halt(self) -> None:
        """Power off: the image's process ends."""
        process, self._process = self._process, None
        self._booted = {}
        if process is None:
            return
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def versions(self) -> tuple[str, str, str]:
        """(image version, configuration version, image digest) of what was booted."""
        kinds, _ = self._load()
        image = kinds["image"].slot(self._booted.get("image", ("", False))[0])
        config = kinds["config"].slot(self._booted.get("config", ("", False))[0])
        return image.version, config.version, image.sha256


def _fallen(state: _Kind, reason: str) -> dict[str, Any]:
    """The trial is over and was bad. Its slot holds nothing bootable any more."""
    slots = {name: holds for name, holds in state.slots.items() if name != state.trial}
    tag = state.slot(state.trial).tag
    previous = "" if state.previous == state.trial else state.previous
    return {
        "trial": "",
        "tries": 0,
        "fallen_tag": tag,
        "fallen_reason": reason,
        "slots": slots,
        "previous": previous,
    }


def _give_way(kinds: dict[str, _Kind]) -> dict[str, _Kind]:
    """What is confirmed failed too often: the latest goes back to what was good before it, where that is
    still there. A first configuration gives way to none."""
    able = [kind for kind, state in kinds.items() if _has_way_back(kind, state)]
    if not able:
        return kinds
    kind = max(able, key=lambda each: kinds[each].turn)
    state = kinds[kind]
    bad = state.slot(state.confirmed)
    slots = {name: holds for name, holds in state.slots.items() if name != state.confirmed}
    back = replace(
        state,
        confirmed="" if state.previous == NOTHING else state.previous,
        previous="",
        slots=slots,
        fallen_tag=bad.tag,
        fallen_reason="boot_failed",
    )
    return {**kinds, kind: back}


def _has_way_back(kind: str, state: _Kind) -> bool:
    if state.previous == NOTHING:
        return kind == "config"
    return bool(state.previous and state.slot(state.previous).sha256)


def digest(path: Path) -> str:
    """SHA-256 of the file, hex; empty where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError:
        return ""
    return found.hexdigest()


def _die_with_parent() -> None:
    """In the child: when the board loses its power, so does what runs on it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
