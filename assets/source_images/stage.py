"""The stage source_images: one source's rows into one Parquet file. Each source is a module of this package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts, params
from assets.source_images.emoji import check_vendors, read_emoji
from assets.source_images.image_folder import read_image_folder
from assets.source_images.npm_packages import install

ROWS_PER_GROUP = 512
BYTES_PER_GROUP = 64 << 20  # big photographs: fewer rows a group, so that a reader's memory stays bounded


def make_source_images(settings: params.SourceImages) -> None:
    rows = {"emoji": _emoji, "image_folder": _image_folder}[settings.kind](settings)
    with artifacts.replacing(artifacts.SOURCE_IMAGES) as temporary:
        write_rows(temporary, rows)


def _emoji(settings: params.SourceImages) -> Iterator[dict[str, Any]]:
    check_vendors(settings.emoji.vendors)
    packages = install(artifacts.EMOJI_PACKAGES, artifacts.WORK / "emoji")
    return read_emoji(packages, settings.emoji.vendors, settings.emoji.size)


def _image_folder(settings: params.SourceImages) -> Iterator[dict[str, Any]]:
    folder = settings.image_folder
    return read_image_folder(Path(folder.root), folder.license, folder.attribution)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows of IMAGES_SCHEMA, holding one row group at a time."""
    schema = artifacts.IMAGES_SCHEMA
    strings = [name for name in schema.names if name != "image"]  # pictures gain nothing from a dictionary, or from minimum and maximum
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=strings, write_statistics=strings) as writer:
        group: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            group.append(row)
            size += len(row["image"])
            if len(group) == ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group, size = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
