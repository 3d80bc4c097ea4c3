"""Search the published table by words, pictures and its own rows, with the very model that made its vectors.

Which vector stands for a query is decided here; the model is query_towers.py's, opening the table table.py's, the filter language
filters.py's, the command line __main__.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from assets.errors import UserError
from assets.search_table.cutoff import Cutoff, lowest_cosine
from assets.search_table.filters import checked_filter, refused
from assets.search_table.query_settings import settings
from assets.search_table.query_towers import towers_of, vectors_of
from assets.search_table.table import (
    DISTANCE,
    METADATA,
    VECTOR,
    damaged,
    has_vector_index,
    is_damage,
    manifest_of,
    open_version,
    quoted,
)

if TYPE_CHECKING:
    from lance import LanceDataset

T = TypeVar("T")
Query = str | Path | bytes | Image.Image
Weighted = Query | tuple[Query, float]
By = Literal["vector", "text", "hybrid"]
WAYS = ("vector", "text", "hybrid")
TEXT_COLUMNS = ["caption", "captions"]  # those with a full-text index
SHORTEST_SUM = 1e-6  # a sum of queries, the largest weight of which is 1, shorter than this points nowhere
ROUNDING = 1e-6  # of a cosine
PUBLISH = "`dvc repro --force --single-item search_table` publishes it anew."
FIRST_FETCH = 4  # times the hits that are wanted, where some will be folded away


@dataclass(frozen=True)
class Asked:
    """What a search looks for, told apart: queries with their weights, and ids of the table's own pictures with theirs."""

    queries: list[tuple[Any, float]]
    like: list[tuple[str, float]]

    @property
    def texts(self) -> list[str]:
        """Those that are wanted, for a full-text search."""
        return [query for query, weight in self.queries if isinstance(query, str) and weight > 0]

    @property
    def kind(self) -> Literal["picture", "text"]:
        """By whose calibration a cutoff is read: a text's similarities are lower than a picture's."""
        return "text" if any(isinstance(query, str) for query, _ in self.queries) else "picture"


def search(
    query: Query | list[Weighted] | None = None,
    k: int = 10,
    where: str | None = None,
    *,
    like: str | list[str | tuple[str, float]] | None = None,
    by: By = "vector",
    cutoff: Cutoff | None = None,
    fold: bool = False,
    offset: int = 0,
    among: Sequence[str] | None = None,
    version: str | int | None = None,
) -> pa.Table:
    """The `k` images of the table nearest to `query`, nearest first (fewer where the table, the filter or the cutoff leaves fewer).

    A str is always text; a pathlib.Path, encoded bytes or a PIL.Image is a picture. A list of these, each alone or as (query, weight), is
    one query: the unit-norm vectors times their weights, added up; a negative weight leads away from what it weighs. `like` adds pictures
    of the table by id («more like this»); they are not among the hits.

    `by`: vector; text, the words of the captions (BM25); or hybrid, both rankings joined by reciprocal-rank fusion. `where`: a condition
    over the table's columns, applied before ranking: "split = 'library' and width >= 64"; filters.py says what it may hold. `cutoff`
    leaves out hits with a lower cosine: a number, or `same` or `related` as the table's version was calibrated. `fold` leaves out hits
    that are nearly identical to a better one (search.near_identical); column `folded` says how many, at least. `among`: ids; no other is
    ranked. `offset` skips so many hits; pages belong together if they are of one `version` (a tag or number of `make versions`), which
    the result's schema metadata name.

    Columns: the table's without `vector`, and `_distance`, the cosine distance (0 same direction, 1 unrelated, 2 opposite); by text and
    hybrid also `_score` or `_relevance_score`. Exact, unless the table has a vector index.
    """
    asked = _asked(query, like)
    _check_numbers(k, offset)
    if by not in WAYS:
        raise UserError(f"by is {by!r}; it must be one of {', '.join(WAYS)}.")
    if by != "vector" and not any(text.strip() for text in asked.texts):
        raise UserError(f"by={by!r} compares words, and the query has none. Give a text, or by='vector'.")
    condition = None if where is None else checked_filter(where)
    table = open_version(version)  # a publish in between must not bring vectors of another model
    own = settings().search
    vector = None
    if by != "text":
        vector = _one_vector(asked, table)
    if cutoff is not None and vector is None:
        raise UserError("a cutoff is a cosine, and a search by='text' compares words alone. Search by='vector' or by='hybrid'.")
    lowest = None if cutoff is None else lowest_cosine(cutoff, asked.kind, manifest_of(table).get("similarity", {}))
    condition = _with_ids(condition, "NOT IN", [key for key, _ in asked.like])
    if among is not None:
        condition = _with_ids(condition, "IN", check_unicode(among, "among"))
    rows = table.count_rows()
    if not rows:
        raise _without_rows()
    # not by how many hits are asked for, or each page of a hybrid search would be of another ranking
    depth = min(rows, own.max_hits)

    def hits_up_to(count: int) -> pa.Table:
        count = min(count, rows)
        return _ranked(table, asked.texts, vector, by, condition, count, where, depth=depth, lowest=lowest, with_vectors=fold)

    offset, k = min(int(offset), rows), min(int(k), rows)
    hits = _folded(hits_up_to, offset + k, own.near_identical) if fold else hits_up_to(offset + k)
    return hits.slice(offset, k).replace_schema_metadata({"version": str(table.version)})


