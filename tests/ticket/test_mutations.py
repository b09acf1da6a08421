"""Damaged and forged files: refused with one line or read as what they were, never another network, nor much memory."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import models
from popup import TicketError, attach, extract, load
from popup.ticket.sealed import LONGEST_HEADER, digest

ROOT = Path(__file__).parents[2]


def test_files_that_are_changed_are_refused_or_mean_the_same():
    """More of them: python tests/ticket/mutate.py 5000"""
    done = subprocess.run([sys.executable, str(ROOT / "tests/ticket/mutate.py"), "400"], cwd=ROOT, capture_output=True,
                          text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["read"] == found["refused"] + found["same"] == 400 and found["same"] < 40


@pytest.fixture
def path(tmp_path):
    net = attach(models.mlp((1, 8, 8), 4, (32,)), er_p=0.4, k=0.05, seed=1)
    return extract(net).save(tmp_path / "ticket", compress=True)


def forge(path, change):
    """The file again after change(metadata, tensors), with a digest to match."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(json.loads(content[8:8 + length])["__metadata__"]["popup"])
    tensors = safetensors.torch.load(content)
    del metadata["digest"]
    change(metadata, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"popup": json.dumps({**metadata, "digest": digest(metadata, tensors)})}))


def bomb(size):
    return torch.from_numpy(np.frombuffer(bytearray(zlib.compress(bytes(size), 9)), np.uint8))


def first(metadata):
    return metadata["layers"][0]


HUGE = {
    "a large shape": (lambda m, t: first(m).update(shape=[32, 64 * 10**6]), "edges: shape"),
    "a larger shape": (lambda m, t: first(m).update(shape=[10**6, 10**6]), "shape of '1.weight'"),
    "a large shape at a small p_l": (lambda m, t: first(m).update(shape=[32, 64 * 10**6], p_l=4e-7), "uniform at er_p 0.4 gives"),
    "many edges": (lambda m, t: first(m).update(edges=10**9, shape=[5, 10**9], p_l=0.2), "are too many for"),
    "a bomb": (lambda m, t: t.update({"gaps/1.weight": bomb(10**8)}), "does not hold"),
    "a code cut short": (lambda m, t: t.update({"gaps/1.weight": t["gaps/1.weight"][:-6].clone()}), "does not hold"),
    "a code that goes on": (lambda m, t: t.update({"gaps/1.weight": torch.cat([t["gaps/1.weight"]] * 2)}), "does not hold"),
    "no code at all": (lambda m, t: t.update({"gaps/1.weight": torch.arange(9, dtype=torch.uint8)}), "its code is broken"),
    "a large constant": (lambda m, t: m["constants"].update({"1.bias": [0.0, [10**9]]}), "larger than the network"),
    "a constant without entries whose sides are": (lambda m, t: m["constants"].update({"1.bias": [0.0, [0, 10**9, 10**9]]}),
                                                   "the shape of"),
    "a constant that is none": (lambda m, t: m["constants"].update({"1.bias": [0.5, [32]]}), "is not [0, shape]"),
    "a layer twice": (lambda m, t: (m["layers"].append(dict(first(m), coded=False)),
                                    t.update({"mask/1.weight": torch.zeros(1, dtype=torch.uint8)})), "the mask of"),
    "no layer": (lambda m, t: (m.update(layers=[]), t.clear()), "there is no layer"),
}


@pytest.mark.parametrize("case", HUGE)
def test_a_forged_size_is_refused_before_it_is_allocated(case, path):
    change, words = HUGE[case]
    forge(path, change)
    with pytest.raises(TicketError) as error:
        load(path)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gain", "k", "er_p"])
def test_a_recipe_value_of_another_type_is_refused(name, path):
    for value in ("1", True, None, [0.4], float("nan"), 10**400):
        forge(path, lambda metadata, tensors, value=value: metadata["recipe"].update({name: value}))
        with pytest.raises(TicketError, match=f"{name}( in recipe)? is"):
            load(path)


def test_a_header_that_is_too_long_is_refused_unread(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.write((LONGEST_HEADER + 1).to_bytes(8, "little"))
        file.truncate(1 << 40)
    with pytest.raises(TicketError, match="is no popup ticket, or only a part of one"):
        load(path)


def test_a_device_or_a_pipe_is_no_ticket(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(TicketError, match="is no popup ticket"):
            load(path)


def test_a_field_of_a_later_version_is_named(path):
    forge(path, lambda metadata, tensors: metadata["recipe"].update(sparkle=1))
    with pytest.raises(TicketError, match="recipe has the unknown field 'sparkle': a later version wrote it"):
        load(path)
