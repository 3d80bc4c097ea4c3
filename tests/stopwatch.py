"""Wall time and processor time of a piece of work, its threads and ended children included: the latter also on a busy machine."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@dataclass(frozen=True)
class Timed:
    """Of one work, done several times. Seconds."""

    wall: np.ndarray
    processor: float  # mean

    @property
    def p50(self) -> float:
        return float(np.median(self.wall))

    @property
    def p99(self) -> float:
        return float(np.percentile(self.wall, 99))

    def __str__(self) -> str:
        return f"p50 {1000 * self.p50:.2f} ms, p99 {1000 * self.p99:.2f} ms, processor {1000 * self.processor:.2f} ms"

    def over(self, other: Timed) -> str:
        return f"{self.p50 / other.p50:.2f} × in wall time (p50), {self.processor / max(other.processor, 1e-9):.2f} × in processor time"


def timed(work: Callable[[Any], Any], items: Iterable[Any], warm_up: int = 3) -> Timed:
    """`work` on each item; the first ones are done once more beforehand."""
    items = list(items)
    for item in items[:warm_up]:
        work(item)
    wall, begun = [], processor_seconds()
    for item in items:
        start = time.perf_counter()
        work(item)
        wall.append(time.perf_counter() - start)
    return Timed(np.array(wall), (processor_seconds() - begun) / len(items))
