"""Stage training_captions@RECIPE: of pseudo_captions' two tables what a recipe trains with; empty ones where it trains without captions.

A recipe without captions thus has an input that stays the same when captions change, and is not trained again.
"""

from __future__ import annotations

import logging
import shutil

import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts
from assets.params import Captions

logger = logging.getLogger(__name__)


def make_training_captions(recipe: str, wanted: Captions | None) -> None:
    """Write captions.parquet and image_captions.parquet of data/training_captions/<recipe>/, both at once.

    `wanted`: own, the captions of the picture's source and its class name; found, the ones found in the corpus; or both. None: none.
    """
    folder = artifacts.training_captions_dir(recipe)
    with artifacts.replacing(folder) as temporary:
        temporary.mkdir()
        for source in (artifacts.CAPTIONS, artifacts.IMAGE_CAPTIONS):
            if wanted is None:
                pq.write_table(pq.read_schema(source).empty_table(), temporary / source.name)
            elif wanted == "both" or source == artifacts.CAPTIONS:
                shutil.copyfile(source, temporary / source.name)
            else:
                pq.write_table(_some(pq.read_table(source), own=wanted == "own"), temporary / source.name)
    said = {"own": "the pictures' own captions", "found": "the found captions", "both": "the pictures' own captions and the found ones"}
    logger.info("%s: %s", folder, said[wanted] if wanted else "empty tables, since the recipe trains without captions")


def _some(of_images: pa.Table, *, own: bool) -> pa.Table:
    """The same pictures with those captions alone that are, or are not, their own."""
    rows = of_images.to_pylist()
    lists = [name for name in of_images.column_names if name != "id"]
    for row in rows:
        chosen = [place for place, its_own in enumerate(row["own"]) if its_own == own]
        row |= {name: [row[name][place] for place in chosen] for name in lists}
    return pa.Table.from_pylist(rows, schema=of_images.schema)
