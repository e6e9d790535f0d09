"""A transparency log in an attacker's hands: his own entries, signed with the online key he stole.

It answers like the server's, over a hostile proxy. Whatever it can be made to say is what the owner of a
taken server can say.
"""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from skylift.core import merkle
from skylift.testkit.hostile import Answer, Asked, Proxy
from skylift.trust.keys import Signer
from skylift.trust.log import Checkpoint, sign

_JSON = (("Content-Type", "application/json"),)


class OtherLog:
    """These entries, and what is added."""

    def __init__(self, signer: Signer, entries: list[bytes], now: int) -> None:
        self._signer, self._now = signer, now
        self.size = 0
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._places: dict[str, int] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: bytes) -> None:
        leaf = merkle.leaf_hash(entry)
        self._places[leaf.hex()] = self.size
        for level, number, made in merkle.appended(self.size, leaf, self._get):
            self._nodes[level, number] = made
        self.size += 1

    def _get(self, level: int, number: int) -> bytes:
        return self._nodes[level, number]

    @property
    def root(self) -> str:
        return merkle.root(self.size, self._get).hex()

    def checkpoint(self, since: int) -> dict[str, Any]:
        made = sign(Checkpoint(self.size, self.root, self._now), self._signer)
        proof = merkle.consistency(since, self.size, self._get) if since <= self.size else []
        return {**made, "consistency": [step.hex() for step in proof]}

    def proof(self, leaf: str) -> dict[str, Any] | None:
        if leaf not in self._places:
            return None
        steps = merkle.inclusion(self._places[leaf], self.size, self._get)
        return {"index": self._places[leaf], "size": self.size, "proof": [step.hex() for step in steps]}

    def shown_by(self, proxy: Proxy) -> None:
        """Whoever asks through this proxy sees this log, and no other."""
        proxy.lie("^/api/log/", lambda asked, real: self._answer(asked))

    def _answer(self, asked: Asked) -> Answer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.path).query).items()}
        if asked.where == "/api/log/checkpoint":
            found: dict[str, Any] | None = self.checkpoint(int(query["since"]))
        else:
            found = self.proof(query["leaf"])
        if found is None:
            return Answer(404, _JSON, b"{}")
        return Answer(200, _JSON, json.dumps(found).encode())
