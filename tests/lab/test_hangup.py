"""A terminal that is closed (SIGHUP): a checkpoint is left, as by SIGTERM; with nohup the run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from popup.lab.training.stop import Stop, Stopped

ROOT = Path(__file__).parents[2]
LONG = ["--epochs", "100000", "--widths", "8", "--threads", "1", "--checkpoint-seconds", "3600"]


def begun(out, *options, before=None):
    """A process of popup in the middle of a run, in a group of its own."""
    process = subprocess.Popen([sys.executable, ROOT / "run.py", *LONG, *options, "--out", str(out)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=before)
    end = time.monotonic() + 120
    while not any(path.stat().st_size for path in out.glob("*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("options", [(), ("--seeds", "2", "--workers", "2", "--controls", "none")])
def test_a_terminal_that_is_closed_leaves_a_checkpoint(options, tmp_path):
    process = begun(tmp_path, *options)
    os.killpg(process.pid, signal.SIGHUP)  # as the system does it: to all of the group
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 129 and "popup: hung up; the same command goes on from here" in said
    assert list(tmp_path.glob("*/checkpoint.safetensors")) and "Traceback" not in said


def test_with_nohup_the_run_goes_on(tmp_path):
    process = begun(tmp_path, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    os.killpg(process.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.send_signal(signal.SIGTERM)
    assert "terminated" in process.communicate(timeout=120)[1]


def test_a_stop_hears_it_unless_it_is_ignored():
    with pytest.raises(Stopped, match="hung up"), Stop().listening():
        os.kill(os.getpid(), signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop().listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)