def search_each(queries: Sequence[Query], k: int = 10, where: str | None = None) -> pa.Table:
    """The hits of many queries in one call and of one version; column `query_index` says whose each row is. Otherwise like `search`."""
    _check_numbers(k, 0)
    condition = None if where is None else checked_filter(where)
    table = open_version()
    queries = _several(queries)
    if not queries:
        raise UserError("there are no queries. Give a list of texts and pictures.")
    vectors = vectors_in(queries, table)
    found = []
    for number, vector in enumerate(vectors):
        hits = _by_vector(table, vector, condition, min(k, table.count_rows()), [*METADATA.names], where)
        found.append(hits.append_column("query_index", pa.array([number] * hits.num_rows, pa.int32())))
    return pa.concat_tables(found)


def embed(queries: Query | Sequence[Query]) -> np.ndarray:
    """float32 [N, d], unit norm: the vectors of N queries, or of one (N = 1), in the space of the table's column `vector`.

    Queries are as in `search`; texts and pictures may stand in one list. Their dot product is their cosine similarity.
    """
    return vectors_in(_several(queries), open_version())


def _several(queries: Any) -> list[Any]:
    """A list of queries for what one or several were given as."""
    if isinstance(queries, str | bytes | Path | Image.Image) or queries is None:
        return [queries]
    return list(queries)


def _asked(query: Any, like: Any) -> Asked:
    queries = [] if query is None else [_weighted(each) for each in query] if isinstance(query, list) else [(query, 1.0)]
    ids = [] if like is None else [_weighted(each) for each in like] if isinstance(like, list) else [(like, 1.0)]
    if not queries and not ids:
        raise UserError("there is nothing to look for. Give words, a picture, several of them in a list, or like=<id of the table>.")
    check_unicode([key for key, _ in ids], "like")
    check_unicode([text for text, _ in queries if isinstance(text, str)], "query")
    return Asked(queries, ids)


def check_unicode(texts: Sequence[Any], what: str) -> Sequence[str]:
    """UserError for what is no text, or holds half a character, which no table has."""
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"{what} takes ids of the table (str); given {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"{what} {ascii(text)[:80]} holds half a character (a lone surrogate). Give text in Unicode.") from None
    return texts


def _weighted(given: Any) -> tuple[Any, float]:
    if not isinstance(given, tuple):
        return given, 1.0
    try:
        weight = float(given[1]) if len(given) == 2 and _is_number(given[1], Real) else 0.0
    except OverflowError:  # a whole number of hundreds of digits
        weight = 0.0
    if not np.isfinite(weight) or not weight:
        raise UserError(
            f"a tuple is (query, weight) with a finite weight other than 0; given {len(given)} values, {str(given[1:])[:80]} last."
        )
    return given[0], weight


def _is_number(given: Any, kind: type) -> bool:
    """Of Python or numpy."""
    return isinstance(given, kind) and not isinstance(given, bool)


def _check_numbers(k: Any, offset: Any) -> None:
    if not _is_number(k, Integral) or k < 1:
        raise UserError(f"k is {k!r}; it must be a whole number of at least 1.")
    if not _is_number(offset, Integral) or offset < 0:
        raise UserError(f"offset is {offset!r}; it must be a whole number of at least 0.")


