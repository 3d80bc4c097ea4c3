"""Fetching pinned packages: what is there is reused, and what cannot be fetched leaves nothing behind. No network needed."""

import json
from pathlib import Path

import pytest

from assets.errors import Unreachable, UserError
from assets.source_images.npm_packages import install


def pin(folder: Path, dependencies: dict[str, str], locked: dict[str, dict[str, str]]) -> Path:
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"name": "test", "private": True, "dependencies": dependencies}))
    root = {"": {"name": "test", "dependencies": dependencies}}
    (folder / "package-lock.json").write_text(
        json.dumps({"name": "test", "lockfileVersion": 3, "requires": True, "packages": root | locked})
    )
    return folder


@pytest.fixture
def npm_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))


def test_packages_are_installed_once(tmp_path, npm_offline):
    packages = pin(tmp_path / "packages", {}, {})
    first = install(packages, tmp_path / "cache")
    (first / "mark").parent.mkdir(exist_ok=True)
    (first / "mark").touch()
    assert install(packages, tmp_path / "cache") == first
    assert (first / "mark").exists()
    (packages / "package.json").write_text((packages / "package.json").read_text() + "\n")
    assert install(packages, tmp_path / "cache") != first


def test_unreachable_registry(tmp_path, npm_offline):
    name = "@iconify-json/noto"
    locked = {f"node_modules/{name}": {"version": "1.2.9", "integrity": "sha512-" + "A" * 86 + "=="}}
    packages = pin(tmp_path / "packages", {name: "1.2.9"}, locked)
    with pytest.raises(Unreachable, match=r"the npm registry cannot be reached\. Check the network") as caught:
        install(packages, tmp_path / "cache")
    assert "    at " not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_lock_file_that_does_not_fit(tmp_path, npm_offline):
    packages = pin(tmp_path / "packages", {}, {})
    (packages / "package.json").write_text(json.dumps({"name": "test", "dependencies": {"is-odd": "3.0.1"}}))
    with pytest.raises(UserError, match=r"make its lock file anew|cannot be reached"):
        install(packages, tmp_path / "cache")


def test_missing_lock_file(tmp_path):
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(UserError, match=r"no .*package-lock\.json"):
        install(tmp_path, tmp_path / "cache")


def test_the_demos_lock_file_pins_every_package_without_download_addresses():
    folder = Path(__file__).parents[2] / "data" / "emoji"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    text = (folder / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert "resolved" not in text
    assert ".tgz" not in text
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)
