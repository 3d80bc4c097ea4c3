"""mAP of 12,000 images against each other, beside GPR1200's public evaluation and a plain argsort in torch: `python -m` this module.

Prints seconds, ratios, the largest difference and peak memory; asserts nothing. Every contender runs alone in a process of its own, in
turns, on the same vectors; the best of its runs counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the parent stays small: a child's peak memory begins at its parent's
    import numpy as np

IMAGES = 12_000
DIMENSIONS = 512
PER_CLASS = 7  # six relevant images a query
SPREAD = 2.3  # of an image about its class: an mAP of about 0.6


def ours(vectors: np.ndarray, classes: np.ndarray, queries: int) -> np.ndarray:
    """AP of each query, itself excluded."""
    from assets.metrics import average_precisions, exclude_self

    without = exclude_self(len(vectors))
    return average_precisions(vectors[:queries], vectors, lambda start, stop: classes[start:stop, None] == classes, without)


def ours_as_gpr1200(vectors: np.ndarray, classes: np.ndarray, queries: int) -> np.ndarray:
    """AP of each query, itself in the ranking."""
    from assets.metrics import average_precisions

    return average_precisions(vectors[:queries], vectors, lambda start, stop: classes[start:stop, None] == classes)


def gpr1200(vectors: np.ndarray, classes: np.ndarray, queries: int) -> np.ndarray:
    """The procedure of eval/utils.py in Visual-Computing/GPR1200, written anew step by step: the query stays in the ranking."""
    import numpy as np
    import torch

    categories = np.array([str(number) for number in classes])  # there they are the first part of the file's name
    gallery = torch.tensor(vectors, dtype=torch.float32)
    similarities = torch.tensor(vectors[:queries], dtype=torch.float32) @ gallery.T
    order = torch.argsort(similarities, dim=1, descending=True)
    torch.gather(similarities, 1, order).numpy()
    indices = order.numpy()
    found = []
    for query in range(len(indices)):
        right = categories[indices[query]] == categories[query]
        positives = np.sum(right.astype(np.int32) == 1)
        score = 0.0
        for seen, place in enumerate(np.where(right.astype(np.int32) == 1)[0], start=1):
            score += seen / (place + 1.0)
        found.append(score / positives)
    return np.array(found)


def torch_argsort(vectors: np.ndarray, classes: np.ndarray, queries: int) -> np.ndarray:
    """The whole ranking of all queries at once, the query itself at the end and not counted."""
    import torch

    gallery, labels = torch.from_numpy(vectors), torch.from_numpy(classes)
    similarities = gallery[:queries] @ gallery.T
    similarities.fill_diagonal_(-torch.inf)
    order = torch.argsort(similarities, dim=1, descending=True)
    right = labels[order] == labels[:queries, None]
    right[:, -1] = False
    query, place = right.nonzero(as_tuple=True)
    positives = right.sum(dim=1)
    first = positives.cumsum(0) - positives
    precision = (torch.arange(len(query)) - first[query] + 1) / (place + 1).double()
    return (torch.zeros(queries, dtype=torch.float64).index_add_(0, query, precision) / positives).numpy()


CONTENDERS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "ours": ours,
    "torch argsort": torch_argsort,
    "ours, query kept": ours_as_gpr1200,
    "GPR1200": gpr1200,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--queries", type=int, default=IMAGES, help="of the two slow contenders; their time is scaled up to all")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--child", nargs=2, metavar=("CONTENDER", "FOLDER"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        _run(given.child[0], Path(given.child[1]), given.queries)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", __spec__.name, "--child", "make", folder], check=True)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for _ in range(given.repeats):
            for name, done in runs.items():
                queries = IMAGES if name.startswith("ours") else given.queries
                command = [sys.executable, "-m", __spec__.name, "--child", name, folder, "--queries", str(queries)]
                done.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        compared = [sys.executable, "-m", __spec__.name, "--child", "compare", folder]
        differences = json.loads(subprocess.run(compared, check=True, capture_output=True, text=True).stdout)

    print(f"{IMAGES:,} × {IMAGES:,} × {DIMENSIONS}, {PER_CLASS - 1} relevant a query, best of {given.repeats}")  # noqa: T201
    best = {name: min(run["seconds"] for run in done) for name, done in runs.items()}
    for name, done in runs.items():
        scaled = f" (scaled from {given.queries:,} queries)" if given.queries < IMAGES and not name.startswith("ours") else ""
        all_seconds = " ".join(f"{run['seconds']:.2f}" for run in done)
        print(f"{name:>17}: {best[name]:6.2f} s{scaled}, {max(run['mib'] for run in done):5.0f} MiB beside the vectors; runs {all_seconds}")  # noqa: T201
    for slow, fast in (("torch argsort", "ours"), ("GPR1200", "ours, query kept"), ("GPR1200", "ours")):
        print(f"{slow} / {fast}: {best[slow] / best[fast]:.1f} ×")  # noqa: T201
    print(f"largest difference of an AP: {differences['argsort']:.1e} from torch argsort, {differences['gpr1200']:.1e} from GPR1200")  # noqa: T201
    # products that differ in the last bit of fp32 change the order of items that are all but equal
    print(f"more than 1e-6 apart: {differences['apart']} queries")  # noqa: T201
    print(f"mAP {differences['map']:.6f}, its largest difference {differences['means']:.1e}")  # noqa: T201


def _run(name: str, folder: Path, queries: int) -> None:
    import numpy as np

    if name == "make":
        generator = np.random.default_rng(0)
        classes = np.arange(IMAGES) // PER_CLASS
        centres = generator.standard_normal((classes[-1] + 1, DIMENSIONS), np.float32)
        vectors = centres[classes] + SPREAD * generator.standard_normal((IMAGES, DIMENSIONS), np.float32)
        np.save(folder / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        np.save(folder / "classes.npy", classes)
        return
    if name == "compare":
        found = {own: np.load(folder / f"{own}.npy") for own in CONTENDERS}
        pairs = {"argsort": ("ours", "torch argsort"), "gpr1200": ("ours, query kept", "GPR1200")}
        cut = {own: (found[a][: len(found[b])], found[b]) for own, (a, b) in pairs.items()}
        differences = {own: float(np.abs(a - b).max()) for own, (a, b) in cut.items()}
        apart = max(int(np.count_nonzero(np.abs(a - b) > 1e-6)) for a, b in cut.values())
        means = max(abs(float(a.mean() - b.mean())) for a, b in cut.values())
        print(json.dumps(differences | {"apart": apart, "means": means, "map": float(found["ours"].mean())}))  # noqa: T201
        return
    vectors, classes = np.load(folder / "vectors.npy"), np.load(folder / "classes.npy")
    contender = CONTENDERS[name]
    contender(vectors[:500], classes[:500], 10)  # imports, threads
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    found = contender(vectors, classes, queries)
    seconds = (time.perf_counter() - begun) * IMAGES / queries
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    np.save(folder / f"{name}.npy", found)
    print(json.dumps({"seconds": seconds, "mib": mib}))  # noqa: T201


if __name__ == "__main__":
    main()
