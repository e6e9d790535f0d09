"""The other ways in: a passkey after the password, and OpenID Connect instead of one."""

from dataclasses import dataclass
from datetime import datetime
from secrets import token_bytes

from skylift.core.errors import Kind, Rejected
from skylift.core.ids import mint
from skylift.engine import passkeys
from skylift.engine.oidc import Person
from skylift.engine.people import begin, insert_user, note_failure, set_role
from skylift.engine.sealed import Seal
from skylift.store import events, people
from skylift.store.db import Connection, Database
from skylift.store.people import User


@dataclass(frozen=True, slots=True)
class Browser:
    """Who asks: what it calls itself, and the token it brought, which ends."""

    agent: str
    instead_of: str


def with_key(
    database: Database, seal: Seal, half: str, answer: str, origin: str, browser: Browser, now: datetime
) -> tuple[str, User]:
    """A new session's token and its user, whose password was proved when the half was made."""
    owner: list[User] = []

    def deed(conn: Connection) -> tuple[str, User]:
        user = passkeys.proved(conn, seal, half, answer, origin, now, owner)
        if user.disabled_at is not None:
            raise _disabled(user)
        return begin(conn, user, 0, now, browser.agent, browser.instead_of), user

    try:
        return database.write(deed)
    except Rejected:
        if owner:
            database.write(lambda conn: note_failure(conn, owner[0], now))
        raise


def from_elsewhere(database: Database, person: Person, browser: Browser, now: datetime) -> tuple[str, User]:
    """The same for somebody whom the provider vouches for; new people are let in as what it says they are."""

    def deed(conn: Connection) -> tuple[str, User]:
        user = people.by_subject(conn, person.subject) or _welcome(conn, person, now)
        if user.disabled_at is not None:
            raise _disabled(user)
        if user.role != person.role:
            set_role(conn, user.id, person.role, "oidc", now)
        return begin(conn, user, 0, now, browser.agent, browser.instead_of), user

    return database.write(deed)


def _welcome(conn: Connection, person: Person, now: datetime) -> User:
    if people.by_name(conn, person.name) is not None:
        raise Rejected(
            "oidc_refused",
            f"not signed in: {person.name} is the name of somebody who signs in otherwise; an admin can help",
            kind=Kind.FORBIDDEN,
        )
    user_id = mint("usr", now, token_bytes(5))
    insert_user(conn, user_id, person.name, person.role, None, "oidc", now)
    people.change(conn, user_id, subject=person.subject)
    events.record(conn, "oidc", "user.subject", user_id, {"subject": person.subject}, now)
    found = people.find(conn, user_id)
    assert found is not None
    return found


def _disabled(user: User) -> Rejected:
    return Rejected("user_disabled", f"not signed in: {user.name} is disabled here", kind=Kind.FORBIDDEN)
