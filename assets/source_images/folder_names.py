"""Find the file names at which dvc stops without a clear message. It hashes the folder before a stage runs; image_folder reads it."""

from __future__ import annotations

import os
from pathlib import Path

from assets.errors import UserError

SHOWN = 3


def check_names(root: Path) -> None:
    """UserError for links that lead nowhere and names that are not UTF-8, anywhere under `root`."""
    dead, odd = [], []
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            shown = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if shown != str(path):
                odd.append(shown)
            elif path.is_symlink() and not path.exists():
                dead.append(shown)
    problems = [
        f"{len(found)} {what}: {', '.join(sorted(found)[:SHOWN])}{', …' if len(found) > SHOWN else ''}"
        for found, what in ((dead, "link(s) that lead nowhere"), (odd, "name(s) that are not UTF-8"))
        if found
    ]
    if problems:
        raise UserError(f"source_images.sources[0].root: dvc cannot read {root}: it holds {' and '.join(problems)}. Remove or rename them.")
