"""The entry point that the TUF conformance suite drives, against a repository of ours, over real HTTP."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skylift.agent.conformance import main
from skylift.trust import files, keys
from skylift.trust.roles import IMAGE

NOW = datetime.now(UTC)
BODY = b"an image"


class Repository:
    """Files by path, served as they are; one key signs everything."""

    def __init__(self) -> None:
        self.key = keys.generate()
        self.served: dict[str, bytes] = {}
        self.asked: list[str] = []
        named = {role: [self.key.public_key] for role in ("root", "targets", "snapshot", "timestamp")}
        root = files.root(1, named, IMAGE, NOW)
        for role in root.roles.values():
            role.threshold = 1
        self.root = files.sign(root, [self.key])
        self.publish(1)

    def publish(self, version: int, at: datetime = NOW) -> None:
        target = files.target("dir/image", len(BODY), sha256(BODY).hexdigest(), {})
        targets = files.product_role(version, "targets", {"dir/image": target}, at)
        snapshot = files.sign(files.snapshot(IMAGE, version, {"targets": version}, at), [self.key])
        stamp = files.sign(files.timestamp(IMAGE, version, version, snapshot, at), [self.key])
        self.served |= {
            f"/metadata/{version}.targets.json": files.sign(targets, [self.key]),
            f"/metadata/{version}.snapshot.json": snapshot,
            "/metadata/timestamp.json": stamp,
            f"/targets/dir/{sha256(BODY).hexdigest()}.image": BODY,
        }


@pytest.fixture
def repository() -> Iterator[tuple[Repository, str]]:
    made = Repository()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            made.asked.append(self.path)
            body = made.served.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


Started = tuple[Repository, list[str], list[str]]


@pytest.fixture
def started(repository: tuple[Repository, str], tmp_path: Path) -> Started:
    made, url = repository
    (tmp_path / "first.json").write_bytes(made.root)
    (tmp_path / "targets").mkdir()
    kept = ["--metadata-dir", str(tmp_path / "metadata")]
    assert main([*kept, "init", str(tmp_path / "first.json")]) == 0
    assert made.asked == []
    where = [*kept, "--metadata-url", f"{url}/metadata"]
    to = ["--target-dir", str(tmp_path / "targets"), "--target-base-url", f"{url}/targets/"]
    return made, where, to


def test_refresh_asks_in_order_and_keeps_what_it_verified(started: Started, tmp_path: Path) -> None:
    made, where, _ = started
    assert main([*where, "refresh"]) == 0
    names = ("2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json")
    assert made.asked == [f"/metadata/{name}" for name in names]
    kept = {path.name for path in (tmp_path / "metadata").glob("*.json")}
    assert kept == {"root.json", "timestamp.json", "snapshot.json", "targets.json"}


def test_download_fetches_once_and_refuses_what_nobody_vouches_for(started: Started, tmp_path: Path) -> None:
    made, where, to = started
    for _ in range(2):
        assert main([*where, *to, "--target-name", "dir/image", "download"]) == 0
    assert [path.read_bytes() for path in (tmp_path / "targets").iterdir()] == [BODY]
    assert sum(path.startswith("/targets/") for path in made.asked) == 1
    assert main([*where, *to, "--target-name", "dir/other", "download"]) == 1


def test_rollback_expiry_and_other_bytes_are_exit_code_1(started: Started, tmp_path: Path) -> None:
    made, where, to = started
    old = dict(made.served)
    made.publish(2)
    assert main([*where, "refresh"]) == 0
    made.served |= old
    assert main([*where, "refresh"]) == 1
    made.publish(3, NOW - timedelta(days=400))
    assert main([*where, "refresh"]) == 1
    made.publish(4)
    made.served[f"/targets/dir/{sha256(BODY).hexdigest()}.image"] = b"evil"[: len(BODY)] * 2
    assert main([*where, *to, "--target-name", "dir/image", "download"]) == 1
    assert list((tmp_path / "targets").iterdir()) == []


@pytest.mark.parametrize("root", [b"", b"[]", b"{" * 5000, b'{"signatures":[],"signed":{}}'])
def test_a_first_root_that_is_none_leads_nowhere(
    root: bytes, repository: tuple[Repository, str], tmp_path: Path
) -> None:
    made, url = repository
    (tmp_path / "first.json").write_bytes(root)
    kept = ["--metadata-dir", str(tmp_path / "metadata")]
    main([*kept, "init", str(tmp_path / "first.json")])
    assert main([*kept, "--metadata-url", f"{url}/metadata", "refresh"]) == 1
    assert made.asked == []
