"""Fill the idle slot: by a small delta where one fits what runs, else by the full image; then verify it.

Every megabyte is made durable and noted, so that a cut costs at most that much. The slot is read back whole;
only its digest decides, wherever the bytes came from.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from skylift.agent.boot.file import FileBoot, digest
from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.journal import Journal, JournalFile, Order, Stage
from skylift.agent.transport import NotResumed, Refused, Transport
from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.firmware import codecs
from skylift.firmware.delta import DeltaError, read_header, rebuild

DURABLE_EVERY = 1 << 20
SPARE = 1 << 20  # bytes that stay free for the journal and the rest

Progress = Callable[[int], None]  # percent


class Fetcher:
    """One order's bytes into its slot."""

    def __init__(
        self, config: Config, disk: Disk, boot: FileBoot, journal: JournalFile, transport: Transport
    ) -> None:
        self._config = config
        self._disk = disk
        self._boot = boot
        self._file = journal
        self._transport = transport

    def fill(self, journal: Journal, order: Order, progress: Progress) -> Journal:
        """The journal with the order READY. Raises `TrustError` (the order failed, with its reason) and
        `Unavailable` (come again; what was written stays)."""
        path = self._boot.path(order.kind, order.slot)
        if self._boot.slot(order.kind, order.slot).sha256:
            self._boot.forget(order.kind, order.slot)  # withdraw the promise before breaking it
        if not journal.offset:
            journal = self._by_delta(journal, order)
        if journal.offset < order.length:
            try:
                journal = self._by_image(journal, order, progress)
            except NotResumed:
                journal = replace(self._file.load(), offset=0)
                self._file.save(journal)
                journal = self._by_image(journal, order, progress)
        if digest(path) != order.sha256:
            again = replace(journal, offset=0)
            self._file.save(again)
            raise TrustError(Reason.HASH_MISMATCH, "what was written is not the image that was signed")
        ready = replace(journal, stage=Stage.READY)
        self._file.save(ready)
        return ready

    # --- delta -------------------------------------------------------------------------------------

    def _by_delta(self, journal: Journal, order: Order) -> Journal:
        """The journal with the whole image in the slot, or as it was when the delta is of no use."""
        delta = order.delta
        running = self._boot.facts(order.kind).running
        base = self._boot.slot(order.kind, running)
        if delta is None or delta.get("base_sha256") != base.sha256 or not base.sha256:
            return journal
        if _memory(delta) > self._config.delta_memory_bytes:
            return self._note(journal, f"delta not used: it takes {delta['memory']} bytes of memory")
        if lacking := _lacking(delta):
            return self._note(journal, f"delta not used: it needs {lacking}, which is not here")
        self._room(order.length)
        try:
            self._room(order.length + _scratch(delta))
        except TrustError:
            return self._note(journal, f"delta not used: it takes {_scratch(delta)} bytes of disk besides")
        try:
            patch, journal = self._patch(journal, order, delta)
            header = read_header(patch)
            if not order.sha256.startswith(header.target_sha256):
                raise DeltaError("it makes another image than the one that was ordered")
            if header.format == "hdiffpatch" and (
                max(order.length, base.size) > self._config.delta_memory_bytes
            ):
                return self._note(journal, "delta: image too large to patch in memory")
            return self._rebuild(journal, order, self._boot.path(order.kind, running), patch)
        except (DeltaError, Refused, Unavailable, KeyError, TypeError, ValueError) as e:
            return self._note(journal, f"delta not used: {e}")

    def _patch(self, journal: Journal, order: Order, delta: dict[str, Any]) -> tuple[bytes, Journal]:
        size = int(delta["size"])
        if not 0 < size < order.length:
            raise DeltaError(f"a delta of {size} bytes saves nothing")
        chunks = list(self._transport.download(str(delta["url"]), str(delta["sha256"]), 0, size))
        patch = b"".join(chunks)
        return patch, replace(journal, received=journal.received + len(patch))

    def _rebuild(self, journal: Journal, order: Order, base: Path, patch: bytes) -> Journal:
        """The image into the slot, piece by piece as it comes out of the patch: no more memory than the patch
        says, whatever the image's size. A patch that proves bad on the way leaves a slot nobody trusts."""
        path = self._boot.path(order.kind, order.slot)
        handle = self._disk.create(path)
        try:
            rebuild(
                base,
                patch,
                lambda piece: self._disk.write(handle, path, piece),
                order.length,
                self._config.delta_memory_bytes,
                self._config.state_dir,
            )
            self._disk.sync(handle, path)
        except OSError as e:
            raise _no_space(e) from e
        finally:
            self._disk.close(handle)
        self._disk.sync_directory(path.parent)
        done = replace(journal, offset=order.length)
        self._file.save(done)
        return done

    def _note(self, journal: Journal, note: str) -> Journal:
        noted = replace(journal, notes=(*journal.notes, note)[-5:])
        self._file.save(noted)
        return noted

    # --- full image --------------------------------------------------------------------------------

    def _by_image(self, journal: Journal, order: Order, progress: Progress) -> Journal:
        path = self._boot.path(order.kind, order.slot)
        self._room(order.length - journal.offset)
        chunks = self._transport.download(order.url, order.sha256, journal.offset, order.length)
        handle = self._disk.resume(path, journal.offset)
        self._disk.sync_directory(path.parent)
        written = durable = journal.offset
        try:
            for chunk in chunks:
                self._disk.write(handle, path, chunk)
                written += len(chunk)
                journal = replace(journal, received=journal.received + len(chunk))
                if written - durable >= DURABLE_EVERY or written == order.length:
                    journal = self._durable(journal, handle, path, written)
                    durable = written
                    progress(100 * written // order.length)
        except Unavailable:
            if written > durable:  # the line broke: what came is kept, however little it was
                self._durable(journal, handle, path, written)
            raise
        except OSError as e:
            raise _no_space(e) from e
        finally:
            self._disk.close(handle)
        return journal

    def _durable(self, journal: Journal, handle: int, path: Path, written: int) -> Journal:
        """Sync, then note how far it got: never the other way round."""
        self._disk.sync(handle, path)
        noted = replace(journal, offset=written)
        self._file.save(noted)
        return noted

    def _room(self, needed: int) -> None:
        free = shutil.disk_usage(self._config.state_dir).free
        if free < needed + SPARE:
            raise TrustError(Reason.NO_SPACE, f"{needed + SPARE} bytes are needed, {free} are free")


def _memory(delta: dict[str, Any]) -> int:
    """What applying it takes, as far as the server says; the patch's own header decides."""
    told = delta.get("memory")
    return told if isinstance(told, int) else 0


def _scratch(delta: dict[str, Any]) -> int:
    """Disk that it takes besides the image, as far as the server says."""
    told = delta.get("scratch")
    return told if isinstance(told, int) and told > 0 else 0


def _lacking(delta: dict[str, Any]) -> str:
    """The codecs it needs and this device lacks, as far as the server says."""
    told = delta.get("needs")
    names = [name for name in told if isinstance(name, str)] if isinstance(told, list) else []
    return ", ".join(name for name in names if not codecs.available(name))


def _no_space(error: OSError) -> TrustError:
    return TrustError(Reason.NO_SPACE, f"the slot cannot be written: {error.strerror}")
