"""The stage source_images: the pictures and captions of all sources as one picture table. Each kind of source is a module here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from assets import artifacts, params
from assets.addresses import is_remote
from assets.errors import UserError
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import writing_rows
from assets.progress import track
from assets.source_images.emoji import check_vendors, read_emoji
from assets.source_images.hugging_face import list_hugging_face
from assets.source_images.image_folder import list_image_folder
from assets.source_images.lance_table import list_lance
from assets.source_images.listed import Listed, named
from assets.source_images.npm_packages import install
from assets.source_images.refetched import pictures_of
from assets.source_images.table import list_table
from assets.source_images.watched import check_noted
from assets.source_images.webdataset import list_webdataset

logger = logging.getLogger(__name__)


def make_source_images(settings: params.SourceImages) -> None:
    check_noted(settings.sources)
    with artifacts.replacing(artifacts.SOURCE_IMAGES) as temporary, writing_rows(temporary, IMAGES_SCHEMA) as write:
        for source in sorted(settings.sources, key=lambda source: f"{source.name}/"):  # so that all ids are in order
            try:
                for row in read_source(source):
                    write(row)
            except UserError as error:
                if source.name is None:
                    raise
                raise type(error)(f"source {source.name}: {error}") from error
        check_noted(settings.sources)  # what came while it was being read


def read_source(source: Any) -> Iterator[dict[str, Any]]:
    """The rows of IMAGES_SCHEMA of one source, in order of id."""
    if isinstance(source, params.Emoji):
        yield from (named(row, source) for row in _emoji(source))
        return
    listed = LISTED[source.kind](source)
    rows = [named(row, source) for row in listed.rows]
    read = zip(rows, pictures_of(listed, [row["id"] for row in rows]), strict=True)
    for row, picture in track(read, total=len(rows), what="reading pictures", unit="images"):
        yield row | {"image": picture}


def _emoji(source: params.Emoji) -> Iterator[dict[str, Any]]:
    check_vendors(source.vendors)
    packages = install(Path(source.root), artifacts.WORK / "emoji")
    return read_emoji(packages, source.vendors, source.size)


def _image_folder(source: params.ImageFolder) -> Listed:
    root = source.root if is_remote(source.root) else Path(source.root)
    return list_image_folder(root, source.license, source.attribution, source.folders)


# What is known of the pictures before they are read, for each kind of source that is not drawn.
LISTED: dict[str, Callable[[Any], Listed]] = {
    "image_folder": _image_folder,
    "table": list_table,
    "webdataset": list_webdataset,
    "hugging_face": list_hugging_face,
    "lance": list_lance,
}
