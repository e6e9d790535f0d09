"""People: who they are, how they prove it, how long that lasts.

Passwords are kept as argon2id; the second factor is a time-based code (RFC 6238), each taken once, whose
secret lies sealed in the database. A session
is 256 random bits in the browser and their SHA-256 here; a new one begins at every sign-in and ends the one
the browser brought, so that nobody can plant one (fixation). It ends after twelve hours without a request,
after a week in any case, and with every change of its user's password, role or standing.

The rules:
- A wrong name, a wrong password and a wrong code get one and the same answer, after the same work.
- After five wrong tries in a row an account waits, longer each time, at most a quarter of an hour.
- The last admin who can sign in is neither disabled nor made less.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from secrets import token_bytes
from threading import Semaphore

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from skylift.core.errors import Kind, Rejected, Unavailable, invalid
from skylift.core.ids import check_name, mint
from skylift.engine.access import operator, role_named, token_hash
from skylift.engine.sealed import Seal, code_purpose
from skylift.store import events, passkeys, people
from skylift.store.db import Connection, Database
from skylift.store.people import Session, User

MIN_PASSWORD, MAX_PASSWORD = 12, 200  # length is what counts; more than 200 only costs the hasher time
IDLE = timedelta(hours=12)
WEEK = timedelta(days=7)
TOUCH_EVERY = timedelta(minutes=1)  # how exact "last seen" is
FREE_TRIES = 5
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=15), timedelta(minutes=15)
STEP_S = 30  # of a one-time code; one step early or late is taken, clocks differ
ISSUER = "Skylift"
TURN_S = 5.0  # a sign-in waits for the others so long

# OWASP's parameters: 19 MiB, 40 ms of one core. The library's own (64 MiB, four lanes) would take 200 ms from
# the devices for every guess of somebody outside.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_HASHING = Semaphore()
_NOBODY = _HASHER.hash(secrets.token_hex(16))  # what a name that is not there is checked against


# --- signing in --------------------------------------------------------------------------------------


def sign_in(
    database: Database,
    seal: Seal,
    name: str,
    password: str,
    code: str,
    now: datetime,
    *,
    agent: str = "",
    instead_of: str = "",
) -> tuple[str, User]:
    """A new session's token and its user. `instead_of`: the token the browser came with, which ends.

    The hash is computed before the writer is asked: it takes as long as a thousand writes.
    """
    with database.read() as conn:
        user = people.by_name(conn, name[:64])
    if user is not None and user.blocked_until is not None and user.blocked_until > now:
        seconds = round((user.blocked_until - now).total_seconds()) + 1
        raise Rejected(
            "too_many_tries",
            f"too many wrong tries: this account can be tried again in {seconds} seconds",
            kind=Kind.FORBIDDEN,
            field="name",
            rule="wait",
        )
    proved = _is_password(user.password_hash if user else None, password)
    step = _step_of(_secret(seal, user), code, now) if user is not None and user.totp_sealed else 0
    holds_key = user is not None and _has_passkey(database, user)
    missing = step is None and (code or not holds_key)
    if user is None or not proved or missing or user.disabled_at is not None:
        if user is not None:
            database.write(lambda conn: note_failure(conn, user, now))
        raise _wrong()
    if not step and holds_key:
        raise KeyNeeded(user)
    return database.write(lambda conn: begin(conn, user, step or 0, now, agent, instead_of)), user


class KeyNeeded(Exception):
    """The password is right; a passkey has to follow."""

    def __init__(self, user: User) -> None:
        super().__init__(user.name)
        self.user = user


def _has_passkey(database: Database, user: User) -> bool:
    with database.read() as conn:
        return bool(passkeys.of_user(conn, user.id))


def _wrong() -> Rejected:
    return Rejected(
        "wrong_credentials",
        "name, password or code is wrong",
        kind=Kind.UNAUTHENTICATED,
        field="password",
        rule="all three right",
    )


def _is_password(stored: str | None, given: str) -> bool:
    try:
        with _turn():
            return _HASHER.verify(stored or _NOBODY, given[:MAX_PASSWORD]) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def _secret(seal: Seal, user: User, offered: bool = False) -> str:
    sealed = user.totp_offered if offered else user.totp_sealed
    return seal.read(sealed or "", code_purpose(user.id))


def _step_of(secret: str, code: str, now: datetime) -> int | None:
    """The time step whose code this is, or None."""
    totp = pyotp.TOTP(secret, interval=STEP_S)
    at = int(now.timestamp()) // STEP_S
    digits = code.replace(" ", "")
    near = (at, at - 1, at + 1)
    return next(
        (step for step in near if secrets.compare_digest(totp.generate_otp(step).encode(), digits.encode())),
        None,
    )


def note_failure(conn: Connection, user: User, now: datetime) -> None:
    fresh = people.find(conn, user.id) or user
    failed = fresh.failed + 1
    over = failed - FREE_TRIES
    blocked = now + min(FIRST_WAIT * 2 ** min(over, 10), LONGEST_WAIT) if over >= 0 else None
    people.change(conn, user.id, failed=failed, blocked_until=blocked)
    if over == 0:
        events.record(conn, user.name, "user.blocked", user.id, {"failed": failed}, now)


def begin(conn: Connection, user: User, step: int, now: datetime, agent: str, instead_of: str) -> str:
    """A new session's token, for somebody who has proved who they are."""
    if step and not people.use_step(conn, user.id, step):
        raise _wrong()  # the code was used before
    if instead_of:
        people.close_session(conn, token_hash(instead_of))
    people.forget_sessions(conn, now)
    token = secrets.token_urlsafe(32)
    people.open_session(conn, Session(token_hash(token), user.id, now, now, now + WEEK, agent[:200]))
    people.change(conn, user.id, failed=0, blocked_until=None, signed_in_at=now)
    events.record(conn, user.name, "session.begin", user.id, {"agent": agent[:200]}, now)
    return token


