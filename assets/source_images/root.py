"""What a source names: is it there, does it hold pictures, and how is it written into params.yaml. Reading it is each kind's concern.

Checked before anything runs: dvc hashes the files first, and stops at a missing one without a word of what to do.
"""

from __future__ import annotations

import contextlib
import difflib
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from assets import artifacts, params
from assets.addresses import check_there, exists, has_secret, is_remote
from assets.errors import UserError
from assets.source_images.folder_names import check_names
from assets.source_images.image_folder import LAYOUT, find_pictures

SETTING = "source_images.sources, root"


def check_source(source: Any) -> None:
    """UserError where no pictures can come from a source of params.yaml. Of an address, it asks whether anything is there."""
    if isinstance(source, params.ImageFolder):
        check_root(source.root)
        return
    for key in ("root", "pictures"):
        path = getattr(source, key, None)
        if path is None:
            continue
        if is_remote(path):
            check_there(path, f"source_images.sources, {key}")
            continue
        if not Path(path).exists() and not isinstance(source, params.Emoji):  # the stage says what an emoji folder lacks
            raise UserError(f"source_images.sources, {key}: {path} is missing.{_hint(path)}")
        check_names(Path(path))


def check_root(root: str) -> None:
    """UserError where no pictures can come from the image folder `root`."""
    folder = Path(root)
    if is_remote(root):
        check_there(root, SETTING)
        return
    if not folder.is_dir():
        raise UserError(f"{SETTING}: {root} is {'not a folder' if folder.exists() else 'missing'}.{_hint(root)}")
    check_names(folder)
    if not find_pictures(folder):
        raise UserError(f"{SETTING}: {root} holds no pictures. {LAYOUT.format(root=root)}")


def holds_pictures(source: Any) -> bool:
    """Whether all that it names is there, and can be reached."""
    if isinstance(source, params.ImageFolder) and not is_remote(source.root):
        return Path(source.root).is_dir() and bool(find_pictures(Path(source.root)))
    with contextlib.suppress(UserError):
        return all(path is None or exists(path) for path in (source.root, getattr(source, "pictures", None)))
    return False


def recorded(written: Mapping[str, Any]) -> bool:
    """Whether dvc.lock has source_images as made with these settings, params.yaml as written."""
    with contextlib.suppress(FileNotFoundError, KeyError, TypeError):
        made_with = artifacts.read_yaml(Path("dvc.lock"))["stages"]["source_images"]["params"]["params.yaml"]
        return bool(made_with["source_images"] == written["source_images"])
    return False


def real_path(given: str, made: Collection[Path]) -> str:
    """`given` as params.yaml should hold it: without ~ and links, relative where it lies in the checkout, the working directory; an address
    as it is.

    `made` are paths that the pipeline writes; a folder that holds one, or lies in one, would be an input made from itself.
    """
    if is_remote(given):
        address = given.strip().rstrip("/")
        if has_secret(address):
            raise UserError(f"SOURCE: the address holds a password or key. {params.WITHOUT_SECRETS}")
        check_there(address, "SOURCE")
        return address
    path = _spelt_as_on_disk(Path(given.strip()).expanduser())
    if not path.exists():
        raise UserError(f"SOURCE: {given} is missing.{_hint(str(path))}")
    path, checkout = path.resolve(), Path.cwd().resolve()
    written = [*((checkout / each).resolve() for each in made), *(checkout / own for own in ("assets", ".cache", ".dvc", ".git", ".venv"))]
    if any(each.is_relative_to(path) or path.is_relative_to(each) for each in written):
        raise UserError(
            f"SOURCE: {given} is {path}, where onespace itself keeps what it makes. Give a folder of pictures alone, such as data/images."
        )
    return str(path.relative_to(checkout)) if path.is_relative_to(checkout) else str(path)


def _spelt_as_on_disk(path: Path) -> Path:
    """The path itself, or the one that differs only in how accents are coded: keyboards type one character, macOS writes two."""
    if path.exists() or path == path.parent:
        return path
    parent = _spelt_as_on_disk(path.parent)
    wanted = unicodedata.normalize("NFC", path.name)
    return parent / next((name for name in _names(parent) if unicodedata.normalize("NFC", name) == wanted), path.name)


def _hint(root: str) -> str:
    """What may have been meant, and what to do; begins with a blank."""
    folder = Path(root)
    if folder.exists():
        return f" {LAYOUT.format(root='a folder')} Then name that folder."
    if root.startswith("~"):
        return f" dvc does not know what ~ stands for: write {folder.expanduser()}, or run `make demo SOURCE={root}` once."
    if (spelt := _spelt_as_on_disk(folder)).exists():
        return " It is there, its accents coded otherwise: `make demo SOURCE=…` writes the name as it is on disk."
    there = next(parent for parent in (spelt, *spelt.parents) if parent.is_dir())
    missing = spelt.relative_to(there).parts[0]
    near = difflib.get_close_matches(missing, _names(there), n=3)
    meant = f" Did you mean {' or '.join(str(there / name) for name in near)}?" if near else f" {there} is there and has no {missing!r}."
    return f"{meant} `make demo SOURCE=/path/to/folder` names another folder, `make profile NAME=demo` brings the demo back."


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
