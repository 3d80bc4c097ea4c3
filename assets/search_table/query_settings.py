"""params.yaml for queries: read again only after it has changed, since its parser takes longer than a search."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from assets.params import PARAMS_FILE, Params, read_params


def settings() -> Params:
    """UserError where there is none, or it is wrong."""
    try:
        file = PARAMS_FILE.resolve(strict=True)
    except FileNotFoundError:
        return read_params()[0]  # raises, with what to do
    return _read(file, file.stat().st_size, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(file: Path, size: int, changed_ns: int) -> Params:
    """Size and time of change are there to read the file again when it changes."""
    return read_params(file)[0]
