"""What is measured of existence: against direct computation, and against what theory says."""

from math import inf, log

import numpy as np
import pytest
from scipy.stats import binom

from popup.lab.bench.subset_sums import subsets, time_subset_sums, try_all
from popup.lab.commands.command import main
from popup.lab.report import existence_figures
from popup.lab.report.existence_figures import draw_law
from popup.theory.law import SHARE, candidates_needed, copies_needed
from popup.theory.measurement import (
    Requirement,
    _quantile,
    copies_to_represent,
    fit_candidates,
    fit_constant,
    least_copies,
    measure_representation,
    measure_requirements,
    smallest_errors,
)
from popup.theory.odds import PRODUCT
from popup.theory.subset_sum import best_subsets


def test_the_least_error_over_growing_candidates():
    draw = np.random.default_rng(0)
    values, goals = draw.uniform(-1, 1, (50, 9)), draw.uniform(-1, 1, 50)
    errors = smallest_errors(values, goals, 0.0)
    for count in range(10):
        np.testing.assert_allclose(errors[count], try_all(subsets(count), values[:, :count], goals), atol=1e-13)
    lazy = smallest_errors(values, goals, 0.05)
    assert ((lazy <= 0.05) == (errors <= 0.05)).all()


def test_a_requirement_is_the_quantile_over_parameters():
    """At p = 1 copies and candidates are the same; below it about 1 / p times as many copies are needed."""
    full = measure_requirements(1.0, (0.1, 0.01), 500, 0)
    assert all(row.copies == row.candidates for row in full) and full[0].copies < full[1].copies < 16
    half = measure_requirements(0.5, (0.1, 0.01), 500, 0)
    assert all(1.5 < sparse.copies / whole.copies < 3 for sparse, whole in zip(half, full, strict=True))
    assert measure_requirements(0.5, (1e-9,), 20, 0)[0].copies == inf
    products = measure_requirements(1.0, (0.1, 0.01), 500, 0, products=True)
    assert all(abs(one.copies - other.copies) <= 3 for one, other in zip(products, full, strict=True))


def test_the_quantile_is_the_least_that_covers_the_share():
    """Of 1 .. 20 it is 19: 95% of them are no larger."""
    assert [_quantile(np.arange(1.0, count + 1)) for count in (20, 40, 21)] == [19, 38, 20]
    assert _quantile(np.array([1.0] * 19 + [inf])) == 1 and _quantile(np.array([1.0] * 18 + [inf] * 2)) == inf


@pytest.mark.parametrize("epsilon", [0.01, 1e-4])
def test_the_law_that_plans_is_the_one_measured(epsilon):
    """With the planned candidates about SHARE of the parameters are met (1 candidate is a factor of 2 in epsilon)."""
    (row,) = measure_requirements(1.0, (epsilon,), 2000, 5)
    assert abs(row.candidates - candidates_needed(epsilon)) <= 1


DRAWS = {"uniform": lambda draw, shape: draw.uniform(-1, 1, shape),
         "kaiming_normal": lambda draw, shape: draw.normal(0, 3**-0.5, shape)}


@pytest.mark.parametrize("weights", DRAWS)
@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("largest", [0.25, 0.5, 1.0, 1.5, 2.0])
def test_the_largest_parameters_are_within_reach_of_few_candidates(largest, products, weights):
    """At a loose tolerance what is needed is reach: of 1 about twelve candidates, of 2 about twenty; not many more."""
    draw, goals = np.random.default_rng(0), np.full(2000, largest * (PRODUCT if products else 1))
    count = candidates_needed(0.1, largest, products, weights)
    values = DRAWS[weights](draw, (2000, count)) * (np.abs(DRAWS[weights](draw, (2000, count))) if products else 1)
    met, fewer = ((np.abs(best_subsets(some, goals).error) <= 0.1).mean() for some in (values, values[:, :-2]))
    assert met >= SHARE - 0.015 and (count < 10 or fewer < 0.97)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9, 1.0])
def test_copies_are_the_least_that_have_the_candidates(p):
    copies = copies_needed(12, p)
    assert binom.sf(11, copies, p) >= SHARE
    assert copies == 12 or binom.sf(11, copies - 1, p) < SHARE


