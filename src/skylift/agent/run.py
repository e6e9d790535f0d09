"""The agent's loop: look at the facts, do the step, look again. It ends when it wants a reboot (`board`)."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from skylift.agent import health, orders, vitals
from skylift.agent.boot import BootFacts, SlotFacts
from skylift.agent.boot.file import KINDS, FileBoot
from skylift.agent.config import Config
from skylift.agent.disk import Disk, read_json
from skylift.agent.fetch import Fetcher
from skylift.agent.identity import AGAIN_S
from skylift.agent.journal import Floor, Journal, JournalFile, Order, Products, Stage
from skylift.agent.machine import Facts, Step, next_step
from skylift.agent.transport import Refused, Transport
from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import OUTCOMES, Reason, UpdateState
from skylift.core.ways import Way

S = UpdateState
MAX_MESSAGE = 500
LOOK_EVERY_S = 0.25  # how soon a dead image is noticed
BACK_OFF_S = (1.0, 60.0)  # after an unexpected error: doubling between these
AWAY_S = (1.0, 300.0)  # while the server is away: doubling between these, unless it named a later time
TENTH = 10  # percent: how often a download is shown in the log
MOST_ERRORS = 5  # unexpected ones in a row, until an update is given up


class Outcome(StrEnum):
    """Why the agent's loop ended."""

    REBOOT = "reboot"
    STOP = "stop"


