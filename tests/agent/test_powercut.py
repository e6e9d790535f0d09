"""The power fails at operations of the agent's disk, in each way an image comes: a few of a bench's cuts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import missing
from skylift.firmware import native

BENCH = Path(__file__).parents[2] / "bench" / "agent_powercut.py"


@pytest.mark.parametrize("update", ["packed", "delta", "layers", "chain"])
def test_a_cut_at_any_operation_leaves_a_device_that_boots_and_ends_its_update(update: str) -> None:
    if not native.available():
        missing("the C core (a C compiler)")
    words = ["--starts", "updated once", "--updates", update, "--stride", "8", "--pairs", "1"]
    done = subprocess.run([sys.executable, str(BENCH), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["cuts"] > 20
    assert (told["bricked"], told["unverified_boots"], told["wrong_endings"]) == (0, 0, 0)
