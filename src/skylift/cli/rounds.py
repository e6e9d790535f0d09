"""A round of signatures: what waits is fetched, checked at the desk, shown, signed, handed in.

The round goes through the server's pending area, or through a file that people pass on: `{"proposals": {role:
base64}, "published": {role: base64}, "notes": {role: {version: text}}}`. Either way each checks it with the
books of their own desk.
"""

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skylift.cli.context import Session, must_confirm
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Output

TARGETS = "image:targets"


def sign_role(
    this: Session,
    role: str,
    signers: Mapping[str, Any],
    desk: Path,
    yes: bool,
    withdraws: Collection[str] = (),
    others: bool = False,
) -> Any:
    """Check, show, ask, sign, hand in; the last answer. With `others`, other roles' keys are passed over."""
    catch_up(this, desk)
    pending = {each["role"]: each for each in this.client.get("/api/trust")["pending"]}
    fitting = {
        name: signer
        for name, signer in signers.items()
        if not others or signer.public_key.keyid in pending.get(role, {"keyids": ()})["keyids"]
    }
    if not fitting:
        return None
    coming = raw_pending(this, TARGETS) if ":" not in role and TARGETS in pending else None
    found = read(
        role, raw_pending(this, role), published(this, role), desk, withdraws, coming, notes(this, role)
    )
    for line in found.lines():
        this.output.say(line)
    must_confirm(f"Sign {role}?", yes)
    answer: Any = None
    with this.output.progress(f"signing {role}", len(fitting), steps=True) as moved:
        for name, signer in fitting.items():
            answer = this.client.post(f"/api/trust/pending/{role}/signatures", found.sign(signer))
            moved(1)
            this.output.say(f"{name}: {answer['signatures']} of {answer['threshold']} signatures")
    catch_up(this, desk)
    return answer


def read(
    role: str,
    pending: bytes,
    known: bytes | None,
    desk: Path,
    withdraws: Collection[str] = (),
    coming: bytes | None = None,
    notes: Mapping[str, str] | None = None,
) -> Any:
    """What waits, checked by this desk's own books."""
    from dataclasses import replace

    from skylift.trust.books import Books
    from skylift.trust.ceremony import Desk
    from skylift.trust.desk import Proposal, Review

    now = datetime.now(UTC)
    if ":" in role:
        return Review.read(role, pending, Books.open(Desk(desk, None)), now)
    own = desk / "public"
    roots = own / "image.root.json", own / "image.targets.json"
    found = Proposal.read(role, pending, known, *roots, now, withdraws, coming)
    return replace(found, notes=notes or {})


def catch_up(this: Session, desk: Path) -> None:
    """The desk's books, up to the server's newest files, each verified by the one before."""
    from skylift.trust.books import catch_up
    from skylift.trust.ceremony import Desk

    versions = {f"{r['repo']}:{r['role']}": r["version"] for r in this.client.get("/api/trust")["roles"]}

    def get(role: str, version: int) -> bytes | None:
        newest = versions.get(role, 0)
        if role == TARGETS:
            return this.client.raw(f"/image/{newest}.targets.json") if newest else None
        repo = role.partition(":")[0]
        return this.client.raw(f"/api/trust/roots/{repo}/{version}") if version <= newest else None

    if (desk / "public").is_dir():
        for said in catch_up(Desk(desk, None), get):
            this.output.say(f"the desk's books: {said}")


def published(this: Session, role: str) -> bytes | None:
    """The role's published file, if there is one."""
    for known in this.client.get("/api/trust")["roles"]:
        if (known["repo"], known["role"]) == ("image", role):
            with this.output.progress(f"downloading what {role} has published", None) as moved:
                return this.client.raw(f"/image/{known['version']}.{role}.json", moved)
    return None


def raw_pending(this: Session, role: str) -> bytes:
    with this.output.progress(f"downloading what waits for {role}", None) as moved:
        return this.client.raw(f"/api/trust/pending/{role}", moved)


def notes(this: Session, role: str) -> dict[str, str]:
    """Version -> the notes of its release, of the product's newest."""
    if ":" in role:
        return {}
    page = this.client.get("/api/releases", product=role, limit=100)
    return {each["version"]: each["notes"] for each in page["items"] if each["notes"]}


# --- by a file ----------------------------------------------------------------------------------------


Notes = dict[str, dict[str, str]]  # role -> version -> what the server says of the release


def write(path: Path, proposals: Mapping[str, bytes], known: Mapping[str, bytes], told: Notes) -> None:
    """A file to pass on. Nothing in it is secret."""
    parts = {"proposals": proposals, "published": known}
    body: dict[str, Any] = {
        part: {role: base64.b64encode(b).decode() for role, b in each.items()} for part, each in parts.items()
    }
    path.write_text(json.dumps({**body, "notes": told}, indent=1) + "\n")


def opened(path: Path) -> tuple[dict[str, bytes], dict[str, bytes], Notes]:
    """(Proposals, published files, notes) of such a file."""
    try:
        body = json.loads(path.read_text())
        told = {
            str(role): {str(version): str(text) for version, text in each.items()}
            for role, each in body.get("notes", {}).items()
        }
        parts = [
            {str(role): base64.b64decode(raw, validate=True) for role, raw in body[part].items()}
            for part in ("proposals", "published")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, binascii.Error) as e:
        raise Leave(Exit.ERROR, f"file is {str(path)!r}: is no file of proposals ({e})") from e
    return parts[0], parts[1], told


def sign_file(output: Output, path: Path, signers: Mapping[str, Any], desk: Path, yes: bool) -> None:
    """Add signatures in the file, without any server."""
    from skylift.trust.files import add_signature

    proposals, known, told = opened(path)
    added = {}
    for role, body in proposals.items():
        found = read(role, body, known.get(role), desk, (), proposals.get(TARGETS), told.get(role))
        for line in found.lines():
            output.say(line)
        must_confirm(f"Sign {role}?", yes)
        for signer in signers.values():
            proposals[role] = add_signature(role, proposals[role], signer)
        added[role] = len(signers)
    write(path, proposals, known, told)
    output.one({"file": str(path), "signed": added}, added.items())


def hand_in(this: Session, proposals: Mapping[str, bytes]) -> list[Any]:
    """Propose and sign at the server, in the order in which things depend on each other; the answers."""
    from skylift.trust.files import signatures_of

    answers = []
    for role in sorted(proposals, key=lambda role: (":" not in role, role.endswith("targets"), role)):
        body = proposals[role]
        if ":" in role:
            answers.append(
                this.client.put(f"/api/trust/pending/{role}", {"body": base64.b64encode(body).decode()})
            )
        else:
            version, made = signatures_of(role, body)
            for keyid, sig in made.items():
                said = {"version": version, "keyid": keyid, "sig": sig}
                answers.append(this.client.post(f"/api/trust/pending/{role}/signatures", said))
    return answers
