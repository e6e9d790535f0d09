"""What the disk remembers: torn and garbage files, the machine's table, the boot loader's promises."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.agent.boot import BootFacts, SlotFacts
from skylift.agent.boot.file import Bricked, FileBoot
from skylift.agent.disk import Disk
from skylift.agent.journal import MAX_REPORTS, Journal, JournalFile, Order, Stage
from skylift.agent.machine import Facts, Step, next_step

from .conftest import Depot, Device, MakeDevice

Make = Callable[..., bytes]
GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"stage": "idle"}',
    b'{"stage": "nonsense"}',
    b"\x00" * 500,
    b"\xff" * 9,
]
ORDER = Order("dep_1", 1, "image", "1.1.0", "0" * 64, 100, 0, "b", "/blob")


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_garbage_journal_is_a_fresh_start_never_a_brick(
    garbage: bytes, device: Device, depot: Depot, image: Make
) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: device.journal.stage is Stage.READY)
    device.again()
    (device.config.state_dir / "journal.json").write_bytes(garbage)
    device.until(lambda: depot.states()[-1:] == ["complete"])
    assert device.version == "1.1.0"


@given(
    journal=st.builds(
        Journal,
        stage=st.sampled_from(Stage),
        order=st.one_of(st.none(), st.just(ORDER), st.just(replace(ORDER, delta={"url": "/d", "size": 3}))),
        offset=st.integers(0, 1 << 40),
        floor=st.integers(0, 1000),
        reports=st.lists(
            st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), max_size=4
        ).map(tuple),
        answered=st.lists(st.text(max_size=9), max_size=4).map(tuple),
    )
)
def test_a_journal_comes_back_as_it_was_saved(
    tmp_path_factory: pytest.TempPathFactory, journal: Journal
) -> None:
    file = JournalFile(Disk(), tmp_path_factory.getbasetemp() / "journal.json")
    file.save(journal)
    assert file.load() == journal


def test_reports_that_nobody_takes_stay_within_bounds() -> None:
    journal = Journal()
    for number in range(MAX_REPORTS * 3):
        journal = journal.queue({"deployment": "dep_1", "attempt": number})
    assert len(journal.reports) == MAX_REPORTS
    assert journal.reports[-1]["attempt"] == MAX_REPORTS * 3 - 1


def test_a_garbage_journal_does_not_lower_the_floor(device: Device, depot: Depot, image: Make) -> None:
    depot.offer(image("1.1.0"), "1.1.0", security_version=7)
    device.until(lambda: depot.states()[-1:] == ["complete"])
    device.until(device.settled)
    device.again()
    (device.config.state_dir / "journal.json").write_bytes(b"{")
    asked: list[int] = []
    device.verify = lambda transport, floor: asked.append(floor)  # type: ignore[method-assign] # only its argument counts
    depot.offer(image("1.2.0"), "1.2.0", deployment="dep_2")
    device.until(lambda: asked)
    assert asked == [7]


def test_the_slot_that_runs_is_never_written_whatever_the_journal_says(
    device: Device, depot: Depot, image: Make
) -> None:
    new = image("1.1.0")
    depot.offer(new, "1.1.0")
    device.until(lambda: device.boot.facts("image").trial_tag)
    device.again()
    device.on()
    assert device.version == "1.1.0"
    running = device.boot.facts("image").running
    (device.config.state_dir / "journal.json").write_bytes(b"{")
    depot.offer(image("1.2.0"), "1.2.0", deployment="dep_2")
    for _ in range(3):
        device.step()
        if device.agent is None:
            break
        assert device.slot(running).read_bytes() == new


@pytest.mark.parametrize("garbage", [b"{", b"{}", b'{"kinds": {}, "failed_boots": 0}'])
def test_a_garbage_boot_record_does_not_brick_a_device_whose_slots_are_whole(
    garbage: bytes, device: Device, depot: Depot
) -> None:
    device.until(lambda: depot.checks)
    device.again()
    (device.config.state_dir / "slots" / "boot.json").write_bytes(garbage)
    device.on()
    assert device.boot.alive()


# --- the machine -------------------------------------------------------------------------------------

TABLE = [
    (Journal(), BootFacts(), Step.POLL),
    (Journal(stage=Stage.FETCHING, order=ORDER), BootFacts(running="a"), Step.FETCH),
    (Journal(stage=Stage.READY, order=ORDER), BootFacts(running="a"), Step.ARM),
    (Journal(stage=Stage.READY, order=ORDER), BootFacts(running="a", trial_tag="dep_1/1"), Step.REBOOT),
    (
        Journal(stage=Stage.READY, order=ORDER),
        BootFacts(running="b", running_trial=True, trial_tag="dep_1/1"),
        Step.TRY,
    ),
    (Journal(stage=Stage.READY, order=ORDER), BootFacts(running="b", confirmed_tag="dep_1/1"), Step.FINISH),
    (Journal(stage=Stage.READY, order=None), BootFacts(), Step.POLL),
    (Journal(stage=Stage.READY, order=ORDER), BootFacts(running="a", trial_tag="dep_9/1"), Step.ARM),
]


@pytest.mark.parametrize(("journal", "boot", "step"), TABLE)
def test_each_row_of_the_table(journal: Journal, boot: BootFacts, step: Step) -> None:
    assert next_step(Facts(journal, boot)) is step
    assert next_step(Facts(journal, boot, unreported_fallback=True)) is Step.REPORT_FALLBACK


# --- the boot loader ---------------------------------------------------------------------------------


def test_a_trial_is_counted_before_it_is_started(device: Device, depot: Depot, image: Make) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: device.boot.facts("image").trial_tag)
    device.again()
    seen: list[int] = []
    start = device.boot._execute

    def watch(port: int, kinds: object) -> None:
        record = json.loads((device.config.state_dir / "slots" / "boot.json").read_text())
        seen.append(record["kinds"]["image"]["tries"])
        start(port, kinds)  # type: ignore[arg-type] # handed on as it came

    device.boot._execute = watch  # type: ignore[method-assign] # to look at the disk at that moment
    device.on()
    assert seen == [device.config.boot_attempts - 1]


def test_the_confirmed_slot_cannot_be_forgotten_and_no_trial_no_confirmation(device: Device) -> None:
    with pytest.raises(AssertionError):
        device.boot.forget("image", "a")
    with pytest.raises(AssertionError):
        device.boot.confirm("image")
    device.on()
    with pytest.raises(AssertionError):
        device.boot.confirm("image")


def test_an_armed_image_that_has_not_been_booted_cannot_be_confirmed(device: Device) -> None:
    device.on()
    device.boot.arm("image", "b", SlotFacts("0" * 64, "9", 1, "dep_1/1"))
    with pytest.raises(AssertionError):
        device.boot.confirm("image")


def test_a_board_without_any_valid_image_says_so(tmp_path: Path) -> None:
    boot = FileBoot(Disk(), tmp_path, 3)
    with pytest.raises(Bricked):
        boot.boot(0)


def test_the_factory_works_once(device: Device, make_device: MakeDevice, depot: Depot, image: Make) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: depot.states()[-1:] == ["complete"])
    device.off()
    second = make_device()
    second.on()
    assert second.version == "1.1.0"
