"""Whether tickets keep their promise, counted over sources: `run.py law --targets`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import MODELS
from popup.lab.commands.command import main
from popup.lab.runs.misses import Misses, measure_misses, plan_target, random_target

BUILDER = MODELS["mlp_constant"]


def test_a_random_target_is_one_of_its_seed_with_its_sizes():
    target = random_target((5, 40, 30), 3)
    hidden, last = ([layer.weight, layer.bias[:, None]] for layer in target.layers)
    assert target.widths == [5, 40, 30] and target.activation.kind == "relu"
    assert 0.45 < max(np.abs(part).max() for part in hidden) <= 0.5 and 0.9 < max(np.abs(part).max() for part in last) <= 1
    assert np.array_equal(random_target((5, 40, 30), 3).layers[1].weight, target.layers[1].weight)
    assert not np.array_equal(random_target((5, 40, 30), 4).layers[0].weight, target.layers[0].weight)


def test_as_many_sources_miss_as_were_planned_and_more_if_planned_for_more():
    """20 sources: of those that may miss once in 20, two at most do (12 in a million more than six)."""
    sure, loose = (measure_misses(plan_target((7, 3), 0.9, 0.01, delta, 0), 20, 0, BUILDER) for delta in (0.05, 0.5))
    assert sure.missed <= 2 and sure.copies[0] > loose.copies[0]
    narrow = plan_target((7, 3), 0.9, 0.01, 0.05, 0)
    narrow = replace(narrow, plan=replace(narrow.plan, copies=(12,)))
    assert measure_misses(narrow, 20, 0, BUILDER).missed > 10


def test_the_gap_of_a_network_is_looked_for():
    """Within what is certain, and above what an input of zeros shows: tickets are nowhere exact."""
    found = measure_misses(plan_target((3, 4, 2), 0.8, 0.05, 0.05, 1), 3, 5, BUILDER)
    assert found.missed == 0 and 1e-4 < found.largest < 0.05
    assert found == replace(measure_misses(plan_target((3, 4, 2), 0.8, 0.05, 0.05, 1), 3, 5, BUILDER), seconds=found.seconds)


@pytest.mark.parametrize(("missed", "sources", "low", "high"), [
    (0, 200, 0, 0.01828), (1, 200, 0.000127, 0.02754), (5, 20, 0.08657, 0.49105), (20, 20, 0.83157, 1)])
def test_the_interval_is_clopper_and_pearsons(missed, sources, low, high):
    """The first three stand in tables of the binomial; of all missed it is the mirror of none."""
    row = Misses((7, 3), 0.9, 0.01, 0.05, (37,), sources, missed, 0.0, 0.0)
    assert row.interval == pytest.approx((low, high), abs=6e-6)


def test_the_command_prints_and_records_them(tmp_path, capsys):
    options = ["law", "--er-p", "0.9", "0.7", "--epsilon", "0.1", "--parameters", "20", "--all-at-once", "0", "--sources", "3",
               "--out", str(tmp_path)]
    assert main([*options, "--targets", "4-2", "3-3-2"], MODELS) == 0
    text, rows = capsys.readouterr().out, json.loads((tmp_path / "law.json").read_text())["misses"]
    assert [(row["widths"], row["p"], row["sources"]) for row in rows] == [
        ([4, 2], 0.9, 3), ([4, 2], 0.7, 3), ([3, 3, 2], 0.9, 3), ([3, 3, 2], 0.7, 3)]
    assert text.count(" of 3 ") == 4 and "planned for at most 5%" in text


@pytest.mark.parametrize(("options", "told"), [
    (["--targets", "7"], "targets has '7': give widths"), (["--targets", "7-0"], "targets has '7-0': give widths"),
    (["--targets", "7-3", "7-3"], "targets has 7-3 twice"), (["--targets", "7-3", "--sources", "0"], "that is 0"),
    (["--targets", "784-10", "--er-p", "0.01", "--epsilon", "0.01"], "give a larger --delta or --epsilon")])
def test_what_cannot_be_is_told_before_anything_is_measured(options, told, tmp_path, capsys):
    assert main(["law", "--out", str(tmp_path), *options], MODELS) == 2
    found = capsys.readouterr()
    assert told in found.err and not found.out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_target_computes_in_the_inputs_own_type_and_has_their_gradient(dtype):
    target, x = random_target((3, 5, 2), 0), torch.rand(9, 3, dtype=dtype) * 2 - 1
    hidden, last = target.layers
    before = x.double().numpy() @ hidden.weight.T + hidden.bias
    y = target.outputs(x.requires_grad_())
    assert y.dtype is dtype and y.detach().numpy() == pytest.approx(np.maximum(before, 0) @ last.weight.T + last.bias, abs=1e-6)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.numpy() == pytest.approx((before > 0) * last.weight.sum(0) @ hidden.weight, abs=1e-6)
