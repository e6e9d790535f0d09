"""The image out of what runs and a delta, or a chain of deltas.

Applied piece by piece, with no more memory than the device gives. What is between two deltas of a chain is a
whole image that the next one reads at random: it stands in memory where that is allowed, else in a file
beside the journal; never in the idle slot, which the last delta writes while it reads.

A cut costs neither radio nor flash. The deltas come into a file of their own, and go on where it ends. A
delta makes the same bytes whenever it is followed: up to where the slot is known to hold them nothing is made
again that can be spared (`firmware.resume`), and what else it holds is compared, not written (`Refill`). What
a slot holds is nobody's until the whole of it has the digest that was signed.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from skylift.agent.boot.file import FileBoot, digest
from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.journal import Journal, JournalFile, Order
from skylift.agent.refill import Refill
from skylift.agent.transport import NoLine, NotResumed, Refused, Transport
from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.core.ways import MOST_HOPS, Passed, Way
from skylift.firmware import codecs
from skylift.firmware.delta import DeltaError, Header, read_header, rebuild

SPARE = 1 << 20  # bytes that stay free for the journal and the rest
DELTAS = "deltas"  # the file of all that are applied, one behind the other
BETWEEN = "between"  # the file of what is between two deltas
NOTED_EVERY = 8 << 20  # bytes of the image: about a second of copying

Progress = Callable[[int], None]  # percent


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
        self._deltas = config.state_dir / DELTAS
        self._beside = tuple(config.state_dir / f"{BETWEEN}-{number}" for number in range(2))

    def fill(self, journal: Journal, order: Order, hops: list[dict[str, Any]], progress: Progress) -> Journal:
        """The journal with the whole image in the slot. Raises `PassedOver`, `TrustError` where the device
        itself cannot go on, and `Unavailable` where the line broke and it should come again."""
        running = self._boot.facts(order.kind).running
        base = self._boot.slot(order.kind, running)
        if not base.sha256 or hops[0].get("base_sha256") != base.sha256:
            raise PassedOver(Passed.BASE, "it starts from another image")
        try:
            sizes = self._able(journal, order, hops)
            journal = self._fetch(journal, hops, sizes)
            patches = self._patches(hops, sizes)
            headers = [read_header(patch) for patch in patches]
            self._check(order, headers)
            source = self._boot.path(order.kind, running)
            journal = self._apply(journal, order, source, patches, headers, progress)
        except Refused as e:
            raise PassedOver(Passed.DOWNLOAD, str(e)) from e
        except (DeltaError, KeyError, TypeError, ValueError) as e:
            raise PassedOver(Passed.BROKEN, str(e)) from e
        self.clear()
        return journal

    def clear(self) -> None:
        """Remove what was put beside the journal on the way."""
        for beside in (self._deltas, *self._beside):
            if beside.exists():
                self._disk.unlink(beside)

    # --- before the first byte ---------------------------------------------------------------------

    def _able(self, journal: Journal, order: Order, hops: list[dict[str, Any]]) -> list[int]:
        """The deltas' sizes. By what the server says; the patches' own headers decide."""
        if len(hops) > MOST_HOPS:
            raise PassedOver(Passed.BROKEN, f"it is a chain of {len(hops)}")
        memory = max(_number(hop, "memory") for hop in hops)
        if memory > self._config.delta_memory_bytes:
            raise PassedOver(Passed.MEMORY, f"it takes {memory} bytes of memory")
        if lacking := ", ".join(_lacking(hops)):
            raise PassedOver(Passed.CODEC, f"it needs {lacking}, which is not here")
        sizes = [int(hop["size"]) for hop in hops]
        if min(sizes) <= 0 or sum(sizes) >= order.length:
            raise DeltaError(f"a delta of {sum(sizes)} bytes saves nothing")
        room(self._config.state_dir, order.length - journal.offset)
        more = max(_number(hop, "scratch") for hop in hops) + sum(sizes) - journal.taken
        try:
            room(self._config.state_dir, order.length - journal.offset + more)
        except TrustError as e:
            raise PassedOver(Passed.ROOM, f"it takes {more} bytes of disk besides") from e
        return sizes

    def _fetch(self, journal: Journal, hops: list[dict[str, Any]], sizes: list[int]) -> Journal:
        """All deltas in their file. What is there, as the journal says, is not fetched again."""
        there = self._deltas.stat().st_size if self._deltas.exists() else 0
        journal = replace(journal, taken=min(journal.taken, there))
        for hop, (start, end) in zip(hops, pairwise([0, *accumulate(sizes)]), strict=True):
            if journal.taken >= end:
                continue
            try:
                journal = self._fetch_one(journal, hop, start, end)
            except NotResumed:
                journal = self._fetch_one(replace(journal, taken=start), hop, start, end)
        return journal

    def _fetch_one(self, journal: Journal, hop: dict[str, Any], start: int, end: int) -> Journal:
        """One delta behind what is there, noted at its end or where its line broke. One that gives nothing
        any more, though the server answers, is passed over."""
        had, url, sha256 = journal.taken, str(hop["url"]), str(hop["sha256"])
        handle = self._disk.resume(self._deltas, had)
        self._disk.sync_directory(self._deltas.parent)
        try:
            for chunk in self._transport.download(url, sha256, had - start, end - start):
                self._disk.write(handle, self._deltas, chunk)
                size = len(chunk)
                journal = replace(journal, taken=journal.taken + size, received=journal.received + size)
            self._note(journal, handle)
        except Unavailable as e:
            if journal.taken > had:
                self._note(journal, handle)
            elif not isinstance(e, NoLine | NotResumed):
                raise PassedOver(Passed.DOWNLOAD, str(e)) from e
            raise
        except OSError as e:
            raise no_space(e) from e
        finally:
            self._disk.close(handle)
        return journal

    def _note(self, journal: Journal, handle: int) -> None:
        self._disk.sync(handle, self._deltas)
        self._file.save(journal)

    def _patches(self, hops: list[dict[str, Any]], sizes: list[int]) -> list[bytes]:
        """The deltas as they were announced."""
        with self._deltas.open("rb") as file:
            patches = [file.read(size) for size in sizes]
        for hop, patch in zip(hops, patches, strict=True):
            if hashlib.sha256(patch).hexdigest() != hop["sha256"]:
                raise DeltaError("a delta is not the file that was announced")
        return patches

    def _check(self, order: Order, headers: list[Header]) -> None:
        """Sizes too: a lie is found here, and not after so much work as it promises."""
        last = headers[-1]
        if not order.sha256.startswith(last.target_sha256) or last.target_size != order.length:
            raise DeltaError("it makes another image than the one that was ordered")
        for before, header in pairwise(headers):
            if header.base_size != before.target_size:
                raise DeltaError("a delta of the chain is for another image than the one before it makes")
        in_memory = [
            max(header.base_size, header.target_size) for header in headers if header.format == "hdiffpatch"
        ]
        if max(in_memory, default=0) > self._config.delta_memory_bytes:
            raise PassedOver(Passed.MEMORY, "delta: image too large to patch in memory")

    # --- applying ----------------------------------------------------------------------------------

    def _apply(
        self,
        journal: Journal,
        order: Order,
        base: Path,
        patches: list[bytes],
        headers: list[Header],
        progress: Progress,
    ) -> Journal:
        """Each delta on what the one before made; the last one into the slot."""
        done, source = self._reached(headers, base)
        for number in range(done, len(patches) - 1):
            beside = self._beside[number % 2]
            source = self._between(source, patches[number], headers[number], beside)
        return self._into_slot(journal, order, source, patches[-1], progress)

    def _reached(self, headers: list[Header], base: Path) -> tuple[int, Path | bytes]:
        """How many deltas were applied before a cut, and the file of what they made."""
        for number in range(len(headers) - 2, -1, -1):
            beside, header = self._beside[number % 2], headers[number]
            whole = beside.exists() and beside.stat().st_size == header.target_size
            if whole and digest(beside).startswith(header.target_sha256):
                return number + 1, beside
        return 0, base

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
        self._write(beside, 0, lambda refill: self._rebuild(source, patch, refill.write, header.target_size))
        return beside

    def _into_slot(
        self, journal: Journal, order: Order, source: Path | bytes, patch: bytes, progress: Progress
    ) -> Journal:
        path = self._boot.path(order.kind, order.slot)
        there = path.stat().st_size if path.exists() else 0
        start = min(journal.offset, there)
        noted = replace(journal, offset=start)

        def note(refill: Refill) -> None:
            nonlocal noted
            refill.sync()
            noted = replace(noted, offset=refill.at)
            self._file.save(noted)
            progress(100 * refill.at // order.length)

        def fill(refill: Refill) -> None:
            def take(piece: bytes) -> None:
                refill.write(piece)
                if refill.at - noted.offset >= NOTED_EVERY:
                    note(refill)

            self._rebuild(source, patch, take, order.length, start)

        self._write(path, start, fill)
        if start and digest(path) != order.sha256:
            raise DeltaError("what was made before a cut and after it is not the image that was ordered")
        done = replace(noted, offset=order.length, taken=0)
        self._file.save(done)
        return done

    def _write(self, path: Path, start: int, fill: Callable[[Refill], None]) -> None:
        """A file filled from byte `start` on, whole and durable."""
        refill = Refill(self._disk, path, start)
        try:
            fill(refill)
            refill.finish()
        except OSError as e:
            raise no_space(e) from e
        finally:
            refill.close()

    def _rebuild(
        self, source: Path | bytes, patch: bytes, write: Callable[[bytes], None], most: int, start: int = 0
    ) -> None:
        config = self._config
        rebuild(source, patch, write, most, config.delta_memory_bytes, config.state_dir, start)


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
