"""Who may come in, how they prove it, how long that lasts; on both databases."""

import pyotp
import pytest
import sqlalchemy as sa

from conftest import TestClock
from skylift.core.errors import Rejected, Unavailable
from skylift.engine import access, sealed
from skylift.engine import people as deeds
from skylift.store import events, people, tables
from skylift.store.db import Database
from skylift.store.people import User
from skylift.trust.seal import Seal

PASSWORD = "correct horse battery"
SEAL = Seal(bytes(32))


@pytest.fixture(scope="module")
def hashed() -> str:
    return deeds.hash_password(PASSWORD)


@pytest.fixture
def ada(database: Database, clock: TestClock, hashed: str) -> User:
    made = database.write(lambda conn: deeds.add(conn, "ada", "admin", hashed, "tests", clock()))
    return look(database, made)


def look(database: Database, name: str) -> User:
    with database.read() as conn:
        return deeds.find(conn, name)


def is_in(database: Database, token: str, clock: TestClock) -> bool:
    with database.read() as conn:
        return deeds.signed_in(conn, token, clock()) is not None


def test_the_right_password_begins_a_session(database: Database, clock: TestClock, ada: User) -> None:
    token, user = deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    assert user.name == "ada"
    assert is_in(database, token, clock)
    with database.read() as conn:
        stored = [row.token_hash for row in people.sessions_of(conn, ada.id)]
    assert stored == [access.token_hash(token)]  # the token itself is nowhere


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong horse battery"), ("nobody", PASSWORD)])
def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(
    database: Database, clock: TestClock, ada: User, name: str, password: str
) -> None:
    with pytest.raises(Rejected, match=r"^name, password or code is wrong$"):
        deeds.sign_in(database, SEAL, name, password, "", clock())


def test_wrong_tries_make_an_account_wait_and_the_wait_ends(
    database: Database, clock: TestClock, ada: User
) -> None:
    for _ in range(deeds.FREE_TRIES):
        with pytest.raises(Rejected, match="wrong"):
            deeds.sign_in(database, SEAL, "ada", "x", "", clock())
    with pytest.raises(Rejected, match="too many wrong tries"):
        deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    clock.forward(seconds=deeds.FIRST_WAIT.total_seconds() + 1)
    deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    assert look(database, "ada").failed == 0


def test_a_session_that_nobody_uses_ends(database: Database, clock: TestClock, ada: User) -> None:
    token, _ = deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    clock.now += deeds.IDLE
    assert not is_in(database, token, clock)


def test_a_session_that_is_used_ends_after_a_week(database: Database, clock: TestClock, ada: User) -> None:
    token, _ = deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    for _ in range(13):
        clock.forward(hours=11)
        with database.read() as conn:
            found = deeds.signed_in(conn, token, clock())
        assert found is not None
        database.write(lambda conn, session=found[0]: deeds.touch(conn, session, clock()))  # type: ignore[misc] # a lambda's default has no type
    clock.now = ada.created_at + deeds.WEEK
    assert not is_in(database, token, clock)


def test_signing_in_again_ends_the_session_the_browser_brought(
    database: Database, clock: TestClock, ada: User
) -> None:
    planted, _ = deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    token, _ = deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock(), instead_of=planted)
    assert token != planted
    assert is_in(database, token, clock)
    assert not is_in(database, planted, clock)


def test_with_a_second_factor_the_password_alone_is_not_enough_and_no_code_counts_twice(
    database: Database, clock: TestClock, ada: User
) -> None:
    database.write(lambda conn: deeds.offer_code(conn, SEAL, ada))
    secret, _ = deeds.offered_code(SEAL, look(database, "ada")) or ("", "")
    app = pyotp.TOTP(secret)
    with pytest.raises(Rejected, match="code"):
        database.write(lambda conn: deeds.prove_code(conn, SEAL, ada.id, "000000", clock()))
    assert deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())  # offered is not on
    database.write(lambda conn: deeds.prove_code(conn, SEAL, ada.id, app.at(clock()), clock()))
    with pytest.raises(Rejected, match="wrong"):
        deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    with pytest.raises(Rejected, match="wrong"):
        deeds.sign_in(database, SEAL, "ada", PASSWORD, app.at(clock()), clock())  # it proved the app already
    clock.forward(seconds=30)
    code = app.at(clock())
    assert deeds.sign_in(database, SEAL, "ada", PASSWORD, f"{code[:3]} {code[3:]}", clock())
    with pytest.raises(Rejected, match="wrong"):
        deeds.sign_in(database, SEAL, "ada", PASSWORD, code, clock())


def test_a_new_password_a_new_role_and_disabling_end_every_session(
    database: Database, clock: TestClock, ada: User, hashed: str
) -> None:
    database.write(lambda conn: deeds.add(conn, "olga", "operator", hashed, "ada", clock()))
    for change in (
        lambda conn: deeds.set_password(conn, "olga", hashed, "ada", clock()),
        lambda conn: deeds.set_role(conn, "olga", "viewer", "ada", clock()),
        lambda conn: deeds.set_disabled(conn, "olga", True, "ada", clock()),
    ):
        token, _ = deeds.sign_in(database, SEAL, "olga", PASSWORD, "", clock())
        database.write(change)
        assert not is_in(database, token, clock)
    with pytest.raises(Rejected, match="wrong"):
        deeds.sign_in(database, SEAL, "olga", PASSWORD, "", clock())


