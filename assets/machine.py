"""How torch uses a CPU: its memory, and threads that share the cores with other work. No result depends on it."""

from __future__ import annotations

import ctypes
import os
import sys

# How often a thread that waits for the next piece of work spins before it sleeps. libgomp's default spins for milliseconds: a tenth faster
# on an idle machine, many times slower beside any other work (tests/benchmarks/openmp.py).
SPINS = "1000"


CORES = "ONESPACE_CORES"  # in the environment of a process that has a share of its machine


def cores() -> int:
    """How many this process may use: of a machine that it shares, its part."""
    return int(os.environ.get(CORES, "0")) or os.cpu_count() or 1


def tune_for_torch() -> None:
    """Call it before torch is imported: libgomp reads the environment when it loads. What the user has set stays.

    Tensors on the CPU lie in huge pages and freed pages are kept, which makes a training step a third faster and encoding a fifth.
    Waiting threads of OpenMP give their core to others soon.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # child processes inherit the environment; the rest is this process's alone
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; musl has none
        if mallopt is not None:
            mallopt(-4, 0)  # M_MMAP_MAX: no allocation by mmap
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: keep the heap's top
