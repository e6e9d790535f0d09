"""Opaque tokens, asked about at their issuer (RFC 7662) and believed for a while."""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BasicAuth, ClientError, ClientSession, ClientTimeout

from skylift.core.errors import Unavailable
from skylift.gateway.access import Fault, Introspection
from skylift.gateway.helper.asked import CLAIM, Kept, Said, refusal

MOST_KEPT, MAX_ANSWER = 10_000, 64 * 1024
Claims = Mapping[str, Any]


@dataclass
class Introspect:
    """`claims`: the names that later steps of a route look at."""

    session: ClientSession
    _kept: Kept[tuple[str, str], Claims] = field(default_factory=lambda: Kept(MOST_KEPT))
    _asking: dict[tuple[str, str], asyncio.Task[Claims]] = field(default_factory=dict)

    async def decide(self, policy: Introspection, headers: Mapping[str, str], wanted: list[str]) -> Said:
        """Raises Unavailable when the issuer does not answer."""
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return refusal(policy.refusals.answer(Fault.MISSING), headers)
        claims = await self._claims(policy, token.strip())
        if claims.get("active") is not True:
            return refusal(policy.refusals.answer(Fault.UNKNOWN), headers)
        have = _words(claims.get("scope", "")).split()
        if not set(policy.scopes) <= set(have):
            return refusal(policy.refusals.answer(Fault.FORBIDDEN), headers)
        told = [(header, _words(claims.get(claim, ""))) for claim, header in policy.claim_headers]
        told += [(CLAIM + claim, _words(claims.get(claim, ""))) for claim in wanted]
        return Said(headers=tuple(told))

    async def _claims(self, policy: Introspection, token: str) -> Claims:
        place = (policy.url, hashlib.sha256(token.encode()).hexdigest())
        known = self._kept.get(place, time.time())
        if known is not None:
            return known
        if place not in self._asking:  # of many requests with one new token one asks
            self._asking[place] = asyncio.create_task(self._ask(policy, token))
            self._asking[place].add_done_callback(lambda _: self._asking.pop(place, None))
        claims = await asyncio.shield(self._asking[place])
        now = time.time()
        end = claims.get("exp")
        until = min(now + policy.cache, end) if isinstance(end, int | float) else now + policy.cache
        self._kept.put(place, claims, until)
        return claims

    async def _ask(self, policy: Introspection, token: str) -> Claims:
        login = BasicAuth(policy.client_id, policy.client_secret)
        words = {"token": token, "token_type_hint": "access_token"}
        try:
            async with self.session.post(
                policy.url,
                data=words,
                auth=login,
                timeout=ClientTimeout(total=policy.timeout),
                allow_redirects=False,
            ) as answer:
                body = await answer.content.read(MAX_ANSWER)
                if answer.status != 200:
                    raise Unavailable(f"{policy.url} answers {answer.status}")
        except (ClientError, TimeoutError, OSError) as e:
            raise Unavailable(f"{policy.url} does not answer: {type(e).__name__}") from e
        try:
            found = json.loads(body)
        except ValueError as e:
            raise Unavailable(f"{policy.url} does not answer in JSON") from e
        if not isinstance(found, dict):
            raise Unavailable(f"{policy.url} does not answer with an object")
        return found


def _words(value: object) -> str:
    """A claim in a header: a list's words with spaces between, nothing that would end the line."""
    if isinstance(value, list):
        text = " ".join(map(str, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return "".join(c for c in text if c.isprintable())
