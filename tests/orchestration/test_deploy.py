"""What is deployed fits its own linters and schemas, and the pods fit each other: there is no cluster to try it on here."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

with warnings.catch_warnings(action="ignore"):
    import kubernetes_validate

KUBERNETES = "1.30"  # of the schemas


@pytest.fixture(scope="module")
def deploy(checkout: Path) -> Path:
    return checkout / "orchestration" / "deploy"


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def pods(deploy: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods of the Ray cluster, and of Dagster's code location as the chart makes one of its values."""
    cluster = read(deploy / "ray.yaml")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group.get("groupName", "head"), group["template"]["spec"]
    (location,) = read(deploy / "dagster-values.yaml")["deployments"]
    container = {
        "name": location["name"],
        "image": f"{location['image']['repository']}:{location['image']['tag']}",
        "imagePullPolicy": location["image"]["pullPolicy"],
        "args": location["dagsterApiGrpcArgs"],
        "ports": [{"containerPort": location["port"]}],
        "env": location["env"],
        "envFrom": [{"secretRef": each} for each in location["envSecrets"]],
        "resources": location["resources"],
        "volumeMounts": location["volumeMounts"],
    }
    yield "dagster", {"containers": [container], "volumes": location["volumes"], "securityContext": location["podSecurityContext"]}


def test_the_dockerfile_passes_its_linter_and_copies_what_is_there(deploy, checkout):
    """An image that cannot be built, or one without what the lock pins."""
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "Dockerfile"], cwd=deploy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = (deploy / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.+) \./$", text, re.MULTILINE) for name in line.split()]
    assert "requirements.lock" in copied and all((checkout / name).is_file() for name in copied)
    (pattern,) = re.findall(r"sed -n '(s/[^']+)'", text)
    assert pattern in (checkout / "Makefile").read_text(encoding="utf-8").replace("$$", "$"), "torch is found as the Makefile finds it"


def test_manifests_fit_the_schemas_of_kubernetes(deploy):
    """A misspelt field is dropped in silence by some tools, and refused by the cluster in the night."""
    kubernetes_validate.validate(read(deploy / "volume.yaml"), KUBERNETES, strict=True)
    for name, spec in pods(deploy):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod | {"spec": spec | {"volume": []}}, KUBERNETES, strict=True)


def test_all_pods_share_the_image_the_checkout_and_the_credentials(deploy, checkout):
    """A worker with another environment or path, whose results differ or whose files nobody finds."""
    claim = read(deploy / "volume.yaml")["metadata"]["name"]
    found = set()
    for _, spec in pods(deploy):
        (container,) = spec["containers"]
        mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        claims = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each}
        assert claims == {"checkout": claim}
        secrets = tuple(each["secretRef"]["name"] for each in container["envFrom"])
        found.add((container["image"], mounted["checkout"], secrets, spec["securityContext"]["runAsUser"]))
    assert len(found) == 1, found
    ((_, folder, _, user),) = found
    text = (deploy / "Dockerfile").read_text(encoding="utf-8")
    assert f"WORKDIR {folder}\n" in text and f"USER {user}\n" in text
    locked = re.search(r"^ray==(\S+)", (checkout / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    if locked:
        assert read(deploy / "ray.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


def test_dagster_finds_its_definitions(deploy):
    (location,) = read(deploy / "dagster-values.yaml")["deployments"]
    arguments = dict(zip(location["dagsterApiGrpcArgs"][::2], location["dagsterApiGrpcArgs"][1::2], strict=True))
    assert importlib.util.find_spec(arguments["--module-name"])