class Agent:
    """One boot's worth of agent."""

    def __init__(
        self,
        config: Config,
        disk: Disk,
        boot: FileBoot,
        transport: Transport,
        port: int,
        log: Callable[[str], None],
        verify: Callable[[Transport, int], Any] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config = config
        self._disk = disk
        self._boot = boot
        self._transport = transport
        self._port = port
        self._log = log
        self._clock = clock
        self._file = JournalFile(disk, config.state_dir / "journal.json")
        self._floor = Floor(disk, config.state_dir / "floor.json")
        self._products = Products(disk, config.state_dir / "products.json")
        self._verify = verify or self._vouched
        self._fetcher = Fetcher(config, disk, boot, self._file, transport)
        self.wake = threading.Event()
        self.stopping = False
        self._known_healthy = False
        self._shown = -1  # tenths of the download that were told last
        self._health_due = 0.0  # when to say again how the device is, of the monotonic clock

    def run(self) -> Outcome:
        """Step after step, until a reboot is wanted or somebody stops us."""
        away = errors = came = 0
        while not self.stopping:
            try:
                rest = self.step()
                away = errors = 0
            except Unavailable as e:
                before, came = came, self._file.load().received
                away = 0 if came > before else away + 1  # a download that breaks, but comes on, is not away
                rest = longer(AWAY_S, away, e.retry_after)
                self._log(f"waiting {rest:.0f} s: {e}")
            except Exception as e:  # noqa: BLE001 - an agent runs unattended for years: say it, and go on
                self._log(f"unexpected: {type(e).__name__}: {e}")
                rest, errors = longer(BACK_OFF_S, errors), errors + 1
                if errors >= MOST_ERRORS:
                    rest, errors = self._give_up(e, rest), 0
            if rest is None:
                return Outcome.REBOOT
            if not self._sleep(rest):
                return Outcome.REBOOT
        return Outcome.STOP

    def _give_up(self, error: Exception, rest: float) -> float | None:
        """The same error again and again: the update that meets it has failed. A trial is bad; an order is
        over; without either there is only time. Seconds to rest, or None for a reboot."""
        journal = self._file.load()
        words = f"{type(error).__name__}: {error}"
        order = journal.order
        try:
            facts = self._facts(journal)
            if facts.boot.running_trial:
                kind = order.kind if order else next(k for k in KINDS if self._boot.facts(k).running_trial)
                self._boot.mark_bad(kind, f"{Reason.HEALTH_CHECK_FAILED}: {words}")
                return None
            if order is not None and order.tag not in (facts.boot.trial_tag, facts.boot.confirmed_tag):
                self._end(journal, order, S.FAILED, Reason.INSTALL_ERROR, words)
        except Exception as e:  # noqa: BLE001 - the disk itself, perhaps: nothing can be written down now
            self._log(f"cannot give up either: {type(e).__name__}: {e}")
        return rest

    def step(self) -> float | None:
        """Do what is next; seconds to rest after it, or None for a reboot."""
        journal = self._file.load()
        match next_step(self._facts(journal)):
            case Step.REPORT_FALLBACK:
                return self._report_fallback(journal)
            case Step.POLL:
                return self._poll(journal)
            case Step.FETCH:
                return self._fetch(journal)
            case Step.ARM:
                return self._arm(journal)
            case Step.REBOOT:
                self._deliver(journal)
                return None
            case Step.TRY:
                return self._try(journal)
            case Step.FINISH:
                return self._finish(journal)

    def _facts(self, journal: Journal) -> Facts:
        trying = (each for each in KINDS if self._boot.facts(each).running_trial)
        kind = journal.order.kind if journal.order else next(trying, "image")
        fallen = any(self._boot.facts(each).fallen_tag for each in KINDS)
        return Facts(journal, self._boot.facts(kind), fallen)

    def _alive(self) -> bool:
        """Whether judging makes sense: the image runs, and nobody has told us to stop."""
        return self._boot.alive() and not self.stopping

    def _sleep(self, seconds: float) -> bool:
        """Rest until the time is over or somebody rings; False when the image died meanwhile."""
        until = time.monotonic() + seconds
        while not self.stopping and not self.wake.is_set():
            if not self._boot.alive():
                self._log("the image's process has ended")
                return False
            left = until - time.monotonic()
            if left <= 0:
                break
            self.wake.wait(min(left, LOOK_EVERY_S))
        self.wake.clear()
        return True

    # --- steps -------------------------------------------------------------------------------------

    def _poll(self, journal: Journal) -> float | None:
        if not self._known_healthy:
            if wrong := health.judge(self._config, self._port, self._alive, local=True):
                self._log(f"not healthy: {wrong}")
                return None  # counted by the board; too often, and the former image comes back
            self._boot.healthy()
            self._known_healthy = True
        enroll(self._config, self._disk, self._transport)
        self._certify()
        self._deliver(journal)
        self._tell_health()
        version, config_version, sha256 = self._boot.versions()
        try:
            answer = self._transport.check(version, config_version, sha256)
        except Refused as e:
            raise Unavailable(str(e), 60) from e
        rest = self._rest(answer)
        if not answer["update_available"]:
            if answer.get("report_health") is True:
                self._tell_health(asked=True)
            return rest
        tag = f"{answer.get('deployment')}/{answer.get('attempt')}"
        if tag in journal.answered:
            return rest
        try:
            order = self._accept(answer, journal)
        except TrustError as e:
            self._refuse(journal, answer, tag, e)
            return rest
        if order is None or order.tag in journal.answered:
            return rest
        self._log(f"ordered: {order.kind} {order.version}")
        begun = replace(
            journal,
            stage=Stage.FETCHING,
            order=order,
            offset=0,
            taken=0,
            notes=(),
            way=Way.FULL.value,
            passed={},
        )
        self._file.save(self._queue(begun, order, S.DOWNLOADING, progress=0))
        return 0

    def _tell_health(self, asked: bool = False) -> None:
        """How the device is now: its checks once, and its numbers. At each poll where the server asks for it,
        because it compares this device with others, and now and then unasked."""
        every = self._config.report_health_seconds
        if not every or (time.monotonic() < self._health_due and not asked):
            return
        wrong = health.look(self._config, self._port, local=True)
        if wrong:
            self._log(f"not well: {wrong}")
        self._health_due = time.monotonic() + every
        try:
            self._transport.health(not wrong, vitals.measure(self._config))
        except Refused as e:
            self._log(f"health not told: {e}")
            self._health_due += AGAIN_S

    def _certify(self) -> None:
        """The certificate that is missing, or about to run out. In vain: tomorrow again; updates go on."""
        identity = self._transport.identity
        if identity is None or not identity.is_due(self._clock()):
            return
        try:
            self._transport.certify()
            self._log("certified: the device has a certificate")
        except (Refused, Unavailable) as e:
            self._log(f"not certified: {e}")
            identity.put_off(max(e.retry_after, 60.0) if isinstance(e, Unavailable) else AGAIN_S)

    def _rest(self, answer: dict[str, Any]) -> float:
        told = answer.get("retry_after")
        seconds = float(told) if isinstance(told, int | float) and 0 < told < 1e6 else 300.0
        if self._config.poll_seconds:
            seconds = min(seconds, self._config.poll_seconds)
        return seconds * random.uniform(0.85, 1.15)  # noqa: S311 - spreads a herd, keeps no secret

    def _accept(self, answer: dict[str, Any], journal: Journal) -> Order | None:
        """The order, if both repositories vouch for it; the check's own words are hints only."""
        found = self._verify(self._transport, max(journal.floor, self._floor.read()))
        return None if found is None else orders.order(found, answer, self._boot.idle_slot)

    def _vouched(self, transport: Transport, floor: int) -> Any:
        return orders.vouched(self._config, self._products, transport, floor, self._clock())

    def _refuse(self, journal: Journal, answer: dict[str, Any], tag: str, error: TrustError) -> None:
        """An order that does not verify is reported as failed, once, and never begun."""
        self._log(f"refused: {error}")
        report = {
            "deployment": str(answer.get("deployment")),
            "attempt": answer.get("attempt"),
            "state": S.FAILED.value,
            "reason": error.code,
            "error_message": str(error)[:MAX_MESSAGE],
        }
        self._file.save(journal.answer(tag).queue(report))
        self._deliver(self._file.load())

    def _fetch(self, journal: Journal) -> float | None:
        order = _order(journal)
        journal = self._deliver(journal)
        if journal.stage is Stage.IDLE:
            return 0  # the server has canceled it
        try:
            ready = self._fetcher.fill(journal, order, lambda percent: self._progress(order, percent))
        except TrustError as e:
            self._end(self._file.load(), order, S.FAILED, e.code, str(e))
            return 0
        except Refused as e:
            self._end(self._file.load(), order, S.FAILED, Reason.DOWNLOAD_ERROR, str(e))
            return 0
        except Unavailable as e:
            if time.time() - order.began < self._config.download_deadline_seconds:
                raise
            self._end(self._file.load(), order, S.FAILED, Reason.DOWNLOAD_ERROR, f"never got it: {e}")
            return 0
        for note in ready.notes:
            self._log(note)
        told: dict[str, Any] = {"way": ready.way}
        if ready.passed:
            told["passed"] = ready.passed
        self._file.save(self._queue(ready, order, S.INSTALLING, progress=100, **told))
        return 0

    def _arm(self, journal: Journal) -> float | None:
        order = _order(journal)
        journal = self._deliver(journal)
        if journal.stage is Stage.IDLE:
            return 0
        self._file.save(self._queue(journal, order, S.VALIDATING, progress=100))
        holds = SlotFacts(order.sha256, order.version, order.length, order.tag)
        self._boot.arm(order.kind, order.slot, holds)
        return 0

    def _try(self, journal: Journal) -> float | None:
        if journal.order is None:
            return self._try_forgotten(journal)
        order = journal.order
        if wrong := health.judge(self._config, self._port, self._alive):
            if self.stopping:
                return 0  # not judged: the next boot tries again
            self._log(f"trial failed: {wrong}")
            self._boot.mark_bad(order.kind, f"{Reason.HEALTH_CHECK_FAILED}: {wrong}")
            return None
        self._boot.confirm(order.kind)
        self._log(f"confirmed: {order.kind} {order.version}")
        return 0

    def _try_forgotten(self, journal: Journal) -> float | None:
        """A trial runs whose order the journal lost (a broken disk): boot control knows enough."""
        kind = next(each for each in KINDS if self._boot.facts(each).running_trial)
        if wrong := health.judge(self._config, self._port, self._alive):
            if self.stopping:
                return 0
            self._boot.mark_bad(kind, f"{Reason.HEALTH_CHECK_FAILED}: {wrong}")
            return None
        facts = self._boot.facts(kind)
        deployment, _, attempt = facts.trial_tag.rpartition("/")
        report = {
            "deployment": deployment,
            "attempt": int(attempt),
            "state": S.COMPLETE.value,
            "image_sha256": self._boot.slot(kind, facts.running).sha256,
        }
        self._boot.confirm(kind)
        self._file.save(journal.answer(facts.trial_tag).queue(report))
        return 0

    def _finish(self, journal: Journal) -> float | None:
        """Confirmed. The floor rises only here, and in the same write as the report."""
        order = _order(journal)
        self._products.learn(order.kind, order.product)
        journal = replace(journal, floor=self._floor.rise(max(journal.floor, order.security_version)))
        proof = self._boot.versions()[2] if order.kind == "image" else order.sha256
        more: dict[str, Any] = {"security_floor": journal.floor} if journal.floor else {}
        if self._config.report_health_seconds:  # its checks have just passed
            more |= {"healthy": True, "metrics": vitals.measure(self._config)}
        self._end(journal, order, S.COMPLETE, None, "; ".join(journal.notes), image_sha256=proof, **more)
        self._known_healthy = True
        return 0

    def _report_fallback(self, journal: Journal) -> float | None:
        for kind in KINDS:
            facts: BootFacts = self._boot.facts(kind)
            if not facts.fallen_tag:
                continue
            deployment, _, attempt = facts.fallen_tag.rpartition("/")
            reason, _, words = facts.fallen_reason.partition(": ")
            self._log(f"fell back: {facts.fallen_reason}")
            if attempt.isdecimal():
                report = {
                    "deployment": deployment,
                    "attempt": int(attempt),
                    "state": S.ROLLED_BACK.value,
                    "reason": reason,
                    "error_message": (words or facts.fallen_reason)[:MAX_MESSAGE],
                }
                ended = replace(journal, stage=Stage.IDLE, order=None, offset=0)
                self._file.save(ended.answer(facts.fallen_tag).queue(report))
            self._boot.acknowledge(kind)
            journal = self._file.load()
        return 0

    # --- reports -----------------------------------------------------------------------------------

    def _queue(self, journal: Journal, order: Order, state: UpdateState, **more: Any) -> Journal:
        report = {"deployment": order.deployment, "attempt": order.attempt, "state": state.value, **more}
        return journal.queue(report)

    def _end(
        self, journal: Journal, order: Order, state: UpdateState, reason: str | None, words: str, **more: Any
    ) -> None:
        """The order's last report, and idle again, in one write."""
        if reason is not None:
            more["reason"] = str(reason)
        if words:
            more["error_message"] = words[:MAX_MESSAGE]
        ended = replace(journal, stage=Stage.IDLE, order=None, offset=0).answer(order.tag)
        self._file.save(self._queue(ended, order, state, **more))
        self.wake.set()

    def _deliver(self, journal: Journal) -> Journal:
        """Hand over what waits, in order; what the server has taken is forgotten. Never blocks an update:
        when the way is bad it is tried again later."""
        while journal.reports:
            try:
                answer = self._transport.report(self._with_checkpoint(journal.reports[0]))
            except Refused as e:
                self._log(f"report refused: {e}")
                answer = {}
            except Unavailable as e:
                self._log(f"report waits: {e}")
                return journal
            told = f"{journal.reports[0].get('deployment')}/{journal.reports[0].get('attempt')}"
            journal = replace(journal, reports=journal.reports[1:])
            if answer.get("state") == S.CANCELED.value and self._may_stop(journal, told):
                self._log("canceled by the server")
                journal = replace(journal, stage=Stage.IDLE, order=None, offset=0).answer(told)
            self._file.save(journal)
        return journal

    def _with_checkpoint(self, report: dict[str, Any]) -> dict[str, Any]:
        """The last word of an update says which log this device was shown."""
        pin = read_json(self._config.state_dir / "trust" / "log.json")
        if report.get("state") not in OUTCOMES or not isinstance(pin, dict):
            return report
        return {**report, "log": {"size": pin.get("size"), "root": pin.get("root")}}

    def _may_stop(self, journal: Journal, tag: str) -> bool:
        """Whether the order in hand is the one of this tag, and not armed yet: a trial is judged, come what
        may."""
        order = journal.order
        return order is not None and order.tag == tag and self._boot.facts(order.kind).trial_tag != tag

    def _progress(self, order: Order, percent: int) -> None:
        """Told as it goes, here and to the server; nobody is sorry for one that gets lost."""
        if percent // TENTH != self._shown:
            self._shown = percent // TENTH
            self._log(f"downloading {order.version} {bar(percent)} {percent} %")
        report = {
            "deployment": order.deployment,
            "attempt": order.attempt,
            "state": S.DOWNLOADING.value,
            "progress": percent,
        }
        try:
            self._transport.report(report)
        except (Unavailable, Refused) as e:
            self._log(f"progress not told: {e}")


def _order(journal: Journal) -> Order:
    if journal.order is None:
        raise AssertionError("the machine asks for this step only with an order in hand")
    return journal.order


def bar(percent: int) -> str:
    """[####......]"""
    full = percent // TENTH
    return f"[{'#' * full}{'.' * (10 - full)}]"


def longer(bounds: tuple[float, float], times: int, at_least: float = 0.0) -> float:
    """Seconds to wait after so many times in vain: doubling between the bounds, not less than was asked for,
    a little different on every device."""
    shortest, longest = bounds
    wait = max(at_least, min(longest, shortest * 2.0 ** min(times, 20)))
    return wait * random.uniform(1.0, 1.25)  # noqa: S311 - spreads a herd, keeps no secret


def enroll(config: Config, disk: Disk, transport: Transport) -> None:
    """Once, with the claim token of the configuration."""
    done = config.state_dir / "shared" / "enrolled"
    if config.claim and not done.exists():
        try:
            transport.enroll(config.claim)
        except Refused as e:
            raise Unavailable(f"not enrolled: {e}", 60) from e
        except Unavailable as e:
            raise Unavailable(f"not enrolled yet: {e}", min(e.retry_after, 10)) from e
        disk.replace(done, b"yes\n")
