"""Our deltas decoded without the C core: slow, and bit for bit the same (native/decoder, conformance).

For places without a compiler, for reading how the format works, and as the second opinion that the vectors
hold the C decoder against.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from skylift.firmware.addresses import U64, Addresses, Match
from skylift.firmware.fields import ANYWHERE, DATA, HIGH, MACHINES, UNIT, XTENSA_ARCH, Form, View
from skylift.firmware.fields import unit_length as length_of
from skylift.firmware.literals import Literals
from skylift.firmware.mixing import U32, Decoder, Mixer, mix
from skylift.firmware.native import DeltaError
from skylift.firmware.rebuilt import TAIL, Rebuilt, u32
from skylift.firmware.script import Script
from skylift.firmware.skd2 import BLOCK, HEADER, PAGE, SIZES, Facts, most_told, read_header


@dataclass(slots=True)
class Field:
    """A predicted field: the bytes it should read, how many are done, and what it pointed at."""

    data: bytes = b""
    done: int = 0
    type: int = 0
    old_target: int = 0
    target: int = 0
    pc: int = 0
    form: Form | None = None


def apply(old: bytes | memoryview, patch: bytes, write: Callable[[bytes], None]) -> None:
    """Hand the new image to `write`, a piece at a time. Raises `DeltaError`."""
    facts = read_header(patch)
    if len(patch) < HEADER.size + facts.body:
        raise DeltaError("the delta ends before the image does")
    if facts.target_size > most_told(facts):
        raise DeltaError(
            f"the delta makes {facts.target_size} bytes, it says; {len(patch)} cannot tell so many"
        )
    patch = patch[: HEADER.size + facts.body]
    if len(old) != facts.base_size or zlib.crc32(old) != facts.base_crc:
        raise DeltaError("the delta was made from another image than the one here")
    _Walk(facts, bytes(old), patch, write).run()


class _Walk:
    """One image being rebuilt. Names follow native/decoder."""

    def __init__(self, facts: Facts, old: bytes, patch: bytes, write: Callable[[bytes], None]) -> None:
        self.facts, self.old, self.machine = facts, old, MACHINES[facts.arch]
        self.size = size = SIZES[facts.profile - 1]
        self.large = bool(size.history)
        self.coder = Decoder(patch, HEADER.size)
        self.script = Script(self.coder, facts)
        self.mixer = Mixer(self.coder, size.slots, size.sets, size.rate)
        self.made = Rebuilt(write, size.history)
        self.literals = Literals(facts, size, old, self.mixer, self.made)
        self.addresses = Addresses(self.machine, size.links)
        self.pairs: list[list[int]] = [[0, 0, 0] for _ in range(size.pairs)]  # check, value, count
        self.blocks, self.pages = [32768] * 256, [32768] * 4
        self.block_hist = self.page_hist = self.hist = self.last_miss = self.unit = 0
        self.deltas, self.field_hits = [0] * 4, [0] * 64

    def run(self) -> None:
        self.addresses.load(*self.script.segments(self.old))
        self.addresses.match(self.script.matches())
        self.literals.prime()
        start = 0
        for match in [*self.addresses.matches, Match(self.facts.target_size, self.facts.base_size, 0)]:
            for _ in range(self.script.count()):
                start = self._one(self.script.between(self.made.at, start, match.at), start)
            start = self._one(match, start)
        self.made.flush()
        if self.made.crc != self.facts.target_crc:
            raise DeltaError("the rebuilt image is not the one the delta promises")

    # --- fields ------------------------------------------------------------------------------------------

    def _field(self, j: int, i: int, left: int, unit: bool) -> Field:
        machine = self.machine
        if not machine.forms:
            return Field()
        pc = self.addresses.before(j)
        if pc & (machine.step - 1):
            return Field()
        view = View(self.old, j, j, len(self.old) - j, pc)
        code = machine.code[0] <= pc < machine.code[1]
        for k, form in enumerate(machine.forms):
            length, align, flags, mask, value, get, put = form
            if (flags & UNIT and not unit) or pc & (align - 1) or length > left or length > view.fwd:
                continue
            if flags & DATA and code:
                continue
            word = view.word(0, length)
            if word & mask != value:
                continue
            got = get(view, word)
            to = self.addresses.moved(got[0], bool(flags & ANYWHERE)) if got else None
            if got is None or to is None:
                continue
            new_pc = self.addresses.after(i)
            origin = new_pc if got[1] is None else new_pc - got[1] if got[1] else 0
            data = (put(word, origin, to) & U64).to_bytes(8, "little")[:length]
            return Field(data, 0, k + 1, got[0], to, new_pc, form)
        return Field()

    def _learn(self, field: Field) -> None:
        """The field stands in the image: what it really points at."""
        assert field.form is not None
        length, _, flags, mask, value, get, _ = field.form
        out, before = self.made.out, min(self.made.at - length, TAIL - 8)
        view = View(out, len(out) - length, before, length, field.pc)
        word = view.word(0, length)
        got = get(view, word) if not flags & HIGH and word & mask == value else None
        if got is None or got[0] == field.target:
            return
        delta = got[0] - field.old_target
        delta = delta - (1 << 64) if delta >= 1 << 63 else delta + (1 << 64) if delta < -(1 << 63) else delta
        if abs(delta) > 1 << 24:
            return
        self.addresses.learn(field.old_target, delta)

    # --- bytes that a match covers -----------------------------------------------------------------------

    def _one(self, match: Match, start: int) -> int:
        new = min(match.at - self.made.at, 32)
        self.literals.put(match.at, start, match.start - match.at)
        self.hist = ((self.hist + 1 << new) - 1) & U32  # all of them differ
        self.addresses.now = match
        self._covered()
        return match.start + match.length

    def _step_unit(self, j: int) -> None:
        if not self.machine.code[1]:
            return
        while self.unit < j:
            pc = self.addresses.before(self.unit)
            self.unit += length_of(self.facts.arch, self.old, self.unit, pc)

    def _guess_block(self, j: int, left: int) -> bytes:
        guess = bytearray()
        while len(guess) < BLOCK and len(guess) < left:
            n = len(guess)
            self._step_unit(j + n)
            field = self._field(j + n, self.made.at + n, left - n, self.unit == j + n)
            guess += field.data or self.old[j + n : j + n + 1]
        return bytes(guess)

    def _unchanged(self, j: int, left: int) -> int:
        """How many bytes are told by one bit to be as predicted; negative: as many are told byte by byte."""
        if self.large and left >= PAGE:
            same = self.coder.plain(self.pages, self.page_hist & 3)
            self.page_hist = self.page_hist << 1 | same
            if same:
                for byte in self.old[j : j + PAGE]:
                    self.made.put(byte)
                return PAGE
        unit = self.unit
        guess = self._guess_block(j, left)
        if self.coder.plain(self.blocks, self.block_hist & 255):
            self.block_hist = self.block_hist << 1 | 1
            for byte in guess:
                self.made.put(byte)
                self.literals.note()
            self.hist = 0
            return len(guess)
        self.block_hist <<= 1
        self.unit = unit
        return -len(guess)

    def _covered(self) -> None:
        now = self.addresses.now
        j, end = now.start, now.at + now.length
        self.unit = max(j - 64, 0) if self.facts.arch == XTENSA_ARCH else j
        field, block = Field(), self.made.at
        while self.made.at < end:
            if self.facts.blocks and self.made.at >= block and field.done >= len(field.data):
                told = self._unchanged(j, end - self.made.at)
                if told > 0:
                    j += told
                    continue
                block = self.made.at - told
            self._step_unit(j)
            if field.done >= len(field.data):
                field = self._field(j, self.made.at, end - self.made.at, self.unit == j)
            self._covered_byte(j, field)
            j += 1
            if field.done < len(field.data):
                field.done += 1
                if field.done == len(field.data):
                    self._learn(field)

    def _near(self, j: int) -> bytes:
        """base[j - 4 .. j + 7], zeros outside."""
        if j >= 4 and j + 8 <= len(self.old):
            return self.old[j - 4 : j + 8]
        return bytes(self.old[k] if 0 <= k < len(self.old) else 0 for k in range(j - 4, j + 8))

    def _covered_byte(self, j: int, field: Field) -> None:
        old = first = self.old[j]
        kind = place = 0
        if field.done < len(field.data):
            first, kind, place = field.data[field.done], field.type, field.done
        i, near, ph = self.made.at, self._near(j), j & 3
        o4, f4, al = u32(near, 1), u32(near, 4), u32(near, 4 - ph)
        o = u32(self.made.out, len(self.made.out) - 4)
        c1, c2 = o >> 24, o >> 16 & 255
        hx = mix(f4, near[3] | ph << 8 | kind << 12)
        pair = self.pairs[hx * self.size.pairs >> 32]
        known = bool(pair[2]) and pair[0] == hx & 0xFFFF
        again, sure = (pair[1], min(pair[2], 3)) if known else (first, 0)
        guess = again if sure > 1 else first
        dist = (i - self.last_miss) & U32
        limits = ((32, 16), (64, 17), (256, 18), (1024, 19))
        dq = dist if dist < 16 else next((q for most, q in limits if dist < most), 20)
        agree = (first == old) | (again == first) << 1 | (again == old) << 2
        context, hist = kind | agree << 6, self.hist
        keys = [
            mix((hist & 0xFF) | 0x10000, context),
            mix(dq | ph << 8 | 0x20000, context),
            mix(f4, 0x30000 | ph),
            mix(o4, 0x40000 | sure),
            mix(al ^ ph << 30, 0x50000 | kind),
            mix((kind << 8 | self.field_hits[kind]) << 4 | place, 0x60000 | agree | sure << 3),
            mix(old | c1 << 8 | (hist & 3) << 16, 0x70000 | kind),
            mix(hist & 0xFFFF, 0x80000 | (guess != old) << 4 | kind << 5),
            mix(guess | c1 << 8 | c2 << 16, 0x90000),
        ]
        half = self.mixer.sets // 2
        set_a, set_b = ((kind * 8 + agree) * 4 + sure) % half, (dq * 3 + (hist & 3)) % half
        byte = guess
        if not self.mixer.bit(keys, set_a, set_b, self.size.lazy):
            byte = self._surprise(j, old, first, again, guess, known, kind, place, agree, (f4, o4, al))
            self.deltas[ph] = (byte - first) & 255
        if known:
            self._pair_seen(pair, byte)
        elif byte != first:
            pair[:] = [hx & 0xFFFF, byte, 1]
        if kind:
            self.field_hits[kind] = (self.field_hits[kind] << 1 | (byte == first)) & 7
        self.hist = (hist << 1 | (byte != old)) & U32
        if byte != guess:
            self.last_miss = i
        self.made.put(byte)
        self.literals.note()

    @staticmethod
    def _pair_seen(pair: list[int], byte: int) -> None:
        if pair[1] == byte:
            pair[2] = min(pair[2] + 1, 255)
        elif pair[2] > 1:
            pair[2] = 1
        else:
            pair[1] = byte

    def _surprise(
        self,
        j: int,
        old: int,
        first: int,
        again: int,
        guess: int,
        known: bool,
        kind: int,
        place: int,
        agree: int,
        around: tuple[int, int, int],
    ) -> int:
        """The byte when the first guess was wrong: the second guess, or a literal."""
        f4, quarter, half = around[0], self.mixer.sets // 4, self.mixer.sets // 2
        second = first if guess != first else old if guess != old else again if known else guess
        if second != guess:
            keys = [
                mix(kind << 4 | place << 10 | agree << 14, 0xA0000),
                mix(f4, 0xB0000 | agree),
                mix(self.hist & 0xFF, 0xC0000 | agree),
            ]
            if self.mixer.bit(keys, half + agree % quarter, half + 8 % quarter, False):
                return second
        return self._changed_byte(j, old, first, kind, place, around)

    def _changed_byte(
        self, j: int, old: int, first: int, kind: int, place: int, around: tuple[int, int, int]
    ) -> int:
        f4, o4, al = around
        o, ph = u32(self.made.out, len(self.made.out) - 4), j & 3
        c1, c2 = o >> 24, o >> 16 & 255
        drift = (first + self.deltas[ph]) & 255
        d1 = (c1 - self.old[j - 1]) & 255 if j else 0
        contexts = [
            old | first << 8 | 0x1000000,
            drift | 0x2000000 | kind << 8 | place << 16,
            c1 | first << 8 | 0x3000000,
            c1 | c2 << 8 | 0x4000000,
            d1 | first << 8 | kind << 16 | 0x5000000,
            mix(f4, 0x99 + kind),
        ]
        if self.large:
            contexts += [mix(al, ph), mix(o4, 0x77)]
        c0, quarter, half = 1, self.mixer.sets // 4, self.mixer.sets // 2
        for b in range(7, -1, -1):
            keys = [mix(context, c0 * 32 + k) for k, context in enumerate(contexts)]
            set_a, set_b = half + (7 - b) % quarter, half + (kind * 3 + 8) % quarter
            c0 = c0 << 1 | self.mixer.bit(keys, set_a, set_b, False)
        return c0 & 255