def vectors_in(queries: Sequence[Any], table: LanceDataset) -> np.ndarray:
    """float32 [N, d], unit norm, by the model that made this version of the table."""
    check_unicode([query for query in queries if isinstance(query, str)], "query")
    chosen = settings()
    towers = towers_of(model_of(table), chosen)
    vectors = vectors_of(queries, towers, int(chosen.curated_images.max_megapixels * 1e6))
    expected = table.schema.field(VECTOR).type.list_size
    if vectors.shape[1] != expected:
        raise UserError(f"the table has vectors of {expected} dimensions, its model gives {vectors.shape[1]}. `dvc repro search_table`.")
    return vectors


def model_of(table: LanceDataset) -> str:
    """The name of the model that made the table's vectors. UserError where something else wrote rows, of another model or of none."""
    if "model" not in table.schema.names:
        raise UserError(f"the table has no column model, so onespace did not publish it. {PUBLISH}")
    whole = bool(manifest_of(table))  # then it is one model's
    found = pc.unique(_readable(lambda: table.scanner(columns=["model"], limit=1 if whole else None).to_table()["model"])).to_pylist()
    if not found:
        raise _without_rows()
    if len(found) > 1 or not found[0]:
        named = ", ".join(str(name) for name in found[:3])
        raise UserError(f"the table's rows are of {len(found)} model(s), {named}: their vectors cannot be compared. {PUBLISH}")
    return str(found[0])


def _without_rows() -> UserError:
    return UserError(f"the table has no rows, so no model made it. {PUBLISH}")


def _one_vector(asked: Asked, table: LanceDataset) -> np.ndarray:
    """float32 [d], unit norm: the weighted sum of all that is asked."""
    parts = []
    largest = max(abs(weight) for _, weight in (*asked.queries, *asked.like))
    if asked.queries:
        weights = np.array([weight / largest for _, weight in asked.queries])
        parts.append(weights @ vectors_in([query for query, _ in asked.queries], table))
    if asked.like:
        stored = _stored([key for key, _ in asked.like], table)
        parts += [weight / largest * vector for (_, weight), vector in zip(asked.like, stored, strict=True)]
    total = np.sum(parts, axis=0)
    length = float(np.linalg.norm(total))
    if length < SHORTEST_SUM:
        raise UserError("the queries and their weights cancel out: nothing is left to look for. Change a weight.")
    return np.asarray(total / length, np.float32)


def _stored(ids: Sequence[str], table: LanceDataset) -> list[np.ndarray]:
    found = table.scanner(columns=["id", VECTOR], filter=f"id IN ({', '.join(map(quoted, ids))})").to_table()
    vector_of = dict(zip(found["id"].to_pylist(), found[VECTOR].to_pylist(), strict=True))
    if missing := [key for key in ids if key not in vector_of]:
        raise UserError(f"the table has no picture with the id {missing[0][:80]!r}. Ids are in its column id, such as those of hits.")
    if bare := [key for key in ids if vector_of[key] is None]:
        raise UserError(f"the picture {bare[0][:80]!r} has no vector, so nothing is known to be like it.")
    return [np.asarray(vector_of[key], np.float32) for key in ids]


def _with_ids(condition: str | None, how: Literal["IN", "NOT IN"], ids: Sequence[str]) -> str | None:
    if not ids and how == "NOT IN":
        return condition
    these = f"id {how} ({', '.join(map(quoted, ids)) or 'NULL'})"
    return these if condition is None else f"({condition}) AND {these}"


def _ranked(
    table: LanceDataset,
    texts: list[str],
    vector: np.ndarray | None,
    by: By,
    condition: str | None,
    count: int,
    where: str | None,
    *,
    depth: int,
    lowest: float | None,
    with_vectors: bool,
) -> pa.Table:
    """The first `count` hits with a cosine of at least `lowest`; a hybrid search joins the first `depth` of each ranking, or `count`.

    Columns: METADATA, `vector` if wanted, `_distance`, and the scores of `by`.
    """
    columns = [*METADATA.names, *([VECTOR] if with_vectors else [])]
    words = " ".join(texts)
    if by == "text":
        return _by_text(table, words, condition, count, columns, where)
    assert vector is not None
    if by == "vector":
        return _above(_by_vector(table, vector, condition, count, columns, where), lowest)
    from lancedb.rerankers import RRFReranker

    depth = max(depth, count)
    near = _by_vector(table, vector, condition, depth, ["id", VECTOR], where, with_row_id=True)
    worded = _by_text(table, words, condition, depth, ["id", VECTOR], where, with_row_id=True)
    joined = _above(_with_distances(RRFReranker().rerank_hybrid(words, near, worded), vector), lowest).slice(0, count)
    joined = joined.select([*(["id", VECTOR] if with_vectors else ["id"]), "_distance", "_relevance_score"])
    rows = table.scanner(columns=METADATA.names, filter=f"id IN ({', '.join(map(quoted, joined['id'].to_pylist())) or 'NULL'})").to_table()
    found = rows.take(pc.index_in(joined["id"], rows["id"]))
    for name in joined.column_names[1:]:
        found = found.append_column(name, joined[name])
    return found


