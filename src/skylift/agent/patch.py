"""The image out of what runs and a delta, or a chain of deltas.

Applied piece by piece, with no more memory than the device gives. What is between two deltas of a chain is a
whole image that the next one reads at random: it stands in memory where that is allowed, else in a file
beside the journal; never in the idle slot, which the last delta writes while it reads. A cut costs the deltas
once more; a slot that was half written is nobody's.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from skylift.agent.boot.file import FileBoot
from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.journal import Journal, JournalFile, Order
from skylift.agent.transport import Refused, Transport
from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.core.ways import MOST_HOPS, Passed, Way
from skylift.firmware import codecs
from skylift.firmware.delta import DeltaError, Header, read_header, rebuild

SPARE = 1 << 20  # bytes that stay free for the journal and the rest
BETWEEN = "between"  # the file of what is between two deltas


class PassedOver(Exception):
    """This way is not gone, and why; the full image is there."""

    def __init__(self, why: Passed, words: str) -> None:
        super().__init__(words)
        self.why = why


class Patcher:
    """One order's image by what the server hinted at."""

    def __init__(
        self, config: Config, disk: Disk, boot: FileBoot, journal: JournalFile, transport: Transport
    ) -> None:
        self._config = config
        self._disk = disk
        self._boot = boot
        self._file = journal
        self._transport = transport
        self._beside = tuple(config.state_dir / f"{BETWEEN}-{number}" for number in range(2))

    def fill(self, journal: Journal, order: Order, hops: list[dict[str, Any]]) -> Journal:
        """The journal with the whole image in the slot. Raises `PassedOver`, and `TrustError` where the
        device itself cannot go on."""
        running = self._boot.facts(order.kind).running
        base = self._boot.slot(order.kind, running)
        if not base.sha256 or hops[0].get("base_sha256") != base.sha256:
            raise PassedOver(Passed.BASE, "it starts from another image")
        self._able(order, hops)
        try:
            patches, journal = self._patches(journal, order, hops)
            headers = [read_header(patch) for patch in patches]
            self._check(order, base.size, headers)
            return self._apply(journal, order, self._boot.path(order.kind, running), patches, headers)
        except (Refused, Unavailable) as e:
            raise PassedOver(Passed.DOWNLOAD, str(e)) from e
        except (DeltaError, KeyError, TypeError, ValueError) as e:
            raise PassedOver(Passed.BROKEN, str(e)) from e

    def clear(self) -> None:
        """Remove what a cut left between two deltas."""
        for beside in self._beside:
            if beside.exists():
                self._disk.unlink(beside)

    # --- before the first byte ---------------------------------------------------------------------

    def _able(self, order: Order, hops: list[dict[str, Any]]) -> None:
        """By what the server says; the patches' own headers decide."""
        if len(hops) > MOST_HOPS:
            raise PassedOver(Passed.BROKEN, f"it is a chain of {len(hops)}")
        memory = max(_number(hop, "memory") for hop in hops)
        if memory > self._config.delta_memory_bytes:
            raise PassedOver(Passed.MEMORY, f"it takes {memory} bytes of memory")
        if lacking := ", ".join(_lacking(hops)):
            raise PassedOver(Passed.CODEC, f"it needs {lacking}, which is not here")
        room(self._config.state_dir, order.length)
        more = max(_number(hop, "scratch") for hop in hops)
        try:
            room(self._config.state_dir, order.length + more)
        except TrustError as e:
            raise PassedOver(Passed.ROOM, f"it takes {more} bytes of disk besides") from e

    def _patches(
        self, journal: Journal, order: Order, hops: list[dict[str, Any]]
    ) -> tuple[list[bytes], Journal]:
        sizes = [int(hop["size"]) for hop in hops]
        if min(sizes) <= 0 or sum(sizes) >= order.length:
            raise DeltaError(f"a delta of {sum(sizes)} bytes saves nothing")
        patches = []
        for hop, size in zip(hops, sizes, strict=True):
            chunks = self._transport.download(str(hop["url"]), str(hop["sha256"]), 0, size)
            patches.append(b"".join(chunks))
            journal = replace(journal, received=journal.received + size)
        return patches, journal

    def _check(self, order: Order, base_size: int, headers: list[Header]) -> None:
        if not order.sha256.startswith(headers[-1].target_sha256):
            raise DeltaError("it makes another image than the one that was ordered")
        in_memory = [
            max(header.base_size, header.target_size) for header in headers if header.format == "hdiffpatch"
        ]
        if max(in_memory, default=0) > self._config.delta_memory_bytes:
            raise PassedOver(Passed.MEMORY, "delta: image too large to patch in memory")

    # --- applying ----------------------------------------------------------------------------------

    def _apply(
        self, journal: Journal, order: Order, base: Path, patches: list[bytes], headers: list[Header]
    ) -> Journal:
        """Each delta on what the one before made; the last one into the slot."""
        source: Path | bytes = base
        try:
            for number, (patch, header) in enumerate(zip(patches[:-1], headers[:-1], strict=True)):
                beside = self._beside[number % 2]
                source = self._between(source, patch, header, beside)
            return self._into_slot(journal, order, source, patches[-1])
        finally:
            self.clear()

    def _between(self, source: Path | bytes, patch: bytes, header: Header, beside: Path) -> Path | bytes:
        """An image that is only read again: in memory, or in the file beside."""
        held = len(source) if isinstance(source, bytes) else 0
        memory = held + header.target_size + (header.memory or 0)
        if memory <= self._config.delta_memory_bytes:
            pieces: list[bytes] = []
            self._rebuild(source, patch, pieces.append, header.target_size)
            return b"".join(pieces)
        try:
            room(self._config.state_dir, header.target_size)
        except TrustError as e:
            raise PassedOver(Passed.ROOM, f"it takes {header.target_size} bytes of disk besides") from e
        self._write(beside, lambda write: self._rebuild(source, patch, write, header.target_size))
        return beside

    def _into_slot(self, journal: Journal, order: Order, source: Path | bytes, patch: bytes) -> Journal:
        path = self._boot.path(order.kind, order.slot)
        self._write(path, lambda write: self._rebuild(source, patch, write, order.length))
        done = replace(journal, offset=order.length)
        self._file.save(done)
        return done

    def _write(self, path: Path, fill: Callable[[Callable[[bytes], None]], None]) -> None:
        handle = self._disk.create(path)
        try:
            fill(lambda piece: self._disk.write(handle, path, piece))
            self._disk.sync(handle, path)
        except OSError as e:
            raise no_space(e) from e
        finally:
            self._disk.close(handle)
        self._disk.sync_directory(path.parent)

    def _rebuild(self, source: Path | bytes, patch: bytes, write: Callable[[bytes], None], most: int) -> None:
        rebuild(source, patch, write, most, self._config.delta_memory_bytes, self._config.state_dir)


def hops_of(order: Order) -> tuple[Way, list[dict[str, Any]]] | None:
    """The deltas that the server offered, if it did; a chain goes before a single one."""
    if order.chain and all(isinstance(hop, dict) for hop in order.chain):
        return Way.CHAIN, order.chain
    return (Way.DELTA, [order.delta]) if order.delta else None


def room(folder: Path, needed: int) -> None:
    """Raises `TrustError` where so many bytes are not free there."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise TrustError(Reason.NO_SPACE, f"{needed + SPARE} bytes are needed, {free} are free")


def no_space(error: OSError) -> TrustError:
    return TrustError(Reason.NO_SPACE, f"the slot cannot be written: {error.strerror}")


def _number(hop: dict[str, Any], name: str) -> int:
    """What applying it takes, as far as the server says."""
    told = hop.get(name)
    return told if isinstance(told, int) and told > 0 else 0


def _lacking(hops: list[dict[str, Any]]) -> list[str]:
    """The codecs they need and this device lacks, as far as the server says."""
    needs = [need for hop in hops if isinstance(told := hop.get("needs"), list) for need in told]
    return [name for name in needs if isinstance(name, str) and not codecs.available(name)]
