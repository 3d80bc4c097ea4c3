"""python -m assets STAGE[@RECIPE]: run one stage. dvc.yaml calls this; so can you. `… --check` validates params.yaml and the source.

It prints what `dvc repro` should be told: nothing, or to leave source_images alone where its pictures are gone and its table is here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from assets import artifacts, machine, progress
from assets.errors import UserError
from assets.imports import imported_files
from assets.leftovers import remove_leftovers
from assets.params import PARAMS_FILE, read_params
from assets.source_images.root import check_source, holds_pictures, recorded
from assets.source_images.watched import check_watched, watched
from assets.stages import addresses, find

IN_A_CLONE = "In a clone of a project with its own pictures, `dvc pull` first brings what was made from them."


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for chatty in ("httpx", "open_clip", "great_expectations", "matplotlib", "root"):
        logging.getLogger(chatty if chatty != "root" else None).setLevel(logging.WARNING)
    logging.getLogger("assets").setLevel(logging.WARNING if arguments == ["--check"] else logging.INFO)
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        with contextlib.suppress(UserError):  # of params.yaml, which the stages themselves report
            print("stages:", *addresses(read_params()[0]), sep="\n  ")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        if arguments[0] == "--check":
            print(check())
            return 0
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that half-written files are removed
        with progress.attached():
            run(arguments[0])
    except UserError as error:
        print(f"\nerror: {error}" if arguments == ["--check"] else f"\nerror: {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"\nerror: {arguments[0]}: the disk is full ({error.filename or Path.cwd()}). Free some space and run again;"
              " nothing half-written was kept.", file=sys.stderr)  # fmt: skip
        return 1
    return 0


def check() -> str:
    """Arguments for `dvc repro`. UserError for wrong settings, and for a source whose pictures are neither here nor read already."""
    params, written = read_params()
    sources = params.source_images.sources
    check_watched(sources)
    try:
        for source in sources:
            check_source(source)
    except UserError as problem:
        if all(holds_pictures(source) for source in sources):
            raise
        if not recorded(written):
            raise UserError(f"{problem} {IN_A_CLONE}") from None
        if not artifacts.SOURCE_IMAGES.is_dir():
            raise UserError(f"{problem} dvc.lock knows the table that was read from it: `dvc checkout` restores it. {IN_A_CLONE}") from None
        print(f"note: {problem} Going on from {artifacts.SOURCE_IMAGES}, which was read from it.", file=sys.stderr)
        return "--downstream curated_images"
    return ""


def run(wanted: str) -> None:
    params, written = read_params()
    stage, recipe = find(wanted, params)
    inputs = stage.inputs(params, recipe)
    own_pictures = set(map(Path, watched(params.source_images.sources)))  # what belongs there, the stage says better
    if missing := [str(path) for path in inputs if not path.exists() and path not in own_pictures]:
        raise UserError(
            f"missing input {', '.join(missing)}. `dvc checkout` restores what dvc.lock records (in a clone, `dvc pull`), `dvc repro"
            f" {wanted}` makes it."
        )
    if stage.name == "source_images":
        check_watched(params.source_images.sources)
    machine.tune_for_torch()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.get("RANK", "0") != "0":  # of torchrun's processes the first keeps watch
        stage.run(params, recipe)
        return
    with _alone(wanted):
        remove_leftovers(params.recipe, params.recipes.measured)
        with artifacts.unchanged_while_running(
            code=imported_files(f"assets.{stage.name}.stage"),
            data=inputs,
            settings=stage.settings(params, recipe),
            written=written,
            params_file=PARAMS_FILE,
        ):
            begun = time.monotonic()
            stage.run(params, recipe)
            progress.report(seconds=round(time.monotonic() - begun, 1))


@contextlib.contextmanager
def _alone(wanted: str) -> Iterator[None]:
    """Wait for the same stage of this checkout where it is still at work, left behind by a killed dvc; the kernel frees the lock."""
    locks = artifacts.WORK / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / wanted).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            logging.getLogger(__name__).warning("%s is still being made by process %s; waiting for its end", wanted, file.read())
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
