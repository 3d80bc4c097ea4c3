"""The rows of a source whose pictures have columns: a table, tar shards, a dataset. Reading the files is the modules' that give Records."""

from __future__ import annotations

import base64
import binascii
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from assets.addresses import is_folder, is_remote, limited, read_each, read_file, stored_under
from assets.errors import UserError
from assets.params import Records as Settings
from assets.pictures.families import one_family
from assets.source_images.files import files_under
from assets.source_images.folder_levels import SPLIT_NAMES, split_named
from assets.source_images.image_folder import class_name_of
from assets.source_images.known_paths import KnownPaths
from assets.source_images.listed import Listed, Row
from assets.source_images.spelling import one_spelling

logger = logging.getLogger(__name__)

SHOWN = 3
ENOUGH_TEXTS = 10  # of the first pictures, none of which is one
URL_SAFE = str.maketrans("-_", "+/")  # the other alphabet of base64
ONE_EACH = {"label": "labels", "family": "families", "given_split": "splits", "group": "groups", "license": "licences"}  # of a picture


@dataclass(frozen=True)
class Record:
    """What the columns hold of one picture, and the id that it has by its place. `problem`: why it cannot be used, "" where it can."""

    id: str
    values: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class Records:
    """`columns`: that there are. `read`, of the columns wanted, gives the records in the source's order.

    `pictures`, of positions in that order and the column of the pictures, gives what this column holds, in the order of the positions.
    """

    columns: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[Record]]
    pictures: Callable[[Sequence[int], str | None], Iterator[Any]]


class Files:
    """The pictures in the folder `root`, a path or an address."""

    def __init__(self, root: str) -> None:
        if not is_folder(root):
            raise UserError(f"pictures: {root} is no folder. It holds the files that the column image names.")
        self.objects = stored_under(root) if is_remote(root) else {}
        self.paths = {} if is_remote(root) else files_under(root)
        self.known = KnownPaths([*self.objects, *self.paths], root)

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        if self.objects:
            return read_each([self.objects[name] for name in names])
        return (read_file(self.paths[name]) for name in names)


def list_records(records: Records, settings: Settings, pictures: str | None = None) -> Listed:
    """The pictures of a source. `pictures`: the folder of the files that the column image names; None where it holds the pictures.

    A picture's id is what the column id holds; without that column its file's path, else its place in the source. Rows without a column
    id that name the same file are of one picture, whose captions they share. A record that cannot be used becomes a row without a
    picture, so that curated_images counts and rejects it.
    """
    columns: Mapping[str, str] = settings.columns  # type: ignore[assignment]
    check_columns(records.columns, columns, settings.root)
    files = None if pictures is None else Files(pictures)
    image = columns.get("image")
    wanted = [name for name in dict.fromkeys(columns.values()) if files is not None or name != image]
    rows: list[tuple[Row, int | str | None]] = []
    by_file: dict[str, Row] = {}
    problems: list[str] = []
    for position, record in enumerate(records.read(wanted)):
        problem, own_id = record.problem, record.id
        place: int | str | None = position
        values = {} if problem else {column: record.values.get(name) for column, name in columns.items()}
        if files is not None and not problem:
            named = values["image"]
            written = text_of(named, f"{record.id}, column {image}") or ""
            found = named if isinstance(named, str) and named in files.known.names else files.known.find(written)
            own_id = found or written or record.id
            place = found
            if found is None:
                hint = files.known.hint(written) if len(problems) < SHOWN else ""  # it looks at all the files
                problem = f"{record.id}: no file {written!r} in {pictures}.{hint}"
        row = _row(values, own_id, settings, record.id)
        if problem:
            problems.append(problem)
            place = None
        elif isinstance(place, str) and "id" not in columns:
            if place in by_file:
                _merge(by_file[place], row, record.id)
                continue
            by_file[place] = row
        rows.append((row, place))
    if problems:
        told = " ".join(problems[:SHOWN])
        if len(problems) == len(rows):
            raise UserError(f"{settings.root}: none of its {len(rows)} rows can be used. {told}")
        logger.warning("%s: %d of %d rows cannot be used: %s", settings.root, len(problems), len(rows), told)
    if not rows:
        raise UserError(f"source_images.sources, root: {settings.root} holds no pictures.")
    family_of = one_family((row["label"], row["family"], row["id"]) for row, _ in rows)
    for row, _ in rows:
        row["family"] = None if row["label"] is None else family_of.get(row["label"])
        row["given_split"] = None if row["label"] is None else row["given_split"]
        row |= {column: row[column] or getattr(settings, column) for column in ("license", "attribution")}
    rows.sort(key=lambda each: each[0]["id"])
    labels = {row["label"] for row, _ in rows} - {None}
    without = sum(row["label"] is None for row, _ in rows)
    logger.info("%s: %d pictures, %d labels, %d without a label", settings.root, len(rows), len(labels), without)

    def read(positions: Sequence[int]) -> Iterator[bytes]:
        texts = decoded = 0
        places = [rows[position][1] for position in positions]
        held = records.pictures([place for place in places if isinstance(place, int)], image)
        filed = iter(()) if files is None else files.read([place for place in places if isinstance(place, str)])
        for position, place in zip(positions, places, strict=True):
            if isinstance(place, int):
                value = next(held)
                picture = picture_of(value, rows[position][0]["id"], image)
                texts, decoded = texts + isinstance(value, str | dict | list), decoded + bool(picture)
                if texts == ENOUGH_TEXTS and not decoded:
                    raise UserError(
                        f"{settings.root}: column {image} holds no encoded picture, also none in base64, but such as {str(value)[:40]!r}."
                        " Where these are paths, use kind: table and set pictures to the folder in which they begin; Hugging Face's library"
                        " puts the pictures themselves into a dataset with embed_external_files."
                    )
                yield picture
            elif isinstance(place, str):
                yield next(filed)
            else:
                yield b""

    objects = {} if files is None else files.objects
    return Listed([row for row, _ in rows], read, [objects.get(place) if isinstance(place, str) else None for _, place in rows])


