"""The online keys: what the servers themselves sign with: the image repo's timestamps, and orders.

All servers on one database sign with the same two keys, which the roots name. A server with others would sign
what no device takes, so it does not start; and where it runs while a ceremony names new ones, it stops
signing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylift.core.errors import Unavailable, invalid
from skylift.store import facts, trustfiles
from skylift.store.db import Connection
from skylift.trust import files, keys
from skylift.trust.files import Root
from skylift.trust.roles import DIRECTOR, IMAGE

FACT = "online_keys"  # repo -> key id: the keys of whoever started first, then those a ceremony named


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """The servers' own keys, in a folder that several of them share."""

    image: keys.KeySigner
    director: keys.KeySigner

    @classmethod
    def open(cls, directory: Path) -> "OnlineKeys":
        """Load them; made at the first start."""
        return cls(
            keys.load_or_make(directory / "online-image.pem"),
            keys.load_or_make(directory / "online-director.pem"),
        )

    def public(self) -> dict[str, Any]:
        return {
            "image": keys.public_dict(self.image.public_key),
            "director": keys.public_dict(self.director.public_key),
        }

    def ids(self) -> dict[str, str]:
        """repo -> key id."""
        return {IMAGE: self.image.public_key.keyid, DIRECTOR: self.director.public_key.keyid}

    def claim(self, conn: Connection, replace: bool = False) -> None:
        """Say, at the start, that this server signs with these. `Rejected` where the roots name others or,
        before any ceremony, the first server that started has others. With `replace` they are taken all the
        same: a ceremony names them, or is about to."""
        own = self.ids()
        if replace:
            facts.put(conn, FACT, own)
            return
        expected = _named_by_roots(conn) or facts.get(conn, FACT)
        if expected is not None and expected != own:
            raise invalid(
                "keys_dir",
                _short(own),
                f"the online keys of this fleet are {_short(expected)}: give every server the same ones, "
                "or set new_keys for a key ceremony with these",
                code="foreign_keys",
            )
        if facts.get(conn, FACT) != own:
            facts.put(conn, FACT, own)

    def claim_if_named(self, conn: Connection) -> None:
        """New roots were published: where both name these keys, every other server has to stop signing."""
        if _named_by_roots(conn) == self.ids():
            self.claim(conn, replace=True)

    def check(self, conn: Connection) -> None:
        """Before signing: another server may have taken in a ceremony that names new keys since."""
        known = facts.get(conn, FACT)
        if known is not None and known != self.ids():
            raise Unavailable(
                f"a key ceremony named other online keys, {_short(known)}: this server needs them"
            )


def _named_by_roots(conn: Connection) -> dict[str, str] | None:
    """repo -> the key that its newest root gives to snapshots and timestamps; None before the ceremony."""
    found = {}
    for repo in (IMAGE, DIRECTOR):
        known = trustfiles.latest(conn, repo, "root")
        if known is None:
            return None
        found[repo] = files.read("root", known.body, Root).signed.roles["snapshot"].keyids[0]
    return found


def _short(ids: dict[str, str]) -> str:
    return " and ".join(ids[repo][:8] for repo in (IMAGE, DIRECTOR))
