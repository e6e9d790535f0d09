"""What the gateway says itself in the native form: problem documents (RFC 9457), nothing of the inside."""

import json
from http.client import responses

from skylift.gateway.access import Refusals
from skylift.gateway.policies import Answer
from skylift.gateway.template import Source, Template, Var

PROBLEM = "application/problem+json"


def problem(status: int, *headers: tuple[str, Template]) -> Answer:
    body = json.dumps({"title": responses.get(status, "Error"), "status": status})
    return Answer(status, (body,), PROBLEM, headers)


def refusals(challenge: str) -> Refusals:
    """401 with a challenge, whatever is wrong: who guesses learns nothing."""
    return Refusals(problem(401, ("WWW-Authenticate", (challenge,))))


FORBIDDEN = Refusals(problem(403))
TOO_MANY = problem(429, ("Retry-After", (Var(Source.LIMIT_RESET),)))
NOT_FOUND = problem(404)
OWN = tuple((status, problem(status)) for status in (408, 413, 500, 502, 503, 504))
