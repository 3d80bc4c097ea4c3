"""python -m tests.benchmarks.indexes [ROWS DIMENSIONS]: the table's kinds of vector index, from disk, against FAISS in memory, on clusters.

Recall@10 against exact search, p50 and p99 of a query and its processor time, each ÷ FAISS HNSW's; seconds to build, bytes ÷ the float32
vectors'. The bar: the default kind takes at most 10 × HNSW's p50 at a recall of 0.98 or more. 100,000 × 512 unless told; 1,000,000 × 512
needs 8 GB of memory and an hour. Kinds are built as a publish builds them (assets/search_table/storage.py).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import lance
import numpy as np
import pyarrow as pa

from assets.params import read_params
from assets.search_table.storage import index_settings
from assets.search_table.table import KINDS
from tests.stopwatch import Timed, timed

K, QUERIES = 10, 200
LANCE = [
    ("float32", "IVF_SQ"),
    ("float16", "IVF_SQ"),
    ("float32", "IVF_HNSW_SQ"),
    ("float32", "IVF_RQ"),
    ("float32", "IVF_PQ"),
    ("float32", None),
]
EF_SEARCH = (64, 128, 256, 512, 1024)  # of HNSW: the first with the wanted recall is taken
WANTED = 0.98


def clusters(rows: int, dimensions: int) -> np.ndarray:
    """float32 [rows, dimensions], unit norm, around a thousand centres, as embeddings lie around their classes."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((1000, dimensions), dtype=np.float32)
    vectors = generator.standard_normal((rows, dimensions), dtype=np.float32)
    vectors += centres[generator.integers(1000, size=rows)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def exact(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return np.asarray(flat.search(queries, K)[1])


def recall(find: Callable[[np.ndarray], Any], queries: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(find(query)) & set(true.tolist())) / K for query, true in zip(queries, truth, strict=True)]))


def main(rows: int = 100_000, dimensions: int = 512) -> None:
    vectors = clusters(rows, dimensions)
    queries = vectors[:: max(1, rows // QUERIES)][:QUERIES] + np.float32(0.01)
    truth = exact(queries, vectors)
    show(f"{rows:,} × {dimensions}, {len(queries)} queries; refine_factor {refine_factor()}")
    reference = by_hnsw(vectors, queries, truth)
    by_ivf_pq(vectors, queries, truth, reference)
    for floats, kind in LANCE:
        in_lance(floats, kind, vectors, queries, truth, reference)


def by_hnsw(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Timed:
    dimensions = vectors.shape[1]
    begun = time.perf_counter()
    graph = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors)
    built = time.perf_counter() - begun

    def by_graph(query: np.ndarray) -> list[int]:
        return list(graph.search(query[None], K)[1][0].tolist())

    for ef in EF_SEARCH:
        graph.hnsw.efSearch = ef
        if (found := recall(by_graph, queries, truth)) >= WANTED:
            break
    reference = timed(by_graph, queries)
    show(f"FAISS HNSW, efSearch {ef}", found, reference, reference, built, 1 + 32 * 2 * 4 / (4 * dimensions))
    return reference


def by_ivf_pq(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray, reference: Timed) -> None:
    rows, dimensions = vectors.shape
    begun = time.perf_counter()
    lists = max(16, int(rows**0.5))
    coarse = faiss.index_factory(dimensions, f"IVF{lists},PQ{dimensions // 8}", faiss.METRIC_INNER_PRODUCT)
    coarse.train(vectors[:: max(1, rows // (lists * 64))])
    coarse.add(vectors)
    coarse.nprobe = min(20, lists)
    refined = faiss.IndexRefineFlat(coarse, faiss.swig_ptr(vectors))
    refined.k_factor = refine_factor()
    built = time.perf_counter() - begun

    def by_lists(query: np.ndarray) -> list[int]:
        return list(refined.search(query[None], K)[1][0].tolist())

    show(
        "FAISS IVF_PQ, refined",
        recall(by_lists, queries, truth),
        timed(by_lists, queries),
        reference,
        built,
        dimensions / 8 / (4 * dimensions),
    )


def in_lance(floats: str, kind: str | None, vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray, reference: Timed) -> None:
    rows, dimensions = vectors.shape
    flat = pa.array(vectors.astype(floats).ravel(), KINDS[floats])
    table = pa.table({"id": np.arange(rows), "vector": pa.FixedSizeListArray.from_arrays(flat, dimensions)})
    with tempfile.TemporaryDirectory() as folder:
        lance.write_dataset(table, folder)
        begun = time.perf_counter()
        if kind is not None:
            lance.dataset(folder).create_index("vector", kind, metric="cosine", **index_settings(kind, dimensions))
        built = time.perf_counter() - begun
        dataset = lance.dataset(folder)

        def by_table(query: np.ndarray) -> list[int]:
            nearest: dict[str, Any] = {"column": "vector", "q": query, "k": K, "metric": "cosine"}
            if kind is not None:
                nearest["refine_factor"] = refine_factor()
            return list(dataset.scanner(columns=["id", "_distance"], nearest=nearest).to_table()["id"].to_pylist())

        found = recall(by_table, queries, truth)
        took = timed(by_table, queries if kind else queries[:20])
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file() and file.suffix != ".manifest")
        name = f"Lance {kind or 'exact'}, {floats}"
        show(name, found, took, reference, built, size / (4 * rows * dimensions))
        if kind == "IVF_SQ" and floats == "float32":
            met = found >= WANTED and took.p50 <= 10 * reference.p50
            show(
                f"  bar, p50 ≤ 10 × HNSW's at recall ≥ {WANTED}: {'met' if met else 'MISSED'} ({took.over(reference)}, recall {found:.3f})"
            )


def refine_factor() -> int:
    return read_params()[0].search_table.refine_factor


def show(
    what: str,
    found: float | None = None,
    took: Timed | None = None,
    reference: Timed | None = None,
    built: float = 0.0,
    size: float = 0.0,
) -> None:
    if took is not None and reference is not None:
        what = f"{what:28} recall@10 {found:.3f}  {took}  {took.over(reference)}  built in {built:.0f} s  {size:.2f} × the vectors' bytes"
    print(what, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
