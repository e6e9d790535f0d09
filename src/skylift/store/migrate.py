"""Brings a database to today's tables: one Alembic tree, inside the package, for both dialects.

The tree is run from here, never from a command line, so there is no alembic.ini. Two servers that start
together do not trip over each other: the second waits (SQLite's write lock, PostgreSQL's advisory lock)
and then finds nothing to do.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from skylift.core.errors import Unavailable
from skylift.store.connect import Trouble, normal, trouble, writing_engine

TREE = Path(__file__).parent / "migrations"
_LOCK = 0x536B796C  # "Skyl": any number that is ours


def migrate(url: str) -> None:
    """Creates or upgrades the schema at `url`, in one transaction. Again: nothing changes."""
    engine = writing_engine(normal(url))
    try:
        with _connected(engine) as conn, conn.begin():
            if engine.dialect.name == "postgresql":
                conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            command.upgrade(config(conn), "head")
    except DBAPIError as e:
        if trouble(e) is Trouble.DEED:  # a mistake in the tree, and no trouble of the database's
            raise
        raise _cannot(engine, "upgraded", e) from e
    finally:
        engine.dispose()


def _connected(engine: Engine) -> Connection:
    """The first connection of a server's life: what is wrong with it is said in a sentence."""
    try:
        return engine.connect()
    except DBAPIError as e:
        raise _cannot(engine, "opened", e) from e


def _cannot(engine: Engine, what: str, error: DBAPIError) -> Unavailable:
    shown = engine.url.render_as_string(hide_password=True)
    return Unavailable(f"database_url is {shown!r}: cannot be {what}: {_said(error)}")


def _said(error: DBAPIError) -> str:
    """The driver's own words; PostgreSQL's come as a dictionary."""
    words = getattr(error.orig, "args", None) or (error.orig,)
    return str(words[0]["M"] if isinstance(words[0], dict) else words[0])


def config(conn: Connection) -> Config:
    """Alembic's configuration over an open transaction."""
    made = Config()
    made.set_main_option("script_location", str(TREE).replace("%", "%%"))
    made.attributes["connection"] = conn
    return made
