"""Fill a new version of the table beside the visible one: whole, or by the rows that differ. Making it visible is versions.py's.

Which model made the vectors is the stage's concern; this module imports no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset, LanceOperation
from lance.dataset import Index
from lance.fragment import write_fragments

from assets import artifacts
from assets.clip.kept_graphs import keep_graphs
from assets.errors import UserError
from assets.params import SearchTable
from assets.pictures.table import read_batches, read_images_of
from assets.progress import track
from assets.search_table import storage, versions
from assets.search_table.content import hashes, missing_from, prints_of, prints_of_dataset
from assets.search_table.table import DISTANCE, METADATA, TABLE, VECTOR, quoted, table_schema

logger = logging.getLogger(__name__)

CURATED = [name for name in METADATA.names if name not in ("caption", "model")]  # columns that are taken as they are
WORDS = [name for name in CURATED if name != "image"]
INDEXES = {"caption": "FTS", "captions": "FTS", "label": "BTREE", "source": "BITMAP", "split": "BITMAP"}
REWRITE_SHARE = 0.2  # of the rows differ, or lie deleted in the files: then a whole new version costs less than it saves
MOST_FRAGMENTS = 64  # one more for each publish that adds rows; beyond, a whole new version joins them
REINDEX_SHARE = 0.02  # of the rows are in no index; a query compares each of those, until there are so many


@dataclass(frozen=True)
class Library:
    """What is to be published: the curated rows that have an embedding. vectors: float32 [N, d] of all curated rows, in their order."""

    vectors: np.ndarray
    has_embedding: np.ndarray  # bool [N]
    model: str
    batch_size: int
    floats: Literal["float32", "float16"]  # as which they are stored

    @property
    def schema(self) -> pa.Schema:
        return table_schema(self.vectors.shape[1], self.model, self.floats)

    def batches(self, columns: list[str], among: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        """The table's rows, or those whose id is `among`, with these curated columns and the three that are added to them."""
        start = 0
        schema = self.schema
        for every in read_batches(artifacts.CURATED_IMAGES, columns, self.batch_size):
            own, start = slice(start, start + len(every)), start + len(every)
            wanted = pa.array(self.has_embedding[own])
            if among is not None:
                wanted = pc.and_(wanted, pc.is_in(every["id"], value_set=among))
            batch = every.filter(wanted)
            if not len(batch):
                continue
            wordings = zip(batch["class_name"].to_pylist(), batch["captions"].to_pylist(), strict=True)
            values = {name: batch[name].cast(schema.field(name).type) for name in columns}
            values["caption"] = pa.array([name or next(iter(captions or []), "") for name, captions in wordings], pa.string())
            values["model"] = pa.array([self.model] * len(batch), pa.string())
            vectors = self.vectors[own][wanted.to_numpy(zero_copy_only=False)].astype(self.floats)
            values[VECTOR] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            names = [name for name in schema.names if name in values]
            yield pa.record_batch([values[name] for name in names], schema=pa.schema([schema.field(name) for name in names]))


