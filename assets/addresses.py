"""Where files lie: paths, and addresses such as s3://bucket/folder that fsspec opens. What is in the files, others read.

The one place that opens an address; fsspec is imported where one is touched. Credentials come from the environment, or from where the
store's own library looks (for S3: AWS_* variables, ~/.aws, the machine's role), never from settings. For stores that speak S3 but are not
AWS, AWS_ENDPOINT_URL names the server.
"""

from __future__ import annotations

import difflib
import io
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from assets.errors import Unreachable, UserError

logger = logging.getLogger(__name__)

# of network drives and desktops, in any case; Synology's @eaDir holds thumbnails of every picture
SYSTEM_FOLDERS = {"@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information", "__macosx"}
MAX_FILE_BYTES = 1 << 30  # an Arrow binary column holds less than 2 GiB at a time
AT_ONCE = 64  # objects that are fetched together: a store answers many requests as fast as one
BYTES_AT_ONCE = 64 << 20
# What tells an object from the one that took its place, the surest first: a hash of its content where the store has one, else its time.
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "updated", "created")
TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
USUAL = ("s3", "gs", "az", "http", "https", "file", "memory")
# user:password@, and what signs an address: whoever reads params.yaml could use it. abfs://container@account is none
SECRET = re.compile(r"://[^/@]*:[^/@]*@|[?&](X-Amz-Signature|X-Amz-Credential|X-Goog-Signature|AWSAccessKeyId|Signature|sig|token)=", re.I)


class Stored(NamedTuple):
    """An object of a store, as its listing has it. `version`: another one where it was replaced; `changed`: nanoseconds, 0 if unknown."""

    address: str
    size: int
    version: str
    changed: int


def is_remote(address: str) -> bool:
    """Whether it is an address; dvc watches paths alone."""
    return "://" in address


def _protocol(address: str) -> str:
    """s3 of s3://bucket; file of a path."""
    return address.partition("://")[0].casefold() if is_remote(address) else "file"


def has_secret(address: str) -> bool:
    return is_remote(address) and SECRET.search(address) is not None


def exists(address: str) -> bool:
    return bool(_asked(address, "exists")) if is_remote(address) else Path(address).exists()


def is_folder(address: str) -> bool:
    return bool(_asked(address, "isdir")) if is_remote(address) else Path(address).is_dir()


def check_there(address: str, named: str) -> None:
    """UserError that begins with `named`, where there is nothing at an address."""
    if not exists(address):
        raise UserError(f"{named}: {address} is missing.{_near(address)} `make demo SOURCE=ADDRESS` names another one.")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is nobody's: hidden, or one that systems make."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def stored_under(address: str) -> dict[str, Stored]:
    """Every object under an address, or the one that it names: its path relative to the address, with / → what it is, in order of path.

    The store is asked each time. Hidden ones and the system's are left out, by their name or a folder's.
    """
    filesystem, inside = _filesystem(address)
    filesystem.invalidate_cache()
    found = {}
    for path, details in _asked(address, "find", detail=True).items():
        relative = path.removeprefix(inside.rstrip("/")).lstrip("/") or path.rpartition("/")[2]
        if details["type"] != "file" or path.endswith("/") or any(map(is_hidden, relative.split("/"))):
            continue
        found[relative] = Stored(filesystem.unstrip_protocol(path), int(details["size"] or 0), _version(details), _changed(details))
    return {name: found[name] for name in sorted(found)}


def _version(details: dict[str, Any]) -> str:
    return next((str(details[key]) for key in VERSIONS if details.get(key) is not None), "")


def _changed(details: dict[str, Any]) -> int:
    when = next((details[key] for key in TIMES if details.get(key) is not None), 0)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    return int((when.timestamp() if isinstance(when, datetime) else float(when)) * 1e9)


