"""What is installed is pinned by hash and comes from whatever index the machine is set up with."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest


def entries(lock: Path) -> dict[str, str]:
    """Name of each locked package → its entry, comments left out."""
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    found = re.split(r"\n(?=\S)", "\n".join(lines).strip())
    return {re.match(r"[A-Za-z0-9._-]+", entry)[0].lower().replace("_", "-"): entry for entry in found}


@pytest.fixture(scope="module")
def locked(checkout: Path) -> dict[str, str]:
    return entries(checkout / "requirements.lock")


@pytest.fixture(scope="module")
def declared(checkout: Path) -> dict:
    return tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", each)[0].lower().replace("_", "-") for each in requirements}


def test_every_direct_dependency_is_locked_but_torch(locked, declared):
    direct = names(declared["project"]["dependencies"]) | names(declared["dependency-groups"]["dev"])
    # torch comes in a build an accelerator: pip picks it
    assert direct - locked.keys() == {"torch"}


def test_torch_is_pinned_where_the_makefile_reads_it(declared, checkout):
    (torch,) = [each for each in declared["project"]["dependencies"] if each.startswith("torch=")]
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", torch)
    assert len(re.findall(r'^ *"torch==[^"]*"', (checkout / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)) == 1


def test_what_belongs_to_a_build_of_torch_is_not_locked(locked, declared):
    left_out = set(declared["tool"]["uv"]["pip"]["no-emit-package"])
    assert not left_out & locked.keys()
    assert not {name for name in locked if name.startswith(("nvidia-", "cuda-"))}


def test_every_entry_is_one_version_with_hashes(locked):
    for entry in locked.values():
        assert re.match(r"[a-z0-9._-]+==[^ ;]+( ;[^\n]*)? \\\n", entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


def test_the_lock_names_no_address(checkout):
    text = (checkout / "requirements.lock").read_text(encoding="utf-8")
    assert not re.findall(r"^.*(?:://| @ |--index|--extra-index|--find-links).*$", text, re.MULTILINE)


def test_the_demo_s_drawings_are_locked_by_hash_without_addresses(checkout):
    wanted = json.loads((checkout / "data/emoji/package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads((checkout / "data/emoji/package-lock.json").read_text(encoding="utf-8"))["packages"]
    fetched = {path.removeprefix("node_modules/"): entry for path, entry in packages.items() if path}
    assert {name: fetched[name]["version"] for name in wanted} == wanted
    for entry in fetched.values():
        assert entry["integrity"].startswith("sha512-")
        assert "://" not in entry.get("resolved", "")
