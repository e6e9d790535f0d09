"""Simulated devices over HTTP: hundreds in one process, each with a seed, a manner and a memory.

A device enrolls, asks, and reports its way through the stages like a small client would: it repeats what was
not answered (the answer or the server may have been lost), and remembers every report that *was* answered,
because an acknowledged report is a promise of the server's. Devices install nothing; agents that do are
`skylift.agent`. The same seed gives the same fleet doing the same things, whatever the network does.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

import httpx2

from skylift.core.lifecycle import FINAL, UpdateState

_S = UpdateState
STAGES = (_S.DOWNLOADING, _S.INSTALLING, _S.VALIDATING)
AGAIN_S = 0.1  # after an outage: the server under test comes back within a second or two
FAILURE_REASON = {_S.FAILED: "install_error", _S.ROLLED_BACK: "health_check_failed"}


class Manner(StrEnum):
    """How a device goes about an update."""

    WELL = "well"
    FAILS = "fails"  # the image does not install
    FALLS_BACK = "falls_back"  # it installs, boots, and is not healthy
    SILENT = "silent"  # takes the offer and is never heard of again
    SLOW = "slow"  # thinks ten times as long
    REPEATS = "repeats"  # says everything twice, as networks do
    LATE = "late"  # says earlier stages again after the end


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A report the server answered with 200: what was said, and what came back."""

    device_id: str
    deployment: str
    attempt: int
    said: UpdateState
    recorded: bool
    state: UpdateState


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between two words of an update, and at most between two checks (the server's `retry_after`
    is for real fleets; a bench has minutes)."""

    think: tuple[float, float] = (0.5, 3.0)
    longest_check: float = 3.0
    progress: tuple[int, ...] = (0, 50)


@dataclass
class SimulatedDevice:
    """One device and what it remembers."""

    device_id: str
    device_type: str
    version: str
    manner: Manner
    draw: Random
    token: str
    reports: list[Acknowledged] = field(default_factory=list)
    offers: list[tuple[str, int]] = field(default_factory=list)  # (deployment, attempt), as often as told
    done: set[tuple[str, int]] = field(default_factory=set)  # complete, acknowledged
    offered_again_after_done: int = 0


class Fleet:
    """Devices against one server, or several: then each request goes to any of them. `run` until `stop`; the
    memory stays."""

    def __init__(
        self,
        urls: str | Sequence[str],
        claim: str,
        count: int,
        *,
        seed: int = 1,
        device_type: str = "sensor-v2",
        version: str = "1.0.0",
        manners: dict[Manner, float] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.urls = [urls] if isinstance(urls, str) else list(urls)
        self.claim, self.pace = claim, pace or Pace()
        draw = Random(seed)
        kinds, weights = zip(*(manners or {Manner.WELL: 1.0}).items(), strict=True)
        self.devices = [
            SimulatedDevice(
                device_id=f"sim-{number:05}",
                device_type=device_type,
                version=version,
                manner=draw.choices(kinds, weights)[0],
                draw=Random(f"{seed}/{number}"),
                token="dev_" + hashlib.sha256(f"{seed}/{number}".encode()).hexdigest(),
            )
            for number in range(count)
        ]
        self.checks = 0
        self.outages = 0  # requests that got no answer
        self.refused: list[str] = []  # answers that no device should ever get
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Every device ends at its next word."""
        self._stopping.set()

    async def enroll(self) -> None:
        """All of them, a few at a time."""
        gate = asyncio.Semaphore(16)
        async with self._http() as http:

            async def one(device: SimulatedDevice) -> None:
                async with gate:
                    await _Walk(self, http, device).enroll()

            await asyncio.gather(*(one(device) for device in self.devices))

    async def run(self) -> None:
        """Every device asks and works until `stop`."""
        async with self._http() as http:
            await asyncio.gather(*(_Walk(self, http, device).live() for device in self.devices))

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[httpx2.AsyncClient]:
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        timeout = httpx2.Timeout(10.0, pool=60.0)
        async with httpx2.AsyncClient(limits=limits, timeout=timeout) as http:
            yield http

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def sleep(self, seconds: float) -> None:
        """That long, or until `stop`."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


@dataclass
class _Walk:
    """One device at work."""

    fleet: Fleet
    http: httpx2.AsyncClient
    device: SimulatedDevice

    async def enroll(self) -> None:
        device = self.device
        body = {
            "claim": self.fleet.claim,
            "device_id": device.device_id,
            "device_type": device.device_type,
            "token": device.token,
        }
        answer = await self._insist("POST", "/api/enroll", json=body)
        if answer is not None and answer.status_code not in (200, 201):
            self.fleet.refused.append(f"enroll {device.device_id}: {answer.status_code} {answer.text[:200]}")

    async def live(self) -> None:
        await self.fleet.sleep(self.device.draw.uniform(0, self.fleet.pace.longest_check))
        while not self.fleet.stopping:
            told = await self._check()
            if told.get("update_available"):
                await self._update(told)
            else:
                await self.fleet.sleep(min(told.get("retry_after", 1.0), self.fleet.pace.longest_check))

    async def _check(self) -> dict[str, Any]:
        device = self.device
        query = {
            "device_id": device.device_id,
            "device_type": device.device_type,
            "current_version": device.version,
        }
        answer = await self._insist("GET", "/api/updates/check", params=query)
        if answer is None:
            return {}
        self.fleet.checks += 1
        if answer.status_code != 200:
            self.fleet.refused.append(f"check {device.device_id}: {answer.status_code} {answer.text[:200]}")
            return {}
        told: dict[str, Any] = answer.json()
        return told

    async def _update(self, told: dict[str, Any]) -> None:
        """One update from the offer to its end, in the device's manner."""
        device, this = self.device, (told["deployment"], told["attempt"])
        device.offers.append(this)
        if this in device.done:
            device.offered_again_after_done += 1
        if device.manner is Manner.SILENT:
            await self.fleet.sleep(3600)
            return
        for state in STAGES:
            if not await self._stage(told, state):
                return
            if state is _S.INSTALLING and device.manner is Manner.FAILS:
                await self._say(told, _S.FAILED)
                return
        end = _S.ROLLED_BACK if device.manner is Manner.FALLS_BACK else _S.COMPLETE
        await self._think()
        answer = await self._say(told, end)
        if answer is not None and end is _S.COMPLETE:
            device.version = told["version"]
            device.done.add(this)
        if device.manner is Manner.LATE:
            for state in STAGES:
                await self._say(told, state)

    async def _stage(self, told: dict[str, Any], state: UpdateState) -> bool:
        """Say that it entered the stage; False when the server has ended the update."""
        words = self.fleet.pace.progress if state is _S.DOWNLOADING else (None,)
        for progress in words:
            await self._think()
            answer = await self._say(told, state, progress)
            if answer is None or answer.state in FINAL:
                return False
        return True

    async def _say(
        self, told: dict[str, Any], state: UpdateState, progress: int | None = None
    ) -> Acknowledged | None:
        """Until it is acknowledged; None when the fleet stops or the server refuses."""
        answer = await self._say_once(told, state, progress)
        if self.device.manner is Manner.REPEATS and answer is not None:
            return await self._say_once(told, state, progress)
        return answer

    async def _say_once(
        self, told: dict[str, Any], state: UpdateState, progress: int | None
    ) -> Acknowledged | None:
        device = self.device
        body: dict[str, Any] = {
            "device_id": device.device_id,
            "deployment": told["deployment"],
            "attempt": told["attempt"],
            "state": state.value,
        }
        if progress is not None:
            body["progress"] = progress
        if state in FAILURE_REASON:
            body["reason"] = FAILURE_REASON[state]
        if state is _S.COMPLETE:
            body |= {"image_sha256": told["sha256"], "version": told["version"]}
        answer = await self._insist("POST", "/api/updates/status", json=body)
        if answer is None:
            return None
        if answer.status_code != 200:
            self.fleet.refused.append(f"report {body}: {answer.status_code} {answer.text[:200]}")
            return None
        said = answer.json()
        acknowledged = Acknowledged(
            device.device_id,
            told["deployment"],
            told["attempt"],
            state,
            said["recorded"],
            UpdateState(said["state"]),
        )
        device.reports.append(acknowledged)
        return acknowledged

    async def _think(self) -> None:
        slowly = 10.0 if self.device.manner is Manner.SLOW else 1.0
        await self.fleet.sleep(slowly * self.device.draw.uniform(*self.fleet.pace.think))

    async def _insist(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """Again until there is an answer; None when the fleet stops. 503 and 429 are answers to come back."""
        headers = {"Authorization": f"Bearer {self.device.token}"}
        while not self.fleet.stopping:
            try:
                url = self.device.draw.choice(self.fleet.urls) + path
                answer = await self.http.request(method, url, headers=headers, **options)
            except httpx2.HTTPError:
                self.fleet.outages += 1
                await self.fleet.sleep(AGAIN_S * self.device.draw.uniform(0.5, 2.0))
                continue
            if answer.status_code not in (429, 503):
                return answer
            await self.fleet.sleep(AGAIN_S)
        return None
