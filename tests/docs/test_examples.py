"""The examples are what they say: read by the same readers, run against a real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skylift.agent.config import read
from skylift.core.rollout import expand, parse
from skylift.testkit.image import build
from skylift.testkit.stage import DEVICE_TYPE, Stage

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize(
    "file", sorted((EXAMPLES / "deployments").glob("*.json")), ids=lambda file: file.stem
)
def test_a_deployment_example_is_one_the_server_would_take(file: Path) -> None:
    config = parse({"firmware_version": "1.1.0", **json.loads(file.read_text())})
    assert len(expand(config)) >= 4


def test_the_agents_example_is_read_without_complaint() -> None:
    config = read(EXAMPLES / "hello-device" / "agent.toml")
    assert {check.kind for check in config.health} == {"http", "command", "mqtt"}


@pytest.mark.slow
def test_the_smallest_client_takes_an_update_from_a_real_server(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    stage.home.mkdir()
    try:
        stage.serve("--mqtt", "off")
        stage.ceremony()
        image = build(stage.home / "1.1.0.pyz", "1.1.0")
        stage.publish(image, "1.1.0")
        token = stage.skylift("device", "enroll", "smallest", "--type", DEVICE_TYPE)["token"]
        assert "nothing to do" in client(stage, token)
        made = stage.skylift("deploy", "create", "1.1.0", "--device", "smallest", "--interval", "0")
        while "nothing to do" in (said := client(stage, token)):
            assert stage.deployment(made["id"])["status"] in ("scheduled", "running")
        assert "smallest-1.1.0.img: complete" in said
        assert (stage.home / "smallest-1.1.0.img").read_bytes() == image.read_bytes()
        stage.completed(made["id"])
    finally:
        stage.close()


def client(stage: Stage, token: str) -> str:
    """One run of the example."""
    words = [stage.facts["url"], "smallest", token, DEVICE_TYPE, "1.0.0"]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "client.py", *words], cwd=stage.home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