def opened(address: str, *, unpacked: bool = False) -> IO[bytes]:
    """The file to read from, at any place; `unpacked`: what a suffix such as .gz packs is unpacked, and read from its start on alone.

    UserError where it cannot be opened, and where an address fails while it is read.
    """
    compression = "infer" if unpacked else None
    try:
        if not is_remote(address):
            return _opened(address, compression) if unpacked else Path(address).open("rb")
        return io.BufferedReader(_Reading(address, compression), 1 << 20)
    except (OSError, ValueError, ImportError) as error:
        raise _unreachable(address, error) from error


def _opened(address: str, compression: str | None) -> IO[bytes]:
    import fsspec

    file: IO[bytes] = fsspec.open(address, "rb", compression=compression).open()
    return file


class _Reading(io.RawIOBase):
    """A file at an address, whose store's own exceptions become UserErrors: each store has others, and they come up at any read."""

    def __init__(self, address: str, compression: str | None) -> None:
        self._address = address
        try:
            self._file = _opened(address, compression)
        except Exception as error:
            raise _unreachable(address, error) from error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._file.read(len(buffer))
        except Exception as error:
            raise _unreachable(self._address, error) from error
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe without waiting for somebody to write into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_file(path: str | Path) -> bytes:
    """b"" for a file of more than MAX_FILE_BYTES, for a pipe, and for what cannot be read: its own picture is lost, and said so."""
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:  # of a million files, a Path for each takes seconds
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                logger.warning("%s: not read, it is no file but a pipe or a device", path)
                return b""
            if (size := about.st_size) > MAX_FILE_BYTES:
                logger.warning("%s: not read, its %d bytes are more than %d", path, size, MAX_FILE_BYTES)
                return b""
            return file.readall()
    except OSError as error:
        logger.warning("%s: cannot be read (%s)", path, error.strerror or error)
        return b""


def read_each(objects: Sequence[Stored]) -> Iterator[bytes]:
    """The contents, in this order; many are fetched at a time. b"" for one that is too large, is gone meanwhile, or may not be read.

    Unreachable where the store itself fails: then no picture is at fault.
    """
    for some in _portions(objects):
        wanted = [each.address for each in some if each.size <= MAX_FILE_BYTES]
        found = _fetched(wanted) if wanted else {}
        for each in some:
            content = found.get(each.address)
            if each.size > MAX_FILE_BYTES:
                logger.warning("%s: not read, its %d bytes are more than %d", each.address, each.size, MAX_FILE_BYTES)
            elif isinstance(content, FileNotFoundError | PermissionError):
                logger.warning("%s: cannot be read (%s)", each.address, content)
            elif not isinstance(content, bytes):
                raise _unreachable(each.address, content or FileNotFoundError(each.address))
            yield content if isinstance(content, bytes) else b""


def _portions(objects: Sequence[Stored]) -> Iterator[list[Stored]]:
    held: list[Stored] = []
    for each in objects:
        if held and (len(held) == AT_ONCE or sum(other.size for other in held) + each.size > BYTES_AT_ONCE):
            yield held
            held = []
        held.append(each)
    if held:
        yield held


def _fetched(addresses: Sequence[str]) -> dict[str, Any]:
    """Address → content, or the exception that fetching it raised. All are of one store."""
    filesystem, _ = _filesystem(addresses[0])
    paths = {filesystem._strip_protocol(address): address for address in addresses}
    try:
        found = filesystem.cat(list(paths), on_error="return")
    except Exception as error:
        raise _unreachable(addresses[0], error) from error
    return {paths[path]: content for path, content in found.items()}


def copy_to(files: Mapping[Path, str]) -> None:
    """Put files at addresses of one store; each appears whole or not at all."""
    if not files:
        return
    filesystem, _ = _filesystem(next(iter(files.values())))
    try:
        filesystem.put(list(map(str, files)), [filesystem._strip_protocol(address) for address in files.values()])
    except Exception as error:
        raise _unreachable(next(iter(files.values())), error) from error


def remove(addresses: Sequence[str]) -> None:
    """Objects of one store."""
    if not addresses:
        return
    filesystem, _ = _filesystem(addresses[0])
    try:
        filesystem.rm([filesystem._strip_protocol(address) for address in addresses])
    except Exception as error:
        raise _unreachable(addresses[0], error) from error


