"""Which file a written path means, however people and systems write paths. Where the files are listed: addresses.py and image_folder.py."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from assets.source_images.spelling import one_spelling


class KnownPaths:
    """Files by their path relative to `root`, with /.

    Found by the very path; else by another spelling of its accents, ./ before it, backslashes, or an absolute path that leads below `root`.
    """

    def __init__(self, names: Iterable[str], root: str) -> None:
        self.names = {name: name for name in names}
        self.normal = {_normal(name): name for name in self.names}
        self.roots = {one_spelling(each) for each in (root, str(Path(root).absolute()), str(Path(root).resolve()))} if root else set()

    def find(self, written: str) -> str | None:
        if written in self.names:
            return written
        for each in (written, written.replace("\\", "/")):
            path = _normal(each.removeprefix("file://"))
            for tried in (path, *(path.removeprefix(root.rstrip("/") + "/") for root in self.roots if _absolute(path))):
                if tried in self.normal:
                    return self.normal[tried]
        return None

    def hint(self, absent: str) -> str:
        """What is wrong with a path that names none, where one can see it; begins with a blank."""
        path = _normal(absent.replace("\\", "/"))
        parts = path.split("/")
        for start in range(1, len(parts)):
            if (tail := "/".join(parts[start:])) in self.normal:
                return f" There is {tail!r}: remove {'/'.join(parts[:start]) + '/'!r} from the paths."
        folded = {name.casefold(): name for name in self.normal}
        if (name := folded.get(path.casefold())) is not None:
            return f" There is {name!r}: upper and lower case differ."
        stem = {str(PurePosixPath(name).with_suffix("")): name for name in self.normal}
        if (name := stem.get(str(PurePosixPath(path).with_suffix("")) if path not in ("", ".") else "")) is not None:
            return f" There is {name!r}: the suffixes differ."
        return ""


def _absolute(path: str) -> bool:
    return path.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", path) is not None


def _normal(path: str) -> str:
    """One spelling for ./a.jpg, a.jpg and b/../a.jpg too."""
    if "://" in path:
        return one_spelling(path)
    parts: list[str] = []
    for part in PurePosixPath(one_spelling(path.strip())).parts:
        if part == ".." and parts and parts[-1] not in ("..", "/"):
            parts.pop()
        else:
            parts.append(part)
    return str(PurePosixPath(*parts))
