"""Real servers with their blobs in an S3-compatible store: out they go without the server."""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from skylift.agent.config import Config
from skylift.agent.transport import Transport
from skylift.testkit.image import build
from skylift.testkit.postgresql import Cluster
from skylift.testkit.s3 import ObjectStore
from skylift.testkit.server import Failed, Server
from skylift.testkit.stage import DEVICE_TYPE, PRODUCT, Stage, wait

from .conftest import everywhere

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectStore]:
    made = ObjectStore.make()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def stage(objects: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """With two signed releases, uploaded by the CLI."""
    made = Stage(tmp_path_factory.mktemp("stage"), settings=objects.settings("images"))
    try:
        made.serve()
        made.ceremony()
        for version in ("1.0.0", "1.1.0"):
            made.publish(build(made.home / f"{version}.pyz", version), version)
        yield made
    finally:
        made.close()


@pytest.fixture
def http(stage: Stage) -> Iterator[httpx2.Client]:
    """As the admin; follows no redirects."""
    headers = {"Authorization": f"Bearer {stage.environment['SKYLIFT_TOKEN']}"}
    with httpx2.Client(base_url=stage.facts["url"], headers=headers, timeout=60) as made:
        yield made


def artifacts(http: httpx2.Client) -> list[dict[str, Any]]:
    releases = http.get("/api/releases").json()["items"]
    return [artifact for release in releases for artifact in release["artifacts"]]


def draft(http: httpx2.Client, version: str) -> str:
    made = http.post("/api/releases", json={"product": PRODUCT, "version": version})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def upload(http: httpx2.Client, release: str, body: Any) -> httpx2.Response:
    query = {"release": release, "device_type": DEVICE_TYPE}
    return http.post("/api/artifacts", params=query, content=body)


def swept(stage: Stage) -> None:
    """Until nothing is left of what came and went; the workshop may be at a file there meanwhile."""
    scratch = stage.server.data / "scratch"
    wait(lambda: not list(scratch.iterdir()), "nothing stays in the scratch folder")


def test_agents_update_from_the_store_by_delta_and_by_image(stage: Stage, http: httpx2.Client) -> None:
    stage.wait_for_delta("1.1.0")
    factory = stage.home / "1.0.0.pyz"
    by_delta = stage.enroll(["by-delta"], factory, "1.0.0")
    by_image = stage.enroll(["by-image"], factory, "1.0.0", delta_memory_bytes=1)
    wait(lambda: len(http.get("/api/devices").json()["items"]) == 2, "they are enrolled")
    made = stage.skylift("deploy", "create", "1.1.0", "--all", "--all-at-once")["id"]
    assert stage.completed(made)["complete"] == 2
    everywhere("1.1.0", *by_delta, *by_image)
    full = (stage.home / "1.1.0.pyz").stat().st_size
    assert by_delta[0].journal()["received"] < full / 10
    assert by_image[0].journal()["received"] == full
    assert not (stage.server.data / "blobs").exists()
    swept(stage)


def test_under_every_digest_is_what_has_it(stage: Stage, http: httpx2.Client) -> None:
    found = artifacts(http)
    assert {artifact["kind"] for artifact in found} == {"full", "delta"}
    for artifact in found:
        told = http.get(artifact["url"])
        assert told.status_code == 307
        body = httpx2.get(told.headers["location"], timeout=60).content
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (artifact["sha256"], artifact["size"])


def test_a_download_is_a_redirect_after_the_same_questions(stage: Stage, http: httpx2.Client) -> None:
    url, sha256, size = (artifacts(http)[0][name] for name in ("url", "sha256", "size"))
    told = http.get(url)
    assert (told.status_code, told.headers["cache-control"]) == (307, "no-store")
    assert told.headers["location"].partition("?")[0].endswith(f"/images/{sha256[:2]}/{sha256}")
    assert stage.environment["SKYLIFT_TOKEN"] not in told.headers["location"]
    assert httpx2.get(stage.facts["url"] + url, timeout=60).status_code == 401
    assert http.get("/api/blobs/" + "0" * 64).status_code == 404
    assert http.get(url, headers={"If-None-Match": f'"{sha256}"'}).status_code == 304
    head = http.head(url)
    assert head.status_code == 307
    seen = httpx2.head(head.headers["location"], timeout=60)
    assert (seen.status_code, int(seen.headers["content-length"])) == (200, size)
    part = httpx2.get(told.headers["location"], headers={"Range": "bytes=100-199"}, timeout=60)
    assert (part.status_code, len(part.content)) == (206, 100)


def test_a_device_resumes_by_the_byte(stage: Stage, http: httpx2.Client, tmp_path: Path) -> None:
    token = stage.skylift("device", "enroll", "resumes", "--type", DEVICE_TYPE)["token"]
    artifact = next(artifact for artifact in artifacts(http) if artifact["kind"] == "full")
    config = Config(stage.facts["url"], "resumes", DEVICE_TYPE, tmp_path, tmp_path)
    transport = Transport(config, token)
    asked = (artifact["url"], artifact["sha256"])
    whole = b"".join(transport.download(*asked, 0, artifact["size"]))
    assert hashlib.sha256(whole).hexdigest() == artifact["sha256"]
    assert b"".join(transport.download(*asked, 777, artifact["size"])) == whole[777:]


def test_the_smallest_client_follows_and_keeps_its_token(stage: Stage, tmp_path: Path) -> None:
    token = stage.skylift("device", "enroll", "smallest", "--type", DEVICE_TYPE)["token"]
    stage.skylift("deploy", "create", "1.1.0", "--device", "smallest", "--all-at-once")
    words = [stage.facts["url"], "smallest", token, DEVICE_TYPE, "1.0.0"]

    def updated() -> bool:
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / "client.py", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return (tmp_path / "smallest-1.1.0.img").exists()

    wait(updated, "it was offered the update")
    assert (tmp_path / "smallest-1.1.0.img").read_bytes() == (stage.home / "1.1.0.pyz").read_bytes()


def test_refused_and_repeated_uploads_leave_nothing(stage: Stage, http: httpx2.Client) -> None:
    release = draft(http, "3.0.0")
    assert upload(http, release, b"\xff" * 100).status_code == 422
    swept(stage)
    known = (stage.home / "1.0.0.pyz").read_bytes()
    assert upload(http, release, known).status_code == 201  # bytes that are there already
    swept(stage)


def test_a_large_image_goes_through_in_bounded_memory(stage: Stage, http: httpx2.Client) -> None:
    """96 MB of noise through a server that may take a third of it into memory at most."""
    seed = random.Random(5)
    pieces = [b"#!/bin/sh\n", *(seed.randbytes(1 << 20) for _ in range(96))]
    found = hashlib.sha256(b"".join(pieces)).hexdigest()
    before = peak(stage)
    made = upload(http, draft(http, "4.0.0"), iter(pieces))
    assert made.status_code == 201, made.text
    assert made.json()["sha256"] == found
    assert peak(stage) - before < 32 << 20
    swept(stage)


def peak(stage: Stage) -> int:
    """The most memory the server ever had, in bytes."""
    assert stage.server.process is not None
    status = Path(f"/proc/{stage.server.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) << 10


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"SKYLIFT_BLOBS": "s3://nobodys/images"}, "there is no such bucket"),
        ({"SKYLIFT_BLOBS": "s3://"}, "s3://bucket/prefix, or a folder"),
        ({"SKYLIFT_BLOBS_ALLOW_HTTP": "false"}, "blobs_allow_http"),
    ],
)
def test_a_bucket_that_will_not_do_is_one_line_at_the_start(
    objects: ObjectStore, tmp_path: Path, change: dict[str, str], rule: str
) -> None:
    server = Server(tmp_path / "data", objects.settings("images") | change, ("--mqtt", "off"))
    with pytest.raises(Failed, match="exit code 2"):
        server.start()
    said = server.log.read_text().strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("skylift: blobs is 's3://")
    assert rule in said[0]


