"""The machine as torch wants it on a CPU: memory, and threads that share the cores with others. No result depends on it."""

from __future__ import annotations

import ctypes
import os
import sys

# Threads that wait for the next piece of work spin so often before they sleep. libgomp's own default spins for milliseconds: alone that is
# a tenth faster, beside any other work many times slower (tests/benchmarks/openmp.py).
SPINS = "1000"


def tune_for_torch() -> None:
    """Call it before torch is imported. What the user has set stays.

    Tensors on the CPU lie in huge pages and freed pages are kept, which makes a training step a third faster and encoding a fifth.
    Waiting threads of OpenMP soon give their core to others.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # child processes have it too; the rest is each one's own
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; musl has none
        if mallopt is not None:
            mallopt(-4, 0)  # M_MMAP_MAX: no allocation by mmap
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: keep the heap's top
