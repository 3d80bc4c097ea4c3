"""What kind of source a path or an address is, by what lies there, for `make demo SOURCE=`. params.yaml can be corrected afterwards."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets.addresses import exists, is_folder, is_remote, opened, stored_under
from assets.errors import UserError
from assets.source_images.hugging_face import open_hugging_face
from assets.source_images.image_folder import LAYOUT
from assets.source_images.image_folder import SUFFIXES as PICTURES
from assets.source_images.lance_table import open_lance
from assets.source_images.records import Records
from assets.source_images.root import check_root
from assets.source_images.table import SUFFIXES as TABLES
from assets.source_images.table import open_table
from assets.source_images.webdataset import open_webdataset

# What people call a column, the likeliest first; upper and lower case are the same.
USUAL = {
    "image": (
        "image",
        "picture",
        "img",
        "photo",
        "jpg",
        "png",
        "image_bytes",
        "bytes",
        "image_path",
        "path",
        "file_name",
        "filename",
        "file",
    ),
    "id": ("id",),
    "label": ("label", "class", "category", "cls"),
    "class_name": ("class_name",),
    "family": ("family",),
    "group": ("group",),
    "split": ("split",),
    "captions": ("captions", "caption", "text", "txt", "description"),
    "license": ("license", "licence"),
    "attribution": ("attribution",),
}
OPENED: dict[str, Callable[[str], Records]] = {
    "table": lambda root: open_table(root, ()),
    "webdataset": lambda root: open_webdataset(root, None),
    "hugging_face": open_hugging_face,
    "lance": open_lance,
}
LOOKED_AT = 100  # rows of a table, of which the first may have no picture
UNSAID = {"license": "unknown", "attribution": "unknown"}


def recognised(root: str) -> dict[str, Any]:
    """The settings of a source that reads `root`, a path or an address where something is. UserError where no kind of source can."""
    kind = _kind(root)
    if kind == "table" and root.endswith(".parquet") and not is_folder(root):
        with contextlib.suppress(pa.ArrowException, OSError), opened(root) as file:  # the table's reader says what is wrong with it
            kind = "hugging_face" if b"huggingface" in (pq.read_schema(file).metadata or {}) else kind  # it names the labels' numbers
    if kind == "image_folder":
        check_root(root)
        return {"kind": kind, "root": root, "folders": ["label"], **UNSAID}
    records = OPENED[kind](root)
    columns = usual_columns(records.columns)
    if kind == "webdataset":
        columns.pop("image", None)
    elif "image" not in columns:
        raise UserError(
            f"SOURCE: {root} has the columns {', '.join(records.columns)}, and none of them is called as columns of pictures usually are:"
            f" {', '.join(USUAL['image'])}. Name it in source_images.sources of params.yaml: columns: {{image: …}}."
        )
    pictures = {"pictures": _folder_of_pictures(root, records, columns["image"])} if kind == "table" else {}
    return {"kind": kind, "root": root, **pictures, "columns": columns, **UNSAID}


def _kind(root: str) -> str:
    path = PurePosixPath(root)
    if not is_folder(root):
        suffix = path.name.casefold()
        if suffix.endswith(tuple(TABLES)):
            return "table"
        kind = {".tar": "webdataset", ".arrow": "hugging_face"}.get(path.suffix.casefold())
        if kind is None:
            raise UserError(
                f"SOURCE: {root} is not a folder, and no table or shard: {', '.join(TABLES)}, .tar. {LAYOUT.format(root='a folder')} Then"
                " name that folder."
            )
        return kind
    names, inside = _held(root)
    if "_versions" in names:
        return "lance"
    if "state.json" in names or "dataset_dict.json" in names:
        return "hugging_face"
    if any(name.casefold().endswith(".lance") for name in names):
        return "lance"
    if any(name.casefold().endswith(".tar") for name in names):
        return "webdataset"
    pictures = any(PurePosixPath(each).suffix.casefold().removeprefix(".") in PICTURES for each in inside)
    return "table" if not pictures and any(name.casefold().endswith(tuple(TABLES)) for name in names) else "image_folder"


def _held(folder: str) -> tuple[list[str], Iterable[str]]:
    """What a folder holds: names of files and folders straight in it, and the paths of all, one after the other."""
    if not is_remote(folder):
        return sorted(each.name for each in Path(folder).iterdir()), (each.name for each in Path(folder).rglob("*"))
    inside = list(stored_under(folder))
    return sorted({each.partition("/")[0] for each in inside}), inside


def usual_columns(there: Sequence[str]) -> dict[str, str]:
    """What each column is → its name, of those that have a usual name."""
    called = {name.casefold(): name for name in reversed(there)}
    return {column: called[names] for column, usual in USUAL.items() if (names := next((each for each in usual if each in called), None))}


def _is_picture(path: str) -> bool:
    return PurePosixPath(path.strip()).suffix.casefold().removeprefix(".") in PICTURES


def _folder_of_pictures(table: str, records: Records, image: str) -> str | None:
    """The folder beside the table in which its pictures' paths begin; None where the table holds the pictures."""
    values = (each.values.get(image) for each in islice(records.read([image]), LOOKED_AT))
    paths = [value for value in values if isinstance(value, str) and _is_picture(value)]
    if not paths:
        return None
    beside = table if is_folder(table) else table.rpartition("/")[0] or "."
    for value in paths:
        named = posixpath.normpath(value.strip().replace("\\", "/"))
        for folder in (beside, *(f"{beside}/{name}" for name in _held(beside)[0])):
            begins = named.removeprefix(posixpath.abspath(folder) + "/") if not is_remote(folder) else named
            if exists(picture := f"{folder}/{begins}") and not is_folder(picture):
                return folder.removeprefix("./")
    value = paths[0]
    raise UserError(
        f"SOURCE: {table} names pictures by paths, such as {value!r}, which begin neither in {beside} nor in a folder there. Put the table"
        " beside them, or set the source in params.yaml by hand: pictures is the folder in which they begin."
    )
