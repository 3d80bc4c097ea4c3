"""python -m assets STAGE[@RECIPE]: run one stage. dvc.yaml calls this; so can you. `… --check` validates params.yaml and picture names."""

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

from assets import artifacts, memory, progress
from assets.errors import UserError
from assets.params import PARAMS_FILE, read_params
from assets.source_images.folder_names import check_names
from assets.stages import STAGES, address, find


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for chatty in ("httpx", "open_clip", "great_expectations", "matplotlib", "root"):
        logging.getLogger(chatty if chatty != "root" else None).setLevel(logging.WARNING)
    logging.getLogger("assets").setLevel(logging.INFO)
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        print("stages:", *(address(stage, recipe) for stage in STAGES for recipe in stage.recipes), sep="\n  ")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        if arguments[0] == "--check":
            params, _ = read_params()
            check_names(Path(params.source_images.image_folder.root))
            return 0
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that half-written files are removed
        with progress.attached():
            run(arguments[0])
    except UserError as error:
        print(f"\nerror: {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"\nerror: {arguments[0]}: the disk is full ({error.filename or Path.cwd()}). Free some space and run again;"
              " nothing half-written was kept.", file=sys.stderr)  # fmt: skip
        return 1
    return 0


def run(wanted: str) -> None:
    stage, recipe = find(wanted)
    params, written = read_params()
    inputs = stage.inputs(recipe, params)
    own_pictures = Path(params.source_images.image_folder.root)  # what belongs there, the stage says better
    if missing := [str(path) for path in inputs if not path.exists() and path != own_pictures]:
        raise UserError(f"missing input {', '.join(missing)}. `dvc repro {wanted}` makes what it needs, or `dvc checkout` restores it.")
    if "assets/clip" in stage.code:
        memory.tune_for_torch()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sections = {name.partition(".")[0] for name in stage.params}
    if os.environ.get("RANK", "0") != "0":  # of torchrun's processes the first keeps watch
        stage.run(params, recipe)
        return
    with (
        _alone(wanted),
        artifacts.unchanged_while_running(
            code=[Path(path) for path in stage.code],
            data=inputs,
            settings={name: written[name] for name in sections},
            params_file=PARAMS_FILE,
        ),
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
