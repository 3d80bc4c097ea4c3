"""Where work over many pictures runs: an engine maps a function over pieces of work, in this process or on a Ray cluster.

What the function does is its stage's concern, and what comes out is the same: an engine decides where and how many at a time, and that
every piece comes back once. Settings: section engine of params.yaml.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from typing import Any, Protocol

from assets.errors import UserError
from assets.params import Engine as Settings
from assets.params import LocalEngine

Work = Callable[[Any, Any], Sized]  # of (what all pieces share, a piece): a result for each item of the piece, in order


class Worker(Protocol):
    """What a process needs before it can work, such as a model. It is sent to other processes, so it holds settings and paths alone."""

    def opened(self) -> AbstractContextManager[Work]:
        """Load it: each process does so once, and works on many pieces."""


class Engine(Protocol):
    remote: bool  # the workers are other processes, perhaps on other machines: pieces are sent to them

    def map(self, worker: Worker, pieces: Iterable[Iterable[Any]], shared: Any = None, *, device: str = "cpu") -> Iterator[Any]:
        """What the work gives of each piece, in their order; pieces are taken from `pieces` when their turn is near.

        device: where the work computes; on cuda each worker has an accelerator of its own.
        """

    def group(self, count: int, device: str, member: Callable[[int, int, str], None]) -> None:
        """member(rank, how many, the address at which the first rank is found) in `count` processes that work together to the end.

        For remote engines alone: training/processes.py starts those of this machine.
        """

    def has_accelerators(self) -> bool:
        """Whether remote workers get a GPU each."""


class _Here:
    """This process. A piece is worked on when its result is asked for."""

    remote = False

    def map(self, worker: Worker, pieces: Iterable[Iterable[Any]], shared: Any = None, *, device: str = "cpu") -> Iterator[Any]:
        with worker.opened() as work:
            for piece in pieces:
                yield work(shared, piece)

    def group(self, count: int, device: str, member: Callable[[int, int, str], None]) -> None:
        raise NotImplementedError

    def has_accelerators(self) -> bool:
        raise NotImplementedError


HERE: Engine = _Here()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    """The engine of these settings while it lasts; what it started ends with it. It connects to a cluster when it is first needed."""
    if isinstance(settings, LocalEngine):
        yield HERE
        return
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "engine.kind is ray, and Ray is not installed here. `make` installs it into .venv; elsewhere run `python -m pip install"
            " ray`, in the version of requirements.lock, on every machine of the cluster. To work on this machine alone, set engine: {kind:"
            " local}."
        )
    from assets.ray_cluster import Cluster

    cluster = Cluster(settings)
    try:
        yield cluster
    finally:
        cluster.close()
