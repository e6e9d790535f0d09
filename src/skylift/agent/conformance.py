"""`python -m skylift.agent.conformance`: the agent's TUF client, as the conformance suite drives one.

    --metadata-dir D init ROOT
    --metadata-dir D --metadata-url URL refresh
    --metadata-dir D --metadata-url URL --target-name N --target-dir T --target-base-url U download

`--target-name` may stand several times: they are fetched in this order, and the first that fails ends it.
Exit code 0: done, 1: refused or failed; the reason on stderr.
"""

import argparse
import sys
from pathlib import Path

import urllib3

from skylift.agent.patience import pool, within
from skylift.agent.transport import ANSWER_S, CONNECT_S, READ_S
from skylift.core.errors import SkyliftError, Unavailable
from skylift.trust import client


def main(words: list[str]) -> int:
    """The exit code."""
    asked = _parser().parse_args(words)
    try:
        _do(asked)
    except (SkyliftError, OSError) as e:
        print(f"skylift conformance: {e}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skylift-conformance", description="The agent's TUF client.")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    for name in ("--metadata-url", "--target-base-url"):
        parser.add_argument(name, default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


def _do(asked: argparse.Namespace) -> None:
    match asked.command:
        case "init":
            client.initialise(asked.metadata_dir, asked.trusted_root.read_bytes())
        case "refresh":
            client.refresh(asked.metadata_dir, asked.metadata_url, _get)
        case _:
            if asked.target_dir is None or not asked.target_name:
                raise Unavailable("--target-dir and --target-name are needed")
            client.download(
                asked.metadata_dir,
                asked.metadata_url,
                asked.target_name,
                asked.target_dir,
                asked.target_base_url,
                _get,
            )


def _get(url: str, at_most: int) -> tuple[int, bytes]:
    timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
    with within(ANSWER_S), pool(retries=False, timeout=timeout) as connections:
        try:
            answer = connections.request("GET", url, preload_content=False, redirect=False)
            body = answer.read(at_most + 1, decode_content=False)
            missing = answer.length_remaining if len(body) <= at_most else 0
            answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise Unavailable(f"{url}: {e}") from e
    if missing:
        raise Unavailable(f"{url}: ended {missing} bytes early")
    return answer.status, body


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
