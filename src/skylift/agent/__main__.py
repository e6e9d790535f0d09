"""`python -m skylift.agent --config agent.toml`: the light way in, without the CLI's libraries."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from skylift.agent.board import main
from skylift.agent.boot.file import Bricked
from skylift.agent.config import read
from skylift.agent.transport import Refused
from skylift.core.errors import Rejected, Unavailable


def start(path: Path) -> int:
    """Run the device of this configuration file; the exit code (1: an error, 2: a bad configuration)."""

    def log(said: str) -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {said}", file=sys.stderr, flush=True)

    try:
        return main(read(path), log)
    except Rejected as e:
        print(f"skylift agent: {e}", file=sys.stderr)
        return 2
    except (Refused, Bricked, Unavailable) as e:
        print(f"skylift agent: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="skylift-agent", description="The Linux device agent.")
    parser.add_argument("--config", type=Path, required=True, help="agent.toml")
    sys.exit(start(parser.parse_args().config))