def check_columns(there: Sequence[str], columns: Mapping[str, str], root: str) -> None:
    for column, name in columns.items():
        if list(there).count(name) > 1:
            raise UserError(f"source_images.sources, columns.{column}: {root} has the column {name!r} more than once. Rename the others.")
        if name not in there:
            raise UserError(f"source_images.sources, columns.{column}: {root} has no column {name!r}. It has {', '.join(there) or 'none'}.")


def _row(values: Mapping[str, Any], own_id: str, settings: Settings, where: str) -> Row:
    """A row of IMAGES_SCHEMA without its picture, its given_split checked; licence and attribution where the record itself has them.
    `where` names the record in errors.
    """

    def text(column: str) -> str | None:
        return text_of(values.get(column), f"{settings.root}: {where}, column {settings.columns[column]}" if column in values else where)  # type: ignore[index]

    label, split = text("label"), text("split")
    if split is not None and split_named(split) is None:
        raise UserError(f"{settings.root}: {where} has the split {split!r}. Allowed, in any case: {', '.join(SPLIT_NAMES)}, or nothing.")
    return {
        "id": text("id") or own_id,
        "label": label,
        "class_name": "" if label is None else text("class_name") or class_name_of(label),
        "group": text("group"),
        "family": text("family"),
        "given_split": None if split is None else split_named(split),
        "captions": captions_of(values.get("captions"), f"{settings.root}: {where}"),
        "source": settings.kind,
        "license": text("license"),
        "attribution": text("attribution"),
    }


def _merge(row: Row, other: Row, where: str) -> None:
    """Put another row of the same picture into `row`."""
    for column, kinds in ONE_EACH.items():
        if row[column] is not None and other[column] is not None and row[column] != other[column]:
            raise UserError(
                f"{where}: the picture {row['id']} has two {kinds}, {row[column]} and {other[column]}. Keep the one that is meant in all"
                " its rows, or map a column id, so that each row is a picture of its own."
            )
        row[column] = other[column] if row[column] is None else row[column]
    row["class_name"] = row["class_name"] or other["class_name"]
    row["attribution"] = "; ".join(dict.fromkeys(each for each in (row["attribution"], other["attribution"]) if each)) or None
    row["captions"] = list(dict.fromkeys([*row["captions"], *other["captions"]]))


def text_of(value: Any, where: str) -> str | None:
    """A column's value in one spelling; None for nothing. Numbers are written as people do: 3.0 is 3."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, Decimal):  # as databases export numbers
        value = float(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise UserError(f"{where}: given {str(value)[:80]}; allowed is one text or number. Name another column, or make it one value.")
    return one_spelling(_whole(str(value)).strip()) or None


def _whole(text: str) -> str:
    """Half of a character, as where a text was cut inside an emoji, becomes �: no table can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def captions_of(value: Any, where: str) -> list[str]:
    """One caption, or a list of them, as distinct captions in their order."""
    texts = value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(caption for each in texts if (caption := text_of(each, f"{where}, captions")) is not None))


def picture_of(value: Any, where: str, column: str | None) -> bytes:
    """The encoded picture in a value: bytes, base64, or a mapping with `bytes`, as Hugging Face keeps it; b"" where there is none."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        try:
            text = value.partition("base64,")[2] if value.startswith("data:") else value
            value = base64.b64decode("".join(text.split()).translate(URL_SAFE), validate=True)
        except (binascii.Error, ValueError):
            logger.warning("%s: column %s holds no picture in base64, but %r", where, column, value[:40])
            return b""
    if not isinstance(value, bytes):
        logger.warning("%s: column %s holds no picture, but %s", where, column, str(value)[:40])
        return b""
    return limited(value, where)
