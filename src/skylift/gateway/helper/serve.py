"""The helper's edge: `python -m skylift.gateway.helper DIRECTORY`, in which are its rules and its sockets."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession, DummyCookieJar, UnixConnector, web

from skylift.core.errors import Unavailable
from skylift.gateway.access import BasicAuth, Introspection
from skylift.gateway.effects import limit_headers
from skylift.gateway.helper.aggregate import aggregate
from skylift.gateway.helper.asked import ASK, CLIENT, GATHER, INSIDE, KEY, RULES, SOCKET, WHO, Said, refusal
from skylift.gateway.helper.introspect import Introspect
from skylift.gateway.helper.limits import Limits
from skylift.gateway.helper.passwords import Passwords
from skylift.gateway.helper.rules import Json, Plans, Rule, read
from skylift.gateway.policies import Aggregate, RateLimit
from skylift.gateway.text import subnet_of

FAILS = Said(500)  # the gateway's own words for it stand in Envoy


@dataclass
class Rules:
    """The rules in a file, read again when another is in its place."""

    file: Path
    _mark: tuple[int, int] = (0, 0)
    _said: dict[str, Json] = field(default_factory=dict)
    _made: dict[str, Rule] = field(default_factory=dict)

    def find(self, name: str) -> tuple[Rule, Json] | None:
        found = self.file.stat()
        if (found.st_ino, found.st_mtime_ns) != self._mark:
            self._said = json.loads(self.file.read_text())
            self._made = {}
            self._mark = (found.st_ino, found.st_mtime_ns)
        if name not in self._said:
            return None
        if name not in self._made:
            self._made[name] = read(self._said[name])
        return self._made[name], self._said[name]


class Helper:
    """What it keeps between questions."""

    def __init__(self, place: Path) -> None:
        self.rules = Rules(place / RULES)
        self.limits, self.passwords = Limits(), Passwords()
        none = DummyCookieJar()  # nobody's cookies go to anybody else
        self.outside = ClientSession(cookie_jar=none)
        self.inside = ClientSession(connector=UnixConnector(str(place / INSIDE)), cookie_jar=none)
        self.introspect = Introspect(self.outside)

    async def close(self) -> None:
        await self.outside.close()
        await self.inside.close()
        await self.limits.close()

    async def answer(self, request: web.Request) -> web.Response:
        said = await self._answer(request)
        response = web.Response(status=said.status, text=said.body or None)
        for name, value in said.headers:
            response.headers[name] = value
        return response

    async def _answer(self, request: web.Request) -> Said:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = self.rules.find(headers.get(ASK) or headers.get(GATHER, ""))
        if asked is None:
            return FAILS  # fails closed: whoever asks must name what it asks
        rule, said = asked
        try:
            match rule:
                case RateLimit():
                    return await self._limit(rule, KEY, headers)
                case Plans():
                    own = rule.limit_of(headers.get(WHO, ""))
                    return await self._limit(*own, headers) if own else Said()
                case Introspection():
                    return await self.introspect.decide(rule, headers, said.get("claims", []))
                case BasicAuth():
                    found = await self.passwords.decide(rule, headers)
                    return Said() if said.get("optional") and found.status != 200 else found
                case Aggregate():
                    return await aggregate(rule, self.inside, headers, dict(request.query))
        except Unavailable as e:
            print(f"helper: {e}", file=sys.stderr, flush=True)
            return FAILS

    async def _limit(self, policy: RateLimit, whose: str, headers: dict[str, str]) -> Said:
        said = headers.get(whose) or (headers.get(CLIENT, "") if policy.key.else_client else "")
        key = subnet_of(said, policy.key.address.ipv6_prefix)
        try:
            outcome = await self.limits.take(policy, key)
        except Unavailable:
            if policy.fault_tolerant:
                return Said()  # nobody is turned away, and nobody is told a number that is none
            raise
        told = tuple(limit_headers(policy, outcome))
        if not outcome.passed:
            return refusal(policy.answer, headers, told, max(1, outcome.retry_after))
        held = max(verdict.delay for verdict in outcome.verdicts)
        if held > 0:
            await asyncio.sleep(held)
        return Said(headers=told)


async def serve(place: Path) -> None:
    """Until SIGTERM, or until whoever started it is gone."""
    helper = Helper(place)
    app = web.Application(client_max_size=1 << 20)
    app.router.add_route("*", "/{rest:.*}", helper.answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    socket = place / SOCKET
    socket.unlink(missing_ok=True)
    await web.UnixSite(runner, str(socket)).start()
    socket.chmod(0o600)
    stop, parent = asyncio.Event(), os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while not stop.is_set() and os.getppid() == parent:
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            continue
    await runner.cleanup()
    await helper.close()
