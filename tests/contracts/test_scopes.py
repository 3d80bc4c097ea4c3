"""The files that tests/conftest.py names: one that was renamed would run in the wrong process, or last, and nobody would see it."""

from __future__ import annotations

from tests.conftest import CHECKOUT, LONGEST, SHARED


def test_the_named_files_are_there():
    named = [file for files in SHARED.values() for file in files] + [scope for scope in LONGEST if scope not in SHARED]
    assert [file for file in named if not (CHECKOUT / file).is_file()] == []
