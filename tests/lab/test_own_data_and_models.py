"""Folders of images, a user's own data and a user's own network through the command line, with and without workers."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import MODELS
from popup.lab.commands.command import main
from popup.ticket.ticket import load

ROOT = Path(__file__).parents[2]

OWN = """
import torch
from torch import nn

def load():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = (images.float().mean((1, 2, 3)) > 127).long()
    return (images[:40], labels[:40]), (images[40:], labels[40:])

def build(image, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, classes))
"""


def folder(root, test_seed):
    """Bright and dark images of 8x8 pixels: 20 and 6 of each class; the test images come from a seed of their own."""
    for split, count, seed in (("train", 20, 0), ("test", 6, test_seed)):
        random = np.random.default_rng(seed)
        for low, name in ((0, "dark"), (60, "bright")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(low, low + 160, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    (root / "title.txt").write_text("Light and dark")
    return root


def run(root, out, *arguments):
    """The result and the ticket of the one run in `out`."""
    assert main(["--dataset", f"folder:{root}", "--data-dir", str(out / "data"), "--out", str(out / "runs"), "--epochs", "3",
                 "--batch-size", "8", "--widths", "16", *arguments], MODELS) == 0
    path, = (out / "runs").iterdir()
    return json.loads((path / "result.json").read_text()), load(path / "ticket.safetensors")


def test_a_folder_is_searched_by_its_title(tmp_path, capsys):
    result, ticket = run(folder(tmp_path / "light", 1), tmp_path)
    assert result["data"] == ticket.about["data"] == "Light and dark"
    assert (result["evaluated_on"], result["images"]) == ("test", [40, 12]) and len(result["data_fingerprint"]) == 64
    assert "test accuracy" in capsys.readouterr().out


def test_with_a_validation_part_the_test_images_change_nothing_but_the_fingerprint(tmp_path, capsys):
    found = [run(folder(tmp_path / place / "light", seed), tmp_path / place, "--validation", "0.25")
             for place, seed in (("one", 1), ("other", 2))]
    (first, ticket), (second, other) = found
    assert first["data_fingerprint"] != second["data_fingerprint"]
    assert (first["evaluated_on"], first["images"]) == ("validation", [30, 10])
    for name in ("test_accuracy", "test_loss", "train_loss", "layers", "proof"):
        assert first[name] == second[name]
    assert all(np.array_equal(mine.selected, theirs.selected)
               for mine, theirs in zip(ticket.layers, other.layers, strict=True))
    assert ticket.about["evaluated_on"] == "validation"
    printed = capsys.readouterr().out
    assert "validation accuracy" in printed and "test accuracy" not in printed and "no test data used" in printed


@pytest.mark.parametrize("grid", [["0.5"], ["0.5", "1"]])
def test_a_finished_run_on_other_images_is_not_passed_off_as_this_one(grid, tmp_path, capsys):
    root = folder(tmp_path / "light", 1)
    arguments = ["--dataset", f"folder:{root}", "--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "runs"),
                 "--epochs", "1", "--batch-size", "8", "--widths", "4", "--controls", "none", "--workers", "1"]
    assert main([*arguments, "--er-p", "0.5"], MODELS) == 0
    assert main([*arguments, "--er-p", *grid], MODELS) == 0
    Image.new("RGB", (8, 8)).save(root / "train" / "dark" / "0.png")
    capsys.readouterr()
    assert main([*arguments, "--er-p", *grid], MODELS) == 2
    line, = capsys.readouterr().err.splitlines()
    assert f"{len(grid)} finished run" in line and "other images" in line and "--out" in line
    assert main([*arguments, "--er-p", "0.2"], MODELS) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "runs")], MODELS) == 0
    assert f"not of the same images: runs on folder:{root}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("seeds", ["1", "2"])
def test_a_finished_run_of_another_network_is_not_passed_off_as_this_one(seeds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["--dataset", "own_network:load", "--model", "own_network:build", "--epochs", "1", "--batch-size", "8",
                 "--controls", "none", "--workers", "1", "--seeds", seeds, "--out", "runs"]

    def again(source):
        (tmp_path / "own_network.py").write_text(source)
        sys.modules.pop("own_network", None)
        importlib.invalidate_caches()
        return main(arguments, MODELS)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert again(OWN) == 0 and again(OWN + "\n# the same\n") == 0
    capsys.readouterr()
    assert again(OWN.replace("nn.ReLU()", "nn.Tanh()")) == 2
    line, = capsys.readouterr().err.splitlines()
    assert f"{seeds} finished run" in line and "another network than own_network:build builds now" in line and "--out" in line
    for path in tmp_path.glob("runs/*/result.json"):  # as results of before were
        result = json.loads(path.read_text())
        assert result.pop("network_fingerprint").startswith("torch ")
        path.write_text(json.dumps(result))
    assert again(OWN.replace("nn.ReLU()", "nn.Tanh()")) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_own_data_and_networks_from_the_directory_one_is_in(workers, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    arguments = f"--dataset own:load --model own:build mlp --epochs 1 --batch-size 8 --controls none --workers {workers}"
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), *arguments.split()], cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert len(results) == 2 and all(result["data"] == "own:load" and result["proof"]["holds"] for result in results)
    assert len(results[0]["data_fingerprint"]) == 64 and len({result["data_fingerprint"] for result in results}) == 1
    assert sorted(result["entries"] for result in results) == [576, 16 * 256 + 256 * 256 + 512]