def signed_in(conn: Connection, token: str, now: datetime) -> tuple[Session, User] | None:
    """Whose session this is, while it is good."""
    found = people.session(conn, token_hash(token))
    if found is None:
        return None
    session, user = found
    over = session.expires_at <= now or session.seen_at + IDLE <= now or user.disabled_at is not None
    return None if over else found


def touch(conn: Connection, session: Session, now: datetime) -> None:
    """The session was used."""
    people.touch(conn, session.token_hash, now)


def sign_out(conn: Connection, token: str, user: User, now: datetime) -> None:
    people.close_session(conn, token_hash(token))
    events.record(conn, user.name, "session.end", user.id, {}, now)


def sign_out_elsewhere(conn: Connection, token: str, user: User, now: datetime) -> int:
    """Every other session of this user ends; how many."""
    ended = people.close_sessions(conn, user.id, (token_hash(token),))
    events.record(conn, user.name, "session.end_others", user.id, {"ended": ended}, now)
    return ended


# --- people ------------------------------------------------------------------------------------------


def first_admin(database: Database, admin_token: str, name: str, password: str, now: datetime) -> None:
    """The first person, let in by an admin's token. Refused once there is anybody."""
    check_name("name", name)
    hashed = hash_password(password)

    def deed(conn: Connection) -> None:
        holder = operator(conn, admin_token, now)
        if holder is None or holder.role != "admin":
            raise Rejected(
                "unknown_token",
                "token: is not a good admin's token; the first start wrote one into admin.token",
                kind=Kind.UNAUTHENTICATED,
                field="token",
                rule="an admin's token",
            )
        if people.everybody(conn):
            raise Rejected(
                "not_the_first",
                "name: there are people here already; ask an admin of theirs",
                kind=Kind.CONFLICT,
                field="name",
                value=name,
                rule="nobody is here yet",
            )
        insert_user(conn, mint("usr", now, token_bytes(5)), name, "admin", hashed, holder.name, now)

    database.write(deed)