def test_the_fits_find_what_was_put_in():
    found = [Requirement(p, eps, 3 + 2 * log(1 / eps) / log(2), 4 * log(1 / eps) / -log(1 - p))
             for p in (0.1, 0.5, 0.9) for eps in (0.1, 0.001)]
    assert fit_constant([*found, Requirement(1.0, 0.1, inf, 8)]) == pytest.approx(4)
    assert fit_candidates([*found, Requirement(0.5, 0.1, inf, inf)]) == pytest.approx((3, 2))


@pytest.mark.parametrize(("p", "copies"), [(0.5, 3), (0.2, 10), (1.0, 1)])
def test_pairs_without_an_edge_are_a_share_of_one_minus_p_to_the_q(p, copies):
    found = measure_representation((5, 4, 3), p, copies, 200)
    pairs = 200 * (4 * copies * 5 + 3 * 4)
    expected = (1 - p) ** copies
    assert abs(found.missing - expected) <= 5 * np.sqrt(expected * (1 - expected) / pairs)
    assert found.represented == (1.0 if p == 1 else pytest.approx((1 - expected) ** (pairs / 200), abs=0.12))


@pytest.mark.parametrize("p", [0.3, 0.6])
def test_the_theorem_is_enough_and_below_the_lower_bound_it_fails(p):
    widths, delta = (5, 4, 3), 0.1
    enough = copies_to_represent(widths, p, delta)
    assert measure_representation(widths, p, enough, 200).represented >= 1 - delta
    bound = least_copies(64, p, delta)
    below, above = (measure_representation((1, 64), p, int(count), 600).represented for count in (bound, bound + 3))
    assert below < 1 - delta < above


def test_the_command_measures_prints_and_draws(tmp_path, capsys):
    arguments = ["law", "--er-p", "0.5", "1", "--epsilon", "0.1", "0.01", "--parameters", "100", "--sources", "10"]
    assert main([*arguments, "--out", str(tmp_path)], {}) == 0
    text = capsys.readouterr().out
    assert "fitted: q = " in text and "lower bound for 64 nodes" in text
    assert {path.name for path in tmp_path.iterdir()} == {"law.json", "law.png", "representation.png"}
    assert main(["law", "--epsilon", "1e-9", "--out", str(tmp_path)], {}) == 2
    assert "epsilon is 1e-09" in capsys.readouterr().err


LAW = {
    "nothing in reach": (("--epsilon", "1e-7", "--er-p", "0.5", "1"), ("no constant to fit", "no slope to fit")),
    "one epsilon": (("--epsilon", "0.1", "--er-p", "0.5", "0.9"), ("fitted: q = ", "no slope to fit")),
    "nine epsilons": (("--epsilon", *(f"{place / 50}" for place in range(6, 15)), "--er-p", "0.5"), ("candidates = ",)),
    "p of 1 alone": (("--epsilon", "0.1", "0.01", "--er-p", "1"), ("no constant to fit", "candidates = ")),
}


@pytest.mark.parametrize("name", LAW)
def test_the_law_fits_only_what_there_is_to_fit(name, tmp_path, capsys):
    options, words = LAW[name]
    assert main(["law", *options, "--parameters", "40", "--sources", "2", "--out", str(tmp_path)], {}) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words) and "nan" not in text
    assert (tmp_path / "representation.png").exists() == (name != "p of 1 alone") == ("representation.png" in text)


def test_the_plan_in_the_picture_of_the_law_is_the_plan():
    """Dotted lines: copies for as many candidates as `prove` asks for, whatever was measured."""
    figures = []
    found = [Requirement(p, epsilon, 99.0, 50.0) for p in (0.3, 1.0) for epsilon in (0.1, 0.001)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(existence_figures, "_finish", lambda figure, axes: figures.append(figure))
        draw_law(found, 4.0)
    right = figures[0].axes[1]
    dotted = [line.get_ydata() for line in right.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert [list(line) for line in dotted] == [[copies_needed(candidates_needed(epsilon), p) for epsilon in (0.1, 0.001)]
                                               for p in (0.3, 1.0)]


def test_the_bench_times_subset_sums():
    rows = time_subset_sums((6, 20), rounds=1)
    assert rows[0].meeting > 0 and rows[0].trying > 0 and rows[1].trying is None
