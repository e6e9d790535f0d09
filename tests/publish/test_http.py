"""Uploads, downloads and repositories over real HTTP: what only a socket can show."""

import hashlib
import random
import socket
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from skylift.testkit.stage import DEVICE_TYPE, PRODUCT, Stage, wait

BODY = random.Random(7).randbytes(150_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
VERSIONS = (f"0.{number}" for number in count(1))


@pytest.fixture(scope="module")
def http(stage: Stage) -> httpx2.Client:
    """As the admin."""
    headers = {"Authorization": f"Bearer {stage.environment['SKYLIFT_TOKEN']}"}
    return httpx2.Client(base_url=stage.facts["url"], headers=headers, timeout=60)


@pytest.fixture(scope="module")
def blob(stage: Stage, http: httpx2.Client) -> str:
    """The address of a stored image."""
    made = upload(http, draft(http), BODY)
    assert made.status_code == 201, made.text
    return str(made.json()["url"])


@pytest.fixture(scope="module")
def tokens(http: httpx2.Client) -> dict[str, str]:
    """Two enrolled devices' tokens."""
    claim = http.post("/api/claims", json={"uses": 5}).json()["claim"]
    found = {}
    for name in ("dev-a", "dev-b"):
        token = f"dev_{name}_" + "x" * 40
        body = {"claim": claim, "device_id": name, "device_type": DEVICE_TYPE, "token": token}
        answer = http.post("/api/enroll", json=body)
        assert answer.status_code == 201, answer.text
        found[name] = token
    return found


def draft(http: httpx2.Client, kind: str = "image") -> str:
    answer = http.post("/api/releases", json={"product": PRODUCT, "version": next(VERSIONS), "kind": kind})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def upload(http: httpx2.Client, release: str, body: Any, **asked: Any) -> httpx2.Response:
    """On a connection of its own: a server that refuses a body may close it."""
    headers = {"Authorization": http.headers.get("authorization", ""), **asked.pop("headers", {})}
    query = {"release": release, "device_type": DEVICE_TYPE, **asked}
    with httpx2.Client(base_url=http.base_url, headers=headers, timeout=60) as own:
        return own.post("/api/artifacts", params=query, content=body)


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["code"] == code
    assert found["status"] == status
    assert found["detail"]
    return found


def incoming(stage: Stage) -> list[Path]:
    return list((stage.home / "data" / "blobs" / "incoming").iterdir())


def stored(stage: Stage) -> set[str]:
    return {path.name for path in (stage.home / "data" / "blobs").rglob("*") if path.is_file()}


# --- uploads --------------------------------------------------------------------------------------------


def test_refused_uploads_name_the_rule_and_leave_nothing(stage: Stage, http: httpx2.Client) -> None:
    before = stored(stage)
    release = draft(http)
    wrong = "00" * 32
    problem(upload(http, release, b""), 422, "empty_image")
    found = problem(upload(http, release, b"bytes", sha256=wrong), 422, "hash_mismatch")
    assert (found["field"], found["value"]) == ("sha256", wrong)
    problem(upload(http, release, b"\xff" * 100), 422, "corrupt_image")
    problem(upload(http, "rel_none", b"bytes"), 404, "unknown_release")
    problem(upload(http, release, b"bytes", device_type="a/b"), 422, "invalid_value")
    problem(http.post("/api/artifacts", content=b"bytes"), 422, "invalid_value")
    assert stored(stage) == before
    assert http.get(f"/api/releases/{release}").json()["artifacts"] == []


def test_a_body_above_the_limit_is_refused_before_it_is_sent(stage: Stage, http: httpx2.Client) -> None:
    found = problem(upload(http, draft(http), b"x" * 3_000_001), 413, "too_large")
    assert "3000000" in found["rule"]
    assert not incoming(stage)


def test_a_body_of_unknown_length_is_refused_at_the_limit(stage: Stage, http: httpx2.Client) -> None:
    """100 MB in chunks, without a Content-Length."""
    sent = 0

    def endless() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 1 << 20
            yield b"x" * (1 << 20)

    release = draft(http)
    try:
        answer = upload(http, release, endless())
    except httpx2.HTTPError:
        pass  # the server hung up in the middle, as it may
    else:
        problem(answer, 413, "too_large")
    wait(lambda: not incoming(stage), "nothing of it stays")
    assert http.get("/healthz").status_code == 200


def test_an_upload_of_a_stranger_is_refused_before_its_bytes(
    stage: Stage, http: httpx2.Client, tokens: dict[str, str]
) -> None:
    release = draft(http)
    bare = httpx2.Client(base_url=stage.facts["url"], timeout=60)
    problem(upload(bare, release, BODY), 401, "no_token")
    answer = upload(bare, release, BODY, headers={"Authorization": f"Bearer {tokens['dev-a']}"})
    problem(answer, 401, "unknown_token")
    assert not incoming(stage)


def _cut(stage: Stage, http: httpx2.Client, head: bytes, part: bytes) -> None:
    """Send the beginning of an upload, then hang up."""
    where = urlsplit(stage.facts["url"])
    with socket.create_connection((where.hostname or "", where.port or 0)) as line:
        line.sendall(head + part)
        wait(lambda: incoming(stage), "the upload has begun")


@pytest.mark.parametrize("encoding", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_is_cut_leaves_nothing(stage: Stage, http: httpx2.Client, encoding: str) -> None:
    release = draft(http)
    before = stored(stage)
    head = (
        f"POST /api/artifacts?release={release}&device_type={DEVICE_TYPE} HTTP/1.1\r\n"
        f"Host: x\r\nAuthorization: {http.headers['authorization']}\r\n{encoding}\r\n\r\n"
    ).encode()
    part = b"x" * 70_000
    if "chunked" in encoding:
        part = b"%x\r\n" % len(part) + part + b"\r\n"
    _cut(stage, http, head, part)
    wait(lambda: not incoming(stage), "nothing of it stays")
    assert stored(stage) == before
    assert http.get(f"/api/releases/{release}").json()["artifacts"] == []
    assert upload(http, release, BODY, sha256=DIGEST).status_code == 201  # and now the whole of it


def test_a_whole_upload_tells_what_was_stored(http: httpx2.Client) -> None:
    release = draft(http)
    made = upload(http, release, BODY, sha256=DIGEST.upper())
    assert made.status_code == 201
    found = made.json()
    assert (found["sha256"], found["size"], found["kind"]) == (DIGEST, len(BODY), "full")
    problem(upload(http, release, BODY), 409, "duplicate_artifact")
    [listed] = http.get("/api/artifacts", params={"release": release}).json()["items"]
    assert listed == found
    http.post(f"/api/releases/{release}:seal")
    problem(upload(http, release, BODY, device_type="sensor-v3"), 409, "release_sealed")


# --- downloads ------------------------------------------------------------------------------------------


def test_a_download_is_the_bytes_and_their_digest(http: httpx2.Client, blob: str) -> None:
    answer = http.get(blob)
    assert answer.content == BODY
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert "immutable" in answer.headers["cache-control"]
    head = http.head(blob)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(BODY))


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=149999-", 149_999, 150_000),
        ("bytes=-10", 149_990, 150_000),
        ("bytes=100000-9999999", 100_000, 150_000),
    ],
)
def test_a_range_is_exactly_that_range(
    http: httpx2.Client, blob: str, asked: str, begin: int, end: int
) -> None:
    answer = http.get(blob, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == BODY[begin:end]
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(BODY)}"


