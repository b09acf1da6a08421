"""What tests of the lab share: a file of functions of the user's, and empty pictures where none is looked at."""

import importlib
import io
import sys

import pytest
from PIL import Image

HEAD = """
import numpy as np, torch
from torch import nn
from popup.lab.data.dataset import Dataset

def part(count, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 12, generator=generator)
    return images, (images[:, :4].sum(1) > 0).long()

def load():
    return part(64, 0), part(32, 1)

def build(image, classes):
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, classes))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes the user's file anew, as another process would find it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text="", old="", new=""):
        (tmp_path / "mine.py").write_text(HEAD.replace(old, new) + text)
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()

    write()
    yield write
    sys.modules.pop("mine", None)


@pytest.fixture(autouse=True)
def sketched(request, monkeypatch):
    """Much time would go into pixels that no test sees: where a test is not marked `drawn`, a figure is made as
    ever, but what is saved of it is empty."""
    if request.node.get_closest_marker("drawn"):
        return
    from matplotlib.figure import Figure

    empty = io.BytesIO()
    Image.new("L", (1, 1)).save(empty, "png")
    written = {"png": empty.getvalue(), "svg": "<svg></svg>\n"}
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, format, **options: file.write(written[format]))
