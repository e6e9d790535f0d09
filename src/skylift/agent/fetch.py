"""Fill the idle slot: by a delta where one fits what runs, else by the full image, compressed where it can
be; then verify it.

Every megabyte (of a compressed image every frame) is made durable and noted, so that a cut costs at most that
much. The slot is read back whole; only its digest decides, wherever the bytes came from. A way that was
passed over is noted with its reason, and told with the next report.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from skylift.agent.boot.file import FileBoot, digest
from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.journal import Journal, JournalFile, Order, Stage
from skylift.agent.patch import PassedOver, Patcher, Progress, hops_of, no_space, room
from skylift.agent.transport import NotResumed, Refused, Transport
from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.core.ways import Passed, Way
from skylift.firmware import packed
from skylift.firmware.native import DeltaError

DURABLE_EVERY = 1 << 20
BY_DELTAS = (Way.DELTA, Way.CHAIN)


@dataclass
class _Unpacking:
    """A compressed image on its way: kept between two lines, lost with the power."""

    tag: str
    opened: packed.Unpacker
    fetched: int  # bytes of the file
    written: int  # bytes of the image


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
        self._patcher = Patcher(config, disk, boot, journal, transport)
        self._unpacking: _Unpacking | None = None

    def fill(self, journal: Journal, order: Order, progress: Progress) -> Journal:
        """The journal with the order READY. Raises `TrustError` (the order failed, with its reason) and
        `Unavailable` (come again; what was written stays)."""
        path = self._boot.path(order.kind, order.slot)
        if self._boot.slot(order.kind, order.slot).sha256:
            self._boot.forget(order.kind, order.slot)  # withdraw the promise before breaking it
        if journal.way not in BY_DELTAS:
            self._patcher.clear()
        if journal.offset < order.length and (journal.way in BY_DELTAS or not journal.offset):
            journal = self._by_delta(journal, order, progress)
        if journal.taken or not journal.offset:
            journal = self._by_packed(journal, order, progress)
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
        ready = replace(journal, stage=Stage.READY, taken=0)
        self._file.save(ready)
        return ready

    def _pass_over(self, journal: Journal, way: Way, why: Passed, words: str) -> Journal:
        """From the beginning, by another way."""
        note = f"{way} not used: {words}"
        noted = replace(
            journal,
            offset=0,
            taken=0,
            notes=(*journal.notes, note)[-5:],
            passed={**journal.passed, way.value: why.value},
            way=Way.FULL.value,
        )
        self._file.save(noted)
        return noted

    # --- delta, chain ------------------------------------------------------------------------------

    def _by_delta(self, journal: Journal, order: Order, progress: Progress) -> Journal:
        """The journal with the whole image in the slot, or as it was when no delta is of use."""
        offered = hops_of(order)
        if offered is None or offered[0] in journal.passed:
            return journal
        way, hops = offered
        try:
            return self._patcher.fill(replace(journal, way=way.value), order, hops, progress)
        except PassedOver as e:
            self._patcher.clear()
            return self._pass_over(self._file.load(), way, e.why, str(e))
        except TrustError:
            self._patcher.clear()
            raise

    # --- full image, compressed --------------------------------------------------------------------

    def _by_packed(self, journal: Journal, order: Order, progress: Progress) -> Journal:
        """The journal with the whole image in the slot, or as at the beginning when it is of no use."""
        if order.packed is None or Way.PACKED in journal.passed:
            return journal
        path = self._boot.path(order.kind, order.slot)
        try:
            begun = self._begin(journal, order)
            journal = self._unpack(replace(journal, way=Way.PACKED.value), order, begun, path, progress)
            if digest(path) != order.sha256:
                raise DeltaError("it is another image than the one that was ordered")
        except PassedOver as e:
            return self._pass_over(self._file.load(), Way.PACKED, e.why, str(e))
        except (Refused, NotResumed) as e:
            return self._pass_over(self._file.load(), Way.PACKED, Passed.DOWNLOAD, str(e))
        except (DeltaError, KeyError, TypeError, ValueError) as e:
            return self._pass_over(self._file.load(), Way.PACKED, Passed.BROKEN, str(e))
        return journal

    def _begin(self, journal: Journal, order: Order) -> _Unpacking:
        """What is under way already, or where the last whole frame ended."""
        offered = order.packed or {}
        codec = str(offered["codec"])
        if not packed.available(codec):
            raise PassedOver(Passed.CODEC, f"it needs {codec}, which is not here")
        memory = packed.memory(codec, order.length)
        if memory > self._config.delta_memory_bytes:
            raise PassedOver(Passed.MEMORY, f"it takes {memory} bytes of memory")
        known = self._unpacking
        if known is not None and known.tag == order.tag and known.opened.taken == journal.taken:
            return known
        opened = packed.Unpacker(codec, order.length, journal.offset, journal.taken)
        self._unpacking = _Unpacking(order.tag, opened, journal.taken, journal.offset)
        return self._unpacking

    def _unpack(
        self, journal: Journal, order: Order, begun: _Unpacking, path: Path, progress: Progress
    ) -> Journal:
        offered = order.packed or {}
        size = int(offered["size"])
        room(self._config.state_dir, order.length - begun.written)
        handle = self._disk.resume(path, begun.written)
        self._disk.sync_directory(path.parent)
        finished = False
        try:
            for chunk in self._rest_of(offered, begun.fetched, size):
                for piece in begun.opened.feed(chunk):
                    self._disk.write(handle, path, piece)
                    begun.written += len(piece)
                begun.fetched += len(chunk)
                journal = replace(journal, received=journal.received + len(chunk))
                if begun.opened.given > journal.offset:
                    journal = self._durable(journal, handle, path, begun.opened.given, begun.opened.taken)
                    progress(100 * journal.offset // order.length)
            begun.opened.end()
            finished = True
        except Unavailable:
            finished = True  # the line broke: what came is in the slot, and the decoder is where it was
            self._file.save(journal)
            raise
        except OSError as e:
            raise no_space(e) from e
        finally:
            if not finished:
                self._unpacking = None
            self._disk.close(handle)
        self._unpacking = None
        return journal

    def _rest_of(self, offered: dict[str, object], fetched: int, size: int) -> Iterator[bytes]:
        if fetched < size:
            yield from self._transport.download(str(offered["url"]), str(offered["sha256"]), fetched, size)

    # --- full image --------------------------------------------------------------------------------

    def _by_image(self, journal: Journal, order: Order, progress: Progress) -> Journal:
        path = self._boot.path(order.kind, order.slot)
        room(self._config.state_dir, order.length - journal.offset)
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
            raise no_space(e) from e
        finally:
            self._disk.close(handle)
        return journal

    def _durable(self, journal: Journal, handle: int, path: Path, written: int, taken: int = 0) -> Journal:
        """Sync, then note how far it got: never the other way round."""
        self._disk.sync(handle, path)
        noted = replace(journal, offset=written, taken=taken)
        self._file.save(noted)
        return noted
