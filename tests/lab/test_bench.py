"""The bench: what it times is what it says."""

import json

import pytest
import torch

from models import MODELS
from popup.lab.bench import bench
from popup.lab.bench.bench import measure
from popup.lab.commands.command import main
from popup.lab.training.batches import Batches

QUICK = ["--rounds", "1", "--largest", "0", "--no-subset-sums", "--no-sparse-inference", "--batch", "4", "--device", "cpu"]
OWN = "from torch import nn\n\ndef needy(image, classes, depth):\n    return nn.Linear(2, 2)\n"


def test_the_time_of_the_data_is_a_whole_epochs_by_its_batches(monkeypatch):
    """Several batches are prepared at a time, so that a single one often costs nothing. Here all are, at the first, and the
    clock is how many have been prepared so far."""
    prepared, epoch = [0], Batches.epoch

    def counted(batches, number):
        prepared[0] += batches.steps
        yield from epoch(batches, number)

    monkeypatch.setattr(Batches, "epoch", counted)
    found = bench._pipeline(torch.randn(8, 1, 4, 4), torch.arange(8) % 2)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(prepared[0]))
    assert [figure.seconds for figure in measure([found], 4)] == [1.0]


@pytest.mark.parametrize(("arguments", "words"), [
    ("--model lenet5 --side 8", ["lenet5", "[3, 8, 8]"]), ("--model mlp vgg11 --side 16", ["vgg11", "[3, 16, 16]"]),
    ("--model chain:linear", ["chain:linear", "[3, 32, 32]"]),
    ("--model torchvision:vit_b_16 --side 30", ["vit_b_16", "[3, 30, 30]"]),
    ("--model own_bench:needy", ["own_bench:needy", "needy(image, classes, depth)"]),
    ("--model mpl", ["did you mean 'mlp'"]), ("--model", ["--model", "no value"]), ("--precision", ["--precision", "no value"])])
def test_what_cannot_be_measured_is_one_line_before_anything_is(arguments, words, tmp_path, capsys, monkeypatch):
    (tmp_path / "own_bench.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["bench", *QUICK, *arguments.split()], MODELS) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and all(word in printed.err for word in words) and not printed.out, printed.err
    assert not (tmp_path / "bench").exists()


def test_a_chain_is_measured_at_the_side_that_is_asked_for(tmp_path, capsys):
    model = "chain:flatten-linear"
    assert main(["bench", *QUICK, "--model", model, "--side", "4", "--precision", "fp32", "--out", str(tmp_path)], MODELS) == 0
    assert "at 3x4x4, fp32" in capsys.readouterr().out
    names = [figure["name"] for figure in json.loads((tmp_path / "bench.json").read_text())["measured"][f"{model} fp32"]]
    assert names[0] == "dense weight-training step" and len(names) == 10
