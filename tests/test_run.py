"""The process of run.py: signals while it starts, streams that are closed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CARELESS = """
import os, runpy, sys

class Careless:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            try:
                os.kill(os.getpid(), {number:d})
            except KeyboardInterrupt:  # as some libraries do while they are imported
                pass

sys.meta_path.insert(0, Careless())
sys.argv = ["run.py", "recipes"]
runpy.run_path("run.py", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "code", "word"), [
    (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_while_the_command_is_imported_is_one_line(number, code, word):
    done = subprocess.run([sys.executable, "-c", CARELESS.format(number=number)], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"popup: {word}\n")


def test_imported_or_not_the_command_is_done():
    done = subprocess.run([sys.executable, "run.py", "recipes"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "mlp_digits" in done.stdout and not done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_done_without(closed):
    done = subprocess.run(f"{sys.executable} run.py verify nowhere {closed}", shell=True, cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == ("" if "2>" in closed else "popup: there is no file 'nowhere': name a run's ticket.safetensors\n")


@pytest.mark.parametrize("command", ["--help", "recipes", "show --help"])
def test_a_reader_that_has_seen_enough_is_told_nothing(command):
    """`| head` ends before all is printed: neither a line nor Python's own words of a broken pipe come to the terminal."""
    done = subprocess.run(f"{sys.executable} run.py {command} | true", shell=True, cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_search_that_nobody_reads_says_that_it_ends(tmp_path):
    done = subprocess.run(f"{sys.executable} run.py --epochs 200 --widths 8 --threads 1 --out {tmp_path} | head -n 1", shell=True,
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "popup: nobody reads what it prints any more; the same command goes on from here\n"
