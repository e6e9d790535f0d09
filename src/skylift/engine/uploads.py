"""Uploads in pieces, for lines that break: what has come stays, and the rest goes on from there.

An upload is a file named by whom it is for; its length is how much has come, so that a restart forgets
nothing. It lies on this server's own disk: of several servers behind one name, a browser must stay with one
for the time of an upload. Whole, it goes the way of every image: checked, then kept by its digest.
"""

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from skylift.core.errors import Kind, Rejected, Unavailable, invalid
from skylift.engine.blobs import Blobs, Intake

LEFTOVER_S = 48 * 3600  # nobody came back for it
MOST = 50  # unfinished at a time
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """What is coming, from whom, for which draft release and device type; bytes in all."""

    id: str
    actor: str
    release: str
    device_type: str
    name: str
    size: int


class Uploads:
    """The folder of unfinished uploads."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = Lock()

    def begin(self, actor: str, release: str, device_type: str, name: str, size: int) -> tuple[Upload, int]:
        """The upload and how much of it is here already: the same one again goes on where it was cut."""
        if not 0 < size <= self._limit:
            raise Rejected(
                "too_large" if size > self._limit else "empty_image",
                f"size is {size}: an image has 1 to {self._limit} bytes on this server",
                kind=Kind.TOO_LARGE if size > self._limit else Kind.INVALID,
                field="size",
                value=size,
                rule=f"1 to {self._limit} bytes",
            )
        named = json.dumps([actor, release, device_type, name, size]).encode()
        upload = Upload(hashlib.sha256(named).hexdigest()[:32], actor, release, device_type, name[:200], size)
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            told, part = self._told(upload.id), self._part(upload.id)
            if not told.exists():
                if len(list(self._folder.glob("*.json"))) >= MOST:
                    raise Unavailable(f"{MOST} uploads are unfinished: let some end first", 60)
                told.write_text(json.dumps(asdict(upload)))
                part.write_bytes(b"")
            return upload, part.stat().st_size

    def find(self, upload_id: str, actor: str) -> Upload:
        """This person's upload, or `Rejected` (not found)."""
        told = self._told(upload_id)
        if not (len(upload_id) == 32 and upload_id.isalnum() and told.exists()):
            raise _unknown(upload_id)
        upload = Upload(**json.loads(told.read_text()))
        if upload.actor != actor:
            raise _unknown(upload_id)
        return upload

    def add(self, upload: Upload, offset: int, body: bytes) -> int:
        """Put the next piece behind what is here; how much there is now. A piece that came before is not
        written twice."""
        with self._lock:
            here = self._part(upload.id).stat().st_size
            if offset != here:
                raise Rejected(
                    "wrong_offset",
                    f"offset is {offset}: the upload goes on at {here}",
                    kind=Kind.CONFLICT,
                    field="offset",
                    value=offset,
                    rule=f"{here}",
                )
            if here + len(body) > upload.size:
                raise invalid("body", f"{here + len(body)} bytes", f"{upload.size} were announced")
            try:
                with self._part(upload.id).open("ab") as file:
                    file.write(body)
            except OSError as e:
                raise Unavailable(f"the upload cannot be written: {e.strerror}", 60) from e
            return here + len(body)

    def into(self, upload: Upload, blobs: Blobs) -> Intake:
        """The whole upload on its way into the blob store; the caller keeps or drops it."""
        part = self._part(upload.id)
        if part.stat().st_size != upload.size:
            raise invalid(
                "body", f"{part.stat().st_size} bytes", f"{upload.size} were announced", code="truncated"
            )
        intake = blobs.intake(self._limit)
        try:
            with part.open("rb") as file:
                while chunk := file.read(_COPY):
                    intake.write(chunk)
        except BaseException:
            intake.drop()
            raise
        return intake

    def forget(self, upload: Upload) -> None:
        """It is kept elsewhere now, or was refused."""
        for path in (self._told(upload.id), self._part(upload.id)):
            with suppress(FileNotFoundError):
                path.unlink()

    def _told(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"

    def _part(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.part"

    def _sweep(self) -> None:
        oldest = time.time() - LEFTOVER_S
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest and self._part(path.stem).stat().st_mtime < oldest:
                    path.unlink()


def _unknown(upload_id: str) -> Rejected:
    return Rejected(
        "unknown_upload",
        f"upload is {upload_id[:40]!r}: there is no such upload of yours",
        kind=Kind.NOT_FOUND,
        field="upload",
        value=upload_id[:40],
        rule="names an upload that is under way",
    )
