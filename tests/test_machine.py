"""OpenMP's spin count is set before torch loads, and never over what the user set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets.machine import SPINS

TUNED = "import os, sys; from assets.machine import tune_for_torch; tune_for_torch(); print(os.environ.get('GOMP_SPINCOUNT'))"
USER_S_OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def output(script: str, checkout: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in USER_S_OWN}
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, env=kept | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")],
)
def test_the_user_s_own_setting_stays(own: dict[str, str], spins: str, checkout: Path):
    assert output(TUNED, checkout, **own) == spins


@pytest.mark.parametrize("module", ["assets.machine", "assets.__main__"])
def test_nothing_that_tunes_has_loaded_torch_before(module: str, checkout: Path):
    assert output(f"import sys, {module}; print('torch' in sys.modules)", checkout) == "False"


def test_libgomp_has_the_count(checkout: Path):
    """libgomp itself prints it when it loads, which a count that is set too late does not reach."""
    script = f"{TUNED}; sys.stdout.flush(); import torch"
    kept = {name: value for name, value in os.environ.items() if name not in USER_S_OWN} | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, env=kept, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch has another OpenMP than libgomp")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr
