"""Writes docs/reference/deltas.md and its plot from what the bench printed.

python3 dev.py bench delta --json --linux PAIRS --full --tally TALLY > found.json
python docs/deltas.py found.json [others.json]

Others: the same of another corpus (`--corpus DIR --fuzz 0`), of pairs that the encoder was not made with.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "reference" / "deltas.md"
PLOT = DOCS / "pictures" / "deltas.svg"
OURS = {"mcu_16k": "mcu-16k", "mcu_64k": "mcu-64k", "linux_16m": "linux-16m"}
PEERS = ("bsdiff4", "detools", "hdiffpatch", "zstd", "xdelta3")
GOALS = {"mcu_16k": 0.60, "mcu_64k": 0.50, "linux_16m": 0.40}
COLOURS = {"mcu_16k": "#7aa6d8", "mcu_64k": "#2f6fb5", "linux_16m": "#153f73", "best_peer": "#b0b0b0"}


def page(found: dict[str, Any], others: dict[str, Any]) -> Iterator[str]:
    pairs = found["pairs"]
    peers = [name for name in PEERS if all(name in row for row in pairs.values())]
    yield "# Deltas, measured"
    yield ""
    yield "Made by `docs/deltas.py` from `python3 dev.py bench delta --json`: consecutive versions of real"
    yield "firmware, every patch applied and compared, all in one run. [The format](delta-format.md)."
    yield ""
    yield "![Patch size against bsdiff4's](../pictures/deltas.svg)"
    yield ""
    columns = ["new image", "xz", *peers, *OURS.values()]
    yield "| pair | machine | " + " | ".join(columns) + " |"
    yield "|---|---|" + "--:|" * len(columns)
    for name, row in pairs.items():
        sizes = [row["new"], row["xz"], *(row[peer] for peer in peers), *(row[ours] for ours in OURS)]
        yield f"| {name} | {row['arch']} | " + " | ".join(f"{size:,}" for size in sizes) + " |"
    yield ""
    yield "| against `bsdiff4`, geometric mean | goal | measured |"
    yield "|---|--:|--:|"
    for column, name in OURS.items():
        yield f"| `{name}` | {GOALS[column]:.2f} | {found['geomean_vs_bsdiff4'][column]:.3f} |"
    yield ""
    worse = [
        f"{name} in {OURS[column]}"
        for name, row in pairs.items()
        for column in OURS
        if row[column] >= row["best_peer"]
    ]
    yield "Larger than the best peer: " + (", ".join(worse) if worse else "no pair, in no profile") + "."
    yield ""
    yield from _others(others)
    yield "## The decoder"
    yield ""
    decoder = found["decoder"]
    if "code_bytes" in decoder:
        yield f"- {decoder['code_bytes']:,} bytes of code for a Cortex-M4 (GCC -Os, tables of Thumb-2 only)."
    for column, each in decoder.get("instructions_per_byte", {}).items():
        seconds = each * 1.3e6 / 240e6
        yield (
            f"- `{OURS[column]}`: {each:,} instructions a byte (callgrind, the host's build at -Os): "
            f"{seconds:.1f} s for 1.3 MB at 240 MHz."
        )
    yield "- Memory: 16 KiB, 64 KiB, 16 MiB, all told, but for the stack; the base is read in place."
    if "fuzz_inputs" in found:
        yield (
            f"- {found['fuzz_inputs']:,} mutated patches under ASan and UBSan (of {found['fuzz_read']:,} the "
            f"body was read), {found['fuzz_findings']} findings."
        )
        yield from found.get("since", [])  # what of the decoder changed after them
    if "fuzz_types_inputs" in found:
        yield (
            f"- {found['fuzz_types_inputs']:,} mutated descriptions of kernels' types, opened and closed, "
            f"{found['fuzz_types_findings']} findings."
        )
    if found.get("linux"):
        yield ""
        yield "## Large images"
        yield ""
        yield "By the same build, each patch applied and compared; CPU seconds and peak memory of the whole"
        yield "process, on a machine with other work. zstd `-19 --ultra --patch-from`, with a window over"
        yield "both images; bsdiff4 for kernels below 48 MiB, of larger ones it makes nothing."
        yield ""
        yield "| pair | image | ours | HDiffPatch lzma2 | of it | zstd | of it | bsdiff4 | of it |"
        yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
        for name, row in found["linux"].items():
            beside = (_beside(row, peer) for peer in ("hdiffpatch", "zstd", "bsdiff4"))
            yield f"| {name} | {row['new']:,} | {row['ours']:,} | {' | '.join(beside)} |"
        yield ""
        yield "| pair | made in | with | HDiffPatch's in | with | applied in | with |"
        yield "|---|--:|--:|--:|--:|--:|--:|"
        for name, row in found["linux"].items():
            spent = (
                f"{row[what + '_s']:.1f} s | {row[what + '_rss_mb']:.0f} MB"
                for what in ("create", "hdiffpatch_create", "apply")
            )
            yield f"| {name} | {' | '.join(spent)} |"
    yield ""


def _others(others: dict[str, Any]) -> Iterator[str]:
    """Each beside the smallest of the peers alone, the worst for us first. `from`: where they come from."""
    pairs = others.get("pairs")
    if not pairs:
        return
    yield "## Pairs that it was not made with"
    yield ""
    yield "Other versions and other projects, by the same bench; *of it*: our size by the smallest peer's."
    yield from others.get("from", [])
    yield ""
    yield (
        "| pair | machine | new image | xz | best peer | its size | "
        + " | ".join(OURS.values())
        + " | of it |"
    )
    yield "|---|---|--:|--:|---|--:|" + "--:|" * len(OURS) + "---|"

    def of_it(row: dict[str, Any]) -> list[float]:
        return [row[column] / row["best_peer"] for column in OURS]

    for name, row in sorted(pairs.items(), key=lambda each: -of_it(each[1])[1]):
        sizes = " | ".join(f"{row[column]:,}" for column in OURS)
        ratios = ", ".join(f"{ratio:.2f}" for ratio in of_it(row))
        peer = f"{row['best_peer_name']} | {row['best_peer']:,}"
        yield f"| {name} | {row['arch']} | {row['new']:,} | {row['xz']:,} | {peer} | {sizes} | {ratios} |"
    yield ""


def _beside(row: dict[str, Any], peer: str) -> str:
    """A peer's size, and ours as a part of it."""
    return f"{row[peer]:,} | {row['ours'] / row[peer]:.3f}" if peer in row else "- | -"


