"""python -m assets.evaluation.benchmarks: list the known benchmarks, whether each is there, and the layout that it must have."""

from __future__ import annotations

import sys
from pathlib import Path

from assets.errors import UserError
from assets.evaluation.benchmarks.registry import BENCHMARKS, IMAGENET_TRAIN, IMAGENET_TRAIN_LAYOUT, IMAGENET_TRAIN_SOURCE
from assets.evaluation.benchmarks.run import find_benchmarks
from assets.params import read_params


def main() -> int:
    try:
        root = Path(read_params()[0].evaluation.benchmarks_root)
        found = find_benchmarks(root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [(each.name, each.layout, each.source) for each in BENCHMARKS] + [(IMAGENET_TRAIN, IMAGENET_TRAIN_LAYOUT, IMAGENET_TRAIN_SOURCE)]
    for name, layout, source in rows:
        state = "not there" if name in found.skipped else found.incomplete.get(name, "complete")
        print(f"{root / name}: {state}\n    {layout}\n    {source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
