"""The transparency log, written in the transaction of what it tells.

Every metadata file that is published is an entry, and every order: one per deployment and image, the same for
all devices that get it, so that a million devices come to a handful of entries. An entry that is there
already is not written again.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from skylift.core import merkle
from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.merkle import Get
from skylift.engine.online import OnlineKeys
from skylift.store import facts, log, trustfiles
from skylift.store.db import Connection
from skylift.store.log import Entry
from skylift.trust.log import Checkpoint, file_entry, order_entry, sign

CAUGHT_UP = "log_caught_up"  # the fact: what was there before the log is in it


def append(conn: Connection, entry: bytes, now: datetime) -> None:
    """Write it down, once."""
    leaf = merkle.leaf_hash(entry)
    if log.place(conn, leaf.hex()) is None:
        size = log.size(conn)
        nodes = list(merkle.appended(size, leaf, _nodes(conn)))
        log.put(conn, Entry(size, leaf.hex(), entry.decode("ascii"), now), nodes)


def published(conn: Connection, repo: str, role: str, version: int, body: bytes, now: datetime) -> None:
    """A metadata file was published."""
    append(conn, file_entry(repo, role, version, len(body), sha256(body).hexdigest()), now)


def ordered(
    conn: Connection, deployment: str, path: str, length: int, digest: str, mandatory: bool, now: datetime
) -> None:
    """An image was ordered."""
    append(conn, order_entry(deployment, path, length, digest, mandatory), now)


def catch_up(conn: Connection, now: datetime) -> None:
    """What was published and ordered before there was a log; once in a database's life."""
    if facts.get(conn, CAUGHT_UP):
        return
    for file in trustfiles.every(conn):
        published(conn, file.repo, file.role, file.version, file.body, now)
    for order in trustfiles.distinct_orders(conn):
        if order:
            ordered(
                conn, order["deployment"], order["path"], order["length"], order["sha256"],
                order["mandatory"], now,
            )  # fmt: skip
    facts.put(conn, CAUGHT_UP, True)


def _nodes(conn: Connection) -> Get:
    return lambda level, number: log.node(conn, level, number)


def root_at(conn: Connection, size: int) -> str | None:
    """The root of the first `size` entries, hex; None where there are not so many."""
    return merkle.root(size, _nodes(conn)).hex() if size <= log.size(conn) else None


# --- reading ----------------------------------------------------------------------------------------


def checkpoint(conn: Connection, online: OnlineKeys, since: int, now: datetime) -> dict[str, Any]:
    """The signed checkpoint of now, with the proof that it extends the log of `since` entries."""
    online.check(conn)
    size = log.size(conn)
    found = Checkpoint(size, merkle.root(size, _nodes(conn)).hex(), int(now.timestamp()))
    proof = merkle.consistency(since, size, _nodes(conn)) if since <= size else []
    return {**sign(found, online.director), "consistency": [step.hex() for step in proof]}


def inclusion(conn: Connection, leaf: str, size: int) -> dict[str, Any]:
    """Where the entry with this hash stands, and the proof for the log of `size` entries."""
    _check_size("size", size, conn)
    index = log.place(conn, leaf)
    if index is None or index >= size:
        raise Rejected(
            "unknown_entry",
            f"leaf is {leaf!r}: the first {size} entries of the log have no such hash",
            kind=Kind.NOT_FOUND,
            field="leaf",
            value=leaf,
            rule="the hash of an entry",
        )
    return {"index": index, "size": size, "proof": _hex(merkle.inclusion(index, size, _nodes(conn)))}


def shown(conn: Connection) -> dict[str, Any] | None:
    """Size and root of now, for an order that shows them; None of a log without entries."""
    size = log.size(conn)
    return {"size": size, "root": merkle.root(size, _nodes(conn)).hex()} if size else None


def compact(conn: Connection, leaves: Sequence[str], since: int, size: int) -> dict[str, Any]:
    """All that a small device asks of the log of `size` entries, at once: where these entries stand in it,
    and that it begins with the first `since`."""
    _check_size("size", size, conn)
    if since > size:
        raise invalid("since", since, f"at most size, {size}")
    found = [inclusion(conn, leaf, size) for leaf in leaves]
    return {
        "consistency": _hex(merkle.consistency(since, size, _nodes(conn))),
        "inclusions": [{"index": one["index"], "proof": one["proof"]} for one in found],
    }


def consistency(conn: Connection, first: int, second: int) -> dict[str, Any]:
    """The proof that the log of `second` entries begins with that of `first`."""
    _check_size("second", second, conn)
    if first > second:
        raise invalid("first", first, f"at most second, {second}")
    proof = merkle.consistency(first, second, _nodes(conn))
    return {"first": first, "second": second, "proof": _hex(proof)}


def _check_size(field: str, asked: int, conn: Connection) -> None:
    there = log.size(conn)
    if not 1 <= asked <= there:
        raise invalid(field, asked, f"between 1 and {there}, the entries there are")


def _hex(proof: Sequence[bytes]) -> list[str]:
    return [step.hex() for step in proof]
