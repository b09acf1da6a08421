"""Whether tickets keep their promise, counted over sources: `run.py law --targets`."""

import itertools
import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import MODELS
from popup.lab.commands import law_command
from popup.lab.commands.command import main
from popup.lab.runs import misses
from popup.lab.runs.misses import Misses, measure_misses, plan_target, random_target
from popup.lab.training.stop import Stopped

BUILDER = MODELS["mlp_constant"]
MOST = 10_000_000


def test_a_random_target_is_one_of_its_seed_with_its_sizes():
    target = random_target((5, 40, 30), 3)
    hidden, last = ([layer.weight, layer.bias[:, None]] for layer in target.layers)
    assert target.widths == [5, 40, 30] and target.activation.kind == "relu"
    assert 0.45 < max(np.abs(part).max() for part in hidden) <= 0.5 and 0.9 < max(np.abs(part).max() for part in last) <= 1
    assert np.array_equal(random_target((5, 40, 30), 3).layers[1].weight, target.layers[1].weight)
    assert not np.array_equal(random_target((5, 40, 30), 4).layers[0].weight, target.layers[0].weight)


def test_as_many_sources_miss_as_were_planned_and_more_if_planned_for_more():
    """20 sources: of those that may miss once in 20, two at most do (12 in a million more than six)."""
    sure, loose = (measure_misses(plan_target((7, 3), 0.9, 0.01, delta, 0, MOST), 20, 0, BUILDER) for delta in (0.05, 0.5))
    assert sure.missed <= 2 and sure.copies[0] > loose.copies[0]
    narrow = plan_target((7, 3), 0.9, 0.01, 0.05, 0, MOST)
    narrow = replace(narrow, plan=replace(narrow.plan, copies=(12,)))
    assert measure_misses(narrow, 20, 0, BUILDER).missed > 10


def test_the_gap_of_a_network_is_looked_for():
    """Within what is certain, and above what an input of zeros shows: tickets are nowhere exact."""
    planned = plan_target((3, 4, 2), 0.8, 0.05, 0.05, 1, MOST)
    found = measure_misses(planned, 3, 5, BUILDER)
    assert found.missed == 0 and 1e-4 < found.largest < 0.05
    assert found == replace(measure_misses(planned, 3, 5, BUILDER), seconds=found.seconds)


@pytest.mark.parametrize(("widths", "p", "epsilon"), [((2, 4), 0.3, 0.1), ((6, 3), 0.2, 0.1), ((1, 1), 0.5, 0.01)])
def test_of_a_linear_target_it_is_the_largest_there_is(widths, p, epsilon, monkeypatch):
    """Against every point whose coordinates are -1, 0 or 1, where a sum of such functions is largest, and random ones."""
    found, largest = [], misses._largest
    points = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=widths[0]))).view(-1, 1, 1, widths[0])
    others = torch.rand(2000, 1, 1, widths[0], generator=torch.Generator().manual_seed(0)) * 2 - 1

    def seen(error, image):
        found.append((float(error(points).abs().max()), float(error(others).abs().max()), largest(error, image)))
        return found[-1][-1]

    monkeypatch.setattr(misses, "_largest", seen)
    row = measure_misses(plan_target(widths, p, epsilon, 0.5, 0, MOST), 8, 0, BUILDER)
    for at_corners, elsewhere, told in found:
        assert told == pytest.approx(at_corners, rel=1e-9) and elsewhere <= told * (1 + 1e-9)
    assert len(found) == 8 and row.missed == sum(told > epsilon for *_, told in found)


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
    assert "4 settings of --targets, 3 sources each, of up to " in text and ": some 1 CPU minutes" in text


def test_an_interrupt_keeps_what_was_measured(tmp_path, capsys, monkeypatch):
    """The second setting is interrupted."""
    measure, calls = law_command.measure_misses, []

    def interrupted(planned, *others):
        calls.append(planned)
        if len(calls) == 2:
            raise Stopped(signal.SIGINT)
        return measure(planned, *others)

    monkeypatch.setattr(law_command, "measure_misses", interrupted)
    options = ["--er-p", "0.9", "--epsilon", "0.1", "--parameters", "20", "--all-at-once", "0", "--sources", "2"]
    assert main(["law", *options, "--targets", "4-2", "3-2", "--out", str(tmp_path)], MODELS) == 130
    record = json.loads((tmp_path / "law.json").read_text())
    assert [row["widths"] for row in record["misses"]] == [[4, 2]] and record["representation"] and record["requirements"]


@pytest.mark.parametrize(("options", "told"), [
    (["--targets", "7"], "targets has '7': give widths"), (["--targets", "7-0"], "targets has '7-0': give widths"),
    (["--targets", "7-3", "7-3"], "targets has 7-3 twice"), (["--targets", "7-3", "--sources", "0"], "that is 0"),
    (["--targets", "100000-100000"], "one of 10,000,000,000 weights: give such of 10,000,000 or fewer"),
    (["--targets", "9" * 5000 + "-1"], "give widths"), (["--targets", "\u0664-2"], "give widths"),
    (["--targets", "4-16-30", "--er-p", "0.02", "--epsilon", "0.01"], "more than --most-weights 1,000,000,000; raise it"),
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