def test_the_last_admin_stays_one(database: Database, clock: TestClock, ada: User, hashed: str) -> None:
    for change in (
        lambda conn: deeds.set_role(conn, "ada", "viewer", "ada", clock()),
        lambda conn: deeds.set_disabled(conn, "ada", True, "ada", clock()),
    ):
        with pytest.raises(Rejected, match="the last admin"):
            database.write(change)
    database.write(lambda conn: deeds.add(conn, "eve", "admin", hashed, "ada", clock()))
    database.write(lambda conn: deeds.set_role(conn, "ada", "viewer", "ada", clock()))
    assert look(database, "ada").role == "viewer"


def test_the_first_admin_needs_the_token_and_is_the_first(database: Database, clock: TestClock) -> None:
    _, token = database.write(lambda conn: access.make_token(conn, "admin", "admin", "tests", clock()))
    _, weak = database.write(lambda conn: access.make_token(conn, "ci", "operator", "tests", clock()))
    for wrong in ("op_nothing", weak):
        with pytest.raises(Rejected, match="admin's token"):
            deeds.first_admin(database, wrong, "ada", PASSWORD, clock())
    deeds.first_admin(database, token, "ada", PASSWORD, clock())
    with pytest.raises(Rejected, match="people here already"):
        deeds.first_admin(database, token, "eve", PASSWORD, clock())
    assert look(database, "ada").role == "admin"


@pytest.mark.parametrize("password", ["short", "x" * 201])
def test_a_password_has_a_length(password: str) -> None:
    with pytest.raises(Rejected, match="12 to 200 characters"):
        deeds.hash_password(password)


def test_guessing_strangers_take_one_core_at_most(monkeypatch: pytest.MonkeyPatch, hashed: str) -> None:
    monkeypatch.setattr(deeds, "TURN_S", 0.05)
    with deeds._HASHING, pytest.raises(Unavailable, match="too many sign-ins"):
        deeds.hash_password(PASSWORD)
    assert deeds.hash_password(PASSWORD) != hashed


def test_every_change_of_a_person_is_in_the_audit_trail_with_what_stood_before(
    database: Database, clock: TestClock, ada: User, hashed: str
) -> None:
    database.write(lambda conn: deeds.add(conn, "olga", "operator", hashed, "ada", clock()))
    database.write(lambda conn: deeds.set_role(conn, "olga", "viewer", "ada", clock()))
    with database.read() as conn:
        newest, older = events.changes(conn, limit=2, action="user")
        text = str(conn.execute(sa.select(tables.audit.c.data)).all())
    assert (newest.actor, newest.action) == ("ada", "user.role")
    assert (newest.before, newest.data) == ({"role": "operator"}, {"role": "viewer"})
    assert older.action == "user.create"
    assert "argon2" not in text


def test_a_change_that_fails_leaves_no_trace_of_itself(
    database: Database, clock: TestClock, ada: User
) -> None:
    def deed(conn: object) -> None:
        deeds.set_password(conn, "ada", "x", "ada", clock())  # type: ignore[arg-type] # a deed's connection
        raise Rejected("no", "no")

    with pytest.raises(Rejected):
        database.write(deed)
    with database.read() as conn:
        assert not events.changes(conn, limit=10, action="user.password")


def test_a_token_reaches_only_its_scopes(database: Database, clock: TestClock) -> None:
    with pytest.raises(Rejected, match=r"scopes\[0\] is 'everything'"):
        database.write(
            lambda conn: access.make_token(conn, "ci", "operator", "t", clock(), scopes=["everything"])
        )
    assert access.reaches(["releases"], "/api/releases/rel_1:seal")
    assert access.reaches(["releases"], "/api/artifacts")
    assert access.reaches(None, "/api/users")
    assert not access.reaches(["releases"], "/api/deployments")
    assert not access.reaches(["releases"], "/api/users")
    assert not access.reaches(["releases"], "/api/releasesx")


# --- what lies in the database -------------------------------------------------------------------------


def test_the_secret_of_a_second_factor_is_nowhere_in_clear(
    database: Database, clock: TestClock, ada: User
) -> None:
    database.write(lambda conn: deeds.offer_code(conn, SEAL, ada))
    secret, uri = deeds.offered_code(SEAL, look(database, "ada")) or ("", "")
    assert len(secret) == 32
    assert secret in uri
    code = pyotp.TOTP(secret).at(clock())
    database.write(lambda conn: deeds.prove_code(conn, SEAL, ada.id, code, clock()))
    with database.read() as conn:
        rows = [str(conn.execute(sa.select(table)).all()) for table in tables.metadata.sorted_tables]
    assert not [row for row in rows if secret in row]
    with pytest.raises(Unavailable, match=r"another key than seal\.key"):
        deeds.sign_in(database, Seal(b"x" * 32), "ada", PASSWORD, code, clock())


def test_what_an_older_version_left_in_clear_is_sealed_at_the_start_and_still_counts(
    database: Database, clock: TestClock, ada: User
) -> None:
    secret = pyotp.random_base32()
    database.write(lambda conn: people.change(conn, ada.id, totp_secret=secret))
    database.write(lambda conn: sealed.claim(conn, SEAL))
    with database.read() as conn:
        assert conn.execute(sa.select(tables.users.c.totp_secret)).scalar() is None
    with pytest.raises(Rejected, match="wrong"):
        deeds.sign_in(database, SEAL, "ada", PASSWORD, "", clock())
    assert deeds.sign_in(database, SEAL, "ada", PASSWORD, pyotp.TOTP(secret).at(clock()), clock())


def test_a_server_with_another_seal_does_not_start_unless_it_is_told_to(database: Database) -> None:
    database.write(lambda conn: sealed.claim(conn, SEAL))
    other = Seal(b"x" * 32)
    with pytest.raises(Rejected, match=r"sealed under another seal\.key"):
        database.write(lambda conn: sealed.claim(conn, other))
    database.write(lambda conn: sealed.claim(conn, other, replace=True))
    database.write(lambda conn: sealed.claim(conn, other))
