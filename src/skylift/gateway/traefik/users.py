"""Who basicAuth knows: `users`, and the lines of the file `usersFile`, as `htpasswd` writes it."""

from collections.abc import Iterator
from pathlib import Path

from skylift.gateway.access import Secret
from skylift.gateway.helper.asked import HASHES
from skylift.gateway.loading import MAX_BYTES
from skylift.gateway.reading import Fields

RULE = "user:hash, the hash by {SHA}, $apr1$ or bcrypt"


def users(at: Fields) -> tuple[Secret, ...]:
    """Whoever is in both has the file's password, as in Traefik. A file that does not hold is a mistake of
    the configuration that names it, of which only the line's number is said."""
    found: dict[str, Secret] = {}
    for number, entry in enumerate(at.texts("users")):
        if (user := _user(entry)) is None:
            at.wrong(f"users[{number}]", None, f"it must be {RULE}")
        else:
            found[user.name] = user
    for number, line in _lines(at):
        if (user := _user(line)) is None:
            at.wrong("usersFile", None, f"line {number} must be {RULE}")
        else:
            found[user.name] = user
    return tuple(found.values())


def _user(entry: str) -> Secret | None:
    name, colon, value = entry.partition(":")
    return Secret(value, name=name) if colon and value.startswith(HASHES) else None


def _lines(at: Fields) -> Iterator[tuple[int, str]]:
    """Lines that are no comment, with their numbers from 1. The file stands where its path leads from where
    the gateway was started."""
    name = at.text("usersFile")
    if not name:
        return
    try:
        file = Path(name)
        if file.stat().st_size > MAX_BYTES:
            at.wrong("usersFile", name, f"a file has at most {MAX_BYTES >> 20} MiB")
            return
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        at.wrong("usersFile", name, f"it cannot be read: {why}", "unreadable_file")
        return
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            yield number, line
