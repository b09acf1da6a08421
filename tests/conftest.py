"""What all tests share: one thread, the same random networks and examples every time, and two helpers."""

import faulthandler
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait for one another by spinning take what other tests need
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process that a test starts would compile some 300 files anew

import pytest
import safetensors.torch
import torch
from hypothesis import settings

from popup.lab.training.stop import Stop
from popup.ticket.sealed import digest

ROOT = Path(__file__).parents[1]
LONG = ("test_kill_sweep", "test_worker", "test_ranks", "test_sweep", "test_cluster", "test_types", "test_resume", "test_repeat",
        "test_contributing", "test_own_data_and_models")  # those of other processes, mostly

sys.dont_write_bytecode = False
os.fsync = lambda file: None  # no file of a test has to outlast the machine
torch.set_num_threads(1)
gc.set_threshold(20_000, 20, 50)  # a twentieth of the time goes by looking through what thousands of tests hold, else
settings.register_profile("popup", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("popup")


def pytest_collection_modifyitems(items):
    """Those that take tens of seconds begin first, so that in the end no process is left alone with one while the others wait."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_collection_finish(session):
    """As run.py does once all is imported: rings are not looked for in what stays, which popup itself does in some commands."""
    if len(session.items) > 500:
        import torch._dynamo  # noqa: F401 - each optimiser imports it, and unfrozen it would be looked through each time
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def the_same_networks():
    """Networks that a test makes without a seed of its own are the same every time."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def none_hangs():
    """A test that takes ten minutes ends with its process, and pytest-xdist names it: better than no answer for hours."""
    faulthandler.dump_traceback_later(600, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


class StopAt(Stop):
    """Asks to end at the n-th look."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def check(self):
        self.looks -= 1
        if not self.looks:
            self.number = signal.SIGINT
        super().check()


@pytest.fixture
def stop_at():
    """A Stop that ends a run at the n-th look at it."""
    return StopAt


def write_forged(path, change):
    """The ticket file again after change(metadata, tensors), with a digest to match."""
    content = path.read_bytes()
    header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
    metadata, tensors = json.loads(header["__metadata__"]["popup"]), safetensors.torch.load(content)
    del metadata["digest"]
    change(metadata, tensors)
    sealed = json.dumps({**metadata, "digest": digest(metadata, tensors)})
    path.write_bytes(safetensors.torch.save(tensors, {"popup": sealed}))


@pytest.fixture
def forge():
    """A function that changes a ticket file as someone would who can compute its digest."""
    return write_forged


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder with what the wheel holds, beside a user's own module called models."""
    pytest.importorskip("setuptools", minversion="77")  # the first that reads what pyproject.toml says of the license
    checkout, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("installed")
    for name in ("popup", "models"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(checkout)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(checkout.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    own = folder / "elsewhere"
    own.mkdir()
    (own / "models.py").write_text("from torch import nn\n\n\ndef build(image, classes):\n"
                                   "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n")
    return folder
