"""Writes vectors.json: the states of an update, what may follow what, and why one may fail, from
`skylift.core.lifecycle`."""

import json
from pathlib import Path
from typing import Any

from skylift.core.lifecycle import OPEN, REPORTABLE, Reason, UpdateState, judge

WHERE = Path(__file__).with_name("vectors.json")
VERSION = 1


def written() -> dict[str, Any]:
    """What vectors.json holds."""
    return {
        "version": VERSION,
        "states": [state.value for state in UpdateState],
        "open": [state.value for state in OPEN],
        "said": [state.value for state in REPORTABLE],
        "reasons": [reason.value for reason in Reason],
        "reports": [
            {"at": at.value, "said": said.value, "verdict": judge(at, said).value}
            for at in UpdateState
            for said in REPORTABLE
        ],
    }


if __name__ == "__main__":
    WHERE.write_text(json.dumps(written(), indent=1) + "\n")
