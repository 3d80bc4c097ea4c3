"""The columns of the LanceDB table `images`, and how it is opened. Filling it is writing.py's, searching it query.py's.

Imports lancedb only where a table is touched: importing this package must stay cheap.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from assets import artifacts
from assets.errors import UserError

if TYPE_CHECKING:
    from lancedb.table import Table

TABLE = artifacts.LANCEDB / f"{artifacts.TABLE_NAME}.lance"
MODELS = artifacts.LANCEDB / "models"  # one for each model of a version that is kept, by its name in column `model`
VECTOR = "vector"
DISTANCE: Final = "cosine"
MAKE_ALL = "`make demo` makes everything from the start. In a clone of a project whose data are in a dvc remote, `dvc pull` comes first."

# Everything but the vector. `caption` is captions[0], or class_name for a picture without captions; `model` is <recipe>@<first 12 of the
# SHA-256 of the model directory>.
METADATA = pa.schema(
    [
        # the key is recorded, not enforced; with it, concurrent calls of merge_insert double no id
        pa.field("id", pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
        pa.field("image", pa.binary()),
        pa.field("caption", pa.string()),
        pa.field("captions", pa.list_(pa.string())),
        pa.field("label", pa.string()),
        pa.field("class_name", pa.string()),
        pa.field("group", pa.string()),
        pa.field("source", pa.string()),
        pa.field("license", pa.string()),
        pa.field("attribution", pa.string()),
        pa.field("split", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("model", pa.string()),
    ]
)


def table_schema(dimension: int) -> pa.Schema:
    return METADATA.append(pa.field(VECTOR, pa.list_(pa.float32(), dimension)))


def model_name(recipe: str, sha256: str) -> str:
    return f"{recipe}@{sha256[:12]}"


def open_table() -> Table:
    """The table `images` of data/lancedb, a plain lancedb.Table. Its next query sees what was published meanwhile."""
    return _open(timedelta(0))


def open_version() -> Table:
    """The table as it is now. It stays so: several queries see one version, with the rows of one model."""
    return _open(None)


def _open(read_consistency_interval: timedelta | None) -> Table:
    absent = UserError(f"there is no table {artifacts.TABLE_NAME!r} in {artifacts.LANCEDB}. {_how_to_make_it()}")
    if not artifacts.LANCEDB.is_dir():  # connecting would make it
        raise absent
    import lancedb

    try:
        return lancedb.connect(artifacts.LANCEDB, read_consistency_interval=read_consistency_interval).open_table(artifacts.TABLE_NAME)
    except ValueError as error:  # also what a killed first publish leaves: listed, but not there
        raise absent from error


def _how_to_make_it() -> str:
    """Alone where all that it is made from is here: in a clone the pictures' folder is empty, and the stages above would read it anew."""
    if artifacts.CURATED_IMAGES.is_dir() and artifacts.VERDICT.is_file():
        return "`dvc checkout; dvc repro --force --single-item search_table` makes it from what is here."
    return MAKE_ALL


def has_vector_index(table: Table) -> bool:
    return any(VECTOR in index.columns for index in table.list_indices())
