"""A TUF repository that does what a test tells it, also what no repository may, over real HTTP; and the
agent's client driven as the conformance suite drives one.

What `publish` has signed stays as it was; tests change what is next (`signed`), who signs (`signers`), or the
very bytes that are served (`files`).
"""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from securesystemslib.signer import Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from conftest import missing
from skylift.agent.conformance import main
from skylift.trust import keys

TOP = ("root", "timestamp", "snapshot", "targets")
Seen = tuple[str, int | None]  # role, version asked for


def days(number: float) -> datetime:
    """So many days from now."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=number)


class Simulated:
    """One repository. Every top-level role has one key and a threshold of one until a test changes it."""

    def __init__(self) -> None:
        until = days(30)
        self.signed: dict[str, Any] = {
            "root": Root(expires=until, consistent_snapshot=True),
            "timestamp": Timestamp(expires=until),
            "snapshot": Snapshot(expires=until),
            "targets": Targets(expires=until),
        }
        self.signers: dict[str, list[Signer]] = {}
        self.files: dict[str, list[bytes]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.asked: list[Seen] = []
        self.fetched: list[str] = []
        self.with_hashes = False
        for role in TOP:
            self.add_key(role)
        for role in ("targets", "snapshot", "timestamp", "root"):
            self._publish(role)

    # --- what is next --------------------------------------------------------------------------------

    @property
    def root(self) -> Any:
        return self.signed["root"]

    def add_key(self, role: str, signer: Signer | None = None, delegator: str = "root") -> Signer:
        """One more key for this role, which signs from now on."""
        signer = signer or keys.generate()
        self.signed[delegator].add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def rotate(self, role: str) -> None:
        """Another key instead of all that this role has."""
        for keyid in list(self.root.roles[role].keyids):
            self.root.revoke_key(keyid, role)
        self.signers[role].clear()
        self.add_key(role)

    def delegate(
        self, delegator: str, role: str, paths: Sequence[str] | None = ("*",), **more: Any
    ) -> Targets:
        """A delegated role with a key of its own; what it says next."""
        above = self.signed[delegator]
        if above.delegations is None:
            above.delegations = Delegations({}, {})
        given = {"terminating": False, "paths": None if paths is None else list(paths), **more}
        above.delegations.roles[role] = DelegatedRole(role, [], 1, **given)
        found: Targets = self.signed.setdefault(role, Targets(expires=days(30)))
        self.add_key(role, delegator=delegator)
        return found

    def succinct(self, bits: int, prefix: str) -> None:
        """The top-level targets delegate to hash bins."""
        bins = SuccinctRoles([], 1, bits, prefix)
        self.signed["targets"].delegations = Delegations({}, None, bins)
        holder = keys.generate()
        self.signed["targets"].add_key(holder.public_key)
        for role in bins.get_roles():
            self.signed[role] = Targets(expires=days(30))
            self.signers[role] = [holder]

    def add(self, role: str, path: str, body: bytes, algorithms: Sequence[str] = ("sha256",)) -> TargetFile:
        """An artifact, and what this role says about it."""
        target = TargetFile.from_data(path, body, list(algorithms))
        self.signed[role].targets[path] = target
        self.artifacts[path] = body
        return target

    # --- what is published ---------------------------------------------------------------------------

    def publish(self, *roles: str) -> None:
        """The next version of these, in this order; what names them is changed with them, not published."""
        for role in roles:
            if role in self.files:
                self.signed[role].version += 1
            self._publish(role)

    def again_from(self, role: str, version: int) -> None:
        """Nothing of this role was ever published; the next one is this version."""
        del self.files[role]
        self.signed[role].version = version

    def _publish(self, role: str) -> None:
        metadata = Metadata(deepcopy(self.signed[role]))
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        body = metadata.to_bytes(JSONSerializer())
        self.files.setdefault(role, []).append(body)
        about = {"length": len(body), "hashes": {"sha256": sha256(body).hexdigest()}}
        listed = MetaFile(self.signed[role].version, **(about if self.with_hashes else {}))
        if role == "snapshot":
            self.signed["timestamp"].snapshot_meta = listed
        elif role not in TOP or role == "targets":
            self.signed["snapshot"].meta[f"{role}.json"] = listed

    def changed(self, role: str, how: Any) -> None:
        """Change the newest file of this role after it was signed: `how` gets its JSON."""
        found = json.loads(self.files[role][-1])
        how(found)
        self.files[role][-1] = json.dumps(found).encode()

    def served(self, path: str) -> bytes | None:
        """What is there, or None."""
        kind, _, name = path.partition("/")
        return self._metadata(name.removesuffix(".json")) if kind == "metadata" else self._artifact(name)

    def _metadata(self, name: str) -> bytes | None:
        number, _, role = name.partition(".")
        consistent = self.root.consistent_snapshot and name != "timestamp"
        if not (consistent or name.endswith(".root")):
            number, role = "", name
        self.asked.append((role, int(number) if number else None))
        versions = self.files.get(unquote(role), [])
        if not number:
            return versions[-1] if versions else None
        return versions[int(number) - 1] if 0 < int(number) <= len(versions) else None

    def _artifact(self, name: str) -> bytes | None:
        self.fetched.append(name)
        path = name
        if self.root.consistent_snapshot:
            folder, slash, last = name.rpartition("/")
            path = folder + slash + last.partition(".")[2]
        return self.artifacts.get(path)


class Client:
    """The entry point with a folder of its own, against one repository. At another time it is a process under
    faketime, which is how the suite does it."""

    def __init__(self, simulated: Simulated, url: str, folder: Path) -> None:
        self.simulated, self.folder = simulated, folder
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        for made in (self.metadata, self.targets):
            made.mkdir()
        self._where = ["--metadata-url", f"{url}/metadata/"]
        self._to = ["--target-dir", str(self.targets), "--target-base-url", f"{url}/targets/"]

    def init(self, root: bytes | None = None) -> int:
        file = self.folder / "first.json"
        file.write_bytes(self.simulated.files["root"][0] if root is None else root)
        return self._run(["init", str(file)], None)

    def refresh(self, at: datetime | None = None) -> int:
        return self._run([*self._where, "refresh"], at)

    def download(self, *names: str, at: datetime | None = None) -> int:
        asked = [word for name in names for word in ("--target-name", name)]
        return self._run([*self._where, *asked, *self._to, "download"], at)

    def _run(self, words: list[str], at: datetime | None) -> int:
        words = ["--metadata-dir", str(self.metadata), *words]
        if at is None:
            return main(words)
        if shutil.which("faketime") is None:
            missing("faketime")
        command = ["faketime", f"{at}", sys.executable, "-m", "skylift.agent.conformance", *words]
        return subprocess.run(command, check=False, timeout=120).returncode

    @property
    def trusted(self) -> dict[str, int]:
        """Role (as its file is called) -> version."""
        found = {path.stem: json.loads(path.read_bytes()) for path in sorted(self.metadata.glob("*.json"))}
        return {role: body["signed"]["version"] for role, body in found.items()}

    @property
    def got(self) -> list[bytes]:
        """What was downloaded, the oldest first."""
        files = [path for path in self.targets.rglob("*") if path.is_file()]
        return [path.read_bytes() for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]


class Host:
    """One HTTP server for many repositories, each below a number of its own."""

    def __init__(self, server: ThreadingHTTPServer, repositories: list[Any]) -> None:
        self.repositories = repositories
        self._url = f"http://127.0.0.1:{server.server_port}"

    def serve(self, repository: Any) -> str:
        """The URL of this one; it has `served(path)`."""
        self.repositories.append(repository)
        return f"{self._url}/{len(self.repositories) - 1}"


@contextmanager
def hosting() -> Iterator[Host]:
    repositories: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            number, _, path = self.path.lstrip("/").partition("/")
            body = repositories[int(number)].served(path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield Host(server, repositories)
    server.shutdown()
    server.server_close()
