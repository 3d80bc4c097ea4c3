"""Files where they lie: paths, and addresses such as s3://bucket/folder that fsspec opens. What is in the files, others read."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.utils import get_protocol

from assets.errors import UserError
from assets.source_images.folder_names import refuse_linked_folders

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 30  # an Arrow binary column holds less than 2 GiB at a time


def is_remote(address: str) -> bool:
    """Whether it is an address; dvc watches paths alone."""
    return "://" in address


def exists(address: str) -> bool:
    return bool(_asked(address, "exists")) if is_remote(address) else Path(address).exists()


def is_folder(address: str) -> bool:
    return bool(_asked(address, "isdir")) if is_remote(address) else Path(address).is_dir()


def files_under(root: str) -> dict[str, str]:
    """Every file under a folder, hidden ones left out: its path relative to `root`, with / → its address, in order of the former.

    UserError for links to folders, behind which dvc sees no change.
    """
    found: dict[str, str] = {}
    if is_remote(root):
        filesystem, inside = _filesystem(root)
        for path in _asked(root, "find"):
            relative = path.removeprefix(inside.rstrip("/")).lstrip("/")
            found[relative] = filesystem.unstrip_protocol(path)
    else:
        linked: list[Path] = []
        for folder, folders, files in os.walk(root):
            linked += [path for name in folders if not name.startswith(".") and (path := Path(folder, name)).is_symlink()]
            folders[:] = [name for name in folders if not name.startswith(".")]
            found |= {Path(folder, name).relative_to(root).as_posix(): str(Path(folder, name)) for name in files}
        refuse_linked_folders(Path(root), linked)
    return {name: found[name] for name in sorted(found) if not any(part.startswith(".") for part in name.split("/"))}


def opened(address: str, *, unpacked: bool = False) -> IO[bytes]:
    """The file to read from, at any place; `unpacked`: what a suffix such as .gz packs is unpacked, and read from its start on alone."""
    try:
        if not unpacked and not is_remote(address):
            return Path(address).open("rb")
        return fsspec.open(address, "rb", compression="infer" if unpacked else None).open()
    except (OSError, ValueError, ImportError) as error:
        raise _unreachable(address, error) from error


def read_file(address: str) -> bytes:
    """b"" for a file of more than MAX_FILE_BYTES."""
    with opened(address) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return limited(content, address)


def limited(content: bytes, where: str) -> bytes:
    """b"" in place of more than a picture table can hold."""
    if len(content) > MAX_FILE_BYTES:
        logger.warning("%s: not read, it has more than %d bytes", where, MAX_FILE_BYTES)
        return b""
    return content


def _filesystem(address: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        raise _unreachable(address, error) from error


def _asked(address: str, question: str) -> Any:
    filesystem, inside = _filesystem(address)
    try:
        return getattr(filesystem, question)(inside)
    except Exception as error:  # each store has exceptions of its own, such as botocore's
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> UserError:
    if isinstance(error, ImportError):
        return UserError(f"{address}: {error}. Install what it names into .venv, or copy the files to a folder and name that.")
    if isinstance(error, ValueError) and get_protocol(address) not in fsspec.available_protocols():
        return UserError(
            f"{address}: nothing opens {get_protocol(address)}:// addresses. Allowed: a path, or an address of"
            f" {', '.join(sorted(set(fsspec.available_protocols()) & {'s3', 'gs', 'az', 'http', 'https', 'memory'}))}."
        )
    return UserError(f"{address} cannot be read: {error or type(error).__name__}. Check the address, the network and your rights.")
