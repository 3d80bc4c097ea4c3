"""The stage source_images: the source's pictures and captions as one picture table. Each kind of source is a module of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from assets import artifacts, params
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import writing_rows
from assets.source_images.emoji import check_vendors, read_emoji
from assets.source_images.image_folder import read_image_folder
from assets.source_images.npm_packages import install


def make_source_images(settings: params.SourceImages) -> None:
    (source,) = settings.sources
    rows = ROWS_OF[source.kind](source)
    with artifacts.replacing(artifacts.SOURCE_IMAGES) as temporary, writing_rows(temporary, IMAGES_SCHEMA) as write:
        for row in rows:
            write(row)


def _emoji(source: params.Emoji) -> Iterator[dict[str, Any]]:
    check_vendors(source.vendors)
    packages = install(Path(source.root), artifacts.WORK / "emoji")
    return read_emoji(packages, source.vendors, source.size)


def _image_folder(source: params.ImageFolder) -> Iterator[dict[str, Any]]:
    return read_image_folder(Path(source.root), source.license, source.attribution, source.folders)


# The rows of IMAGES_SCHEMA, in order of id, of each kind of source.
ROWS_OF: dict[str, Callable[[Any], Iterator[dict[str, Any]]]] = {"emoji": _emoji, "image_folder": _image_folder}
