"""The columns of the LanceDB table `images`, and how it is opened. Filling it is writing.py's, searching it query.py's.

Imports lancedb and lance only where a table is touched: importing this package must stay cheap.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import pyarrow as pa

from assets import artifacts
from assets.addresses import check_there, is_remote, lance_options
from assets.errors import UserError

if TYPE_CHECKING:
    from lance import LanceDataset
    from lancedb.table import Table

TABLE = artifacts.LANCEDB / f"{artifacts.TABLE_NAME}.lance"
MODELS = artifacts.LANCEDB / "models"  # one for each model of a version that is kept, by its name in column `model`
VECTOR = "vector"
KINDS = {"float32": pa.float32(), "float16": pa.float16()}  # of its numbers
EMBEDDING_FUNCTION = "onespace"  # in LanceDB's registry, once assets.search_table.embedding_function is imported
PROPERTY = "onespace"  # of a publish's commit: JSON with `publish`, its name, `manifest` and `measured`
DISTANCE: Final = "cosine"
MAKE_ALL = "`make demo` makes everything from the start. In a clone of a project whose data are in a dvc remote, `dvc pull` comes first."

# Everything but the vector. `caption` is what a person would write under the picture: its class_name, or captions[0] where it has none;
# `model` is <recipe>@<first 12 of the SHA-256 of the model directory>.
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


def table_schema(dimension: int, model: str, floats: Literal["float32", "float16"]) -> pa.Schema:
    """`floats`: of the vectors. `model`: the name of the one that makes them.

    LanceDB reads from the metadata how to embed a query.
    """
    columns = {"source_column": "image", "vector_column": VECTOR}
    told = json.dumps([{"name": EMBEDDING_FUNCTION, "model": {"made_by": model}, **columns}])
    return METADATA.append(pa.field(VECTOR, pa.list_(KINDS[floats], dimension))).with_metadata({"embedding_functions": told})


def _place() -> str:
    """Where queries read: data/lancedb, or an address with a copy of it."""
    from assets.search_table.query_settings import settings

    return settings().search.table


def open_table() -> Table:
    """The table `images` of data/lancedb, or of search.table; a plain lancedb.Table. Its next query sees what was published meanwhile."""
    return _open(timedelta(0))


def open_version(wanted: str | int | None = None) -> LanceDataset:
    """The table as it is now, or an earlier publish (a tag or number). It stays so: several queries see one version and one model.

    As a Lance dataset: importing lancedb takes longer than a search.
    """
    place = _place()
    if not is_remote(place) and not any((TABLE / "_versions").glob("*.manifest")):  # also what a killed first publish leaves
        raise _absent()
    import lance

    try:
        dataset = lance.dataset(f"{place}/{TABLE.name}", storage_options=lance_options(place))
    except (ValueError, OSError, RuntimeError) as error:
        raise (_absent_there(place) if is_remote(place) else damaged(error)) from error
    if wanted is None:
        return dataset
    try:
        return dataset.checkout_version(int(wanted) if str(wanted).isdecimal() else str(wanted))
    except (ValueError, RuntimeError, OverflowError, OSError):
        raise UserError(f"there is no version {str(wanted)[:80]!r} of the table. `make versions` lists them.") from None


def manifest_of(dataset: LanceDataset) -> dict[str, Any]:
    """What the publish that wrote this version says of it; empty where something else wrote it."""
    try:
        transaction = dataset.read_transaction(dataset.version)
    except (OSError, ValueError, RuntimeError):  # its file is gone
        return {}
    said = (transaction.transaction_properties or {}) if transaction else {}
    found: dict[str, Any] = json.loads(said.get(PROPERTY, "{}")).get("manifest", {})
    return found


def is_damage(error: Exception) -> bool:
    """Whether Lance lacks a file or part of one, by its message: its errors are of few types."""
    return any(said in str(error) for said in ("Not found", "LanceError(IO)", "No such file", ".lance not found"))


def damaged(error: Exception) -> UserError:
    place, said = _place(), str(error).splitlines()[0][:200]
    way_out = "`make share` copies it anew." if is_remote(place) else _how_to_make_it()
    return UserError(f"the table at {place} is damaged, a file of it is cut or gone: {said}. {way_out}")


def _absent() -> UserError:
    return UserError(f"there is no table {artifacts.TABLE_NAME!r} in {artifacts.LANCEDB}. {_how_to_make_it()}")


def _absent_there(place: str) -> UserError:
    """Why a table at an address does not open, as its store says it."""
    try:
        check_there(f"{place}/{TABLE.name}", "search.table")
    except UserError as error:
        return UserError(f"{error} `make share TO={place}` copies the table there; search.table: {artifacts.LANCEDB} searches it here.")
    return UserError(f"search.table: what lies at {place} is not a table that Lance can open. `make share` with an empty folder makes one.")


def _open(read_consistency_interval: timedelta) -> Table:
    place = _place()
    if not is_remote(place) and not artifacts.LANCEDB.is_dir():  # connecting would make it
        raise _absent()
    import lancedb

    try:
        connected = lancedb.connect(place, read_consistency_interval=read_consistency_interval, storage_options=lance_options(place))
        return connected.open_table(artifacts.TABLE_NAME)
    except (ValueError, OSError, RuntimeError) as error:  # also what a killed first publish leaves: listed, but not there
        raise _absent_there(place) if is_remote(place) else _absent() from error


def _how_to_make_it() -> str:
    """Alone where all that it is made from is here: in a clone the pictures' folder is empty, and the stages above would read it anew."""
    if artifacts.CURATED_IMAGES.is_dir() and artifacts.VERDICT.is_file():
        return "`dvc checkout; dvc repro --force --single-item search_table` makes it from what is here."
    return MAKE_ALL


def has_vector_index(dataset: LanceDataset) -> bool:
    return any(VECTOR in index.field_names for index in dataset.describe_indices())


def quoted(text: str) -> str:
    """A text as a value in SQL."""
    return "'" + text.replace("'", "''") + "'"
