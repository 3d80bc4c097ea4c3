"""Find the names and links in a folder that dvc does not cope with. It hashes the folder before a stage runs; image_folder reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from assets.errors import UserError

SHOWN = 3


def check_names(root: Path) -> None:
    """UserError for links that lead nowhere or to a folder, and for names that are not UTF-8, anywhere under `root`."""
    dead, odd, linked = [], [], []
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            shown = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if shown != str(path):
                odd.append(shown)
            elif path.is_symlink() and not path.exists():
                dead.append(shown)
            elif path.is_symlink() and path.is_dir() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                linked.append(path)
    problems = [
        f"{len(found)} {what}: {', '.join(sorted(found)[:SHOWN])}{', …' if len(found) > SHOWN else ''}"
        for found, what in ((dead, "link(s) that lead nowhere"), (odd, "name(s) that are not UTF-8"))
        if found
    ]
    if problems:
        raise UserError(f"source_images.sources, root: dvc cannot read {root}: it holds {' and '.join(problems)}. Remove or rename them.")
    refuse_linked_folders(root, linked)


def refuse_linked_folders(root: Path, linked: Sequence[Path]) -> None:
    """UserError where `root` holds links to folders: what is added or removed behind one goes unnoticed."""
    if linked:
        raise UserError(
            f"source_images.sources, root: {root} holds {len(linked)} link(s) to a folder:"
            f" {', '.join(f'{each} → {each.readlink()}' for each in sorted(linked)[:SHOWN])}{', …' if len(linked) > SHOWN else ''}. dvc"
            " does not see what changes behind such a link. Copy or move the folder itself there, or make the folder that holds it the"
            " root; the root may be a link."
        )
