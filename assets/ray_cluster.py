"""The engine on a Ray cluster: pools of workers that map over pieces of work, and groups that train together. Alone here Ray is imported.

The stage's process drives: it connects to the cluster, and Ray ends all that it started there when this process ends, however it ends.
So a stage is a child of dvc as ever, whose log and cancellation reach Dagster as ever, and dvc.lock and the outputs stay where dvc looks
for them. A job of Ray's job server would run dvc in a checkout of its own, whose record would have to come back.

Every machine sees the checkout under the same path, and the same Python environment: pictures travel to the workers, but models are read,
and training state and results are written, where this process finds them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from assets import machine, progress
from assets.artifacts import sha256_of
from assets.engine import Work, Worker
from assets.errors import UserError
from assets.imports import PACKAGE
from assets.params import RayEngine

logger = logging.getLogger(__name__)

AT_ONCE = 2  # pieces that a worker has: one that it works on, and the next
AHEAD = 4  # pieces that are sent, or done before their turn, for each worker: what bounds memory
SECONDS_TO_SAY = 10.0  # of a member whose loss another one noticed first
LOST = (RayActorError, OutOfMemoryError, WorkerCrashedError, ObjectLostError)  # with its process or its machine, and not by its own fault

Member = Callable[[int, int, str], None]


class Cluster:
    """The engine of these settings. It connects when it is first needed, and holds one pool at most."""

    remote = True

    def __init__(self, settings: RayEngine) -> None:
        self.settings = settings
        self._home: _Home | None = None
        self._pool: _Pool | None = None

    def map(self, worker: Worker, pieces: Iterable[Iterable[Any]], shared: Any = None, *, device: str = "cpu") -> Iterator[Any]:
        """See engine.Engine. A lost worker's pieces go to the others, and another worker takes its place; no other piece is done again."""
        yield from self._pool_of(worker, device).map(pieces, shared)

    def group(self, count: int, device: str, member: Member) -> None:
        """See engine.Engine. When a member is lost, all begin again, from what they have saved: as many as before or, when the cluster has
        no room for them any longer, so few that their number divides it. What the first member logs and reports is passed on.
        """
        home, settings = self._connected(), self.settings
        self._end_pool()
        sizes = [size for size in range(count, 0, -1) if count % size == 0]
        for lost in range(settings.retries + 1):
            with _room(sizes if lost else sizes[:1], self._each(device), settings.patience_seconds) as (size, place):
                if size < count:
                    logger.warning("the cluster has room for %d of the %d processes: training goes on with these", size, count)
                try:
                    _Group(home, size, self._each(device), place).run(member)
                    return
                except _Lost as problem:
                    logger.warning("%s; training goes on from its last saved state", problem)
        raise UserError(
            f"the training lost one of its processes {settings.retries + 1} times (engine.retries: {settings.retries}); their messages"
            " stand above. The next run goes on from the last saved state."
        )

    def has_accelerators(self) -> bool:
        self._connected()
        return bool(ray.cluster_resources().get("GPU"))

    def close(self) -> None:
        """End the workers; a cluster of the stage alone ends too."""
        self._end_pool()
        if self._home is not None:
            ray.shutdown()
            self._home = None

    def _each(self, device: str) -> dict[str, int]:
        """What Ray sets aside for each process."""
        return {"num_cpus": self.settings.cpus, "num_gpus": int(device.partition(":")[0] == "cuda")}

    def _pool_of(self, worker: Worker, device: str) -> _Pool:
        """The workers that have loaded this already, or new ones in the place of others."""
        packed = pickle.dumps(worker)
        if self._pool is None or (self._pool.worker, self._pool.each) != (packed, self._each(device)):
            home = self._connected()
            self._end_pool()
            self._pool = _Pool(home, packed, self._each(device), self.settings)
        return self._pool

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.end()
            self._pool = None

    def _connected(self) -> _Home:
        if self._home is not None:
            return self._home
        address, folder = self.settings.address, str(Path.cwd())
        own = {"num_cpus": self.settings.workers * self.settings.cpus, "include_dashboard": False} if address == "local" else {}
        paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        cores = {"PYTHONPATH": paths, machine.CORES: str(self.settings.cpus)}
        try:
            ray.init(address, logging_level=logging.WARNING, runtime_env={"env_vars": cores}, **own)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise UserError(
                f"no Ray cluster could be reached at engine.address {address}: {str(error).splitlines()[0]}. Start one (`ray start --head`,"
                " on the other machines `ray start --address=head:6379`), set address: local for one on this machine, or engine:"
                " {kind: local}."
            ) from error
        self._home = _Home(folder, sha256_of(PACKAGE))
        return self._home


