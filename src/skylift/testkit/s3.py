"""An S3-compatible store for tests: moto's real server process, its objects in memory."""

import subprocess
import sys
from dataclasses import dataclass

import httpx2

from skylift.testkit.ports import free_port
from skylift.testkit.server import end, wait

BUCKET = "fleet"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}


@dataclass
class ObjectStore:
    """One process with one bucket. Stopped, it forgets what it held."""

    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def make(cls) -> "ObjectStore":
        made = cls(free_port())
        made.start()
        return made

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, prefix: str) -> dict[str, str]:
        """A server's, for this store."""
        return {
            "SKYLIFT_BLOBS": f"s3://{BUCKET}/{prefix}",
            "SKYLIFT_BLOBS_ENDPOINT": self.url,
            "SKYLIFT_BLOBS_ALLOW_HTTP": "true",
            **CREDENTIALS,
        }

    def start(self) -> None:
        """Start it, with an empty bucket."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait(self._answers, "the object store answers")
        httpx2.put(f"{self.url}/{BUCKET}").raise_for_status()

    def _answers(self) -> bool:
        try:
            return httpx2.get(self.url, timeout=5.0).status_code < 500
        except httpx2.HTTPError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None
