"""The stage source_images: one source's rows into one Parquet file. Each source is a module of this package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assets import artifacts, params
from assets.source_images.emoji import check_vendors, read_emoji
from assets.source_images.image_folder import read_image_folder
from assets.source_images.npm_packages import install


def make_source_images(settings: params.SourceImages) -> None:
    rows = {"emoji": _emoji, "image_folder": _image_folder}[settings.kind](settings)
    with artifacts.replacing(artifacts.SOURCE_IMAGES) as temporary, artifacts.writing_rows(temporary, artifacts.IMAGES_SCHEMA) as write:
        for row in rows:
            write(row)


def _emoji(settings: params.SourceImages) -> Iterator[dict[str, Any]]:
    check_vendors(settings.emoji.vendors)
    packages = install(artifacts.EMOJI_PACKAGES, artifacts.WORK / "emoji")
    return read_emoji(packages, settings.emoji.vendors, settings.emoji.size)


def _image_folder(settings: params.SourceImages) -> Iterator[dict[str, Any]]:
    folder = settings.image_folder
    return read_image_folder(Path(folder.root), folder.license, folder.attribution)