def fetch_folder(address: str, folder: Path) -> None:
    """All that lies under an address, in a new folder. UserError for nothing."""
    found = stored_under(address)
    if not found:
        raise UserError(f"there is nothing at {address}.")
    for name in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    filesystem, _ = _filesystem(address)
    try:
        filesystem.get([filesystem._strip_protocol(each.address) for each in found.values()], [str(folder / name) for name in found])
    except Exception as error:
        raise _unreachable(address, error) from error


def limited(content: bytes, where: str) -> bytes:
    """b"" in place of more than a picture table can hold."""
    if len(content) > MAX_FILE_BYTES:
        logger.warning("%s: not read, it has more than %d bytes", where, MAX_FILE_BYTES)
        return b""
    return content


def lance_options(address: str) -> dict[str, str] | None:
    """What Lance must know of a store beyond its credentials, which it finds itself; None for a path."""
    if not is_remote(address):
        return None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if _protocol(address) not in ("s3", "s3a") or endpoint is None:
        return {}
    return {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}


def _filesystem(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, inside = fsspec.core.url_to_fs(address)
    except Exception as error:
        raise _unreachable(address, error) from error
    return filesystem, inside


def _asked(address: str, question: str, **options: Any) -> Any:
    filesystem, inside = _filesystem(address)
    try:
        return getattr(filesystem, question)(inside, **options)
    except Exception as error:  # each store has exceptions of its own, such as botocore's
        raise _unreachable(address, error) from error


def _near(address: str) -> str:
    """What may have been meant; begins with a blank, or is empty."""
    filesystem, inside = _filesystem(address)
    above, _, name = inside.rstrip("/").rpartition("/")
    if not above:
        return f" There is no {_protocol(address)}:// container called {name!r}, or you may not see it."
    try:
        names = sorted({each.rstrip("/").rpartition("/")[2] for each in filesystem.ls(above, detail=False)} - {""})
    except FileNotFoundError:
        return f" Nor is there {filesystem.unstrip_protocol(above)}."
    except Exception as error:
        raise _unreachable(address, error) from error
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f" Did you mean {' or '.join(filesystem.unstrip_protocol(f'{above}/{each}') for each in near)}?"
    return f" {filesystem.unstrip_protocol(above)} has {', '.join(names[:3])}{', …' if len(names) > 3 else ''}." if names else ""


def _unreachable(address: str, error: Exception) -> UserError:
    """What went wrong, with the way out. Stores name the same mistakes in different ways; the names of their exceptions say most."""
    from fsspec import available_protocols

    protocol, kind = _protocol(address), type(error).__name__
    if isinstance(error, UserError):
        return error
    if isinstance(error, ImportError):
        package = PACKAGES.get(protocol)
        how = f".venv/bin/python -m pip install {package}" if package else f"install what this names: {error}"
        return UserError(f"{address}: the package that opens {protocol}:// addresses is not installed: {how}")
    if isinstance(error, ValueError) and protocol not in available_protocols():
        return UserError(f"{address}: nothing opens {protocol}:// addresses. Allowed: a path, or an address of {', '.join(USUAL)}.")
    told = " ".join(str(error).split()) or kind
    if "Credential" in kind or "Credential" in told or "DefaultCredentialsError" in kind:
        return UserError(
            f"{address} cannot be read: there are no credentials for it ({told}). Give them in the environment, for S3"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or where the store's own library looks for them; never in"
            " params.yaml."
        )
    if isinstance(error, PermissionError):
        return UserError(f"{address} may not be read with these credentials ({told}). Ask its owner for the right to list and read it.")
    if isinstance(error, FileNotFoundError):
        return UserError(f"{address} is missing ({told}). Check the address; objects may have been removed meanwhile.")
    return Unreachable(
        f"{address} cannot be reached: {told}. Check the network, the address and, for a server of your own, AWS_ENDPOINT_URL."
    )
