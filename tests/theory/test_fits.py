"""The law's forms: what was put in is found, with its interval; and the law for all parameters at once."""

import json
from math import inf, log10

import numpy as np
import pytest

from models import MODELS
from popup.lab.commands import law_command
from popup.lab.commands.command import main
from popup.lab.runs import findability
from popup.theory.fits import FORMS, _widest, fit_form, met_at_once, require_at_once
from popup.theory.locked import measure_locked
from popup.theory.measurement import Requirement, draw_candidates, measure_requirements


def rows(form, noise=0.0):
    """Requirements that follow one form: 4 + 3 a decade of epsilon + 5 a decade of delta."""
    draw = np.random.default_rng(0)
    return [Requirement(p, eps, 9, (4 + 3 * log10(1 / eps) + 5 * log10(1 / delta)) / FORMS[form](p) * (1 + noise * draw.normal()),
                        delta) for p in (0.2, 0.5, 0.7) for eps in (0.1, 0.01, 0.001) for delta in (0.1, 0.01)]


@pytest.mark.parametrize("form", FORMS)
def test_the_fit_finds_the_form_that_was_put_in(form):
    exact, noisy = (fit_form(rows(form, noise), form) for noise in (0.0, 0.02))
    assert exact.coefficients == pytest.approx((4, 3, 5)) and exact.largest < 1e-9 and exact.points == 18
    for value, true, half in zip(noisy.coefficients, (4, 3, 5), noisy.intervals, strict=True):
        assert abs(value - true) < 2 * half
    assert 0.01 < noisy.deviation < 0.04
    (other,) = set(FORMS) - {form}
    assert fit_form(rows(form), other).deviation > 0.1


def test_what_does_not_tell_coefficients_apart_is_not_fitted():
    one = [row for row in rows("q p") if row.delta == 0.1 and row.epsilon == 0.1]
    assert fit_form(one, "q p").coefficients[1:] == (0, 0) and fit_form(one[:1], "q p") is None
    assert fit_form([Requirement(1.0, 0.1, 8, 8), Requirement(0.5, 0.1, inf, inf)], "q p") is None


def test_delta_is_a_share_of_the_parameters():
    found = measure_requirements(0.5, (0.05,), 400, 0, deltas=(0.5, 0.05, 0.01))
    assert [row.delta for row in found] == [0.5, 0.05, 0.01] and found[0].copies < found[1].copies < found[2].copies
    assert 1 < found[0].edges < 8
    assert found[1] == measure_requirements(0.5, (0.05,), 400, 0, deltas=(0.05,))[0]


def test_all_parameters_at_once_need_more_than_one():
    """Issue's reading: 13 candidates where 8 do pointwise at 0.1."""
    met = met_at_once(0.1, 60, 0)
    assert (np.diff(met) >= 0).all() and met[0] == 0 and 11 <= require_at_once(1.0, 0.1, 0.05, met).candidates <= 15
    assert require_at_once(1.0, 0.001, 0.05, met_at_once(0.001, 4, 0, most=6)).copies == inf


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_all_parameters_at_once_in_an_er_source(p):
    """Binomial candidates: the share that is met, drawn one by one."""
    met = np.array([0, 0, 0.2, 0.7, 0.9, 1.0])
    found = require_at_once(p, 0.1, 0.1, met)
    draws = np.random.default_rng(0).binomial(found.copies, p, 200_000)
    assert found.candidates == 4 and met[draws.clip(max=5)].mean() >= 0.898
    assert met[np.random.default_rng(0).binomial(found.copies - 1, p, 200_000).clip(max=5)].mean() < 0.902
    assert require_at_once(p, 0.1, 1e-9, np.array([0, 0.5])).copies == inf


def test_of_epsilon_and_delta_the_smaller():
    """What was put in with the smaller of the two is found so, and the sum of both is then the worse."""
    put_in = [Requirement(p, eps, 9, (4 + 3 * log10(1 / min(eps, delta))) / p, delta)
              for p in (0.2, 0.7) for eps in (0.1, 0.01, 0.001) for delta in (0.1, 0.01, 0.001)]
    fit = fit_form(put_in, "q p", smaller=True)
    assert fit.coefficients == pytest.approx((4, 3, 0)) and fit.largest < 1e-9 < 0.02 < fit_form(put_in, "q p").deviation


@pytest.mark.parametrize("sums", [[-2.0, 0.0, 2.0], [0.0], [-1.0, -0.2, 1.0], [-0.5, 0.0, 1.5], [-1.01, 0.0, 0.98, 1.6],
                                  [-1.3, -0.95, -0.9, 0.0, 0.1, 1.02], [-3.0, 0.0, 0.4, 0.9, 1.3]])
def test_the_widest_gap_that_a_parameter_can_lie_in(sums):
    """Of a gap that goes beyond -1 or 1 the part within counts, whatever lies beyond."""
    grid = np.linspace(-1, 1, 20001)
    by_hand = 2 * np.abs(grid[:, None] - np.array(sums)).min(1).max()
    assert _widest(np.array(sums)) == pytest.approx(by_hand, abs=1e-3)


def test_more_sums_make_no_gap_wider():
    draws = np.random.default_rng(0).uniform(-1.5, 1.5, (200, 6))
    assert all(_widest(np.append(row, 0.0)) <= _widest(np.append(row[:3], 0.0)) for row in draws)


