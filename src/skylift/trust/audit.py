"""An auditor's work: a whole log and the files it speaks of, held to each other, without any server.

What holds afterwards: both repositories' roots are one chain from the first to the newest, through those
that the auditor has; the newest director root's key signed the checkpoint; the log is the checkpoint's, and
begins with what was seen before; every root, every delegation and every product's role that it tells of is
there, byte for byte, and signed by whom the roots name; no version was published twice or after a higher one;
and whatever was ordered, to whomever, was vouched for by release keys in a role that had been published
before.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from skylift.core.errors import Rejected, TrustError
from skylift.core.lifecycle import Reason
from skylift.trust import files
from skylift.trust.log import Checkpoint, Pin, audit, log_keys, verified
from skylift.trust.roles import DIRECTOR, IMAGE

ONLINE = ("snapshot", "timestamp")  # roles whose files are not kept: freshness, nothing else


@dataclass(frozen=True, slots=True)
class Copy:
    """A log, whole: the checkpoint as it was served, the entries, and the files (`image/3.root.json` ->
    bytes) of every role but snapshots and timestamps."""

    checkpoint: Any
    entries: Sequence[str]
    files: Mapping[str, bytes]


@dataclass
class Audited:
    """What was found. `newest`: the version of each repository's each role."""

    checkpoint: Checkpoint
    published: int = 0
    orders: int = 0
    newest: dict[tuple[str, str], int] = field(default_factory=dict)


def wanted(entries: Sequence[str]) -> list[tuple[str, str, int]]:
    """(repository, role, version) of the files that belong to a copy of these entries."""
    told = (entry for entry in map(_said, entries) if entry["entry"] == "file")
    return [(one["repo"], one["role"], one["version"]) for one in told if one["role"] not in ONLINE]


def name_of(repo: str, role: str, version: int) -> str:
    return f"{repo}/{version}.{role}.json"


def verify(copy: Copy, roots: Mapping[str, bytes], pin: Pin | None) -> Audited:
    """Raises `TrustError` with what does not hold. `roots`: the auditor's own, by repository."""
    chains = {repo: _chain(repo, copy.files, own) for repo, own in roots.items()}
    newest = copy.files[name_of(DIRECTOR, "root", len(chains[DIRECTOR]))]
    found = Audited(verified(copy.checkpoint, log_keys(newest)))
    audit((entry.encode() for entry in copy.entries), found.checkpoint, pin)
    entries = [_said(entry) for entry in copy.entries]
    _published(entries, copy.files, found)
    for repo, chain in chains.items():
        if found.newest.get((repo, "root"), 0) != len(chain):
            raise _no(f"the {repo} root of version {len(chain)} is not in the log")
    _ordered(entries, _vouched(copy.files, chains[IMAGE]), found)
    return found


def _chain(repo: str, known: Mapping[str, bytes], own: bytes) -> list[Root]:
    """Every root, each signed by its own holders and by those before; the auditor's is one of them."""
    found: list[Root] = []
    for version in count(1):
        name = name_of(repo, "root", version)
        if name not in known:
            break
        offered = _read(name, known[name], Root)
        signed = offered.signed
        if signed.version != version or signed.unrecognized_fields.get("repository") != repo:
            raise _no(f"{name} is another root")
        if not all(files.verifies(judge, "root", offered) for judge in (*found[-1:], signed)):
            raise _no(f"{name} is not signed by its holders and those before")
        found.append(signed)
    version = _read(f"your {repo} root", own, Root).signed.version
    if version > len(found):
        reason = Reason.METADATA_ROLLBACK
        raise TrustError(reason, f"the {repo} roots end with {len(found)}, yours is version {version}")
    if known[name_of(repo, "root", version)] != own:
        raise _no(f"the {repo} root of version {version} is another than yours")
    return found


def _published(entries: Sequence[dict[str, Any]], known: Mapping[str, bytes], found: Audited) -> None:
    """Versions ascend, roots' by one; the files are those of the entries, and all of them are there."""
    digests: dict[str, tuple[int, str]] = {}
    for entry in entries:
        if entry["entry"] == "file":
            repo, role, version = entry["repo"], entry["role"], entry["version"]
            before = found.newest.get((repo, role), 0)
            if version <= before or (role == "root" and version != before + 1):
                raise _no(f"{repo} {role} version {version} was published after version {before}")
            found.newest[repo, role] = version
            found.published += 1
            if role not in ONLINE:
                digests[name_of(repo, role, version)] = (entry["length"], entry["sha256"])
    for name in digests.keys() | known.keys():
        if name not in digests:
            raise _no(f"{name} is published, not logged")
        if name not in known:
            raise _no(f"{name} is logged, not shown")
        if digests[name] != (len(known[name]), sha256(known[name]).hexdigest()):
            raise _no(f"{name} is another file than the logged one")


def _vouched(known: Mapping[str, bytes], roots: Sequence[Root]) -> dict[str, Targets]:
    """The products' roles by their names, each signed by release keys that delegations named, which a root's
    targets keys signed."""
    every = {name: _read(name, body, Targets) for name, body in known.items() if not _is(name, "root")}
    delegations = {name: one for name, one in every.items() if _is(name, "targets")}
    for name, one in delegations.items():
        if not any(files.verifies(root, "targets", one) for root in roots):
            raise _no(f"{name} is not signed by the targets keys of any root")
    roles: dict[str, Targets] = {}
    for name, one in every.items():
        if name not in delegations:
            product = name.split(".")[1]
            if not any(_verifies(each.signed, product, one) for each in delegations.values()):
                raise _no(f"{name} is not signed by its release keys")
            roles[name] = one.signed
    return roles


def _is(name: str, role: str) -> bool:
    return name.endswith(f".{role}.json")


def _verifies(delegations: Targets, product: str, role: "Metadata[Targets]") -> bool:
    roles = delegations.delegations.roles if delegations.delegations else None
    return product in (roles or {}) and files.verifies(delegations, product, role)


def _ordered(entries: Sequence[dict[str, Any]], roles: Mapping[str, Targets], found: Audited) -> None:
    """What is ordered stands in a role that was published before."""
    released: set[tuple[str, int, str]] = set()
    for entry in entries:
        if entry["entry"] == "file":
            role = roles.get(name_of(entry["repo"], entry["role"], entry["version"]))
            for path, image in role.targets.items() if role else ():
                released.add((path, image.length, image.hashes["sha256"]))
        elif (entry["path"], entry["length"], entry["sha256"]) in released:
            found.orders += 1
        else:
            raise _no(f"{entry['deployment']} ordered {entry['path']}, which was not released before")


_WORDS, _NUMBERS = dict.fromkeys(("entry", "sha256"), str), {"length": int}
_PARTS: dict[str, dict[str, type]] = {
    "file": {**_WORDS, **_NUMBERS, "repo": str, "role": str, "version": int},
    "order": {**_WORDS, **_NUMBERS, "deployment": str, "path": str, "mandatory": bool},
}


def _said(entry: str) -> dict[str, Any]:
    """An entry, of the form that entries have."""
    try:
        said = json.loads(entry)
        parts = _PARTS[said["entry"]]
        if {name: type(value) for name, value in said.items()} == parts:
            return dict(said)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # said below
    raise _no(f"{entry[:80]!r} is no entry")


def _read(name: str, body: bytes, kind: type[files.S]) -> "Metadata[files.S]":
    try:
        return files.read(name, body, kind)
    except Rejected as e:
        raise _no(str(e)) from e


def _no(sentence: str) -> TrustError:
    return TrustError(Reason.SIGNATURE_INVALID, sentence)
