"""Address-bearing fields of each machine, as tables: those of native/decoder/predict.c, for Python."""

from dataclasses import dataclass

from skylift.firmware.fields.aarch64 import A64
from skylift.firmware.fields.arm import ARM, MIXED
from skylift.firmware.fields.form import ANYWHERE as ANYWHERE
from skylift.firmware.fields.form import DATA as DATA
from skylift.firmware.fields.form import HIGH as HIGH
from skylift.firmware.fields.form import UNIT as UNIT
from skylift.firmware.fields.form import Form as Form
from skylift.firmware.fields.form import View as View
from skylift.firmware.fields.riscv import RISCV
from skylift.firmware.fields.thumb import THUMB
from skylift.firmware.fields.x86 import X86
from skylift.firmware.fields.xtensa import XTENSA


@dataclass(frozen=True, slots=True)
class Machine:
    """Forms, the step between addresses where one may start, where code is mapped, and which addresses
    outside the image may be meant (both as half-open ranges; (0, 0) is none)."""

    forms: tuple[Form, ...]
    step: int
    code: tuple[int, int] = (0, 0)
    away: tuple[int, int] = (0, 0)


_ESP = ((0x40000000, 0x50000000), (0x3F000000, 0x40000000))
XTENSA_ARCH, RISCV_ARCH = 5, 6
MACHINES = (
    Machine((), 1),
    Machine(THUMB, 2, away=(0x10000000, 0x20100000)),
    Machine(ARM, 4),
    Machine(A64, 4),
    Machine(X86, 1),
    Machine(XTENSA, 1, *_ESP),
    Machine(RISCV, 2, *_ESP),
    Machine(MIXED, 2),
)


def unit_length(arch: int, data: bytes | memoryview, at: int, pc: int) -> int:
    """How long the instruction at `at` is: only where a machine's have several lengths."""
    if arch == RISCV_ARCH:
        return 4 if (data[at] & 3) == 3 else 2
    if arch == XTENSA_ARCH:
        op, fwd = data[at] & 15, len(data) - at
        length = 2 if 8 <= op <= 13 else 3
        for k in range(1, length):
            if not (pc + k) & 3 and fwd > k + 1 and data[at + k] == 0x36 and (data[at + k + 1] & 15) == 1:
                return k
        return length
    return 1
