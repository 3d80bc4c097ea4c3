"""The files that a module imports are found without running it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from assets.imports import FRAME, PACKAGE, imported_files


def names(*modules: str) -> set[str]:
    return {file.relative_to(PACKAGE).as_posix() for file in imported_files(*modules)}


def test_imports_inside_functions_and_packages_on_the_way_count():
    found = names("assets.evaluation.benchmarks.run")
    assert {"evaluation/benchmarks/run.py", "evaluation/benchmarks/__init__.py", "evaluation/__init__.py"} <= found


def test_the_frame_does_not_count():
    assert not {f"{name.removeprefix('assets.')}.py" for name in FRAME} & names("assets.report.stage")


def test_templates_beside_a_module_count():
    assert "report/page.css" in names("assets.report.stage")


def test_what_really_runs_is_among_what_is_found():
    """A stage loads no module of assets at run time that the walker missed, besides the frame and what the frame needs."""
    stage = loaded("assets.image_tower.stage")
    frame = loaded("assets.params", "assets.imports", "assets.machine", "assets.progress", "assets.engine")
    assert stage - frame <= set(imported_files("assets.image_tower.stage"))
    assert stage - frame


def loaded(*modules: str) -> set[Path]:
    """The files of assets that are loaded once these modules are imported."""
    script = (
        f"import sys, {', '.join(modules)}; "
        "print(*(module.__file__ for name, module in sys.modules.items() if name.split('.')[0] == 'assets' and module.__file__))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    return {Path(file) for file in done.stdout.split()}


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"assets\.nowhere"):
        imported_files("assets.nowhere")
