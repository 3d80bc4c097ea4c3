"""What the measures hold in memory beside their vectors: `python -m` this module. Prints MiB; asserts nothing.

A large gallery with few and with more queries, and many queries with a small gallery: what grows with neither grows with no product of
them. Every line runs in a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the parent stays small: a child's peak memory begins at its parent's
    import numpy as np

DIMENSIONS = 16
MANY, MILLION = 100_000, 1_000_000
PER_CLASS = 7


def mean_ap(queries: np.ndarray, gallery: np.ndarray, classes: np.ndarray) -> object:
    import numpy as np

    from assets.metrics import exclude_self, mean_average_precision

    own = exclude_self(len(gallery)) if len(queries) <= len(gallery) else None
    query_classes = np.resize(classes, len(queries))  # as the queries: the gallery's rows in turn
    return mean_average_precision(queries, gallery, lambda start, stop: query_classes[start:stop, None] == classes, own)


def all_relevant(queries: np.ndarray, gallery: np.ndarray, classes: np.ndarray) -> object:
    import numpy as np

    from assets.metrics import relevant_ranks, trapezoidal_average_precision

    ranks = relevant_ranks(queries, gallery, lambda start, stop: np.ones((stop - start, len(gallery)), bool))
    return [trapezoidal_average_precision(own) for own in ranks]


def knn(queries: np.ndarray, gallery: np.ndarray, classes: np.ndarray) -> object:
    from assets.metrics import knn_predictions

    return knn_predictions(queries, gallery, classes, k=21, temperature=0.1)


def captions(queries: np.ndarray, gallery: np.ndarray, classes: np.ndarray) -> object:
    import numpy as np

    from assets.metrics import recall_at_k

    owner, rows = np.arange(len(gallery)) % len(queries), np.arange(len(queries))
    return recall_at_k(gallery, queries, lambda start, stop: owner[start:stop, None] == rows, 5)


def health(queries: np.ndarray, gallery: np.ndarray, classes: np.ndarray) -> object:
    from assets.metrics import alignment, drift, effective_rank, hubness, modality_gap, same_class_threshold, uniformity

    pairs = gallery[: len(queries)]
    whole = modality_gap(gallery, queries), effective_rank(gallery), alignment(gallery, gallery), drift(gallery, gallery)
    return whole, uniformity(pairs), hubness(pairs, 10), same_class_threshold(pairs, classes[: len(pairs)])


LINES: list[tuple[Callable[[np.ndarray, np.ndarray, np.ndarray], object], int, int]] = [
    (mean_ap, 64, MILLION),
    (mean_ap, 256, MILLION),
    (mean_ap, MANY, 500),
    (all_relevant, 8, MILLION),
    (knn, 64, MILLION),
    (knn, MANY, 500),
    (captions, 500, MANY),
    (health, 2_000, MANY),
    (health, 4_000, MILLION),
]


def main() -> None:
    if len(sys.argv) == 2:
        _run(int(sys.argv[1]))
        return
    for number, (measure, queries, gallery) in enumerate(LINES):
        command = [sys.executable, "-m", __spec__.name, str(number)]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        matrix = queries * gallery * 4 / 2**20
        print(  # noqa: T201
            f"{measure.__name__:>12} {queries:>7,} × {gallery:>9,}: {done['mib']:4.0f} MiB beside the vectors"
            f" (all similarities at once: {matrix:,.0f} MiB), {done['seconds']:.1f} s"
        )


def _run(number: int) -> None:
    import numpy as np

    measure, queries, items = LINES[number]
    generator = np.random.default_rng(0)
    gallery = generator.standard_normal((items, DIMENSIONS), np.float32)
    for start in range(0, items, 10_000):
        gallery[start : start + 10_000] /= np.linalg.norm(gallery[start : start + 10_000], axis=1, keepdims=True)
    asked = gallery[np.arange(queries) % items]
    classes = np.arange(items) // PER_CLASS
    measure(asked[:10], gallery[:1000], classes[:1000])  # imports, threads
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    measure(asked, gallery, classes)
    seconds = time.perf_counter() - begun
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    print(json.dumps({"mib": mib, "seconds": seconds}))  # noqa: T201


if __name__ == "__main__":
    main()
