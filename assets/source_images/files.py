"""The files of a source: every one under its root, a folder or an address. Opening them is assets.addresses' concern."""

from __future__ import annotations

import os
from pathlib import Path

from assets.addresses import is_hidden, is_remote, stored_under
from assets.source_images.folder_names import refuse_linked_folders


def files_under(root: str) -> dict[str, str]:
    """Every file under a folder: its path relative to `root`, with / → its path or address, in order of the former.

    Hidden ones and the system's are left out.
    UserError for links to folders, behind which dvc sees no change.
    """
    if is_remote(root):
        return {name: each.address for name, each in stored_under(root).items()}
    found: dict[str, str] = {}
    linked: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name)]
        linked += [path for name in folders if (path := Path(folder, name)).is_symlink()]
        found |= {Path(folder, name).relative_to(root).as_posix(): str(Path(folder, name)) for name in files if not is_hidden(name)}
    refuse_linked_folders(Path(root), linked)
    return {name: found[name] for name in sorted(found)}
