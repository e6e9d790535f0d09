"""The servers' seal, and its claim: all on one database open the same secrets, or do not start."""

from skylift.core.errors import invalid
from skylift.store import facts, people
from skylift.store.db import Connection
from skylift.trust.seal import Seal as Seal  # what the API is handed
from skylift.trust.seal import is_sealed

FACT = "seal"  # the fingerprint of the key that the secrets here are sealed under


def claim(conn: Connection, seal: Seal, replace: bool = False) -> None:
    """Say, at the start, that secrets are sealed under this key. `Rejected` where they are under another;
    with `replace` (the old key is lost) they have to be made anew, one by one."""
    known = facts.get(conn, FACT)
    if known is not None and known != seal.fingerprint and not replace:
        raise invalid(
            "keys_dir",
            seal.fingerprint,
            f"the secrets of this database are sealed under another seal.key ({known}): give every server "
            "the same, or set new_keys where it is lost; second factors and webhooks are then set up anew",
            code="foreign_keys",
        )
    if known != seal.fingerprint:
        facts.put(conn, FACT, seal.fingerprint)
    _seal_what_is_clear(conn, seal)


def _seal_what_is_clear(conn: Connection, seal: Seal) -> None:
    """Secrets of one-time codes that an older version wrote in clear."""
    for user_id, secret, offered in people.clear_codes(conn):
        closed = {
            name: seal.close(text, code_purpose(user_id)) if text and not is_sealed(text) else text
            for name, text in (("totp_sealed", secret), ("totp_offered", offered))
        }
        people.change(conn, user_id, totp_secret=None, totp_new=None, **closed)


def code_purpose(user_id: str) -> str:
    return f"code of {user_id}"
