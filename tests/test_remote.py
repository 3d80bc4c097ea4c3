"""dvc's remote in a bucket, as README.md sets it up: what one checkout pushes, a clone pulls, and nothing is out of date there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PIPELINE = "stages:\n  one:\n    cmd: mkdir -p made && cp given.txt made/one.txt\n    deps: [given.txt]\n    outs: [made]\n"


def test_a_clone_pulls_from_the_bucket_what_was_pushed(s3, tmp_path):
    """A missing package, an endpoint or credentials that dvc does not take from the environment."""
    here, clone = tmp_path / "here", tmp_path / "clone"
    here.mkdir()
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site"), "GIT_CONFIG_GLOBAL": os.devnull}

    def run(folder: Path, *command: str) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    dvc, git = (sys.executable, "-m", "dvc"), ("git", "-c", "user.name=Pulse", "-c", "user.email=pulse@localhost")
    run(here, *git, "init", "-q")
    run(here, *dvc, "init", "-q")
    run(here, *dvc, "remote", "add", "--default", "store", "s3://bucket/dvc")
    (here / "given.txt").write_text("given", encoding="utf-8")
    (here / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    run(here, *dvc, "repro", "-q")
    run(here, *git, "add", "--all")
    run(here, *git, "commit", "-q", "-m", "made")
    run(here, *dvc, "push", "-q")
    run(tmp_path, *git, "clone", "-q", str(here), str(clone))
    run(clone, *dvc, "pull", "-q")
    assert (clone / "made/one.txt").read_text(encoding="utf-8") == "given"
    assert run(clone, *dvc, "status", "--json").strip() == "{}"
    assert "test" not in (clone / ".dvc/config").read_text(encoding="utf-8"), "no credential is written down"