def test_the_command_takes_deltas(tmp_path, capsys):
    arguments = ["law", "--er-p", "0.4", "0.8", "--epsilon", "0.1", "0.03", "--delta", "0.1", "0.02", "--parameters", "100",
                 "--sources", "0", "--all-at-once", "50", "--out", str(tmp_path)]
    assert main(arguments, {}) == 0
    text = capsys.readouterr().out
    assert "98% of the parameters" in text and "per decade of 1/eps" in text and "all of [-1, 1] at once" in text
    assert "(the smaller)" in text and "over 4 points" in text
    record = json.loads((tmp_path / "law.json").read_text())["requirements"]
    alone, at_once = record["weights"], record["all at once"]
    assert len(at_once) == 8 and all(one["copies"] < every["copies"] for one, every in zip(sorted(
        alone, key=lambda row: (row["p"], row["epsilon"], row["delta"])), sorted(
        at_once, key=lambda row: (row["p"], row["epsilon"], row["delta"])), strict=True))
    assert main(["law", "--delta", "0.001", "--parameters", "100", "--out", str(tmp_path)], {}) == 2
    assert "delta is 0.001: of 100 parameters that is less than one" in capsys.readouterr().err
    assert main(["law", "--delta", "0.001", "--out", str(tmp_path)], {}) == 2
    assert "delta is 0.001: of 100 draws of --all-at-once that is less than one" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["er-p", "epsilon", "delta", "locked"])
def test_no_measurement_counts_twice(name, tmp_path, capsys):
    """Intervals would be those of as many points again."""
    assert main(["law", f"--{name}", "0.1", "0.2", "0.1", "--parameters", "100", "--out", str(tmp_path)], {}) == 2
    assert f"{name.replace('-', '_')} has 0.1 twice" in capsys.readouterr().err


def test_existence_and_findability(tmp_path, capsys, monkeypatch):
    """The built ticket is the better one from some width on; what is found is measured on the same sources."""
    monkeypatch.setattr(findability, "STEPS", 20)
    monkeypatch.setattr(law_command, "HIDDEN", (16, 192))
    arguments = ["law", "--er-p", "0.6", "--epsilon", "0.03", "0.3", "--parameters", "20", "--sources", "0", "--all-at-once", "0",
                 "--searches", "1", "--out", str(tmp_path)]
    assert main(arguments, MODELS) == 0
    text = capsys.readouterr().out
    assert "exists" in text and "> 1024" not in text.split("edge-popup finds one")[0] and "findability.png" in text
    trials = json.loads((tmp_path / "law.json").read_text())["findability"]
    assert [(trial["width"], trial["seed"]) for trial in trials] == [(16, 0), (192, 0)]
    assert all(trial["built"] < 0.03 < trial["found"] for trial in trials if trial["width"] == 192)


def test_a_source_without_an_edge_is_a_trial_in_which_nothing_is_found():
    """Of so few weights one in three sources of p = 0.02 has none, and the others' trials are not lost with it."""
    trial = findability.run_trial(0.02, 16, 0, MODELS["mlp_constant"])
    assert trial.built == trial.found > 0


def test_the_least_width_is_one_from_which_on_half_are_within():
    gaps = {8: (0.01, 0.01), 16: (0.5, 0.5), 32: (0.09, 0.5), 64: (0.01, 0.02)}
    trials = [findability.Trial(0.5, width, seed, gap, 1.0) for width, pair in gaps.items() for seed, gap in enumerate(pair)]
    assert findability.least_width(trials, 0.1, findability.best_known) == 32
    assert findability.least_width(trials, 0.015, findability.best_known) == 64
    assert findability.least_width(trials, 0.1, findability.best_found) == inf


def test_locked_edges_cost_candidates_and_none_cost_none():
    usual = measure_requirements(0.5, (0.1, 0.03), 2000, 0)
    none, some, half = (measure_locked(0.5, share, (0.1, 0.03), 0.05, 100, 0) for share in (0.0, 0.1, 0.25))
    for one, other in zip(none, usual, strict=True):
        assert abs(one.candidates - other.candidates) <= 2 and abs(one.copies - other.copies) <= 4
    assert all(one.copies < other.copies < 100 for one, other in zip(none + some, some + half, strict=True))


def test_a_locked_edge_is_in_every_sum():
    """With all edges locked nothing is chosen: a parameter is met where its edges happen to sum to it."""
    (found,) = measure_locked(1.0, 1.0, (0.5,), 0.5, 60, 0)
    values, _, goals = draw_candidates(1.0, 60, 0, 48)
    by_hand = [np.mean(np.abs(values[:, :count].sum(1) - goals) > 0.5) for count in range(49)]
    assert found.candidates == np.argmax(np.array(by_hand) <= 0.5) if min(by_hand) <= 0.5 else found.candidates == inf


def test_the_command_takes_locked_shares(tmp_path, capsys):
    arguments = ["law", "--er-p", "0.8", "--epsilon", "0.1", "--parameters", "60", "--sources", "0", "--all-at-once", "0"]
    assert main([*arguments, "--locked", "0.25", "--out", str(tmp_path)], {}) == 0
    assert "25% are locked into the ticket" in capsys.readouterr().out
    rows = json.loads((tmp_path / "law.json").read_text())["requirements"]
    assert rows["locked 0.25"][0]["copies"] > rows["weights"][0]["copies"]
    assert main([*arguments, "--locked", "0.95"], {}) == 2 and "locked is 0.95" in capsys.readouterr().err
