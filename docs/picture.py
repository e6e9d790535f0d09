"""Runs the demo and makes docs/pictures/demo.svg of what it showed: `python docs/picture.py`."""

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from skylift.testkit.demo import run

PICTURE = Path(__file__).resolve().parent / "pictures" / "demo.svg"


def main() -> int:
    # Recorded instead of shown: without a terminal only the last state of each live view is kept.
    console = Console(record=True, file=io.StringIO(), width=118)
    code = run(24, keep=False, as_json=False, console=console)
    if code:
        print(console.export_text(), file=sys.stderr)
        return code
    PICTURE.parent.mkdir(exist_ok=True)
    drawn = console.export_svg(title="python3 dev.py demo")
    # A page that shows the picture shall not fetch fonts from somebody else's server.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\n    \}\n", "", drawn, flags=re.DOTALL))
    return 0


if __name__ == "__main__":
    sys.exit(main())