def plot(found: dict[str, Any]) -> Iterator[str]:
    """Bars per pair: the best peer and our profiles, against bsdiff4 = 1."""
    shown = ["best_peer", *OURS]
    left, bar, gap, scale = 190, 11, 14, 520
    height = len(found["pairs"]) * (bar * len(shown) + gap) + 60
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + scale + 90}" height="{height}"'
    yield ' font-family="sans-serif" font-size="12">'
    yield f'<rect width="{left + scale + 90}" height="{height}" fill="white"/>'
    for k, name in enumerate(shown):
        x = left + k * 130
        yield f'<rect x="{x}" y="12" width="12" height="12" fill="{COLOURS[name]}"/>'
        yield f'<text x="{x + 18}" y="22">{OURS.get(name, "best peer")}</text>'
    y = 40
    for pair, row in found["pairs"].items():
        yield f'<text x="{left - 8}" y="{y + bar * 2 + 3}" text-anchor="end">{pair}</text>'
        for name in shown:
            ratio = row[name] / row["bsdiff4"]
            width = round(ratio * scale)
            yield f'<rect x="{left}" y="{y}" width="{width}" height="{bar - 1}" fill="{COLOURS[name]}"/>'
            yield f'<text x="{left + width + 4}" y="{y + bar - 2}" font-size="10">{ratio:.2f}</text>'
            y += bar
        y += gap
    x = left + scale
    yield f'<line x1="{x}" y1="34" x2="{x}" y2="{height - 16}" stroke="black" stroke-dasharray="3"/>'
    yield f'<text x="{x}" y="{height - 4}" text-anchor="middle">bsdiff4 = 1</text>'
    yield "</svg>"


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    found, *others = (json.loads(Path(path).read_text().splitlines()[-1]) for path in sys.argv[1:])
    PLOT.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(page(found, others[0] if others else {})))
    PLOT.write_text("\n".join(plot(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
