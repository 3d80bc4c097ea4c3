"""Stage training_captions@RECIPE: copies pseudo_captions' two tables for a recipe that trains with captions, else empty ones.

A recipe without captions thus has an input that stays the same when captions change, and is not trained again.
"""

from __future__ import annotations

import logging
import shutil

import pyarrow.parquet as pq

from assets import artifacts

logger = logging.getLogger(__name__)


def make_training_captions(recipe: str, wanted: bool) -> None:
    """Write captions.parquet and image_captions.parquet of data/training_captions/<recipe>/, both at once."""
    folder = artifacts.training_captions_dir(recipe)
    with artifacts.replacing(folder) as temporary:
        temporary.mkdir()
        for source in (artifacts.CAPTIONS, artifacts.IMAGE_CAPTIONS):
            if wanted:
                shutil.copyfile(source, temporary / source.name)
            else:
                pq.write_table(pq.read_schema(source).empty_table(), temporary / source.name)
    logger.info("%s: %s", folder, "the pseudo-captions" if wanted else "empty tables, since the recipe trains without captions")
