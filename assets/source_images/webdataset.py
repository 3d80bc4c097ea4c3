"""Tar shards as WebDataset and img2dataset write them: 000.jpg, 000.txt, 000.json, 000.cls are of one picture. Meaning: records.py.

The standard library reads them: the picture of a shard is found again by its place in the file, and nothing is unpacked.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from assets import params
from assets.addresses import MAX_FILE_BYTES, exists, is_folder, opened
from assets.errors import UserError
from assets.source_images.files import files_under
from assets.source_images.image_folder import SUFFIXES, utf8_name
from assets.source_images.listed import Listed
from assets.source_images.records import Record, Records, list_records

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
KEY, SHARD = "__key__", "__shard__"  # columns that every sample has, as the library webdataset calls them or nearly so
LONGEST_TEXT = 1 << 24  # bytes; larger members that are no picture are left out
READ_AT_ONCE = 1 << 20  # bytes, of what follows the last member: zeros


class Member(NamedTuple):
    """The place of a picture: `length` bytes from `start` of the shard at `address`."""

    address: str
    start: int
    length: int


class Sample(NamedTuple):
    id: str
    values: dict[str, Any]
    picture: Member | None
    problem: str


def list_webdataset(source: params.WebDataset) -> Listed:
    return list_records(open_webdataset(source.root, tuple(source.columns.values())), source)


def open_webdataset(root: str, wanted: Sequence[str] | None) -> Records:
    """`wanted`: the columns that are kept of each sample; all for None."""
    there: dict[str, None] = {}
    samples: list[Sample] = []
    for name, address in shards_of(root).items():
        for sample in samples_of(name, address):
            there |= dict.fromkeys(sample.values)
            samples.append(sample if wanted is None else sample._replace(values={each: sample.values.get(each) for each in wanted}))

    def read(columns: Sequence[str]) -> Iterator[Record]:
        for sample in samples:
            yield Record(sample.id, sample.values, sample.problem)

    def pictures(positions: Sequence[int], column: str | None) -> Iterator[bytes]:
        return read_members([samples[position].picture for position in positions])

    return Records(list(there), read, pictures)


def shards_of(root: str) -> dict[str, str]:
    """Name without .tar → address, in order of name. UserError where there is none."""
    if not exists(root):
        raise UserError(f"source_images.sources, root: {root} is missing. Allowed: a .tar file, or a folder of such files.")
    found = files_under(root) if is_folder(root) else {root.rstrip("/").rpartition("/")[2]: root}
    if packed := [name for name in found if name.casefold().endswith(PACKED)]:
        raise UserError(f"{root} holds packed shards, such as {packed[0]}. Unpack them to .tar: a picture is found by its place there.")
    shards = {name[: -len(".tar")]: address for name, address in found.items() if name.casefold().endswith(".tar")}
    if not shards:
        raise UserError(f"source_images.sources, root: {root} holds no .tar file. Allowed: a .tar file, or a folder of such files.")
    return shards


def samples_of(name: str, address: str) -> list[Sample]:
    """The samples of a shard in its order; members are of one sample whose names are equal up to the first dot of the file's name."""
    parts: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    places: dict[str, dict[str, Member]] = {}
    files: dict[str, tarfile.TarInfo] = {}
    seen: set[tuple[str, str]] = set()
    with opened(address) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for named in tar:
                    member = files.get(named.linkname) if named.islnk() else named if named.isfile() else None
                    if member is not None:
                        files[named.name] = member  # a hard link may lead to it
                    if member is None or named.name.rpartition("/")[2].startswith("."):
                        continue
                    key, suffix = _split(utf8_name(named.name))
                    parts.setdefault(key, {KEY: key, SHARD: name})
                    if (key, suffix) in seen:
                        problems[key] = f"{name}.tar holds {utf8_name(named.name)} twice, and nobody knows which goes with which."
                    seen.add((key, suffix))
                    if suffix in SUFFIXES:
                        places.setdefault(key, {}).setdefault(suffix, Member(address, member.offset_data, member.size))
                    elif member.size <= LONGEST_TEXT and (file := tar.extractfile(member)) is not None:
                        problem = _take(parts[key], suffix, file.read())
                        if problem:
                            problems.setdefault(key, f"{name}.tar, {utf8_name(named.name)}: {problem}")
                stream.seek(tar.offset)
                while rest := stream.read(READ_AT_ONCE):
                    if rest.strip(b"\0"):
                        raise tarfile.ReadError("a header is broken or cut, or another shard follows its end, as after `cat`")
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            raise UserError(f"{address} is cut or not a tar file: {error}. Fetch or write the shard anew, or remove it.") from error
    found = []
    for key, values in parts.items():
        there = places.get(key, {})
        picture = next((there[suffix] for suffix in SUFFIXES if suffix in there), None)
        problem = problems.get(key, "") if picture else f"{name}.tar: no picture of {key}; suffixes: {', '.join(SUFFIXES)}."
        found.append(Sample(f"{name}/{key}", values, picture, problem))
    return found


def _split(name: str) -> tuple[str, str]:
    """./a/b.seg.PNG → (a/b, seg.png)"""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


def _take(values: dict[str, Any], suffix: str, content: bytes) -> str:
    """Keep what a member says: the keys of a .json, the text of another. What is wrong with it, or ""."""
    try:
        text = content.decode("utf-8-sig")
        if suffix != "json":
            values[suffix] = text
            return ""
        said = json.loads(text)
        if not isinstance(said, dict):
            return "not a JSON object."
    except (ValueError, RecursionError) as error:
        if suffix in ("txt", "json", "cls"):
            return f"not {'JSON' if suffix == 'json' else 'text'} in UTF-8 ({error})."
        return ""  # an array or a model's output, which no column can mean
    for key, value in said.items():  # a member's own text goes before a key of the same name
        values.setdefault(key, value)
    return ""


def read_members(members: Sequence[Member | None]) -> Iterator[bytes]:
    """Shard after shard stays open as long as the pictures are from it."""
    address, stream = None, None
    try:
        for member in members:
            if member is None or member.length > MAX_FILE_BYTES:
                yield b""
                continue
            if stream is None or member.address != address:
                if stream is not None:
                    stream.close()
                address, stream = member.address, opened(member.address)
            stream.seek(member.start)
            yield stream.read(member.length)
    finally:
        if stream is not None:
            stream.close()
