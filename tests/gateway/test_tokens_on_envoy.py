"""Tokens of every kind of key on a real Envoy: RSA and elliptic curves, by a key in the file and by a set of
keys behind a URL; what they say is required, and told to the backend."""

import json
from collections.abc import Iterator

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from conftest import wait_until
from gateway.backends import Echo, serving
from gateway.door import Door

RSA = RSAKey.generate_key(2048, {"kid": "one"})
EC = ECKey.generate_key("P-256", {"kid": "two"})
KEYS = {"RS256": RSA, "ES256": EC}
STRANGERS = {
    "RS256": RSAKey.generate_key(2048, {"kid": "one"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "two"}),
}
ROUTE = """
gateway: 1
services: {s: {targets: ['@backend']}}
routes:
  - name: r
    path: /
    to: s
    policies:
      - jwt:
          issuer: https://id.example
          audiences: [fleet]
          algorithms: [%s]
          claim_headers: {sub: X-User}
          %s
      - require: {claim: scope, all: [read, write]}
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


def token(algorithm: str, key: RSAKey | ECKey | None = None, **claims: object) -> str:
    said = {"iss": "https://id.example", "aud": "fleet", "sub": "ada", "exp": 9999999999}
    said |= {"scope": "read write"}
    used = key or KEYS[algorithm]
    return jwt.encode({"alg": algorithm, "kid": used.kid}, {**said, **claims}, used)


def ask(door: Door, word: str) -> int:
    return door.ask("/", authorization=f"Bearer {word}", x_user="root").status


def indented(pem: str) -> str:
    return "public_key: |\n" + "".join(f"            {line}\n" for line in pem.splitlines())


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_key_in_the_file_verifies_and_claims_are_required_and_told(
    door: Door, backend: Echo, algorithm: str
) -> None:
    pem = KEYS[algorithm].as_pem(private=False).decode()
    door.open(ROUTE % (algorithm, indented(pem)), {"backend": backend})
    assert ask(door, token(algorithm)) == 200
    assert backend.asked[-1]["headers"]["x-user"] == "ada"
    backend.asked.clear()
    stranger = STRANGERS[algorithm]
    refused = {
        token(algorithm, stranger): 401,
        token(algorithm, exp=1): 401,
        token(algorithm, nbf=9999999998): 401,
        token(algorithm, iss="https://other.example"): 401,
        token(algorithm, scope="read"): 403,
        token(algorithm)[:-8] + "AAAAAAAA": 401,
    }
    assert {word: ask(door, word) for word in refused} == refused
    assert ask(door, token(algorithm, aud="others")) in (401, 403)
    assert backend.asked == []


def test_a_set_of_keys_behind_a_url_verifies(door: Door, backend: Echo) -> None:
    published = {"keys": [key.as_dict(private=False) for key in KEYS.values()]}
    with serving(Echo("keys", body=json.dumps(published))) as keys:
        url = f"jwks_url: http://127.0.0.1:{keys.port}/jwks"
        door.open(ROUTE % ("RS256, ES256", url), {"backend": backend})
        wait_until(lambda: ask(door, token("RS256")) == 200, 20, "the keys are fetched")
        assert ask(door, token("ES256")) == 200
        assert ask(door, token("RS256", RSAKey.generate_key(2048, {"kid": "one"}))) == 401
        assert keys.asked[0]["path"] == "/jwks"
