"""What a report says is best, on made-up accuracies: who is compared, and how Holm's adjustment counts."""

from itertools import combinations
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from popup.lab.config import Config
from popup.lab.report.comparison import best_contrasts, settings
from popup.lab.report.results import Run
from popup.lab.report.statistics import holm
from popup.lab.report.summary import tables, verdicts

ACCURACIES = {"edge_popup": [90.0, 91.0, 90.5, 91.5, 90.2], "averaged": [90.1, 90.7, 90.6, 91.2, 90.4],
              "sampled": [80.0, 81.3, 79.9, 82.0, 80.4], "random": [10.0, 9.0, 11.2, 10.5, 9.9]}


def made_up(accuracies, **fields):
    return [Run(Path("nowhere"), Config().replace(method=method, seed=seed, **fields),
                {"test_accuracy": value, "final_density": 0.1}, None)
            for method, values in accuracies.items() for seed, value in enumerate(values)]


def test_the_best_is_seen_in_the_data_so_all_pairs_count():
    contrasts = best_contrasts(settings(made_up(ACCURACIES)), "method")
    pairs = list(combinations(ACCURACIES, 2))
    adjusted = dict(zip(pairs, holm([float(ttest_rel(ACCURACIES[one], ACCURACIES[other]).pvalue) for one, other in pairs]),
                        strict=True))
    found = {(contrast.first.factors["method"], contrast.second.factors["method"]): contrast.adjusted
             for contrast in contrasts}
    assert found == {pair: pytest.approx(value) for pair, value in adjusted.items() if pair[0] == "edge_popup"}
    assert len(found) == 3 < len(pairs)


def test_methods_are_compared_where_all_else_is_equal():
    runs = made_up(ACCURACIES, er_p=0.5) + made_up({name: ACCURACIES[name] for name in ("averaged", "random")}, er_p=1.0)
    found = settings(runs)
    assert verdicts(found) == [
        "At p 0.5 edge_popup is best: clearly above sampled, random (Holm p < 0.05), not to be told from averaged.",
        "At p 1 averaged is best: clearly above random (Holm p < 0.05)."]
    title, _, rows = tables(found)[1]
    assert title.startswith("Method: the best mean") and [row[:3] for row in rows] == [
        ["edge_popup", "averaged", "p 0.5"], ["edge_popup", "sampled", "p 0.5"], ["edge_popup", "random", "p 0.5"],
        ["averaged", "random", "p 1"]]


def test_nothing_is_said_of_a_factor_that_does_not_vary():
    assert best_contrasts(settings(made_up({"random": [9.0, 10.0]})), "method") == []
