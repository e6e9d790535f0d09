"""Our deltas decoded without the C core: slow, and bit for bit the same (native/decoder, conformance).

For places without a compiler, for reading how the format works, and as the second opinion that the vectors
hold the C decoder against.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from skylift.firmware.addresses import (
    MOST_SEGMENTS,
    NONE,
    U64,
    Addresses,
    Match,
    Segment,
    esp_segments,
)
from skylift.firmware.fields import ANYWHERE, DATA, HIGH, MACHINES, RISCV_ARCH, UNIT, XTENSA_ARCH, Form, View
from skylift.firmware.fields import unit_length as length_of
from skylift.firmware.mixing import U32, Decoder, Mixer, mix
from skylift.firmware.native import DeltaError
from skylift.firmware.skd2 import BLOCK, HEADER, PAGE, SIZES, Facts, Size, most_told, read_header

TAIL = 128  # bytes of the image that stay at hand


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


def _u32(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _zagzig(z: int) -> int:
    return -((z >> 1) + 1) if z & 1 else z >> 1


class _Walk:
    """One image being rebuilt. Names follow native/decoder."""

    def __init__(
        self, facts: Facts, old: bytes, patch: bytes, write: Callable[[bytes], None], size: Size | None = None
    ) -> None:
        self.facts, self.old, self._write = facts, old, write
        self.size = size = size or SIZES[facts.profile - 1]
        self.machine = MACHINES[facts.arch]
        self.coder = Decoder(patch, HEADER.size)
        self.mixer = Mixer(self.coder, size.slots, size.sets, size.rate)
        self.large = bool(size.history)
        self.addresses = Addresses(self.machine, size.links)
        self.pairs: list[list[int]] = [[0, 0, 0] for _ in range(size.pairs)]  # check, value, count
        self.seen = [NONE] * size.seen
        self.history = bytearray(size.history)
        self.numbers = [[32768] * 68 for _ in range(11)]
        self.blocks, self.pages = [32768] * 256, [32768] * 4
        self.block_hist = self.page_hist = self.hist = self.last_miss = self.unit = self.at = self.crc = 0
        self.out = bytearray(TAIL)  # the image's end, and what is not yet written
        self.deltas, self.field_hits = [0] * 4, [0] * 64

    def read_script(self) -> None:
        self._segments()
        self._script()

    def run(self) -> None:
        self.read_script()
        self._prime()
        start = 0
        for match in [*self.addresses.matches, Match(self.facts.target_size, self.facts.base_size, 0)]:
            for _ in range(self._number(7)):
                start = self._one(self._match(8, self.at, start, match.at), start)
            start = self._one(match, start)
        self._flush()
        if self.crc != self.facts.target_crc:
            raise DeltaError("the rebuilt image is not the one the delta promises")

    # --- numbers, segments, script -----------------------------------------------------------------------

    def _number(self, kind: int) -> int:
        counters, n = self.numbers[kind], 0
        while n < 32 and self.coder.plain(counters, n):
            n += 1
        value = 1
        for k in range(n):
            value = value << 1 | (self.coder.bit(32768) if k else self.coder.plain(counters, 33 + n))
        return (value - 1) & U32

    def _segments(self) -> None:
        parsed = esp_segments(self.old) if self.facts.arch in (XTENSA_ARCH, RISCV_ARCH) else None
        if parsed is None:
            parsed = []
            for _ in range(self._few()):
                offset, length = self._number(4), self._number(4)
                parsed.append((offset, length, self._number(5) << 32 | self._number(5)))
        moved: list[Segment] = []
        for k in range(self._few()):
            offset, length, va = parsed[k] if k < len(parsed) else (0, 0, 0)
            if k and k < len(parsed):
                before, last = moved[-1], parsed[k - 1]
                offset = before[0] + before[1] + offset - last[0] - last[1]
            offset = (offset + _zagzig(self._number(6))) & U32
            length = (length + _zagzig(self._number(6))) & U32
            moved.append((offset, length, (va + _zagzig(self._number(6))) & U64))
        self.addresses.load(parsed, moved)

    def _few(self) -> int:
        count = self._number(3)
        if count > MOST_SEGMENTS:
            raise DeltaError("this is no delta, or a damaged one")
        return count

    def _match(self, kind: int, at: int, start: int, end: int) -> Match:
        gap, length, jump = self._number(kind), self._number(kind + 1), self._number(kind + 2)
        begin = start + _zagzig(jump)
        if not length or begin < 0 or begin + length > self.facts.base_size or gap + length > end - at:
            raise DeltaError("this is no delta, or a damaged one")
        return Match(at + gap, begin, length)

    def _script(self) -> None:
        at = start = 0
        matches = []
        for _ in range(self.facts.matches):
            match = self._match(0, at, start, self.facts.target_size)
            matches.append(match)
            at, start = match.at + match.length, match.start + match.length
        self.addresses.match(matches)

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
        view = View(self.out, len(self.out) - length, min(self.at - length, TAIL - 8), length, field.pc)
        word = view.word(0, length)
        got = get(view, word) if not flags & HIGH and word & mask == value else None
        if got is None or got[0] == field.target:
            return
        delta = got[0] - field.old_target
        delta = delta - (1 << 64) if delta >= 1 << 63 else delta + (1 << 64) if delta < -(1 << 63) else delta
        if abs(delta) > 1 << 24:
            return
        self.addresses.learn(field.old_target, delta)

    # --- output ------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        piece = bytes(self.out[TAIL:])
        if piece:
            self.crc = zlib.crc32(piece, self.crc)
            self._write(piece)
        del self.out[: len(self.out) - TAIL]

    def _emit(self, byte: int) -> None:
        if self.large:
            self.history[self.at & (self.size.history - 1)] = byte
        self.at += 1
        if len(self.out) >= TAIL + PAGE:
            self._flush()
        self.out.append(byte)

    # --- bytes that are new ------------------------------------------------------------------------------

    def _seen_key(self, data: bytes | bytearray, at: int) -> int:
        return mix(_u32(data, at), data[at + 4]) * self.size.seen >> 32

    def _seen_put(self) -> None:
        if self.large and self.at >= 5 and self.at < 0xFFFFFF00 - self.facts.base_size:
            self.seen[self._seen_key(self.out, len(self.out) - 5)] = self.facts.base_size + self.at

    def _seen_byte(self, at: int) -> int | None:
        base = self.facts.base_size
        if at < base:
            return self.old[at]
        k = at - base
        if k >= self.at or self.at - k >= self.size.history:
            return None
        return self.history[k & (self.size.history - 1)]

    def _extra(self, end: int, start: int, shift: int) -> None:
        chase = [0, 0]  # where the same bytes stood, and for how long they have agreed
        old, base = self.old, self.facts.base_size
        while self.at < end:
            there = self.at + shift
            before = old[start] if start < base else 0
            after = old[there] if 0 <= there < base else 0
            self._emit(self._extra_byte(chase, before, after))
            self._seen_put()
            start += 1
            self.hist = (self.hist << 1 | 1) & U32

    def _extra_byte(self, chase: list[int], before: int, after: int) -> int:
        out, guess = self.out, 0
        if self.large and not chase[1] and self.at >= 5:
            chase[0] = self.seen[self._seen_key(out, len(out) - 5)]
            if chase[0] != NONE:
                n = 0
                while n < 32 and n < chase[0] and n < self.at:
                    if self._seen_byte(chase[0] - 1 - n) != out[-1 - n]:
                        break
                    n += 1
                chase[1] = n if n >= 4 else 0
        if chase[1]:
            there = self._seen_byte(chase[0])
            if there is None:
                chase[1] = 0
            else:
                guess = there
        o = _u32(out, len(out) - 4)
        c1, agreed = o >> 24, min(chase[1], 15)
        contexts = [
            c1 | 0x100,
            o >> 16 | 0x10000,
            (guess | agreed << 8 | 0x6000000) if chase[1] else 0x6000000,
            before | c1 << 8 | 0x7000000,
            after | c1 << 8 | 0x8000000,
            o >> 8 | 0x3000000,
        ]
        if self.large:
            contexts += [
                mix(o, 4),
                mix(o, out[-5] | out[-6] << 8 | 0x10000),
                (self.at & 3) | c1 << 8 | 0x9000000,
            ]
        c0, sets = 1, self.mixer.sets
        quarter = sets // 4
        for b in range(7, -1, -1):
            expected = 1 + agreed if chase[1] and (guess | 256) >> (b + 1) == c0 else 0
            keys = [mix(context, c0 * 32 + k + 16) for k, context in enumerate(contexts)]
            first = sets - quarter + expected % quarter
            c0 = c0 << 1 | self.mixer.bit(keys, first, sets - quarter + (7 - b) % quarter, False)
        byte = c0 & 255
        if chase[1]:
            if guess == byte:
                chase[1] = min(chase[1] + 1, 200)
                chase[0] += 1
            else:
                chase[1] = 0
        return byte

    def _prime(self) -> None:
        """Teach the literal model, and the table of seen bytes, the base's end."""
        if not self.facts.prime:
            return
        old, base = self.old, self.facts.base_size
        places = (0, 1, 5, 6, 7)[: 5 if self.large else 3]
        for q in range(max(base - self.facts.prime, 6), base):
            o = _u32(old, q - 4)
            contexts = (
                o >> 24 | 0x100,
                o >> 16 | 0x10000,
                o >> 8 | 0x3000000,
                mix(o, 4),
                mix(o, old[q - 5] | old[q - 6] << 8 | 0x10000),
            )
            c0 = 1
            for b in range(7, -1, -1):
                bit = old[q] >> b & 1
                for context, place in zip(contexts, places, strict=False):
                    self.mixer.teach(mix(context, c0 * 32 + place + 16), bit)
                c0 = c0 << 1 | bit
        if self.large:
            for q in range(max(base - self.facts.prime, 5), base):
                self.seen[self._seen_key(old, q - 5)] = q

    # --- bytes that a match covers -----------------------------------------------------------------------

    def _one(self, match: Match, start: int) -> int:
        self._extra(match.at, start, match.start - match.at)
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
            field = self._field(j + n, self.at + n, left - n, self.unit == j + n)
            guess += field.data or self.old[j + n : j + n + 1]
        return bytes(guess)

    def _unchanged(self, j: int, left: int) -> int:
        """How many bytes are told by one bit to be as predicted; negative: as many are told byte by byte."""
        if self.large and left >= PAGE:
            same = self.coder.plain(self.pages, self.page_hist & 3)
            self.page_hist = self.page_hist << 1 | same
            if same:
                for byte in self.old[j : j + PAGE]:
                    self._emit(byte)
                return PAGE
        unit = self.unit
        guess = self._guess_block(j, left)
        if self.coder.plain(self.blocks, self.block_hist & 255):
            self.block_hist = self.block_hist << 1 | 1
            for byte in guess:
                self._emit(byte)
                self._seen_put()
            self.hist = 0
            return len(guess)
        self.block_hist <<= 1
        self.unit = unit
        return -len(guess)

    def _covered(self) -> None:
        now = self.addresses.now
        j, end = now.start, now.at + now.length
        self.unit = max(j - 64, 0) if self.facts.arch == XTENSA_ARCH else j
        field, block = Field(), self.at
        while self.at < end:
            if self.facts.blocks and self.at >= block and field.done >= len(field.data):
                told = self._unchanged(j, end - self.at)
                if told > 0:
                    j += told
                    continue
                block = self.at - told
            self._step_unit(j)
            if field.done >= len(field.data):
                field = self._field(j, self.at, end - self.at, self.unit == j)
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
        i, near, ph = self.at, self._near(j), j & 3
        o4, f4, al = _u32(near, 1), _u32(near, 4), _u32(near, 4 - ph)
        o = _u32(self.out, len(self.out) - 4)
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
        self._emit(byte)
        self._seen_put()

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
        o, ph = _u32(self.out, len(self.out) - 4), j & 3
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


def matches_of(old: bytes, patch: bytes) -> list[Match]:
    """The matches a patch keeps, in the target's order: what stands in the base too. Raises `DeltaError`."""
    walk = _Walk(read_header(patch), old, patch, lambda piece: None, SIZES[0])  # the script needs no tables
    walk.read_script()
    return walk.addresses.matches
