"""Several backends asked at once, one JSON object for all.

The backends are asked through Envoy, at a listener that only the gateway may open: balancing, health, TLS and
time limits are those of every other request. What a backend says is put in as it said it, byte for byte.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import ClientError, ClientSession, ClientTimeout

from skylift.gateway.helper.asked import GATHER, SERVICE, Said
from skylift.gateway.policies import Aggregate, Source
from skylift.gateway.template import Source as Hole
from skylift.gateway.template import Var, fill

MAX_PART = 4 << 20
HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "content-type",
        "accept",
        "accept-encoding",
        "expect",
        "if-none-match",
        "if-modified-since",
        "range",
    ]
)
FAILED = "_failed"


@dataclass(frozen=True, slots=True)
class Part:
    """What one backend said, as JSON text; None where it did not."""

    source: Source
    text: str | None


async def aggregate(
    policy: Aggregate, session: ClientSession, headers: Mapping[str, str], query: Mapping[str, str]
) -> Said:
    """`_failed` names who did not answer in time, or not well; without one that is required it is a 502."""
    passed_on = {
        name: value
        for name, value in headers.items()
        if name not in HOP_BY_HOP and not name.startswith(("x-sl-", GATHER))
    }
    told = {**passed_on, "accept": "application/json"}
    parts = await asyncio.gather(
        *(_part(source, policy.timeout, session, told, query) for source in policy.sources)
    )
    failed = [part.source.name for part in parts if part.text is None]
    if any(part.source.required and part.text is None for part in parts):
        return Said(502, (("content-type", "application/problem+json"),), _problem())
    members = [f"{json.dumps(part.source.name)}: {part.text}" for part in parts if part.text is not None]
    members += [f"{json.dumps(FAILED)}: {json.dumps(failed)}"] if failed else []
    partial = (("cache-control", "no-store"),) if failed else ()
    return Said(200, (("content-type", "application/json"), *partial), f"{{{', '.join(members)}}}")


def _problem() -> str:
    return json.dumps({"title": "Bad Gateway", "status": 502})


async def _part(
    source: Source,
    seconds: float,
    session: ClientSession,
    headers: Mapping[str, str],
    query: Mapping[str, str],
) -> Part:
    url = f"http://inside{_path(source, headers, query)}"
    try:
        async with session.get(
            url,
            headers={**headers, SERVICE: source.service},
            timeout=ClientTimeout(total=seconds),
            allow_redirects=False,
        ) as answer:
            body = await answer.content.read(MAX_PART + 1)
            while len(body) <= MAX_PART and (more := await answer.content.read(MAX_PART)):
                body += more
            good = 200 <= answer.status < 300 and len(body) <= MAX_PART
            return Part(source, _json(body, answer.content_type) if good else None)
    except (ClientError, TimeoutError, OSError):
        return Part(source, None)


def _json(body: bytes, content_type: str) -> str | None:
    """JSON as it is; any other text as a JSON text; None for JSON that is none."""
    try:
        text = body.decode()
        if "json" not in content_type:
            return json.dumps(text)
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text


def _path(source: Source, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The source's path, its holes filled; a value stays one segment, whatever is in it."""

    def value_of(var: Var) -> str | None:
        match var.source:
            case Hole.HEADER:
                found = headers.get(var.name.replace("_", "-").lower())
            case Hole.QUERY:
                found = query.get(var.name)
            case Hole.CONSUMER:
                found = headers.get("x-consumer-username")
            case Hole.REQUEST_ID:
                found = headers.get("x-request-id")
            case _:
                found = str(uuid.uuid4())  # the compiler sends no other holes
        return None if found is None else quote(found, safe="")

    return fill(source.path, value_of)
