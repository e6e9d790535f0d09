"""Gateways read from a text, and what becomes of a request, all on paper: no Envoy."""

from textwrap import dedent

from skylift.gateway.decision import Decision, World
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.model import Gateway
from skylift.gateway.read import read_documents
from skylift.gateway.request import parse

NOON = 1_795_867_200.0  # 2026-11-28 12:00:00 UTC


def kong(text: str) -> Gateway:
    return read_documents(loads(dedent(text), "kong.yaml"))


def traefik(text: str) -> Gateway:
    return read_documents(loads(dedent(text), "traefik.yaml"))


def seen(gateway: Gateway, request: str, listener: str = "") -> Decision:
    return decide(gateway, parse(request), World(now=NOON, uuid="UUID"), listener=listener)


def fate(gateway: Gateway, request: str, listener: str = "") -> str:
    """The route, or the status."""
    found = seen(gateway, request, listener)
    if found.reply is not None:
        return str(found.reply.status)
    assert found.route is not None
    return found.route.name
