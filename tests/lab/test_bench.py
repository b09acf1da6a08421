"""The bench: what it times is what it says."""

import json

import numpy as np
import pytest
import torch

from models import MODELS
from popup.lab.bench import bench, precisions
from popup.lab.bench.bench import measure
from popup.lab.bench.precisions import Comparison
from popup.lab.commands.command import main
from popup.lab.training.batches import Batches

LEFT_OUT = ["--no-subset-sums", "--no-sparse-inference", "--no-small-networks", "--no-wide-networks", "--no-calls"]
QUICK = ["--rounds", "1", "--largest", "0", *LEFT_OUT, "--batch", "4", "--device", "cpu"]
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


@pytest.mark.parametrize(("seconds", "times"), [(1e-3, 30), (0.02, 5), (0.3, 1)])
def test_a_turn_is_as_many_steps_as_last_a_tenth_of_a_second_after_one_that_is_not_timed(seconds, times, monkeypatch):
    now = [0.0]

    def step():
        now[0] += seconds

    found = bench.a_turn_long(bench.Subject("made up", step), lambda: now[0])
    before = now[0]
    (figure,) = measure([found], 1, clock=lambda: now[0])
    assert found.times == times and round((now[0] - before) / seconds) == 2 * (1 + times)  # in one round that does not count, too
    assert figure.seconds == pytest.approx(seconds)


def test_a_turn_of_steps_that_a_coarse_clock_does_not_see_is_as_long_as_turns_are():
    assert bench.a_turn_long(bench.Subject("made up", lambda: None), lambda: 0.0).times == bench.MOST_IN_A_ROW


@pytest.mark.parametrize(("arguments", "words"), [
    ("--model lenet5 --side 8", ["lenet5", "[3, 8, 8]"]), ("--model mlp vgg11 --side 16", ["vgg11", "[3, 16, 16]"]),
    ("--model chain:linear", ["chain:linear", "[3, 32, 32]"]),
    ("--model torchvision:vit_b_16 --side 30", ["vit_b_16", "[3, 30, 30]"]),
    ("--model own_bench:needy", ["own_bench:needy", "needy(image, classes, depth)"]),
    ("--model mpl", ["did you mean 'mlp'"]), ("--model", ["--model", "no value"]), ("--precision", ["--precision", "no value"]),
    ("--largest 9999", ["largest is 9999", "10000"]), ("--threads 2000", ["threads is 2000"])])
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


@pytest.mark.parametrize(("quartiles", "auto", "faster", "words"), [
    ((0.3, 0.2, 0.4), "bf16", "bf16", ["bf16 is faster here, and --precision auto takes it"]),
    ((0.3, 0.2, 0.4), "fp32", "bf16", ["bf16 is faster here, BUT", "auto takes fp32", "pass --precision bf16"]),
    ((1.5, 1.4, 1.6), "bf16", "fp32", ["fp32 is faster here, BUT", "auto takes bf16", "pass --precision fp32"]),
    ((1.5, 1.4, 1.6), "fp32", "fp32", ["fp32 is faster here, and --precision auto takes it"]),
    ((1.1, 0.9, 1.3), "fp32", "neither", ["neither is clearly faster here", "auto takes fp32"])])
def test_fp32_beside_bf16_says_which_is_faster_and_warns_if_auto_takes_the_other(quartiles, auto, faster, words):
    comparison = Comparison(0.2, 0.06, 0.21, 0.07, *quartiles, auto)
    line = comparison.line()
    assert comparison.faster == comparison.record()["faster"] == faster and "\n" not in line
    assert all(word in line for word in ["dense step 200.00 and 60.00 ms", "p = 0.2 210.00 and 70.00 ms", *words])


def test_both_precisions_are_timed_in_the_same_rounds(tmp_path, capsys, monkeypatch):
    model, asked = "chain:flatten-linear", []
    monkeypatch.setattr("popup.lab.bench.precisions.interleaved", lambda found, *rest: (
        asked.append([subject.name for subject in found]), np.tile([2.0, 4.0, 2.0, 3.0], (5, 1)))[1])
    assert main(["bench", *QUICK, "--model", model, "--side", "4", "--out", str(tmp_path)], MODELS) == 0
    assert asked == [["dense weight-training step"] * 2 + ["popup, p = 0.2"] * 2]
    found = json.loads((tmp_path / "bench.json").read_text())["precisions"]
    assert found == {model: {"dense_fp32": 2.0, "dense_bf16": 4.0, "popup_fp32": 2.0, "popup_bf16": 3.0, "ratio": 1.5,
                             "low": 1.5, "high": 1.5, "auto": "fp32", "faster": "fp32"}}
    assert f"{model}: fp32 beside bf16" in capsys.readouterr().out


def test_the_pair_computes_in_fp32_and_in_bf16(monkeypatch):
    """What a network hears of autocast in each of the four steps."""
    heard = []

    class Heard(torch.nn.Linear):
        def forward(self, x):
            heard.append(torch.is_autocast_enabled("cpu"))
            return super().forward(x)

    def build():
        return torch.nn.Sequential(torch.nn.Flatten(), Heard(4, 2))

    precisions.compare(build, torch.randn(3, 1, 2, 2), torch.arange(3) % 2, 1)
    assert heard[:2] == [False, True] and heard[-8:].count(True) == 4