@pytest.mark.postgresql
def test_three_servers_on_one_bucket_update_agents_while_each_is_killed(
    objects: ObjectStore, cluster: Cluster, tmp_path: Path
) -> None:
    """An agent asks each of them; none of the three has a blob of its own, before or after it was killed."""
    stage = Stage(tmp_path / "stage", settings=objects.settings("three"))
    stage.settings["SKYLIFT_DATABASE_URL"] = cluster.url(cluster.fresh())
    try:
        stage.home.mkdir()
        stage.serve("--mqtt", "off", servers=3)
        stage.ceremony()
        images = {v: build(stage.home / f"{v}.pyz", v) for v in ("1.0.0", "1.1.0")}
        release = stage.publish(images["1.1.0"], "1.1.0")
        agents = [
            stage.enroll([f"asks-{number}"], images["1.0.0"], "1.0.0", server=url)[0]
            for number, url in enumerate(stage.urls)
        ]
        wait(lambda: all(agent.version() == "1.0.0" for agent in agents), "all run the factory's image")
        made = stage.skylift("deploy", "create", "1.1.0", "--all", "--all-at-once")["id"]
        for server in stage.servers:
            server.kill()
            server.start()
        assert stage.completed(made)["complete"] == 3
        everywhere("1.1.0", *agents)
        assert not [server.data / "blobs" for server in stage.servers if (server.data / "blobs").exists()]
        assert not (stage.home / "shared" / "blobs").exists()
        headers = {"Authorization": f"Bearer {stage.environment['SKYLIFT_TOKEN']}"}
        for url in stage.urls:
            told = httpx2.get(f"{url}/api/releases/{release}", headers=headers, timeout=60).json()
            full = next(one for one in told["artifacts"] if one["kind"] == "full")
            away = httpx2.get(url + full["url"], headers=headers, timeout=60)
            body = httpx2.get(away.headers["location"], timeout=60).content
            assert body == images["1.1.0"].read_bytes()
    finally:
        stage.close()


def test_a_store_that_is_away_is_told_and_waited_for(
    stage: Stage, http: httpx2.Client, objects: ObjectStore
) -> None:
    """The last test here: the store forgets when it is stopped."""
    release, body = draft(http, "5.0.0"), b"#!/bin/sh\n" + random.Random(6).randbytes(3 << 20)
    url = artifacts(http)[0]["url"]
    objects.stop()
    for answer in (upload(http, release, body), http.get(url), http.head(url)):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "127.0.0.1" not in answer.text
    swept(stage)
    assert http.get(f"/api/releases/{release}").json()["artifacts"] == []
    assert http.get("/readyz").status_code == 200
    again = Server(stage.home / "again", objects.settings("images"), ("--mqtt", "off"))
    again.start()  # devices can ask it, whatever the store does
    again.stop()
    objects.start()
    made = upload(http, release, body)
    assert made.status_code == 201, made.text
    told = http.get(made.json()["url"])
    assert httpx2.get(told.headers["location"], timeout=60).content == body
    assert json.loads(http.get(f"/api/releases/{release}").text)["artifacts"] != []
