"""What the ESP32's client takes of a chip: code, and memory that is there before it begins."""

import re
import shutil
from pathlib import Path
from typing import Any

from parts.shell import must, say
from skylift.testkit import esp32

TARGETS = {
    "riscv32": (
        "riscv64-unknown-elf",
        [
            "-march=rv32imc",
            "-mabi=ilp32",
            "-msave-restore",
            "-malign-data=natural",
        ],  # as CMakeLists.txt has them
        "1<<SD_RISCV",
    ),
    "cortex_m": ("arm-none-eabi", ["-mcpu=cortex-m4", "-mthumb"], "1<<SD_THUMB"),
}
# Everything that a device has of ours: the client, its doorbell, HTTP of its own, the decoder's stack, and
# a program that uses all of it. Hardware and TLS are declared, not there.
PROGRAM = """
#include "skylift/client.hpp"
#include "skylift/http1.hpp"
#include "skylift/mqtt.hpp"
using namespace skylift;
extern Port& port;
extern Socket& socket_;
extern Config config;
class Own final : public Hooks {} hooks;
Server servers[2];
alignas(8) unsigned char stack_room[6144];
Client client(port, hooks);
Http1 http(socket_, servers[0]);
Doorbell bell(socket_, port);
extern "C" void _start() {
  Head head;
  server_of("http://h", servers[0]);
  http.open(*reinterpret_cast<Ask*>(stack_room));
  http.head(head);
  http.read(stack_room, 1);
  http.close();
  bell.begin(servers[1], "", "");
  client.begin(config);
  for (;;) {
    client.step();
    bell.step();
    if (bell.rang()) client.ring();
    if (bell.connected()) client.rollback(), client.finish(), bell.end();
  }
}
"""


def sizes(folder: Path) -> dict[str, Any]:
    """Code and static memory of a linked program with every feature, -Os: the client, HTTP, MQTT, the
    delta decoder, the compiler's helpers. C library and hardware are not in it, nor TLS and TCP: SHA-256 and
    P-256 are the TLS library's there, by PSA. `code_bytes_own_crypto`: with ours instead, for chips without
    TLS."""
    found: dict[str, Any] = {"code_bytes": {}, "code_bytes_own_crypto": {}}
    for name in TARGETS:
        if shutil.which(f"{TARGETS[name][0]}-g++") is None:
            say(f"{name}: no {TARGETS[name][0]}-g++ here")
            continue
        code, _, _ = linked(folder / f"{name}-psa", name, psa=True)
        own, ram, table = linked(folder / name, name, psa=False)
        found["code_bytes"][name], found["code_bytes_own_crypto"][name] = code, own
        if name == "riscv32":
            found["ram_static"] = ram
        say(
            f"{name}: {code:,} bytes of code with the platform's crypto, {own:,} with our own, {ram:,} of "
            "memory; before linking: "
            + ", ".join(f"{part} {n:,}" for part, n in sorted(table.items(), key=lambda item: -item[1]))
        )
    return found


def linked(where: Path, name: str, *, psa: bool) -> tuple[int, int, dict[str, int]]:
    """(code and constants, memory, object sizes) of the program for this target."""
    prefix, machine, arches = TARGETS[name]
    where.mkdir()
    flags = [
        *machine,
        "-Os",
        "-ffreestanding",
        "-ffunction-sections",
        "-fdata-sections",
        *esp32.SMALL,
        "-DSD_FREESTANDING",
        f"-DSD_ARCHS={arches}",
        *(["-DSKYLIFT_CRYPTO_PSA", "-I", str(esp32.HOME / "stubs")] if psa else []),
        "-I",
        str(esp32.DECODER),
        "-I",
        str(esp32.CORE.parent),
    ]
    plus = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]
    program = where / "program.cpp"
    program.write_text(PROGRAM)
    objects, table = [], {}
    glue = [esp32.CORE.parent / "esp" / "crypto_psa.cpp"] if psa else []
    for source in (*esp32.core_sources(), *glue, *esp32.DECODER.glob("*.c"), program):
        out = where / f"{source.name}.o"
        language = [f"{prefix}-gcc", "-std=c11"] if source.suffix == ".c" else [f"{prefix}-g++", *plus]
        must([*language, *flags, "-c", str(source), "-o", str(out)])
        objects.append(str(out))
        if source != program:
            table[source.name] = int(must([f"{prefix}-size", str(out)]).splitlines()[1].split()[0])
    if re.search(r"\bU (malloc|calloc|realloc|_Zn[wa])", must([f"{prefix}-nm", *objects])):
        raise RuntimeError("the core allocates")
    elf = where / "program.elf"
    must(
        [
            f"{prefix}-g++",
            *machine,
            "-nostartfiles",
            "-nodefaultlibs",
            "-Wl,--gc-sections",
            "-Wl,--unresolved-symbols=ignore-all",
            *objects,
            "-lgcc",
            "-o",
            str(elf),
        ]
    )
    text, data, bss = map(int, must([f"{prefix}-size", str(elf)]).splitlines()[1].split()[:3])
    return text, data + bss, table
