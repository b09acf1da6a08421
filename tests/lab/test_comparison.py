"""What a report says is best, on made-up accuracies: who is compared, and how Holm's adjustment counts."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random

import pytest
from scipy.stats import ttest_rel

from popup.lab.config import Config
from popup.lab.report.comparison import panels, settings
from popup.lab.report.contrasts import best_contrasts, change_contrasts
from popup.lab.report.figures import PICTURES
from popup.lab.report.results import Run
from popup.lab.report.scales import accuracy_ticks
from popup.lab.report.statistics import holm
from popup.lab.report.summary import mixed_lines, summarise, tables
from popup.lab.report.verdicts import verdicts

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
        "At p 0.5 edge_popup is best: clearly above sampled, random (Holm p < 0.05, 5 seeds), not to be told from averaged.",
        "At p 1 averaged is best: clearly above random (Holm p < 0.05, 5 seeds)."]
    title, _, rows = tables(found)[1]
    assert title.startswith("Method: the best mean") and [row[:3] for row in rows] == [
        ["edge_popup", "averaged", "p 0.5"], ["edge_popup", "sampled", "p 0.5"], ["edge_popup", "random", "p 0.5"],
        ["averaged", "random", "p 1"]]


def test_how_layers_compute_is_compared_where_it_was_asked_for_and_not_where_auto_comes_to_dense():
    def factors(*runs):
        return [*settings([run for each in runs for run in each])[0].factors]

    one = {"edge_popup": ACCURACIES["edge_popup"]}
    dense, auto = made_up(one, er_p=1.0, compute="dense"), made_up(one, er_p=0.1, compute="auto")
    assert factors(dense, auto) == factors(dense, made_up(one, er_p=0.1, compute="dense")) == ["er_p"]
    assert factors(auto, made_up(one, er_p=0.1, compute="dense")) == ["compute"]
    assert set(factors(dense, made_up(one, er_p=0.1, compute="sparse"))) == {"compute", "er_p"}


def test_results_without_a_fingerprint_are_not_taken_for_other_images():
    """Embedded data have an empty one, and results of an early popup none."""
    runs = [replace(run, result={**run.result, **fingerprint}) for run, fingerprint in zip(
        made_up({"random": [9.0, 10.0, 11.0]}), [{}, {"data_fingerprint": ""}, {"data_fingerprint": "a"}], strict=True)]
    assert mixed_lines(runs) == []
    other = replace(runs[0], result={**runs[0].result, "data_fingerprint": "b"})
    assert len(mixed_lines([*runs, other])) == 1


def test_runs_of_a_function_that_built_other_networks_are_told_in_one_line():
    seeds = made_up({"random": [9.0, 10.0, 11.0]}, model="mine:network")
    runs = [replace(run, result={**run.result, **found}) for run, found in zip(
        seeds, [{}, {"network_fingerprint": ""}, {"network_fingerprint": "a"}], strict=True)]
    assert mixed_lines(runs) == [], "a result of before says nothing of it"
    control = replace(runs[0], config=runs[0].config.replace(role="er_trained"))
    line, = mixed_lines([*runs, replace(control, result={**control.result, "network_fingerprint": "b"})])
    assert "not of the same network: runs of mine:network had 2 different versions of it (1 and 1 runs)." in line
    wider = replace(runs[0], config=runs[0].config.replace(width=2.0))
    assert mixed_lines([*runs, replace(wider, result={**wider.result, "network_fingerprint": "b"})]) == []


def test_runs_that_computed_in_different_precisions_are_told_in_one_line():
    runs = [replace(run, result={**run.result, **precision}) for run, precision in zip(
        made_up({"random": [9.0, 10.0, 11.0]}), [{}, *[{"realised_precision": "bf16"}] * 2], strict=True)]
    assert mixed_lines(runs) == [], "a result of before says nothing of it"
    other = replace(runs[0], result={**runs[0].result, "realised_precision": "fp32"})
    line, = mixed_lines([*runs, other])
    assert "of the runs with --precision auto 2 computed in bf16 and 1 computed in fp32." in line
    asked = replace(other, config=other.config.replace(precision="fp32"))
    assert mixed_lines([*runs, asked]) == [], "who asks for both knows"


def test_nothing_is_said_of_a_factor_that_does_not_vary():
    assert best_contrasts(settings(made_up({"random": [9.0, 10.0]})), "method") == []


USUAL = [70.0, 71.0, 72.0]
CHANGES = {"lr 0.4": {"lr": 0.4}, "gain 1": {"gain": 1.0}, "rank value": {"rank": "value"},
           "method averaged": {"method": "averaged"}, "lr 0.01, optimizer adam": {"lr": 0.01, "optimizer": "adam"}, "nothing": {}}


def one_change_at_a_time():
    return [Run(Path("nowhere"), Config().replace(seed=seed, er_p=p, **fields),
                {"test_accuracy": value + 10 * p + (0.5 * seed - place if fields else 0), "final_density": 0.5 * p,
                 "layers": [{"entries": 10, "edges": 5, "density": 0.25}]}, None)
            for place, fields in enumerate(CHANGES.values()) for p in (1.0, 0.5) for seed, value in enumerate(USUAL)]


def test_one_change_at_a_time_is_told_by_what_was_changed_and_measured_against_the_usual():
    found = settings(one_change_at_a_time())
    assert {setting.columns["changed"] for setting in found} == set(CHANGES)
    contrasts = change_contrasts(found)
    assert len(contrasts) == 2 * (len(CHANGES) - 1)
    for contrast in contrasts:
        place = list(CHANGES).index(contrast.first.changed)
        assert contrast.difference.value == pytest.approx(0.5 - place) and contrast.second.changed == ""
        assert contrast.first.config.source.er_p == contrast.second.config.source.er_p
    _, _, rows = next(part for part in tables(found) if part[0].startswith("What a change does"))
    assert [row[1:5] + row[6:] for row in rows if row[0] == "gain 1" and row[1] == "all"] == [
        ["all", "", "", "-0.50 ±1.24", "-", "3"]]
    text = summarise([], found)
    assert "rank value" in text and "±" in text and "±.." not in text
    assert verdicts(found)[0] == ("Usual, where no change is told: gain 1.41421, rank magnitude, lr 0.1, optimizer sgd, "
                                  "method edge_popup.")


def test_a_full_grid_keeps_a_column_a_factor():
    runs = [run for method in ("edge_popup", "averaged") for rank in ("magnitude", "value")
            for run in made_up({method: USUAL}, rank=rank)]
    found = settings(runs)
    assert [list(setting.columns) for setting in found] == [["rank", "method"]] * 4 and change_contrasts(found) == []


@pytest.mark.drawn
def test_the_pictures_of_a_sparse_grid_are_drawn():
    found = settings(one_change_at_a_time())
    drawn = {name: picture.draw(found) for name, picture in PICTURES.items() if name != "training"}
    assert drawn["compared"] == []
    labels = [tick.get_text() for tick in drawn["changes"][0].axes[0].get_yticklabels()]
    assert labels == list(CHANGES)[:-1], "sorted by what they add"
    assert [panel.get_title() for panel in drawn["accuracy"][0].axes] == ["nothing changed"]


@pytest.mark.parametrize(("low", "high"), [(8, 100), (50, 54), (97.9, 98.9), (30, 70), (49.7, 50.9)])
def test_an_axis_of_accuracies_has_some_round_ticks(low, high):
    ticks = accuracy_ticks(low, high)
    assert 4 <= len(ticks) <= 12 and all(low <= tick <= high and round(tick, 1) == pytest.approx(tick) for tick in ticks)


def test_a_method_that_is_worse_on_the_shared_seeds_is_not_called_better():
    runs = made_up({"edge_popup": [95.0, 95.2, 95.4], "biprop": [96.0, 96.3, 96.4, 60.0, 61.0, 62.0]})
    assert not any("edge_popup is best: clearly above biprop" in sentence for sentence in verdicts(settings(runs)))


def test_equal_differences_of_two_seeds_make_no_winner():
    runs = made_up({"edge_popup": [95.0, 96.0], "biprop": [94.0, 95.0]})
    assert not any("clearly above" in sentence for sentence in verdicts(settings(runs)))


def test_a_setting_of_one_method_only_is_no_factor_of_the_others():
    runs = made_up({"edge_popup": USUAL, "averaged": USUAL}) + made_up({"frozen": [60.0, 61.5, 62.0]}, locked=0.3)
    found = settings(runs)
    assert [setting.factors for setting in found] == [{"method": name} for name in ("averaged", "edge_popup", "frozen")]
    assert any("best: clearly above frozen" in sentence for sentence in verdicts(found))


def test_a_method_without_a_setting_is_compared_with_every_value_of_those_that_have_it():
    worse = {0.3: [60.0, 61.5, 62.0], 0.7: [50.0, 51.5, 52.0]}
    runs = made_up({"edge_popup": USUAL})
    for locked, accuracies in worse.items():
        runs += made_up({"frozen": accuracies}, locked=locked)
    for every, value in ((10, 65.0), (20, 66.0)):
        runs += made_up({"iterand": [value, value + 1.4, value + 2]}, redraw_every=every)
    found = settings(runs)
    assert found[0].usual == {}
    first = next(setting for setting in found if setting.factors["method"] == "edge_popup")
    assert (first.factors["locked"], first.factors["redraw_every"]) == ("any", "any")
    contrasts = best_contrasts(found, "method")
    assert all(contrast.first is first for contrast in contrasts) and len(contrasts) == 4
    sides = {id(setting): list(setting.accuracies.values()) for setting in found}
    others = {name: [setting for setting in found if setting.factors["method"] == name] for name in ("frozen", "iterand")}
    pairs = [(first, other) for other in others["frozen"] + others["iterand"]]
    pairs += [(one, other) for one in others["frozen"] for other in others["iterand"]]  # Holm counts these too
    adjusted = holm([float(ttest_rel(sides[id(one)], sides[id(other)]).pvalue) for one, other in pairs])
    assert sorted(contrast.adjusted for contrast in contrasts) == pytest.approx(sorted(adjusted[:4]))
    assert not any("layerwise" in sentence for sentence in verdicts(found))
    assert all(first in panel for panel in panels(found, ("method",)))
    assert PICTURES["compared"].draw(found) and PICTURES["accuracy"].draw(found)


LOCKED = {0.3: [60.0, 61.5, 62.0], 0.6: [70.0, 71.5, 70.2]}


def test_rows_of_a_setting_that_one_side_lacks_are_told_apart():
    runs = made_up({"edge_popup": USUAL, "averaged": [65.0, 66.5, 67.0]})
    for locked, accuracies in LOCKED.items():
        runs += made_up({"frozen": accuracies}, locked=locked)
    found = settings(runs)
    _, _, rows = next(part for part in tables(found) if part[0].startswith("Method"))
    assert sorted(row[:3] for row in rows) == [["edge_popup", "averaged", "-"], ["edge_popup", "frozen", "locked 0.3"],
                                               ["edge_popup", "frozen", "locked 0.6"]]
    assert verdicts(found) == ["edge_popup is best: clearly above averaged, frozen (locked 0.3) (Holm p < 0.05, 3 seeds), not to "
                               "be told from frozen (locked 0.6)."]


def test_settings_are_counted_once_whatever_the_order_of_the_rows():
    """edge_popup is the best at two values of locked, frozen at the one between them."""
    runs = made_up({"edge_popup": USUAL})
    for locked, accuracies in {0.3: [69.9, 71.1, 71.7], 0.6: [70.1, 70.9, 72.3], 0.7: [69.8, 71.2, 71.6]}.items():
        runs += made_up({"frozen": accuracies}, locked=locked)
    found = settings(runs)
    sentences = {sentence for seed in range(20) for sentence in verdicts(Random(seed).sample(found, len(found)))}
    assert sentences == {"In 3 of 3 settings no method is clearly below the best (Holm p < 0.05, 3 seeds)."}


def test_the_usual_setting_is_one_that_was_run():
    """Each of four things is changed alone, and no run has changed none."""
    changes = ({"lr": 0.4}, {"gain": 1.0}, {"rank": "value"}, {"batch_size": 64})
    found = settings([run for change in changes for run in made_up({"edge_popup": USUAL}, **change)])
    assert found[0].usual and sum(setting.changed == "" for setting in found) == 1