def write_table(
    vectors: np.ndarray,
    ids: list[str],
    left_out: dict[str, str],
    recipe: str,
    model_sha256: str,
    settings: SearchTable,
    similarity: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Publish the curated rows but those `left_out`; returns the manifest. vectors: float32 [N, d], in the order of all `ids`.

    `similarity`: the calibration of cosines, which the manifest keeps.

    Where the visible version has the same model, only rows that are new, changed or gone are written. A picture counts as changed with
    its source's bytes, its words or its vector. UserError where another process publishes at the same time; the table is then theirs.
    """
    library = Library(
        vectors,
        np.array([image not in left_out for image in ids]),
        artifacts.model_name(recipe, model_sha256),
        settings.batch_size,
        settings.vectors,
    )
    wanted = prints_of(library.batches(WORDS))
    least = max(settings.index_from_rows, storage.LEARNED_FROM.get(settings.index, 1))
    indexes = dict(sorted((INDEXES | ({VECTOR: settings.index} if wanted.num_rows >= least else {})).items()))

    def measured(staged: LanceDataset) -> dict[str, Any]:
        found = storage.measure(staged, vectors, library.has_embedding, ids, settings.refine_factor)
        storage.check(found, settings.min_recall)
        return found

    manifest = {
        "recipe": recipe,
        "model_sha256": model_sha256,
        "rows": wanted.num_rows,
        "dimension": vectors.shape[1],
        "distance": DISTANCE,
        "similarity": similarity or {},
        **hashes(wanted),
        "indexes": indexes,
        "columns": {field.name: str(field.type) for field in library.schema},
        "left_out": left_out,
    }
    with versions.only_writer(), versions.named_full_disk():
        versions.keep_model(artifacts.model_dir(recipe), library.model, model_sha256)
        keep_graphs()
        base = versions.open_dataset()
        if base is None:
            _create(library, wanted, manifest, measured)
        else:
            versions.remove_leftovers(base)
            _replace(base, library, wanted, manifest, measured)
        dataset = versions.open_dataset()
        assert dataset is not None
        visible = versions.read_versions(dataset)[-1]
        assert visible.publish is not None
        versions.set_tag(dataset, visible.publish, visible.number)
        versions.set_tag(dataset, versions.CANDIDATE, visible.number)
        versions.record(manifest)
        versions.remove_leftovers(dataset)
        versions.prune(dataset, settings.kept_publishes, settings.kept_days)
    return manifest


Measuring = Callable[[LanceDataset], dict[str, Any]]  # of a version before it is shown; raises where it is not good enough


def _create(library: Library, wanted: pa.Table, manifest: dict[str, Any], measured: Measuring) -> None:
    """The first publish, in a folder beside, which takes the table's place when it is complete."""
    with artifacts.replacing(TABLE) as folder:
        empty = lance.write_dataset(pa.Table.from_batches([], library.schema), folder, schema=library.schema)
        staged = _whole(empty, library, manifest["indexes"])
        _check(prints_of_dataset(staged, library.batch_size), wanted)
        dataset = versions.show(empty, staged.version, versions.next_publish([]), manifest, measured(staged))
        dataset.cleanup_old_versions(versions=[empty.version], delete_unverified=True)  # nobody saw it


def _replace(base: LanceDataset, library: Library, wanted: pa.Table, manifest: dict[str, Any], measured: Measuring) -> None:
    """Make a version with the wanted rows visible: an earlier one that holds them, a changed copy of this one, or a whole new one."""
    known = versions.read_versions(base)
    if known[-1].manifest == manifest:
        logger.info("the table holds these rows already: %s", known[-1].publish)
        return
    publish = versions.next_publish(known)
    same = [version for version in known if version.manifest == manifest]
    if same:
        logger.info("these are the rows of %s, which is kept: nothing is written", same[-1].publish)
        versions.show(base, same[-1].number, publish, manifest, same[-1].measured)
        return
    staged = _changed(base, library, wanted, manifest["indexes"])
    if staged is None:
        staged = _whole(base, library, manifest["indexes"])
        _check(prints_of_dataset(staged, library.batch_size), wanted)
    versions.show(base, staged.version, publish, manifest, measured(staged))


def _whole(base: LanceDataset, library: Library, indexes: dict[str, str]) -> LanceDataset:
    """All rows, as a version that is not visible."""
    total = -(-len(library.vectors) // library.batch_size)
    batches = track(library.batches(CURATED), total, "writing the table", "batches")
    reader = pa.RecordBatchReader.from_batches(library.schema, batches)
    return _indexed(_hidden(base, write_fragments(reader, base, schema=library.schema, mode="overwrite", return_transaction=True)), indexes)


def _changed(base: LanceDataset, library: Library, wanted: pa.Table, indexes: dict[str, str]) -> LanceDataset | None:
    """`base` with what differs deleted and written anew, as a version that is not visible; None where a whole new one is due."""
    if not _same_kind(base, library, indexes):
        return None
    have = prints_of_dataset(base, library.batch_size)
    if len(pc.unique(have["id"])) != have.num_rows:  # something else has written
        return None
    gone, new = missing_from(have, wanted), missing_from(wanted, have)
    fragments = base.get_fragments()
    dead = sum(fragment.physical_rows for fragment in fragments) - have.num_rows + len(gone)
    if max(dead, len(new)) > REWRITE_SHARE * wanted.num_rows or len(fragments) >= MOST_FRAGMENTS:
        return None
    logger.info("the table: %d rows deleted, %d written, %d stay", len(gone), len(new), have.num_rows - len(gone))
    kept, emptied = [], []
    if gone:
        condition = f"id IN ({', '.join(map(quoted, gone))})"
        for fragment in fragments:
            after = fragment.delete(condition)
            if after is None:
                emptied.append(fragment.fragment_id)
            elif after != fragment.metadata:
                kept.append(after)
    added = []
    if new:
        reader = pa.RecordBatchReader.from_batches(library.schema, _rows_of(library, new))
        added = write_fragments(reader, base, schema=library.schema, mode="append")
    staged = base
    if kept or emptied or added:
        staged = _hidden(base, LanceOperation.Update(removed_fragment_ids=emptied, updated_fragments=kept, new_fragments=added))
    before = {fragment.fragment_id for fragment in fragments}
    written = [fragment for fragment in staged.get_fragments() if fragment.fragment_id not in before]
    rows = prints_of_dataset(staged, library.batch_size, written) if written else wanted.slice(0, 0)
    _check(rows, wanted.filter(pc.is_in(wanted["id"], value_set=pa.array(new, pa.string()))))
    if staged.count_rows() != wanted.num_rows:
        raise _other_rows(staged.count_rows(), wanted.num_rows)
    if _rows_in_no_index(staged) > REINDEX_SHARE * wanted.num_rows or _vector_index(staged) != indexes.get(VECTOR):
        return _indexed(_without_indexes(staged), indexes)
    return staged


def _same_kind(base: LanceDataset, library: Library, indexes: dict[str, str]) -> bool:
    """Whether `base` has these columns, these indexes and rows of this model alone, and says so."""
    if base.schema.metadata != library.schema.metadata:
        return False
    if [(field.name, field.type) for field in base.schema] != [(field.name, field.type) for field in library.schema]:
        return False
    if sorted(index.field_names[0] for index in base.describe_indices()) != sorted(indexes):
        return False
    return base.count_rows(filter=f"model IS NULL OR model != {quoted(library.model)}") == 0


def _rows_of(library: Library, ids: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of some ids, with their pictures. Row groups of the curated table without any are not read for pictures."""
    image = library.schema.get_field_index("image")
    for batch in library.batches(WORDS, among=pa.array(ids, pa.string())):
        keys = batch["id"].to_pylist()
        pictures = read_images_of(artifacts.CURATED_IMAGES, keys)
        yield batch.add_column(image, library.schema.field(image), pa.array([pictures[key] for key in keys], pa.binary()))


def _hidden(base: LanceDataset, operation: Any) -> LanceDataset:
    """The version that an operation on `base` makes, detached: no reader sees it, and what it wrote goes unless it is shown."""
    return LanceDataset.commit(base, operation, read_version=base.version, detached=True)


def _indexed(staged: LanceDataset, indexes: dict[str, str]) -> LanceDataset:
    """With all its rows in these indexes. `staged` has none, and is not visible."""
    fragments = [fragment.fragment_id for fragment in staged.get_fragments()]
    made = []
    for column, kind in indexes.items():
        name = f"{column}_idx"
        if kind == "FTS":
            part = staged.create_index_uncommitted(column, "INVERTED", name=name, fragment_ids=fragments)
            made.append(staged.merge_existing_index_segments([part]))
        elif kind in ("BTREE", "BITMAP"):
            made.append(staged.create_index_uncommitted(column, kind, name=name, fragment_ids=fragments))
        else:
            own = storage.index_settings(kind, staged.schema.field(column).type.list_size)
            made.append(staged.create_index_uncommitted(column, kind, name=name, metric=DISTANCE, fragment_ids=fragments, **own))
    return _hidden(staged, LanceOperation.CreateIndex(new_indices=made, removed_indices=[]))


def _vector_index(staged: LanceDataset) -> str | None:
    return next((str(index.index_type) for index in staged.describe_indices() if VECTOR in index.field_names), None)


def _without_indexes(staged: LanceDataset) -> LanceDataset:
    there = [
        Index(segment.uuid, index.name, index.fields, segment.dataset_version_at_last_update, segment.fragment_ids, segment.index_version)
        for index in staged.describe_indices()
        for segment in index.segments
    ]
    return _hidden(staged, LanceOperation.CreateIndex(new_indices=[], removed_indices=there))


def _rows_in_no_index(staged: LanceDataset) -> int:
    """Rows of fragments that some index lacks."""
    covered = [{number for segment in index.segments for number in segment.fragment_ids} for index in staged.describe_indices()]
    within_all = set.intersection(*covered)
    return sum(fragment.count_rows() for fragment in staged.get_fragments() if fragment.fragment_id not in within_all)


def _check(found: pa.Table, wanted: pa.Table) -> None:
    """UserError where what was read back is not what was to be written."""
    if not found.combine_chunks().equals(wanted.combine_chunks()):
        raise _other_rows(found.num_rows, wanted.num_rows)


def _other_rows(found: int, wanted: int) -> UserError:
    return UserError(
        f"the new version of the table in {artifacts.LANCEDB} holds {found} rows after writing {wanted}, or other ones: the disk, or"
        f" another process, has changed them. It was not published. {versions.HOW_TO_PUBLISH}"
    )
