"""Run one stage as `dvc repro` runs it, in a child process, and leave nothing running. The callers decide what to run and when."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

CHECKOUT = Path(__file__).resolve().parent.parent
RUNNING = Path(".cache") / "orchestration" / "running"  # in the checkout: one file per stage, locked by who writes or reads what it makes
RUNS = Path(".cache") / "orchestration" / "runs"  # one file per run, locked by its process
SECONDS_TO_STOP = 5.0
SECONDS_TO_DIE = 3.0
SECONDS_OF_DOUBT = 2.0  # no process number is given to another so soon
SECONDS_OF_PATIENCE = 12 * 3600.0  # with another dvc that is at the same files, such as a `dvc repro` in a shell: it may be training
SECONDS_BETWEEN_TRIES = 5.0
BUSY = re.compile(r" is busy, it is being blocked by:\s+((?:\(PID \d+\): .*\s*)+)")  # dvc/rwlock.py; the path it names may be another
REMEMBERED = 1 << 14  # bytes of what dvc said last


class StageFailed(Exception):
    """dvc left with another exit code than 0; `killed` if a signal ended it. Its own output says why."""

    def __init__(self, message: str, killed: bool) -> None:
        super().__init__(message)
        self.killed = killed


@dataclass(frozen=True)
class Held:
    """A stage that no other run is at, with the file in which it says who runs for it."""

    address: str
    checkout: Path
    record: IO[str]


def reproduce(held: Held, environment: Mapping[str, str], run_id: str, tell: Callable[[str], None]) -> None:
    """`dvc repro` of this stage alone, which does nothing where it is up to date; its output goes to ours.

    Waits while another dvc holds the lock, and up to SECONDS_OF_PATIENCE while one reads or writes the same files: dvc refuses before it
    touches anything, so trying again is safe. An interruption ends dvc and the stage together, within SECONDS_TO_STOP + SECONDS_TO_DIE.
    """
    given_up = time.monotonic() + SECONDS_OF_PATIENCE
    told = None
    while True:
        code, said = _repro(held, environment, run_id)
        if not code:
            return
        busy = BUSY.search(said)
        if not busy or time.monotonic() > given_up:
            break
        if told != (blockers := " ".join(busy[1].split())):
            told = blockers
            hours = SECONDS_OF_PATIENCE / 3600
            tell(f"another dvc is at files of {held.address}: {blockers}. Waiting for its end, {hours:g} hours at most.")
        time.sleep(SECONDS_BETWEEN_TRIES)
    ended = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
    raise StageFailed(f"`dvc repro --single-item {held.address}` {ended}; its output, above or in the log, says why.", killed=code < 0)


def _repro(held: Held, environment: Mapping[str, str], run_id: str) -> tuple[int, str]:
    """(dvc's exit code, the end of what it and the stage wrote to stderr)."""
    address, checkout, record = held.address, held.checkout, held.record
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", address]
    inherited = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # dvc.yaml says `python`
        "DVC_NO_ANALYTICS": "1",
    }
    # dvc ignores SIGINT while a stage runs, so both get a process group of their own that can be told to stop
    with subprocess.Popen(
        command, cwd=checkout, env=inherited | dict(environment), stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        said = bytearray()
        listener = threading.Thread(target=_pass_on, args=(child.stderr, said), daemon=True)
        listener.start()
        try:
            _write(record, {"stage": address, "run_id": run_id, "group": child.pid, "since": psutil.Process(child.pid).create_time()})
            code = child.wait()
        finally:
            stop(child.pid)  # also where dvc was killed and left the stage behind
            child.wait()
            listener.join(SECONDS_TO_DIE)  # at once, unless a process of another group still holds the pipe
            _write(record, None)
    return code, bytes(said).decode("utf-8", "replace")


def _pass_on(source: IO[bytes], said: bytearray) -> None:
    """Write what comes to our own stderr, as it comes, and keep the end of it."""
    descriptor = source.fileno()
    with contextlib.suppress(OSError, ValueError):  # closed while we read
        while chunk := os.read(descriptor, 1 << 16):
            said += chunk
            del said[:-REMEMBERED]
            os.write(2, chunk)


@contextlib.contextmanager
def alive(run_id: str, checkout: Path) -> Iterator[None]:
    """Inside, `dead_runs` of other processes leaves this run alone; whatever kills this process, the kernel gives the lock back."""
    path = checkout / RUNS / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    unlocked = path.parent.with_name(f"{run_id}.tmp")  # under its own name it would be taken for a dead run's before it is locked
    with unlocked.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _write(file, {"process": os.getpid(), "since": psutil.Process().create_time()})
        os.replace(unlocked, path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def dead_runs(checkout: Path) -> Iterator[str]:
    """The ids of runs whose process was killed; each is forgotten when the next one is asked for."""
    for path, file, free in _locked(checkout / RUNS, fcntl.LOCK_EX):
        if free and os.fstat(file.fileno()).st_nlink:  # else the run ended in good order after we opened its file
            yield path.name
            path.unlink(missing_ok=True)


def living_runs(checkout: Path) -> Iterator[tuple[str, int]]:
    """The ids and process ids of runs that are at it."""
    for path, file, free in _locked(checkout / RUNS, fcntl.LOCK_SH):
        with contextlib.suppress(psutil.NoSuchProcess):  # the file of a dead run, which another process is about to forget
            if not free and (told := _read(file)) and _began(told["process"], told["since"]):
                yield path.name, told["process"]


def running(checkout: Path) -> list[str]:
    """The stages that some living Dagster run is at."""
    return [path.stem for path, _, free in _locked(checkout / RUNNING, fcntl.LOCK_SH) if not free]


def end_orphans(checkout: Path, tell: Callable[[str], None]) -> list[str]:
    """End every stage whose run was killed, and return their addresses. A stage of a living run is left alone."""
    return [
        address for _, file, free in _locked(checkout / RUNNING, fcntl.LOCK_EX) if free for address in _end_orphan(file, checkout, tell)
    ]


def _locked(folder: Path, how: int) -> Iterator[tuple[Path, IO[str], bool]]:
    """Each file of a folder, open, and whether no other process holds it: then we do, until the next one is asked for."""
    for path in sorted(folder.glob("*")):
        with contextlib.suppress(FileNotFoundError), path.open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                free = False
            yield path, file, free


def _end_orphan(file: IO[str], checkout: Path, tell: Callable[[str], None]) -> list[str]:
    """The address of what was still running, if anything was; `file` is locked."""
    ended = []
    if left := _read(file):
        if _leads(left):
            ended.append(left["stage"])
            tell(f"{left['stage']} was still running for run {left['run_id']}, which was killed: ending it.")
            stop(left["group"])
        _forget_locks_of(left["group"], checkout)
        _write(file, None)
    return ended


def stop(group: int) -> None:
    """End a process group: politely, then for certain."""
    for wish, patience in ((signal.SIGTERM, SECONDS_TO_STOP), (signal.SIGKILL, SECONDS_TO_DIE)):
        deadline = time.monotonic() + patience
        if not _members(group):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, wish)
        while _members(group) and time.monotonic() < deadline:
            time.sleep(0.05)


def _forget_locks_of(pid: int, checkout: Path) -> None:
    """Remove a dead dvc from dvc's list of who reads and writes what. dvc does so itself, unless nobody reaps the zombie, as in many
    containers."""
    from dvc.fs import localfs
    from dvc.rwlock import _edit_rwlock

    folder = checkout / ".dvc" / "tmp"
    if _members(pid) or not (folder / "rwlock").exists():
        return
    with _edit_rwlock(str(folder), localfs, False) as lock:
        for path, readers in list(lock["read"].items()):
            lock["read"][path] = [each for each in readers if each["pid"] != pid]
            if not lock["read"][path]:
                del lock["read"][path]
        for path, writer in list(lock["write"].items()):
            if writer.get("pid") == pid:
                del lock["write"][path]


def _members(group: int) -> list[int]:
    """Living processes of a group; a zombie only waits for its parent to look."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def _leads(left: dict[str, Any]) -> bool:
    """Whether the recorded group still exists, and its number was not given to another one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if not _began(left["group"], left["since"]):
            return False
    return bool(_members(left["group"]))


def _began(process: int, since: float) -> bool:
    """Whether a process, which may be a zombie, began then; setting the clock moves when processes are said to have begun."""
    return abs(psutil.Process(process).create_time() - since) < SECONDS_OF_DOUBT


@contextlib.contextmanager
def alone_at(address: str, checkout: Path, tell: Callable[[str], None], reads: Iterable[str] = ()) -> Iterator[Held]:
    """Hold a stage's file, and share those of the stages whose outputs it reads; the kernel frees them when this process dies.

    Waits while another run is at the stage, makes what it reads, or reads what it makes: dvc itself would fail there («is busy»). No two
    runs wait for each other, since a run waits only for stages further down, or for one that waits for nothing. Ends what killed runs left
    behind, of any stage.
    """
    end_orphans(checkout, tell)
    (checkout / RUNNING).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        for read in reads:
            held.enter_context(_waited_for(read, fcntl.LOCK_SH, checkout, tell))
        file = held.enter_context(_waited_for(address, fcntl.LOCK_EX, checkout, tell))
        _end_orphan(file, checkout, tell)  # of the run that was waited for, if it was killed
        yield Held(address, checkout, file)


@contextlib.contextmanager
def _waited_for(address: str, how: int, checkout: Path, tell: Callable[[str], None]) -> Iterator[IO[str]]:
    """A stage's file, locked; waits in steps that an interruption can end."""
    with (checkout / RUNNING / f"{address}.json").open("a+", encoding="utf-8") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    tell(f"another run is at {address}, or reads what it made: waiting for it.")
                    told = True
                time.sleep(0.5)
        yield file


def _read(file: IO[str]) -> dict[str, Any] | None:
    file.seek(0)
    try:
        return json.loads(file.read() or "null")
    except json.JSONDecodeError:  # killed while writing: the group is not known
        return None


def _write(file: IO[str], record: dict[str, Any] | None) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(record))
    file.flush()