def hash_password(password: str) -> str:
    """What is kept of it. Takes tens of milliseconds: call it outside a deed."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise invalid(
            "password", f"{len(password)} characters", f"{MIN_PASSWORD} to {MAX_PASSWORD} characters"
        )
    with _turn():
        return _HASHER.hash(password)


@contextmanager
def _turn() -> Iterator[None]:
    """One hash at a time: strangers who guess take one core at most from the devices, whatever they send."""
    if not _HASHING.acquire(timeout=TURN_S):
        raise Unavailable("too many sign-ins at this moment", TURN_S)
    try:
        yield
    finally:
        _HASHING.release()


def add(conn: Connection, name: str, role: str, hashed: str, actor: str, now: datetime) -> str:
    """A new user with this password hash; the id."""
    check_name("name", name)
    role_named(role)
    if people.by_name(conn, name) is not None:
        raise Rejected(
            "user_exists",
            f"name is {name!r}: there is a user of that name",
            kind=Kind.CONFLICT,
            field="name",
            value=name,
            rule="a name no user has",
        )
    user_id = mint("usr", now, token_bytes(5))
    insert_user(conn, user_id, name, role, hashed, actor, now)
    return user_id


def insert_user(
    conn: Connection, user_id: str, name: str, role: str, hashed: str | None, actor: str, now: datetime
) -> None:
    """Without a password they sign in elsewhere."""
    nothing = (None,) * 7  # sign-in, standing, codes, subject, products, challenge
    people.insert(conn, User(user_id, name, role, hashed, 0, 0, None, now, actor, *nothing))
    events.record(conn, actor, "user.create", user_id, {"name": name, "role": role}, now)


def find(conn: Connection, name: str) -> User:
    """By id or name, or `Rejected` (not found)."""
    found = people.find(conn, name) or people.by_name(conn, name)
    if found is None:
        raise Rejected(
            "unknown_user",
            f"user is {name!r}: there is no such user",
            kind=Kind.NOT_FOUND,
            field="user",
            value=name,
            rule="names a user",
        )
    return found


def set_role(conn: Connection, name: str, role: str, actor: str, now: datetime) -> None:
    """From now on; the user signs in again. The last admin stays one."""
    user = find(conn, name)
    role_named(role)
    if role == user.role:
        return
    _keep_an_admin(conn, user)
    people.change(conn, user.id, role=role)
    people.close_sessions(conn, user.id)
    events.record(conn, actor, "user.role", user.id, {"role": role}, now, before={"role": user.role})


def set_product_role(
    conn: Connection, name: str, product: str, role: str | None, actor: str, now: datetime
) -> None:
    """What they may do to one product, beside what they may do to all; None: nothing more. From now on."""
    user = find(conn, name)
    check_name("product", product)
    if role is not None:
        role_named(role)
    had = user.products or {}
    has = {known: held for known, held in had.items() if known != product} | ({product: role} if role else {})
    if has == had:
        return
    people.change(conn, user.id, products=has or None)
    before = {"product": product, "role": had.get(product)}
    events.record(
        conn, actor, "user.product_role", user.id, {"product": product, "role": role}, now, before=before
    )


def set_disabled(conn: Connection, name: str, disabled: bool, actor: str, now: datetime) -> None:
    """Nobody signs in as this user, or somebody may again. The last admin stays."""
    user = find(conn, name)
    if (user.disabled_at is not None) == disabled:
        return
    if disabled:
        _keep_an_admin(conn, user)
        people.close_sessions(conn, user.id)
    people.change(conn, user.id, disabled_at=now if disabled else None, failed=0, blocked_until=None)
    before = {"disabled": user.disabled_at is not None}
    events.record(conn, actor, "user.disabled", user.id, {"disabled": disabled}, now, before=before)


def _keep_an_admin(conn: Connection, user: User) -> None:
    if user.role == "admin" and user.disabled_at is None and people.active_admins(conn) == 1:
        raise Rejected(
            "last_admin",
            f"user is {user.name!r}: the last admin; make somebody else one first",
            kind=Kind.CONFLICT,
            field="user",
            value=user.name,
            rule="an admin is left",
        )


def set_password(conn: Connection, name: str, hashed: str, actor: str, now: datetime, keep: str = "") -> None:
    """A new password; every session of the user ends, but the one with the token `keep`. An admin's reset
    also takes the second factor away, which may be what was lost."""
    user = find(conn, name)
    lost = {} if keep else {"totp_sealed": None, "totp_offered": None}
    people.change(conn, user.id, password_hash=hashed, failed=0, blocked_until=None, **lost)
    if not keep:
        passkeys.forget(conn, user.id)
    people.close_sessions(conn, user.id, (token_hash(keep),) if keep else ())
    events.record(conn, actor, "user.password", user.id, {"by": "themselves" if keep else "an admin"}, now)


def check_password(user: User, password: str) -> None:
    """Before something that a browser left open must not do."""
    if not _is_password(user.password_hash, password):
        raise Rejected(
            "wrong_credentials", "password: is wrong", kind=Kind.FORBIDDEN, field="password", rule="yours"
        )


# --- the second factor -------------------------------------------------------------------------------


def offer_code(conn: Connection, seal: Seal, user: User) -> None:
    """A new secret, which counts once a code of it has been shown."""
    if user.totp_offered is None:
        people.change(conn, user.id, totp_offered=seal.close(pyotp.random_base32(), code_purpose(user.id)))


def offered_code(seal: Seal, user: User) -> tuple[str, str] | None:
    """The offered secret, and as the address that authenticator apps read; None where none is offered."""
    if user.totp_offered is None:
        return None
    secret = _secret(seal, user, offered=True)
    uri = pyotp.TOTP(secret, interval=STEP_S).provisioning_uri(name=user.name, issuer_name=ISSUER)
    return secret, uri


def prove_code(conn: Connection, seal: Seal, user_id: str, code: str, now: datetime) -> None:
    """The app shows what it should: from now on a sign-in needs a code."""
    user = find(conn, user_id)
    step = _step_of(_secret(seal, user, offered=True), code, now) if user.totp_offered else None
    if step is None:
        raise invalid("code", code[:10], "must be the six digits the app shows now")
    people.change(conn, user.id, totp_sealed=user.totp_offered, totp_offered=None, totp_step=step)
    events.record(conn, user.name, "user.second_factor", user.id, {"on": True}, now, before={"on": False})


def drop_code(conn: Connection, user_id: str, now: datetime) -> None:
    """Sign in with the password alone again."""
    user = find(conn, user_id)
    if user.totp_sealed is None and user.totp_offered is None:
        return
    people.change(conn, user.id, totp_sealed=None, totp_offered=None)
    before = {"on": user.totp_sealed is not None}
    events.record(conn, user.name, "user.second_factor", user.id, {"on": False}, now, before=before)
