"""Roles that people must sign again are told of twice: with a quarter of their life left, and at its end."""

from datetime import datetime

from skylift.core.telling import Told, expiring
from skylift.engine import gathering
from skylift.store import channels, facts
from skylift.store.db import Connection, Database

FACT = "expiry_told"  # role of a repository -> what was told last: its version, and whether it was over


def tell(database: Database, now: datetime) -> None:
    """Tell what has not been told. Reads only, on most days."""
    with database.read() as conn:
        new = _untold(conn, now)
    if new:
        database.write(lambda conn: _tell(conn, now))


def _untold(conn: Connection, now: datetime) -> dict[str, tuple[str, dict[str, object]]]:
    """name -> (what will have been told, the role)."""
    known = facts.get(conn, FACT) or {}
    found = {}
    for role in gathering.status(conn, now)["roles"]:
        name, said = f"{role['repo']}/{role['role']}", f"{role['version']} {role['state']}"
        if role["by"] == "people" and role["state"] != "good" and known.get(name) != said:
            found[name] = (said, role)
    return found


def _tell(conn: Connection, now: datetime) -> None:
    new = _untold(conn, now)
    for name, (_, role) in new.items():
        told = Told.EXPIRED if role["state"] == "expired" else Told.EXPIRES
        data = {field: role[field] for field in ("repo", "role", "version", "expires_at")}
        channels.tell(conn, told, expiring(name, int(str(role["days_left"]))), data, now)
    facts.put(conn, FACT, (facts.get(conn, FACT) or {}) | {name: said for name, (said, _) in new.items()})
