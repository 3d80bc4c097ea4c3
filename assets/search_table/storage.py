"""What a version's storage costs and saves: recall against exact search in float32, milliseconds, bytes of vectors and index.

Measured at each publish. The manifest holds no measurement: it is a function of what the table holds, and dvc hashes it. Measurements
stand in the publish's commit, where `make versions` reads them. Shapes: N pictures, d embedding.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.errors import UserError
from assets.progress import report
from assets.search_table.table import DISTANCE, VECTOR, has_vector_index

if TYPE_CHECKING:
    from lance import LanceDataset

logger = logging.getLogger(__name__)

QUERIES = 100  # vectors of the table itself, evenly spaced
K = 10
BLOCK = 65_536  # vectors compared at once
SAME = 1e-6  # cosines that differ less are equal: which of two equal pictures comes first does not matter
LEARNED_FROM = {"IVF_PQ": 256}  # rows: product quantisation learns as many centres for each part of a vector


def index_settings(kind: str, dimension: int) -> dict[str, Any]:
    """IVF_PQ gets one byte for eight dimensions, or for as many as divide `dimension`."""
    if kind != "IVF_PQ":
        return {}
    return {"num_sub_vectors": dimension // next(width for width in (8, 4, 2, 1) if dimension % width == 0)}


def measure(staged: LanceDataset, vectors: np.ndarray, stored: np.ndarray, ids: list[str], refine_factor: int) -> dict[str, Any]:
    """Of a table that holds the rows `stored` (bool [N]) of vectors, float32 [N, d], under these ids [N]."""
    kind = staged.schema.field(VECTOR).type
    indexed = has_vector_index(staged)
    count = staged.count_rows()
    found: dict[str, Any] = {
        "vector_bytes": count * kind.list_size * kind.value_type.bit_width // 8,
        "float32_bytes": count * kind.list_size * 4,
        "index_bytes": sum(int(index.total_size_bytes or 0) for index in staged.describe_indices() if VECTOR in index.field_names),
    }
    if not indexed and kind.value_type.bit_width == 32:
        return found  # exact by definition
    rows = np.flatnonzero(stored)
    queries = vectors[rows[np.unique(np.linspace(0, len(rows) - 1, QUERIES).astype(int))]]
    least = _tenth_best(queries, vectors, stored)
    row_of = {ids[row]: row for row in rows}
    right, seconds = 0, []
    for query, lowest in zip(queries, least, strict=True):
        begun = time.perf_counter()
        hits = nearest(staged, query, refine_factor if indexed else None)
        seconds.append(time.perf_counter() - begun)
        right += int((vectors[[row_of[hit] for hit in hits]] @ query >= lowest - SAME).sum())
    found["recall_at_10"] = round(right / (len(queries) * min(K, count)), 4)
    found["milliseconds"] = round(1000 * float(np.median(seconds)), 2)
    return found


def check(found: dict[str, Any], min_recall: float) -> None:
    """Tell what was measured. UserError where search finds too few of the true ten nearest."""
    report(**{f"index_{name}": value for name, value in found.items()})
    share = (found["vector_bytes"] + found["index_bytes"]) / found["float32_bytes"]
    size = f"vectors and index take {share:.2f} times the bytes of the vectors in float32"
    recall = found.get("recall_at_10")
    if recall is None:
        logger.info("search is exact; %s", size)
        return
    logger.info("search finds %.1f %% of the ten nearest, %.1f ms a query; %s", 100 * recall, found["milliseconds"], size)
    if recall < min_recall:
        raise UserError(
            f"search of the new version finds {100 * recall:.1f} % of the ten nearest, and search_table.min_recall asks for"
            f" {100 * min_recall:.1f} %. The published table stays as it is. Raise search_table.refine_factor, take another"
            " search_table.index, such as IVF_SQ, or raise search_table.index_from_rows: without an index search is exact."
        )


def nearest(dataset: LanceDataset, query: np.ndarray, refine_factor: int | None) -> list[str]:
    """Ids of the K hits, as `search` finds them."""
    asked: dict[str, Any] = {"column": VECTOR, "q": query, "k": K, "metric": DISTANCE}
    if refine_factor is not None:
        asked["refine_factor"] = refine_factor
    found: list[str] = dataset.scanner(columns=["id", "_distance"], nearest=asked).to_table()["id"].to_pylist()
    return found


def _tenth_best(queries: np.ndarray, vectors: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """The cosine of each query's K-th nearest stored row, itself included; of the last one where there are fewer."""
    best = np.full((len(queries), K), -np.inf, np.float32)
    for start in range(0, len(vectors), BLOCK):
        with np.errstate(invalid="ignore", over="ignore"):  # of rows that are not stored
            cosines = np.where(stored[start : start + BLOCK], queries @ vectors[start : start + BLOCK].T, -np.inf)
        best = -np.partition(-np.concatenate([best, cosines], axis=1), K - 1, axis=1)[:, :K]
    lowest: np.ndarray = np.where(np.isfinite(best), best, np.inf).min(axis=1)
    return lowest
