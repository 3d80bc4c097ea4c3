"""A run in several processes, each with its own accelerator: started here, by torchrun or on a cluster.

What they exchange is in `distributed`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import distributed

from assets import machine
from assets.engine import HERE, Engine
from assets.errors import UserError
from assets.training.distributed import rank, world_size

logger = logging.getLogger(__name__)

PATIENCE = timedelta(days=7)  # with a process that works alone; one that has died is noticed at once
SECONDS_TO_STOP = 10.0


def run_in_processes(count: int, device: str, function: Callable[..., None], *arguments: Any, engine: Engine = HERE) -> None:
    """function(*arguments) in `count` processes that form a group; this one is the first of them, the others end with it.

    Under torchrun, which sets WORLD_SIZE, in the processes that it has started: they must be `count`. With a remote engine, in processes of
    its workers' machines, and this one waits for them; `device` is then theirs. `device`: as resolved; of several accelerators each process
    takes its own by `own_device`. When one process fails, all end; the first raises a UserError of any.
    """
    if engine.remote:
        engine.group(count, device, partial(_as_member, device, function, arguments))
        return
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        if started != count:
            raise UserError(f"torchrun has started {started} processes and the setting processes is {count}. Make them equal.")
        if int(os.environ["RANK"]) > 0:
            logging.getLogger("assets").setLevel(logging.WARNING)  # the first process logs
        with _group(device, count):
            function(*arguments)
    elif count == 1:
        function(*arguments)
    else:
        _enough_devices(device, count)
        with (
            tempfile.TemporaryDirectory() as folder,
            _followers(count, device, folder, function, arguments),
            _group(device, count, init_method=_store(folder), rank=0, world_size=count),
        ):
            function(*arguments)


def own_device(device: str) -> str:
    """The device of this process: cuda means one each."""
    if world_size() == 1 or device == "cpu":
        return device
    number = int(os.environ.get("LOCAL_RANK", rank()))
    _enough_devices(device, number + 1)
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def _enough_devices(device: str, count: int) -> None:
    if device not in ("cpu", "cuda"):
        raise UserError(f"processes: {count}, but device {device!r} is a single one. Set device: cuda (one each) or cpu, or processes: 1.")
    if device == "cuda" and torch.cuda.device_count() < count:
        raise UserError(f"processes: {count}, but this machine has {torch.cuda.device_count()} CUDA devices. Take as many at most.")


@contextmanager
def _group(device: str, sharing: int, **where: Any) -> Iterator[None]:
    """A process group while it lasts, `sharing` processes of which share the cores of a CPU. Without `where` it is torchrun's."""
    threads = torch.get_num_threads()
    if "init_method" in where and sharing > 1:  # all on this machine: nothing listens to others
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=PATIENCE, **where)
    torch.set_num_threads(max(1, threads // sharing) if device == "cpu" else threads)
    try:
        yield
        distributed.barrier()  # whoever leaves first takes its connections with it
    finally:
        torch.set_num_threads(threads)
        distributed.destroy_process_group()


def _as_member(device: str, function: Callable[..., None], arguments: tuple[Any, ...], rank: int, count: int, address: str) -> None:
    """In a process of a remote engine, which has its own part of a machine."""
    if count == 1:
        function(*arguments)
        return
    with _group(device, 1, init_method=address, rank=rank, world_size=count):
        function(*arguments)


@contextmanager
def _followers(count: int, device: str, folder: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[None]:
    """The processes of ranks 1 … count − 1. One that fails ends this process's wait for it."""
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = [
        context.Process(target=_follow, args=(number, count, device, folder, function, arguments), daemon=True)
        for number in range(1, count)
    ]
    for process in processes:
        process.start()
    done = threading.Event()
    threading.Thread(target=_watch, args=(processes, done), daemon=True).start()
    try:
        yield
    except RuntimeError as error:  # raised by a collective that lost its connection; the process at the other end may still be ending
        deadline = time.monotonic() + SECONDS_TO_STOP
        while not _failed(processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        if failed := _failed(processes):
            raise UserError(
                f"process {failed} of 0 … {count - 1} has ended, so the run has stopped. Its own message stands above."
            ) from error
        raise
    finally:
        done.set()
        deadline = time.monotonic() + SECONDS_TO_STOP
        if sys.exc_info()[0] is not None:
            for process in processes:
                process.terminate()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _watch(processes: list[BaseProcess], done: threading.Event) -> None:
    """Ends this process if it still waits for one that has failed: an accelerator's collective can wait for ever."""
    sentinels = {process.sentinel for process in processes}
    while sentinels and not done.is_set():
        sentinels -= {each for each in wait(list(sentinels), timeout=1.0) if isinstance(each, int)}
        if _failed(processes):
            if not done.wait(SECONDS_TO_STOP):
                logger.error("process %s of the run has ended; stopping", _failed(processes))
                os._exit(1)
            return


def _failed(processes: list[BaseProcess]) -> str:
    ended = [(number, process.exitcode) for number, process in enumerate(processes, 1) if process.exitcode]
    return ", ".join(f"{number} (exit code {code})" for number, code in ended)


def _follow(number: int, count: int, device: str, folder: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    logging.getLogger("assets").setLevel(logging.WARNING)  # the first process logs
    logging.basicConfig(format=f"%(asctime)s process {number}: %(message)s", datefmt="%H:%M:%S")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    machine.tune_for_torch()
    try:
        with _group(device, count, init_method=_store(folder), rank=number, world_size=count):
            function(*arguments)
    except UserError as error:
        time.sleep(1)  # the first process, if it has met the same error, reports it and ends this one
        logger.error("%s", error)
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _store(folder: str) -> str:
    return f"file://{folder}/store"
