"""python -m tests.benchmarks.indexes [ROWS DIMENSIONS]: kinds of vector index on random clusters, against exact search and FAISS's HNSW.

For each kind: recall@10 against exact search, the median and 99th percentile of a query as ratios to exact search's median, seconds to
build, and bytes on disk as a ratio to the vectors'. 200,000 × 512 unless told; 1,000,000 × 512 needs 6 GB of memory and an hour.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import lance
import numpy as np
import pyarrow as pa

K, QUERIES, REFINE = 10, 200, 10
KINDS: dict[str, dict[str, Any]] = {
    "exact": {},
    "IVF_SQ": {},
    "IVF_RQ": {},
    "IVF_PQ": {},  # a sub-vector for every eight dimensions
    "IVF_HNSW_SQ": {},
}


def clusters(rows: int, dimensions: int) -> np.ndarray:
    """float32 [rows, dimensions], unit norm, around a thousand centres, as embeddings lie around their classes."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((1000, dimensions), dtype=np.float32)
    vectors = centres[generator.integers(1000, size=rows)] + generator.standard_normal((rows, dimensions), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(rows: int = 200_000, dimensions: int = 512) -> None:
    vectors = clusters(rows, dimensions)
    queries = vectors[:: rows // QUERIES][:QUERIES] + np.float32(0.01)
    flat = faiss.IndexFlatIP(dimensions)
    flat.add(vectors)
    _, truth = flat.search(queries, K)
    table = pa.table({"id": np.arange(rows), "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions)})
    exact_median = None
    for kind, settings in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            dataset = lance.write_dataset(table, folder)
            if kind == "IVF_PQ":
                settings = {"num_sub_vectors": dimensions // 8}
            begun = time.perf_counter()
            if kind != "exact":
                dataset = dataset.create_index("vector", kind, metric="cosine", num_partitions=max(1, rows // 4096), **settings) or dataset
            built = time.perf_counter() - begun
            seconds, found = [], 0
            for query, true in zip(queries, truth, strict=True):
                nearest = {"column": "vector", "q": query, "k": K, "metric": "cosine", "refine_factor": REFINE}
                nearest["use_index"] = kind != "exact"
                begun = time.perf_counter()
                hits = dataset.scanner(columns=["id", "_distance"], nearest=nearest).to_table()["id"].to_pylist()
                seconds.append(time.perf_counter() - begun)
                found += len(set(hits) & set(true.tolist()))
            size = sum(file.stat().st_size for file in (Path(folder) / "_indices").rglob("*") if file.is_file())
            show(kind, found, seconds, exact_median := exact_median or float(np.median(seconds)), built, size / vectors.nbytes)
    begun = time.perf_counter()
    graph = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors)
    built = time.perf_counter() - begun
    graph.hnsw.efSearch = 128
    seconds, found = [], 0
    for query, true in zip(queries, truth, strict=True):
        begun = time.perf_counter()
        _, hits = graph.search(query[None], K)
        seconds.append(time.perf_counter() - begun)
        found += len(set(hits[0].tolist()) & set(true.tolist()))
    assert exact_median is not None
    show("FAISS HNSW", found, seconds, exact_median, built, 1.0)


def show(kind: str, found: int, seconds: list[float], exact: float, built: float, size: float) -> None:
    median, slow = np.median(seconds) / exact, np.percentile(seconds, 99) / exact
    ratios = f"p50 {median:.2f} and p99 {slow:.2f} × exact's p50"
    print(f"{kind:12} recall@10 {found / (QUERIES * K):.3f}  {ratios}  built in {built:.0f} s  {size:.2f} × the vectors")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
