"""Workers that are forked: what they find, and that they end with the process that asked for them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from popup.lab.runs import forks

ROOT = Path(__file__).parents[2]


def tell(pipe):
    imported = "torch._dynamo" in sys.modules
    pipe.send((os.getppid(), multiprocessing.parent_process().pid, imported, torch.cuda._is_in_bad_fork()))


def test_workers_have_imported_before_they_are_there_and_can_still_use_a_gpu():
    forks.begin()
    mine, theirs = forks.CONTEXT.Pipe(duplex=False)
    workers = [forks.CONTEXT.Process(target=tell, args=(theirs,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    told = [mine.recv() for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert told[0] == told[1] == (told[0][0], os.getpid(), True, False)
    assert told[0][0] != os.getpid(), "both come from one process between"


def test_a_sweep_that_is_killed_takes_its_workers_along(tmp_path):
    command = [sys.executable, "run.py", "--seeds", "4", "--epochs", "400", "--workers", "2", "--out", str(tmp_path)]
    sweep = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(lambda: len(list(tmp_path.glob("*/.begun"))) == 2)
        sweep.kill()
        sweep.wait()
        _wait(lambda: not _group(sweep.pid))
    finally:
        if _group(sweep.pid):
            os.killpg(sweep.pid, signal.SIGKILL)
    assert len(list(tmp_path.glob("*/checkpoint.safetensors"))) == 2, "each has left what it had come to"


def test_an_interrupt_from_the_terminal_while_workers_start_is_one_line(tmp_path):
    command = [sys.executable, "run.py", "--seeds", "2", "--workers", "2", "--out", str(tmp_path)]
    sweep = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                             start_new_session=True)
    _wait(lambda: len(_group(sweep.pid)) > 2)  # with the process that forks, and multiprocessing's tracker
    os.killpg(sweep.pid, signal.SIGINT)
    _, error = sweep.communicate(timeout=120)
    assert sweep.returncode == 130 and error.count("\n") == 1 and error.startswith("popup: interrupted")
    _wait(lambda: not _group(sweep.pid))


def _wait(until, seconds=120.0):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)



def _group(group):
    """The processes of a process group that are no zombies."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = place.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own) == group and state != "Z":
            found.append(int(place.parent.name))
    return found
