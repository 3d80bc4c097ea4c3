"""What a decoder may do to its process, for tests of apart.py: these functions run in the process that opens pictures."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from assets.curated_images.inspection import inspect_to_bytes


def open_or_die(data: bytes, **how: Any) -> bytes:
    """As curation looks at pictures, but for bytes that ask for worse."""
    if data == b"crash":
        ctypes.string_at(0)
    if data == b"hang":
        time.sleep(3600)
    if data == b"exit":
        os._exit(3)
    if data == b"defect":
        raise ZeroDivisionError("of our own")
    return inspect_to_bytes(data, **how)
