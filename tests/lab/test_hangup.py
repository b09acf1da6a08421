"""A terminal that is closed (SIGHUP): a checkpoint is left, as by SIGTERM; with nohup the run goes on."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from warnings import catch_warnings

import pytest

from popup.lab.machine import Machine
from popup.lab.runs import sweep
from popup.lab.training.stop import SIGNALS, Stop, Stopped

ROOT = Path(__file__).parents[2]
LONG = ["--epochs", "100000", "--widths", "8", "--threads", "1", "--checkpoint-seconds", "3600"]


def heard():
    """As in a terminal, also where the tests themselves run with nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ended(process):
    """What it said in the end; nothing of its group is left, whatever comes."""
    try:
        return process.communicate(timeout=120)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def begun(out, *options, before=heard):
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
    said = ended(process)
    assert process.returncode == 129 and "popup: hung up; the same command goes on from here" in said
    assert list(tmp_path.glob("*/checkpoint.safetensors")) and "Traceback" not in said


def test_with_nohup_the_run_goes_on(tmp_path):
    process = begun(tmp_path, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    os.killpg(process.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.send_signal(signal.SIGTERM)
    assert "terminated" in ended(process)


def test_a_stop_hears_it_unless_it_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(Stopped, match="hung up"), Stop().listening():
            os.kill(os.getpid(), signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Stop().listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


class Half:
    """As libraries have them: what `__del__` needs is there only once it is built whole."""

    def __init__(self, while_built=lambda: None):
        while_built()
        self.whole = True

    def __del__(self):
        assert self.whole


def test_of_what_a_stop_leaves_half_built_nothing_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: said.append(raised.exc_type))
    with Stop().listening(), suppress(ValueError):
        Half(lambda: int("of its own"))
    assert said == [AttributeError]
    with Stop().listening(), suppress(Stopped):
        Half(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert said == [AttributeError]
    with suppress(ValueError):
        Half(lambda: int("after it"))
    assert said == 2 * [AttributeError]


def test_nor_by_a_worker(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: said.append(raised.exc_type))
    monkeypatch.setattr(sweep, "work", lambda *_: Half(lambda: os.kill(os.getpid(), signal.SIGTERM)))
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with pytest.raises(SystemExit), catch_warnings():
            sweep._worker({}, Machine(), tmp_path, [], SimpleNamespace(send=said.append))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert said == []
