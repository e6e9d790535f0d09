"""The CLI's way to the server: httpx2, problem documents as one line, uploads with progress."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from skylift.cli.exits import Exit, Leave

SERVER_ENV, TOKEN_ENV = "SKYLIFT_SERVER", "SKYLIFT_TOKEN"
CHUNK = 256 << 10
TIMEOUT_S = 30.0


class Client:
    """One server, one operator."""

    def __init__(
        self, server: str | None = None, token: str | None = None, *, timeout: float = TIMEOUT_S
    ) -> None:
        self.server = server or os.environ.get(SERVER_ENV, "http://127.0.0.1:8080")
        self.token = token or os.environ.get(TOKEN_ENV, "")
        if not self.server.startswith(("http://", "https://")):
            raise Leave(Exit.USAGE, f"--server is {self.server!r}: begins with http:// or https://")
        if not (self.token.isascii() and self.token.isprintable()):
            raise Leave(Exit.USAGE, "--token is no token: letters, digits and signs of ASCII on one line")
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            self._http = httpx2.Client(base_url=self.server, headers=headers, timeout=timeout)
        except httpx2.InvalidURL as e:
            raise Leave(Exit.USAGE, f"--server is {self.server!r}: {e}") from e

    def get(self, path: str, **params: Any) -> Any:
        """The JSON answer; `Leave` with the problem's sentence otherwise."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._json("GET", path, params=given)

    def raw(self, path: str, moved: Callable[[int, int | None], None] = lambda n, of: None) -> bytes:
        """A file; `moved` is told bytes as they come, and of how many."""
        try:
            with self._http.stream("GET", _address(path)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refused(answer)
                size = int(answer.headers.get("Content-Length", 0)) or None
                parts = []
                for part in answer.iter_bytes():
                    parts.append(part)
                    moved(len(part), size)
                return b"".join(parts)
        except httpx2.InvalidURL as e:
            raise _unspeakable(e) from e
        except httpx2.HTTPError as e:
            raise self._silent(e) from e

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self._json("POST", path, json={} if body is None else body, params=given)

    def put(self, path: str, body: Any) -> Any:
        return self._json("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self._json("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def upload(self, path: str, file: Path, moved: Callable[[int], None], **params: Any) -> Any:
        """Stream a file as the body; `moved` is told bytes as they go."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
        }
        given = {name: value for name, value in params.items() if value is not None}
        return self._json(
            "POST", path, params=given, content=chunks(file, moved), headers=headers, timeout=300.0
        )

    def _json(self, method: str, path: str, **options: Any) -> Any:
        answer = self._send(method, path, **options)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, _address(path), **options)
        except (httpx2.InvalidURL, UnicodeEncodeError) as e:
            raise _unspeakable(e) from e
        except httpx2.HTTPError as e:
            raise self._silent(e) from e
        if answer.is_success:
            return answer
        raise _refused(answer)

    def _silent(self, error: httpx2.HTTPError) -> Leave:
        return Leave(Exit.ERROR, f"server is {self.server!r}: does not answer ({error})")


def _address(path: str) -> str:
    """Where a name that somebody typed is one name, whatever is in it: no query, no other place."""
    if any(part in (".", "..") for part in path.split("/")):
        raise Leave(Exit.USAGE, f"{path} is no address: . and .. are no names")
    return quote(path, safe="/:", errors="surrogateescape")


def _unspeakable(error: Exception) -> Leave:
    return Leave(Exit.USAGE, f"no server can be asked that: {error}")


def _refused(answer: httpx2.Response) -> Leave:
    return Leave(Exit.USAGE if answer.status_code == 422 else Exit.ERROR, problem(answer))


def problem(answer: httpx2.Response) -> str:
    """A problem document as one line."""
    try:
        body = answer.json()
    except ValueError:
        return f"the server answers {answer.status_code}"
    if not isinstance(body, dict):
        return f"the server answers {answer.status_code}"
    return str(body.get("detail") or body.get("title") or f"the server answers {answer.status_code}")


def chunks(file: Path, moved: Callable[[int], None]) -> Iterator[bytes]:
    """The file in pieces."""
    with file.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            yield chunk
            moved(len(chunk))


def sha256_of(file: Path, moved: Callable[[int], None] = lambda n: None) -> str:
    found = hashlib.sha256()
    for chunk in chunks(file, moved):
        found.update(chunk)
    return found.hexdigest()
