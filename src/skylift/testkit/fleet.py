"""Simulated devices over HTTP: ten or a million in one process, each with a behaviour and a memory.

A device enrolls, asks, and reports its way through the stages like a small client would: it repeats what was
not answered (the answer or the server may have been lost), and what *was* answered is remembered, because an
acknowledged report is a promise of the server's (`testkit.memory`). Devices install nothing; agents that do
are `skylift.agent`.

A million devices are data: arrays, a timer wheel of who acts next, an object only for those on their way.
Requests are open loop: they are due when the device's own time has come, whether or not the server has kept
up, and a latency counts from then. The same seed gives the same devices, doing the same things.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from time import perf_counter, time
from typing import Any

from skylift.core.lifecycle import FINAL, UpdateState
from skylift.testkit.behaviours import Behaviour
from skylift.testkit.identity import Identity
from skylift.testkit.memory import DOUBT, Memory
from skylift.testkit.meter import Kind, Meter
from skylift.testkit.walk import Flight, Step, Word, said, script
from skylift.testkit.wheel import Wheel
from skylift.testkit.wire import Lost, Reply, Wire

_S = UpdateState
AGAIN_S = 0.1  # the shortest time until a device tries again
COUNTED_REFUSALS = 100  # kept word for word; more are only counted
DEVICE_TYPE, VERSION = "sensor-v2", "1.0.0"


@dataclass(frozen=True, slots=True)
class Pace:
    """`speed` divides the devices' own times. Seconds: a device tries again after `again_s` where nobody
    answered, asks at most `longest_check` apart (the server's `retry_after` is for real fleets; a bench has
    minutes), and an idle fleet of a million no more often than `polls_per_s` together (0: as it is told)."""

    speed: float = 1.0
    again_s: float = 5.0
    longest_check: float = 3_600.0
    polls_per_s: float = 0.0
    progress: tuple[int, ...] = (0, 50)
    download: bool = False


class Fleet:
    """Devices against one server, or several: then each request goes to any of them. `run` until `stop`; the
    memory stays."""

    def __init__(
        self,
        urls: str | Sequence[str],
        identity: Identity,
        *,
        pace: Pace | None = None,
        device_type: str = DEVICE_TYPE,
        version: str = VERSION,
        connections: int = 64,
    ) -> None:
        self.identity, self.pace = identity, pace or Pace()
        self.device_type, self.version = device_type, version
        self.memory = Memory(identity.count)
        self.memory.version(version)
        self.meter = Meter()
        self.flights: dict[int, Flight] = {}
        self.silent = 0  # devices that are never heard again
        self.refused: list[str] = []  # answers that no device should ever get
        self.refusals = 0
        self.checks = self.outages = self.lost_on_purpose = self.asked_to_wait = 0
        self.met: set[str] = set()  # behaviours that acted
        self.wires = [Wire(url) for url in ([urls] if isinstance(urls, str) else urls)]
        self._connections = connections
        self._wheel = Wheel(identity.count)
        self._due: deque[tuple[int, float]] = deque()
        self._due_first: deque[tuple[int, float]] = deque()  # on their way: polls must not make them silent
        self._idle: deque[asyncio.Future[None]] = deque()
        self._draw = Random(identity.seed)  # networks: what gets lost, jitter
        self._stopping = asyncio.Event()
        self._began = perf_counter()

    # --- from outside -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Every device ends after the answer it waits for."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def queued(self) -> int:
        """Devices whose time has come and that wait for a connection."""
        return len(self._due) + len(self._due_first)

    @property
    def apart_s(self) -> float:
        """How far apart an idle device's polls are at least, for the fleet to keep to `polls_per_s`."""
        return self.identity.count / self.pace.polls_per_s if self.pace.polls_per_s else 0.0

    async def enroll(self, claim: str) -> int:
        """All of them, over the device API, as many at a time as there are connections; how many are in."""
        numbers = iter(range(self.identity.count))

        async def some() -> int:
            enrolled = 0
            for number in numbers:
                if self.stopping:
                    break
                enrolled += await self._enroll(number, claim)
            return enrolled

        return sum(await asyncio.gather(*(some() for _ in range(self._connections))))

    async def run(self) -> None:
        """Every device asks and works until `stop`."""
        self._began = perf_counter()
        spread = min(self.apart_s or self.pace.longest_check, self.pace.longest_check * 4)
        for number in range(self.identity.count):
            self._wheel.put(number, self.identity.drawn(number, 1) * spread)
        workers = [asyncio.create_task(self._work()) for _ in range(self._connections)]
        for worker in workers:  # one that breaks ends the run, and its error is raised below
            worker.add_done_callback(lambda _: self.stop())
        try:
            await self._turn_the_wheel()
        finally:
            self._stopping.set()
            for waiting in self._idle:
                if not waiting.done():
                    waiting.set_result(None)
            await asyncio.gather(*workers)
            for wire in self.wires:
                wire.close()

    # --- who acts when ------------------------------------------------------------------------------

    def _now(self) -> float:
        return perf_counter() - self._began

    async def _turn_the_wheel(self) -> None:
        second = 1.0
        while not self.stopping:
            now = self._now()
            for entry in self._wheel.due(now):
                (self._due_first if entry[0] in self.flights else self._due).append(entry)
                if self._idle:
                    waiting = self._idle.popleft()
                    if not waiting.done():
                        waiting.set_result(None)
            if now >= second:
                self.meter.turn(len(self.flights), self.queued)
                second = int(now) + 1.0
            await asyncio.sleep(0.005)

    async def _work(self) -> None:
        """One connection's worth of requests, one device after the other."""
        while not self.stopping:
            due_now = self._due_first or self._due
            if not due_now:
                waiting = asyncio.get_running_loop().create_future()
                self._idle.append(waiting)
                await waiting
                continue
            number, due = due_now.popleft()
            after = await self._act(number, due)
            if after is not None:
                self._wheel.put(number, self._now() + after)

    async def _act(self, number: int, due: float) -> float | None:
        """One request of this device; seconds until its next, or None where it is never heard again."""
        behaviour = self.identity.behaviour(number)
        if away := self._away(number, behaviour):
            return away
        self.met.add(behaviour.name)
        flight = self.flights.get(number)
        if flight is None:
            return await self._check(number, behaviour, due)
        return await self._go_on(number, behaviour, flight, due)

    def _away(self, number: int, behaviour: Behaviour) -> float:
        """Seconds until the device is online again; 0 where it is."""
        if not behaviour.away_hours:
            return 0.0
        hour = 3600 / self.pace.speed
        online, whole = behaviour.online_hours * hour, (behaviour.online_hours + behaviour.away_hours) * hour
        at = (self._now() + self.identity.drawn(number, 2) * whole) % whole
        return whole - at if at > online else 0.0

    # --- what a device does -------------------------------------------------------------------------

    async def _enroll(self, number: int, claim: str) -> bool:
        identity = self.identity
        body = {
            "claim": claim,
            "device_id": identity.name(number),
            "device_type": self.device_type,
            "token": identity.token(number),
            "labels": dict(identity.behaviour(number).labels),
        }
        while not self.stopping:
            answer = await self._send(Kind.ENROLL, number, self._now(), "POST", "/api/enroll", body)
            if answer is not None and answer.status not in (429, 503):
                if answer.status not in (200, 201):
                    self._refuse(f"enroll {identity.name(number)}", answer)
                return answer.status in (200, 201)
            await asyncio.sleep(AGAIN_S)
        return False

    async def _check(self, number: int, behaviour: Behaviour, due: float) -> float:
        version = self.memory.runs[number]
        path = (
            f"/api/updates/check?device_id={self.identity.name(number)}&device_type={self.device_type}"
            f"&current_version={self.memory.versions[version]}"
        )
        answer = await self._exchange(Kind.POLL, number, behaviour, due, "GET", path)
        if isinstance(answer, float):
            return answer
        if answer.status != 200:
            self._refuse(f"check {self.identity.name(number)}", answer)
            return self._until_next_check(60.0)
        self.checks += 1
        self.memory.told[number] = version
        told: dict[str, Any] = json.loads(answer.body)
        if not told.get("update_available"):
            return self._until_next_check(float(told.get("retry_after", 60)))
        return self._begin(number, behaviour, told)

    def _begin(self, number: int, behaviour: Behaviour, told: Mapping[str, Any]) -> float:
        """The device was offered an update: what it will say, and when."""
        deployment = str(told["deployment"])
        self.memory.offered(number, deployment)
        self.meter.now.offers += 1
        met = list(self.memory.past).index(deployment)
        end = behaviour.end(self.identity.drawn(number, 16 + met))
        steps = script(behaviour, end, self.pace.progress, download=self.pace.download)
        self.flights[number] = Flight(
            deployment,
            int(told["attempt"]),
            str(told["version"]),
            str(told["sha256"]),
            str(told["url"]),
            steps,
        )
        return self._think(number, behaviour, 0)

    async def _go_on(self, number: int, behaviour: Behaviour, flight: Flight, due: float) -> float | None:
        """The next step of the update it is at."""
        step = flight.steps[flight.at]
        if step is Step.SILENCE:
            del self.flights[number]
            self.silent += 1
            return None
        if step is Step.DOWNLOAD:
            if not isinstance(await self._download(number, behaviour, flight, due), float):
                flight.at += 1
            return self._think(number, behaviour, flight.at)
        assert isinstance(step, Word)
        answer = await self._report(number, behaviour, flight, step, due)
        if isinstance(answer, float):
            return answer
        flight.said += 1
        if flight.said >= behaviour.repeats:
            flight.said = 0
            flight.at += 1
        over = answer is None or (answer in FINAL and step.state not in FINAL and not step.late)
        if not over and flight.at < len(flight.steps):
            return self._think(number, behaviour, flight.at) if not flight.said else AGAIN_S
        del self.flights[number]
        return self._until_next_check(AGAIN_S)

    async def _report(
        self, number: int, behaviour: Behaviour, flight: Flight, word: Word, due: float
    ) -> UpdateState | float | None:
        """Where the update stands now; seconds until the device tries again; None where it was refused."""
        body = said(self.identity.name(number), flight, word, behaviour, time())
        answer = await self._exchange(
            Kind.REPORT, number, behaviour, due, "POST", "/api/updates/status", body
        )
        if isinstance(answer, float):
            return answer
        if answer.status != 200:
            self._refuse(f"report {body}", answer)
            return None
        told = json.loads(answer.body)
        stands = UpdateState(told["state"])
        self.memory.acknowledged(
            number, flight.deployment, word.state, recorded=told["recorded"], state=stands
        )
        if word.state is _S.COMPLETE:
            flight.before = self.memory.runs[number]
            self.memory.runs[number] = self.memory.version(flight.version)
            if stands is _S.COMPLETE:
                self.memory.told[number] = self.memory.runs[number]
        elif word.state is _S.ROLLED_BACK and flight.before is not None:
            self.memory.runs[number] = flight.before  # the server hears of it at the next check
        return stands

    async def _download(self, number: int, behaviour: Behaviour, flight: Flight, due: float) -> Reply | float:
        answer = await self._exchange(Kind.DOWNLOAD, number, behaviour, due, "GET", flight.url)
        if isinstance(answer, Reply) and answer.status != 200:
            self._refuse(f"download {flight.url}", answer)
        return answer

    # --- time ---------------------------------------------------------------------------------------

    def _until_next_check(self, told_s: float) -> float:
        """What the server asked for, at the fleet's speed, with a tenth of jitter as real clients have."""
        wait = min(told_s / self.pace.speed, self.pace.longest_check)
        return max(wait, self.apart_s) * self._draw.uniform(0.9, 1.1)

    def _think(self, number: int, behaviour: Behaviour, step: int) -> float:
        low, high = behaviour.think_s
        return (low + (high - low) * self.identity.drawn(number, 32 + step)) / self.pace.speed

    # --- the network --------------------------------------------------------------------------------

    async def _exchange(
        self,
        kind: Kind,
        number: int,
        behaviour: Behaviour,
        due: float,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
    ) -> Reply | float:
        """The answer, or seconds until the device tries again. A flaky network loses requests and answers."""
        lossy = behaviour.loss_percent and self._draw.random() * 100 < behaviour.loss_percent
        if lossy and self._draw.random() < 0.5:
            self.lost_on_purpose += 1  # on its way there: the server never hears of it
            return self._again()
        answer = await self._send(kind, number, due, method, path, body)
        if answer is None:
            self.memory.flags[number] |= DOUBT
            return self._again()
        if answer.status in (429, 503):
            self.asked_to_wait += 1
            return self._again()
        if lossy:
            self.lost_on_purpose += 1  # on its way back: the server has acted, the device does not know
            self.memory.flags[number] |= DOUBT
            return self._again()
        if kind is Kind.POLL:
            self.memory.flags[number] &= ~DOUBT
        return answer

    def _again(self) -> float:
        return float(max(AGAIN_S, self.pace.again_s / self.pace.speed) * self._draw.uniform(0.5, 2.0))

    async def _send(
        self,
        kind: Kind,
        number: int,
        due: float,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
    ) -> Reply | None:
        """None: nobody answered."""
        sent = self._now()
        content = json.dumps(body, separators=(",", ":")).encode() if body is not None else b""
        token = self.identity.token(number)
        wire = self.wires[0] if len(self.wires) == 1 else self._draw.choice(self.wires)
        try:
            answer = await wire.send(method, path, token, content, keep=kind is not Kind.DOWNLOAD)
        except Lost:
            self.outages += 1
            self.meter.now.lost += 1
            return None
        now = self._now()
        self.meter.answered(kind, now - due, now - sent)
        return answer

    def _refuse(self, what: str, answer: Reply) -> None:
        self.refusals += 1
        if len(self.refused) < COUNTED_REFUSALS:
            self.refused.append(f"{what}: {answer.status} {answer.body[:200].decode(errors='replace')}")