def _above(hits: pa.Table, lowest: float | None) -> pa.Table:
    return hits if lowest is None else hits.filter(pc.less_equal(hits["_distance"], 1 - lowest + ROUNDING))


def _by_vector(
    table: LanceDataset,
    vector: np.ndarray,
    condition: str | None,
    count: int,
    columns: list[str],
    where: str | None,
    *,
    with_row_id: bool = False,
) -> pa.Table:
    nearest: dict[str, Any] = {"column": VECTOR, "q": vector, "k": count, "metric": DISTANCE}
    if has_vector_index(table):
        nearest["refine_factor"] = settings().search_table.refine_factor
    return _scanned(table, condition, where, columns=[*columns, "_distance"], nearest=nearest, with_row_id=with_row_id)


def _by_text(
    table: LanceDataset, words: str, condition: str | None, count: int, columns: list[str], where: str | None, *, with_row_id: bool = False
) -> pa.Table:
    from lance.query import MultiMatchQuery

    query = MultiMatchQuery(words, TEXT_COLUMNS)
    found = _scanned(table, condition, where, columns=[*columns, "_score"], limit=count, full_text_query=query, with_row_id=with_row_id)
    return found.sort_by([("_score", "descending")])


def _scanned(table: LanceDataset, condition: str | None, where: str | None, **asked: Any) -> pa.Table:
    """The rows that fit `condition`, which is `where` written out; UserError where Lance cannot compare what it compares."""
    try:
        return _readable(lambda: table.scanner(filter=condition, prefilter=True, **asked).to_table())
    except (ValueError, RuntimeError, OSError) as error:
        if where is None:
            raise
        raise refused(where, re.sub(r",? \S+\.rs:\d+.*", "", str(error).splitlines()[0])) from error  # without the place in lance's source


def _readable(read: Callable[[], T]) -> T:
    """UserError where a file of the table is cut or gone."""
    try:
        return read()
    except (ValueError, RuntimeError, OSError) as error:
        if is_damage(error):
            raise damaged(error) from error
        raise


def _with_distances(hits: pa.Table, vector: np.ndarray) -> pa.Table:
    """Those of hits that words alone have found, too."""
    distances = pa.array(1 - _matrix(hits) @ vector, pa.float32())
    without = hits.drop_columns(["_distance"]) if "_distance" in hits.column_names else hits
    return without.append_column("_distance", distances)


def _matrix(hits: pa.Table) -> np.ndarray:
    """float32 [N, d] of the column `vector`."""
    flat = hits[VECTOR].combine_chunks()
    return np.asarray(flat.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(hits), flat.type.list_size)


def _folded(hits_up_to: Any, wanted: int, near_identical: float) -> pa.Table:
    """The first `wanted` hits of which none is nearly identical to a better one; `folded` counts those that each stands for."""
    count = FIRST_FETCH * wanted
    while True:
        hits = hits_up_to(count)
        kept, stands_for = _heads(_matrix(hits), near_identical)
        if len(kept) >= wanted or hits.num_rows < count:
            break
        count *= FIRST_FETCH
    heads = hits.take(pa.array(kept[:wanted], pa.int64())).drop_columns([VECTOR])
    return heads.append_column("folded", pa.array(stands_for[:wanted], pa.int32()))


def _heads(vectors: np.ndarray, near_identical: float) -> tuple[list[int], list[int]]:
    """(rows of [N, d] that no earlier kept row is nearly identical to, how many later rows each of them stands for)."""
    kept: list[int] = []
    stands_for: list[int] = []
    for row, vector in enumerate(vectors):
        cosines = vectors[kept] @ vector if kept else np.zeros(0)
        if len(cosines) and cosines.max() >= near_identical:
            stands_for[int(cosines.argmax())] += 1
        else:
            kept.append(row)
            stands_for.append(0)
    return kept, stands_for
