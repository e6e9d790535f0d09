"""Backends over TLS on a real Envoy: whose certificate is believed, and for which name."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from gateway.authority import Authority
from gateway.backends import Echo, serving
from gateway.door import Door

NATIVE = """
gateway: 1
services: {s: {protocol: https, targets: ['@target'], tls: {%s}}}
routes: [{name: r, path: /, to: s}]
inventory: {'backend.test:443': ['@backend']}
"""
TRAEFIK = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s%s}}
  services: {s: {loadBalancer: {servers: [{url: 'https://@backend'}]%s}}}
  serversTransports: {loose: {insecureSkipVerify: true}}
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("backends"), "ours")


@pytest.fixture(scope="module")
def backend(ours: Authority) -> Iterator[Echo]:
    certificate, key, _ = ours.issue("backend.test")
    with serving(Echo("backend"), (certificate, key)) as echo:
        yield echo


@pytest.mark.parametrize(
    ("tls", "target", "status"),
    [
        ("ca_files: @ours", "backend.test:443", 200),
        ("ca_files: @ours, server_name: backend.test", "@backend", 200),
        ("ca_files: @ours, server_name: other.test", "@backend", 503),  # another server of this authority
        ("ca_files: @ours", "@backend", 503),  # an address that the certificate is not for
        ("ca_files: @theirs", "backend.test:443", 503),
        ("", "backend.test:443", 503),  # no authority of this machine's knows it
        ("verify: false", "@backend", 200),
    ],
)
def test_a_backend_is_believed_by_its_authority_and_its_name(
    door: Door, backend: Echo, ours: Authority, tmp_path: Path, tls: str, target: str, status: int
) -> None:
    theirs = Authority(tmp_path, "theirs")
    text = (NATIVE % tls).replace("@target", target)
    text = text.replace("@ours", str(ours.file)).replace("@theirs", str(theirs.file))
    door.open(text, {"backend": backend})
    assert door.ask("/").status == status


def test_traefiks_backends_are_verified_unless_a_transport_says_otherwise(door: Door, backend: Echo) -> None:
    door.open(TRAEFIK % ("", ""), {"backend": backend}, "traefik.yaml")
    assert door.ask("/").status == 503
    door.open(TRAEFIK % ("", ", serversTransport: loose"), {"backend": backend}, "traefik.yaml")
    assert door.ask("/").status == 200


def test_keys_of_tokens_are_not_taken_from_somebody_in_between(door: Door, ours: Authority) -> None:
    key = RSAKey.generate_key(2048, {"kid": "one"})
    certificate, private, _ = ours.issue("keys.test")
    body = json.dumps({"keys": [key.as_dict(private=False)]})
    with serving(Echo("keys", body=body), (certificate, private)) as keys:
        door.open(
            "gateway: 1\nroutes: [{path: /, policies: [{jwt: {issuer: i, jwks_url: "
            f"'https://127.0.0.1:{keys.port}/jwks'}}}}, {{respond: {{body: in}}}}]}}]\n"
        )
        word = jwt.encode({"alg": "RS256", "kid": "one"}, {"iss": "i", "exp": 9999999999}, key)
        assert door.ask("/", authorization=f"Bearer {word}").status == 401
        assert keys.asked == []


def test_an_auth_service_is_verified_unless_the_file_says_otherwise(
    door: Door, backend: Echo, ours: Authority
) -> None:
    with serving(Echo("plain")) as plain:
        known, loose = f", tls: {{ca: {ours.file}}}", ", tls: {insecureSkipVerify: true}"
        for tls, status in (("", 500), (known, 500), (loose, 200)):  # known, but for another name
            asked = f"forwardAuth: {{address: 'https://127.0.0.1:{backend.port}/v'{tls}}}"
            text = (TRAEFIK % (", middlewares: [m]", "")).replace("https://@backend", "http://@plain")
            door.open(text + f"  middlewares: {{m: {{{asked}}}}}\n", {"plain": plain}, "traefik.yaml")
            assert door.ask("/").status == status