def test_a_range_beyond_the_end_cannot_be_had(http: httpx2.Client, blob: str) -> None:
    answer = http.get(blob, headers={"Range": "bytes=150000-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(BODY)}"


def test_a_download_resumes_only_the_same_bytes(http: httpx2.Client, blob: str) -> None:
    resume = {"Range": "bytes=1000-"}
    same = http.get(blob, headers={**resume, "If-Range": f'"{DIGEST}"'})
    assert (same.status_code, same.content) == (206, BODY[1000:])
    other = http.get(blob, headers={**resume, "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, BODY)


@pytest.mark.parametrize("told", [f'"{DIGEST}"', f'"x", "{DIGEST}"', f'W/"{DIGEST}"', "*"])
def test_bytes_that_are_there_already_are_not_sent_again(http: httpx2.Client, blob: str, told: str) -> None:
    answer = http.get(blob, headers={"If-None-Match": told})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert http.get(blob, headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize(
    "name", ["00" * 32, "xyz", "..%2f..%2fadmin.token", "%2e%2e", "A" * 64, ".." + "a" * 62]
)
def test_a_blob_that_is_not_there_is_not_found(http: httpx2.Client, name: str) -> None:
    assert http.get(f"/api/blobs/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/api/blobs/ab%00", "/image/1.a%00b.json", "/director/dev-a/1.a%00b.json"])
def test_a_name_with_a_null_is_none(http: httpx2.Client, path: str) -> None:
    """PostgreSQL could not even look for it."""
    told = problem(http.get(path), 422, "invalid_value")
    assert (told["field"], told["rule"]) == ("path", "has no null in it")


def test_a_blob_that_is_not_there_is_named(http: httpx2.Client) -> None:
    told = problem(http.get(f"/api/blobs/{'00' * 32}"), 404, "unknown_blob")
    assert (told["field"], told["value"]) == ("blob", "00" * 32)


def test_downloads_need_a_token(stage: Stage, blob: str, tokens: dict[str, str]) -> None:
    bare = httpx2.Client(base_url=stage.facts["url"], timeout=60)
    problem(bare.get(blob), 401, "no_token")
    problem(bare.get(blob, headers={"Authorization": "Bearer dev_wrong"}), 401, "unknown_token")
    problem(bare.get(blob, headers={"Authorization": "Basic eDp5"}), 401, "no_token")
    assert bare.get(blob, headers={"Authorization": f"Bearer {tokens['dev-a']}"}).content == BODY


# --- repositories -----------------------------------------------------------------------------------------


def test_the_image_repository_is_open_to_everybody(stage: Stage) -> None:
    bare = httpx2.Client(base_url=stage.facts["url"], timeout=60)
    root = bare.get("/image/1.root.json")
    assert root.status_code == 200
    assert "immutable" in root.headers["cache-control"]
    assert root.content == (stage.home / "roots" / "image.root.json").read_bytes()
    stamp = bare.get("/image/timestamp.json")
    assert stamp.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "name",
    [
        "2.root.json",
        "root.json",
        "1.nobody.json",
        "x.root.json",
        "1.root",
        "-1.root.json",
        "99999999999.root.json",
        "1.%2e%2e.json",
        "1..json",
        "%ff",
        "٣.root.json",
    ],
)
def test_a_file_that_is_not_there_is_not_found(stage: Stage, name: str) -> None:
    problem(httpx2.get(f"{stage.facts['url']}/image/{name}", timeout=60), 404, "unknown_file")


def test_a_devices_orders_are_its_own(stage: Stage, http: httpx2.Client, tokens: dict[str, str]) -> None:
    bare = httpx2.Client(base_url=stage.facts["url"], timeout=60)

    def get(name: str, token: str = "") -> httpx2.Response:
        return bare.get(name, headers={"Authorization": f"Bearer {token}"} if token else {})

    mine = "/director/dev-a/timestamp.json"
    problem(get(mine), 401, "no_token")
    problem(get(mine, tokens["dev-b"]), 403, "foreign_token")
    answer = get(mine, tokens["dev-a"])
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert get(mine, tokens["dev-a"]).content == answer.content  # the same state, the same bytes
    assert http.get(mine).content == answer.content  # an operator may look
    assert get("/director/dev-a/1.root.json", tokens["dev-a"]).content == (
        (stage.home / "roots" / "director.root.json").read_bytes()
    )
    for name in ("2.root.json", "9.targets.json", "targets.json", "x"):
        problem(get(f"/director/dev-a/{name}", tokens["dev-a"]), 404, "unknown_file")
    assert http.get("/director/nobody/timestamp.json").status_code == 404


# --- the ceremony and signatures over HTTP ----------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"image_root": "", "director_root": "", "targets": ""},
        {"image_root": "!", "director_root": "!", "targets": "!"},
        {"image_root": "e30=", "director_root": "e30=", "targets": "e30="},
        {"image_root": "x" * 300_000, "director_root": "", "targets": ""},
        {"image_root": 7, "director_root": None, "targets": []},
        {"image_root": "e30=", "director_root": "e30=", "targets": "e30=", "keys": "e30="},
    ],
)
def test_a_ceremony_of_nonsense_is_refused(http: httpx2.Client, body: dict[str, Any]) -> None:
    before = http.get("/api/trust").json()
    answer = http.post("/api/trust/ceremony", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]
    assert http.get("/api/trust").json()["roles"] == before["roles"]


@pytest.mark.parametrize(
    "body",
    [
        {"version": 0, "keyid": "ab" * 32, "sig": "30" * 70},
        {"version": 1, "keyid": "zz", "sig": "30" * 70},
        {"version": 1, "keyid": "ab" * 32, "sig": "30" * 5000},
        {"version": 1, "keyid": "ab" * 32},
        [],
    ],
)
def test_a_signature_of_nonsense_is_refused(http: httpx2.Client, body: Any) -> None:
    answer = http.post(f"/api/trust/pending/{PRODUCT}/signatures", json=body)
    assert answer.status_code == 422, answer.text


def test_only_an_admin_holds_a_ceremony_and_a_viewer_signs_nothing(stage: Stage, http: httpx2.Client) -> None:
    made = {}
    for role in ("viewer", "operator"):
        answer = http.post("/api/tokens", json={"name": f"a-{role}", "role": role})
        assert answer.status_code == 201, answer.text
        made[role] = {"Authorization": f"Bearer {answer.json()['token']}"}
    bare = httpx2.Client(base_url=stage.facts["url"], timeout=60)
    given = {"image_root": "e30=", "director_root": "e30=", "targets": "e30="}
    signature = {"version": 1, "keyid": "ab" * 32, "sig": "30" * 70}
    release = {"product": PRODUCT, "version": next(VERSIONS)}
    attempts: list[tuple[str, str, Any]] = [
        ("operator", "/api/trust/ceremony", given),
        ("viewer", "/api/trust/ceremony", given),
        ("viewer", f"/api/trust/pending/{PRODUCT}/signatures", signature),
        ("viewer", "/api/releases", release),
    ]
    for role, path, body in attempts:
        problem(bare.post(path, json=body, headers=made[role]), 403, "role_too_low")
    assert bare.get("/api/trust", headers=made["viewer"]).status_code == 200


def test_the_online_keys_are_public_parts_only(stage: Stage, http: httpx2.Client) -> None:
    answer = http.get("/api/trust/online-keys")
    assert "PRIVATE" not in answer.text
    assert set(answer.json()) == {"image", "director"}
    keys = stage.home / "data" / "keys"
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys.glob("*.pem"))
    kept = {path.name for path in keys.glob("*.pem")}
    assert kept == {"online-image.pem", "online-director.pem", "device-ca-1.pem"}


def test_a_killed_server_comes_back_with_everything_it_acknowledged(
    stage: Stage, http: httpx2.Client
) -> None:
    """kill -9 in the middle of an upload; then the same keys, releases and bytes, and no leftovers."""
    release = draft(http)
    assert upload(http, release, BODY).status_code == 201
    keys = http.get("/api/trust/online-keys").json()
    head = (
        f"POST /api/artifacts?release={release}&device_type=sensor-v3 HTTP/1.1\r\n"
        f"Host: x\r\nAuthorization: {http.headers['authorization']}\r\nContent-Length: 1000000\r\n\r\n"
    ).encode()
    where = urlsplit(stage.facts["url"])
    with socket.create_connection((where.hostname or "", where.port or 0)) as line:
        line.sendall(head + b"x" * 50_000)
        wait(lambda: incoming(stage), "the upload has begun")
        stage.kill_server()
    assert incoming(stage)
    stage.serve("--mqtt", "off")
    assert not incoming(stage)
    assert http.get("/api/trust/online-keys").json() == keys
    found = http.get(f"/api/releases/{release}").json()
    assert [artifact["sha256"] for artifact in found["artifacts"]] == [DIGEST]
    assert upload(http, release, BODY, device_type="sensor-v3").status_code == 201
