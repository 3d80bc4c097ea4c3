"""Untrusted pictures opened in processes of their own: a decoder that crashes or hangs loses that picture, and nothing else.

What is done with each picture's bytes is a function of another module, named "module:function". This module as a program is the process.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import logging
import os
import queue
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from PIL import Image

from assets import machine
from assets.pictures.decoding import BadPicture

logger = logging.getLogger(__name__)

MAX_SECONDS = 60.0  # for one picture; one of 100 megapixels takes a few
AT_ONCE = 8  # pictures sent to a process before it answers
READY, FAILED, BAD, DONE = b"ready", b"failed", b"bad", b"done"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # there is a process for each core
CHECKOUT = Path(__file__).resolve().parents[2]

Found = bytes | BadPicture


class Apart:
    """Processes that call `function` (given bytes and `settings`, giving bytes; it may raise BadPicture). They start when first needed."""

    def __init__(self, function: str, settings: Mapping[str, Any], *, max_seconds: float = MAX_SECONDS) -> None:
        self.function, self.settings, self.max_seconds = function, dict(settings), max_seconds
        self.processes = machine.cores()
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(self.processes):
            self._idle.put(None)  # the place of one that has not started
        self._threads = ThreadPoolExecutor(self.processes)

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self.processes):
            process = self._idle.get()
            if process is not None:
                process.close()

    def map(self, pictures: Iterable[bytes]) -> Iterator[Found]:
        """What the function gives of each, in their order; BadPicture for one that it refuses, "crashed" or "too_slow" too.

        The processes begin at once, before the first result is asked for.
        """
        pictures = list(pictures)
        pieces = [pictures[start : start + AT_ONCE] for start in range(0, len(pictures), AT_ONCE)]
        return itertools.chain.from_iterable(self._threads.map(self._some, pieces))

    def one(self, picture: bytes) -> Found:
        """The same of one picture, in the calling thread."""
        return self._some([picture])[0]

    def _some(self, pictures: Sequence[bytes]) -> list[Found]:
        found: list[Found] = []
        while len(found) < len(pictures):
            process = self._idle.get()
            try:
                process = process or _Process(self.function, self.settings, self.max_seconds)
                process.work(pictures[len(found) :], found)
            except _Ended as ended:
                process = None
                found.append(ended.bad)
            except BaseException:
                if process is not None:
                    process.close()
                process = None
                raise
            finally:
                self._idle.put(process)
        return found


class _Ended(Exception):
    """A process ended while it had a picture."""

    def __init__(self, bad: BadPicture) -> None:
        self.bad = bad


class _Process:
    def __init__(self, function: str, settings: Mapping[str, Any], max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self.pipe, theirs = Pipe()
        paths = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), function, json.dumps(settings), str(max_seconds)]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths} | ONE_THREAD,
        )
        theirs.close()
        try:
            ready = self.pipe.recv_bytes()
        except EOFError:
            ready = b""
        if ready != READY:
            raise RuntimeError(f"the process that opens pictures did not start (exit code {self.process.wait()}): see its message above")

    def work(self, pictures: Sequence[bytes], found: list[Found]) -> None:
        """Append what is found of each picture, in order. _Ended where the process ended at the one after the last that was appended."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended: what it answered before is still read
            self.pipe.send_bytes(len(pictures).to_bytes(4))
            for picture in pictures:
                self.pipe.send_bytes(picture)
        for _ in pictures:
            try:
                how, told = self.pipe.recv_bytes(), self.pipe.recv_bytes()
            except (EOFError, ConnectionResetError):
                raise _Ended(self._why()) from None
            if how == FAILED:
                raise RuntimeError(f"opening a picture failed: {told.decode()}")
            found.append(told if how == DONE else BadPicture(*json.loads(told)))

    def _why(self) -> BadPicture:
        code = self.process.wait()
        self.pipe.close()
        if code == -signal.SIGALRM:
            return BadPicture("too_slow", f"its decoder was stopped after {self.max_seconds:g} seconds")
        by = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BadPicture("crashed", f"its decoder crashed ({by})")

    def close(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def opened(data: bytes, max_pixels: int) -> Image.Image:
    """`opening.open_picture` in another process, which starts at the first call and stays."""
    found = _opener(max_pixels).one(data)
    if isinstance(found, BadPicture):
        raise found
    size = int.from_bytes(found[:4]), int.from_bytes(found[4:8])
    return Image.frombytes("RGB", size, found[8:])


@lru_cache(maxsize=4)
def _opener(max_pixels: int) -> Apart:
    import atexit

    apart = Apart(f"{__name__}:open_to_bytes", {"max_pixels": max_pixels})
    atexit.register(apart.close)
    return apart


def open_to_bytes(data: bytes, max_pixels: int) -> bytes:
    """What `opened` reads: width and height, then the pixels."""
    from assets.pictures.opening import open_picture

    picture = open_picture(data, max_pixels)
    return picture.width.to_bytes(4) + picture.height.to_bytes(4) + picture.tobytes()


def _serve(pipe: Connection, function: Callable[..., bytes], settings: Mapping[str, Any], max_seconds: float) -> None:
    while True:
        try:
            waiting = [pipe.recv_bytes() for _ in range(int.from_bytes(pipe.recv_bytes()))]
        except EOFError:
            return
        for picture in waiting:
            signal.setitimer(signal.ITIMER_REAL, max_seconds)  # the system ends this process then, wherever it hangs
            try:
                how, told = DONE, function(picture, **settings)
            except BadPicture as bad:
                how, told = BAD, json.dumps([bad.reason, bad.detail]).encode()
            except Exception as error:
                how, told = FAILED, f"{type(error).__name__}: {error}".encode()
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send_bytes(how)
            pipe.send_bytes(told)


def main() -> None:
    descriptor, named, settings, max_seconds = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one closes the pipe
    module, _, name = named.partition(":")
    pipe = Connection(int(descriptor))
    function = getattr(importlib.import_module(module), name)
    warnings.simplefilter("ignore")  # about odd metadata
    pipe.send_bytes(READY)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected, and leaves no file
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff and others tell there what becomes the reason of a rejection
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _serve(pipe, function, json.loads(settings), float(max_seconds))


if __name__ == "__main__":
    main()
