"""A second run of a stage waits for the one that a killed dvc left behind, and says so; a killed stage blocks nobody."""

import os
import signal
import subprocess
import sys
import threading

from assets.__main__ import _alone

HOLD = """
import time
from assets.__main__ import _alone
with _alone('image_tower@gpr'):
    print('held', flush=True)
    time.sleep(600)
"""


def test_a_second_run_of_a_stage_waits_and_names_the_first(tmp_path, monkeypatch, checkout, caplog):
    monkeypatch.chdir(tmp_path)
    entered = threading.Event()

    def second():
        with _alone("image_tower@gpr"):
            entered.set()

    with subprocess.Popen([sys.executable, "-c", HOLD], env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with _alone("image_tower@mcip"):  # another stage is free
            pass
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.5)
        assert f"image_tower@gpr is still being made by process {first.pid}; waiting for its end" in caplog.text
        first.send_signal(signal.SIGKILL)
        assert entered.wait(10)
        waiting.join()