@dataclass(frozen=True)
class _Home:
    """The checkout, as every process of the cluster must find it."""

    folder: str
    code: str  # sha256

    def enter(self) -> None:
        node = socket.gethostname()
        if not Path(self.folder).is_dir():
            raise UserError(f"the machine {node} has no folder {self.folder}. Every machine of the cluster must see the checkout there.")
        os.chdir(self.folder)
        if sha256_of(PACKAGE) != self.code:
            raise UserError(f"the code in {PACKAGE} of the machine {node} is not this checkout's. Bring all machines to one revision.")
        machine.tune_for_torch()
        logging.basicConfig(format=f"%(asctime)s {node} %(process)d: %(message)s", datefmt="%H:%M:%S")


def _own(error: RayTaskError) -> BaseException:
    """What the code of the worker raised."""
    return UserError(str(error.cause)) if isinstance(error.cause, UserError) else error


class _Worker:
    """A process of a pool."""

    def open(self, home: _Home, packed: bytes) -> None:
        home.enter()
        logging.getLogger("assets").setLevel(logging.WARNING)  # the driver shows how far all have come
        self.held = contextlib.ExitStack()
        self.work: Work = self.held.enter_context(pickle.loads(packed).opened())

    def do(self, shared: Any, piece: list[Any]) -> Any:
        return self.work(shared, piece)


WORKER: Any = ray.remote(_Worker)


@dataclass
class _Piece:
    number: int
    items: int
    sent: Any  # where Ray keeps it
    lost_with: int = 0  # workers


class _Pool:
    """Workers that have loaded the same."""

    def __init__(self, home: _Home, worker: bytes, each: dict[str, int], settings: RayEngine) -> None:
        self.home, self.worker, self.each, self.settings = home, worker, each, settings
        self.opening: dict[Any, Any] = {}  # workers by what says that they are ready
        self.ready: list[Any] = []
        self.failed_to_open = 0
        self.alone_since = 0.0  # without a ready worker

    def map(self, pieces: Iterable[Iterable[Any]], shared: Any) -> Iterator[Any]:
        source, taken, given = iter(pieces), 0, 0
        known: Any = None  # where Ray keeps what is shared
        waiting: deque[_Piece] = deque()
        flying: dict[Any, tuple[_Piece, Any]] = {}  # by what will be the result; with the worker
        done: dict[int, Any] = {}
        ended = False
        while not ended or waiting or flying or done:
            while given in done:
                yield done.pop(given)
                given += 1
            if not ended and not waiting and taken - given < AHEAD * self.settings.workers:
                try:
                    items = list(next(source))
                except StopIteration:
                    ended = True
                    continue
                if items:
                    waiting.append(_Piece(taken, len(items), ray.put(items)))
                else:
                    done[taken] = ()  # nothing to do, and no reason to start a worker
                taken += 1
            if waiting:
                self._start_missing()
                if (free := self._free(flying)) is not None:
                    known = ray.put(shared) if known is None else known
                    piece = waiting.popleft()
                    flying[free.do.remote(known, piece.sent)] = piece, free
                    continue
            if flying or waiting:
                self._hear(flying, waiting, done)

    def end(self) -> None:
        for worker in [*self.ready, *self.opening.values()]:
            ray.kill(worker)
        self.ready, self.opening = [], {}

    def _start_missing(self) -> None:
        if not self.ready and not self.opening:
            self.alone_since = time.monotonic()
        while len(self.ready) + len(self.opening) < self.settings.workers:
            worker = WORKER.options(**self.each).remote()
            self.opening[worker.open.remote(self.home, self.worker)] = worker

    def _free(self, flying: dict[Any, tuple[_Piece, Any]]) -> Any | None:
        """The ready worker with the fewest pieces, unless all have AT_ONCE."""
        pieces = dict.fromkeys(self.ready, 0)
        for _, worker in flying.values():
            if worker in pieces:  # else it is lost, and its pieces come back
                pieces[worker] += 1
        least = min(pieces, key=lambda worker: pieces[worker], default=None)
        return least if least is not None and pieces[least] < AT_ONCE else None

    def _hear(self, flying: dict[Any, tuple[_Piece, Any]], waiting: deque[_Piece], done: dict[int, Any]) -> None:
        """Wait for the next piece that is done, worker that is ready, or worker that is lost."""
        patience = None if self.ready else self.alone_since + self.settings.patience_seconds - time.monotonic()
        found, _ = ray.wait([*flying, *self.opening], num_returns=1, timeout=patience if patience is None else max(0.0, patience))
        if not found:
            raise UserError(_no_room(self.each, self.settings.patience_seconds))
        (what,) = found
        if what in self.opening:
            self._opened(what)
            return
        piece, worker = flying.pop(what)
        try:
            result = ray.get(what)
        except RayTaskError as error:
            raise _own(error) from None
        except LOST as error:
            self._lose(worker, error)
            piece.lost_with += 1
            if piece.lost_with > self.settings.retries:
                raise UserError(
                    f"{piece.lost_with} workers were lost with the same piece of work (engine.retries: {self.settings.retries}). The last:"
                    f" {_in_short(error)} If they ran out of memory, lower the stage's batch_size or give each more of a machine (cpus)."
                ) from error
            waiting.appendleft(piece)
            return
        assert len(result) == piece.items, f"{len(result)} results for {piece.items} items: no row may be lost"
        done[piece.number] = result

    def _opened(self, what: Any) -> None:
        worker = self.opening.pop(what)
        try:
            ray.get(what)
        except RayTaskError as error:
            raise _own(error) from None
        except RayError as error:
            self.failed_to_open += 1
            if self.failed_to_open > self.settings.retries:
                raise UserError(
                    f"{self.failed_to_open} workers could not start. The last: {_in_short(error)} Every machine of the cluster needs this"
                    f" checkout under {self.home.folder}, and its Python environment."
                ) from error
            self._start_missing()
        else:
            self.ready.append(worker)

    def _lose(self, worker: Any, error: RayError) -> None:
        if worker in self.ready:  # else a piece before this one has noticed
            logger.warning("a worker was lost (%s) Others take its work.", _in_short(error))
            self.ready.remove(worker)
            ray.kill(worker)  # it may only have been out of reach, and must not work beside its heir
            self.alone_since = time.monotonic()


def _in_short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _no_room(each: dict[str, int], seconds: float, count: int = 1) -> str:
    has = ray.cluster_resources()
    return (
        f"the Ray cluster had no room for {count} process(es) of {each['num_cpus']} CPU(s) and {each['num_gpus']} GPU(s) within {seconds:g}"
        f" seconds: it has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs, others' work included. Lower engine.cpus or"
        " training.processes, wait longer (engine.patience_seconds), or start more machines."
    )


class _Lost(Exception):
    """A member of a group is gone."""


@contextlib.contextmanager
def _room(sizes: list[int], each: dict[str, int], seconds: float) -> Iterator[tuple[int, PlacementGroup]]:
    """(how many, their place): the first of the sizes that the cluster has room for. UserError where it has none."""
    bundle = {"CPU": each["num_cpus"], **({"GPU": each["num_gpus"]} if each["num_gpus"] else {})}
    for size in sizes:
        place = placement_group([bundle] * size, strategy="PACK")
        try:
            if place.wait(seconds):
                yield size, place
                return
        finally:
            remove_placement_group(place)
    raise UserError(_no_room(each, seconds, sizes[-1]))


class _Member:
    """A process of a group."""

    def enter(self, home: _Home) -> str:
        """The address at which the others find this one."""
        home.enter()
        own = ray.util.get_node_ip_address()
        # gloo takes the address of the host's name, which may be one that no other machine reaches
        for name, addresses in psutil.net_if_addrs().items():
            if own in {each.address for each in addresses}:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ["LOCAL_RANK"] = "0"  # Ray shows it its own accelerator alone
        with socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET) as free:
            free.bind((own, 0))
            port = free.getsockname()[1]
        return f"tcp://[{own}]:{port}" if ":" in own else f"tcp://{own}:{port}"

    def run(self, member: Member, rank: int, size: int, address: str) -> Iterator[progress.Message]:
        """Yield what it logs and reports; raise what it raises."""
        said: queue.SimpleQueue[progress.Message | None] = queue.SimpleQueue()
        raised: list[BaseException] = []
        logging.getLogger("assets").setLevel(logging.WARNING if rank else logging.INFO)  # the first member logs

        def work() -> None:
            try:
                with progress.passing_on(said.put):
                    member(rank, size, address)
            except BaseException as error:
                raised.append(error)
            finally:
                said.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (message := said.get()) is not None:
            yield message
        if raised:
            raise raised[0]


MEMBER: Any = ray.remote(_Member)


class _Group:
    """Processes that work together: all to their end, or none."""

    def __init__(self, home: _Home, size: int, each: dict[str, int], place: PlacementGroup) -> None:
        self.home = home
        places = [PlacementGroupSchedulingStrategy(place, number) for number in range(size)]
        self.members = [MEMBER.options(**each, scheduling_strategy=own).remote() for own in places]

    def run(self, member: Member) -> None:
        """_Lost where a member is gone; else what a member raises."""
        try:
            addresses = ray.get([each.enter.remote(self.home) for each in self.members])
            self._follow(
                {
                    each.run.options(num_returns="streaming").remote(member, rank, len(self.members), addresses[0]): rank
                    for rank, each in enumerate(self.members)
                }
            )
        except RayTaskError as error:
            raise _own(error) from None
        except LOST as error:
            raise _Lost(f"a process of the training was lost ({_in_short(error)})") from error
        finally:
            for each in self.members:
                ray.kill(each)

    def _follow(self, running: dict[Any, int]) -> None:
        """Pass on what they say, until all have ended."""
        broken: tuple[RayTaskError, float] | None = None  # such as a collective that lost its connection: who is at its other end?
        while running:
            found, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for each in found:
                try:
                    message = ray.get(next(each))
                except StopIteration:
                    del running[each]
                except RayTaskError as error:
                    del running[each]
                    if isinstance(error.cause, UserError):
                        raise
                    broken = broken or (error, time.monotonic() + SECONDS_TO_SAY)
                else:
                    progress.pass_on(message)
            if broken and (not running or time.monotonic() > broken[1]):
                raise broken[0]
