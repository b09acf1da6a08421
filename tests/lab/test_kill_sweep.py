"""Sweeps, workers and builders of a cache that are killed with -9, and a system without locks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from popup.lab.data.dataset import DataRequest
from popup.lab.data.datasets import load_dataset
from tests.lab import kill_sweep


def test_each_run_is_done_once_whoever_is_killed():
    """More of them: python tests/lab/kill_sweep.py 20 2"""
    done = subprocess.run([sys.executable, Path(kill_sweep.__file__), "1", "1"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["replaced"], found["stayed"], found["equal"], found["cells"]) == (0, 0, True, 6)
    assert sum(found["killed"].values()) == 1


def test_builders_of_a_cache_that_are_killed_leave_nothing_that_counts(tmp_path):
    """Three begin together, and all are killed while one decodes, slowly; who comes then decodes everything."""
    kill_sweep.images(tmp_path / "pets")
    script = ("import sys, time\nfrom pathlib import Path\nfrom popup.lab.data import folder\n"
              "from popup.lab.data.datasets import DataRequest, load_dataset\ndecode = folder.decode_as\n"
              "folder.decode_as = lambda path, **how: (time.sleep(0.5), decode(path, **how))[1]\n"
              "load_dataset(f'folder:{sys.argv[1]}', DataRequest(Path(sys.argv[1]).parent / 'data'))\n")
    builders = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "pets")], cwd=kill_sweep.ROOT) for _ in range(3)]
    end = time.monotonic() + 120
    while not list((tmp_path / "data" / "decoded").glob(".decoding-*/train_images.npy")):
        assert time.monotonic() < end and all(builder.poll() is None for builder in builders)
        time.sleep(0.01)
    for builder in builders:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    data = load_dataset(f"folder:{tmp_path / 'pets'}", DataRequest(tmp_path / "data"))
    assert len(data.train[0]) == 80 and data.train[0].float().std() > 1
    assert sorted(path.name[:5] for path in (tmp_path / "data" / "decoded").iterdir()) == [".lock", "pets-"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no compiler to make such a system with")
@pytest.mark.parametrize("data", ["digits", "folder"])
def test_where_there_are_no_locks_one_line_says_so(data, tmp_path):
    library = kill_sweep.build(tmp_path)
    kill_sweep.images(tmp_path / "pets")
    name = "digits" if data == "digits" else f"folder:{tmp_path / 'pets'}"
    done = subprocess.run([*kill_sweep.RUN, "--dataset", name, "--epochs", "1", "--out", tmp_path / "out", "--data-dir",
                           tmp_path / "data"], env=kill_sweep.strange(library, "POPUP_NO_LOCKS"), capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1 and "this file system cannot lock" in done.stderr and done.stderr.count("\n") == 1
    assert not list((tmp_path / "out").glob("*/result.json")) and "LD_PRELOAD" not in os.environ
