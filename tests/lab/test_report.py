"""What a report says in words and tables, on made-up runs: seeds, realised densities, equal networks, rows that differ."""

import csv
from itertools import product

import pytest

from popup.lab.config import Config
from popup.lab.report.comparison import settings
from popup.lab.report.contrasts import advantages, best_contrasts, change_contrasts, source_contrasts
from popup.lab.report.report import write_report, written
from popup.lab.report.results import Run, write_csv
from popup.lab.report.statistics import Mean, holm, paired
from popup.lab.report.summary import SHORT, summarise, tables
from popup.lab.report.tables import WIDTH, fit, layer_table, wrap
from popup.lab.report.verdicts import verdicts
from popup.lab.runs.controls import CONTROLS, control_config
from tests.lab.made_up import finished, ticket, tickets


def table_of(found, start):
    return next(part for part in tables(found) if part[0].startswith(start))


def test_a_source_is_compared_with_the_dense_one_of_a_grid_of_another_density_than_uniform():
    runs = tickets([90.0, 91.0], er_p=0.25, k=0.4, density="erk") + tickets([92.0, 94.0], er_p=1.0, k=0.1, density="erk")
    (contrast,) = source_contrasts(settings(runs))
    assert contrast.difference.value == -2.5 and contrast.first.config.source.er_p == 0.25


def test_sources_of_all_densities_are_compared_with_the_one_dense_source():
    runs = [run for p, k in ((0.25, 0.4), (1.0, 0.1)) for density in ("uniform", "erk", "balanced")
            for run in tickets([90.0 + p, 91.0 + p], er_p=p, k=k, density=density)]
    contrasts = source_contrasts(settings(runs))
    assert [contrast.first.factors["density"] for contrast in contrasts] == ["balanced", "erk", "uniform"]
    assert len({id(contrast.second) for contrast in contrasts}) == 1


def test_densities_that_are_compared_are_the_realised_ones_and_unequal_ones_are_told():
    runs = tickets([90.0, 91.0], 0.07, er_p=0.25, k=0.4, density="erk") + tickets([92.0, 93.0], 0.1, er_p=1.0, k=0.1)
    runs += tickets([90.0, 92.0], 0.1004, er_p=0.5, k=0.2)
    found = settings(runs)
    title, header, rows = table_of(found, "Starting sparse")
    assert "equal final density" not in title
    assert [row[header.index("densities, realised")] for row in rows] == ["0.0700, 0.1000", "0.1004, 0.1000"]
    assert verdicts(found)[-1].startswith("In 1 of 2 of these comparisons the final densities as realised differ, by up to 30%")


def test_the_best_of_unequal_densities_is_told_with_them():
    runs = [run for density, kept in (("uniform", 0.1), ("erk", 0.06)) for run in tickets([90.0, 91.5], kept, density=density)]
    _, header, rows = table_of(settings(runs), "Layerwise density")
    assert rows[0][header.index("densities, realised")] in ("0.1000, 0.0600", "0.0600, 0.1000")
    _, header, _ = table_of(settings(tickets([90.0, 91.5]) + tickets([90.0, 92.0], density="erk")), "Layerwise density")
    assert "densities, realised" not in header


def test_with_p_1_every_density_is_the_same_network_and_one_setting():
    runs = [run for p, density in product((0.2, 1.0), ("uniform", "erk", "balanced"))
            for run in tickets([90.0, 91.0, 92.5], er_p=p, density=density)]
    found = settings(runs)
    assert [(setting.factors["er_p"], setting.factors["density"]) for setting in found] == [
        (1.0, "any"), (0.2, "balanced"), (0.2, "erk"), (0.2, "uniform")]
    assert [setting.accuracy.count for setting in found] == [3] * 4
    assert all(contrast.first.factors["er_p"] == 0.2 for contrast in best_contrasts(found, "density"))
    assert any("density any" in sentence for sentence in verdicts(found))


def test_with_p_1_every_mask_is_the_same_network_and_one_setting():
    masks = ("bernoulli", "exact", "snip", "synflow")
    runs = [run for (p, k), mask in product(((0.2, 0.5), (1.0, 0.1)), masks)
            for run in tickets([90.0, 91.0, 92.5], er_p=p, k=k, mask=mask, weights="kaiming_normal")]
    found = settings(runs)
    assert [setting.factors["mask"] for setting in found if setting.factors["er_p"] == 1] == ["any"]
    assert len(found) == 5 and len(source_contrasts(found)) == 4
    assert verdicts(found)[0] == ("With p = 1 every layerwise density and mask is the same network: such runs are one setting, "
                                  "mask any.")


def test_clipped_densities_of_p_1_are_networks_of_their_own():
    runs = [run for density in ("uniform", "erk") for run in tickets([90.0, 91.0], er_p=1.0, density=density, redistribute=False)]
    assert len(settings(runs)) == 2


def test_seeds_of_equal_networks_add_up_and_controls_are_found():
    runs = [ticket(90.0, er_p=1.0, density="erk"), ticket(91.0, er_p=1.0, density="uniform", seed=1), ticket(80.0, er_p=0.5)]
    runs += [finished(control_config(run.config, "random"), 10.0) for run in runs]
    dense = next(setting for setting in settings(runs) if setting.factors["er_p"] == 1.0)
    assert dense.accuracies == {0: 90.0, 1: 91.0} and len(dense.controls["random"]) == 2


def test_a_change_of_density_changes_nothing_where_p_is_1():
    """A few changes at a time: the network is the usual one there, not another setting with a difference of 0."""
    changes = ({}, {"density": "erk"}, {"lr": 0.3}, {"gain": 1.0}, {"rank": "value"}, {"weights": "kaiming_normal"})
    found = settings([run for p in (0.2, 1.0) for change in changes for run in tickets([90.0, 91.0], er_p=p, **change)])
    assert [contrast.first.factors["er_p"] for contrast in change_contrasts(found)
            if contrast.first.changed == "density erk"] == [0.2]


def test_a_control_says_its_own_number_of_seeds():
    runs = tickets([90.0, 91.0, 92.0])
    runs += [finished(control_config(run.config, role), 80.0 + 3 * run.seed) for run in runs[:2]
             for role in ("random", "random_trained")]
    found = settings(runs)
    for start, column in (("Test accuracy", "random, trained"), ("Controls with frozen", "random")):
        title, header, rows = table_of(found, start)
        assert rows[0][header.index(column)] == "81.5 ±19.1 [2]" and rows[0][header.index("seeds")] == "3"
        assert "[n]: of n seeds, not the row's" in title
    title, header, rows = table_of(found, "Ticket minus control")
    assert rows[0][header.index("random, trained")] == "9.0 ±12.7 [2] (0.070)" and "[n]" in title
    whole = settings(runs[:2] + runs[3:])
    assert not any("[" in title for title, *_ in tables(whole))


def test_tickets_are_tested_against_their_controls_with_holms_adjustment():
    runs = [run for p in (0.2, 0.5) for run in tickets([90.0, 91.0, 92.5], er_p=p)]
    runs += [finished(control_config(run.config, role), value + 7 * run.config.source.er_p * run.seed) for run in runs
             for role, value in (("random", 10.0), ("random_trained", 85.0), ("dense_trained", 88.0))]
    found = settings(runs)
    for trained, count in ((False, 2), (True, 4)):
        cases = advantages(found, trained)
        plain = [paired(case.setting.accuracies, {run.seed: run.accuracy for run in case.setting.controls[case.role]}).p_value
                 for case in cases]
        assert len(cases) == count and [case.adjusted for case in cases] == pytest.approx(holm(plain))
    _, header, rows = table_of(found, "Ticket minus control with trained weights")
    assert header == ["p", "random, trained", "dense, trained", "seeds"] and len(rows) == 2
    assert any("clearly above their controls with frozen weights in all 2 "
               "comparisons (Holm p < 0.05, 3 seeds)" in sentence and "77.7 points (random" in sentence
               and "at p 0.5)" in sentence for sentence in verdicts(found))


def test_a_difference_that_is_equal_in_all_seeds_has_no_interval_and_says_why():
    runs = tickets([90.0, 91.0]) + tickets([92.0, 93.0], er_p=0.5)
    runs += [finished(control_config(run.config, "random_trained"), run.accuracy - 1 - run.seed * (run.config.source.er_p == 0.5))
             for run in runs]
    title, _, rows = table_of(settings(runs), "Ticket minus control")
    assert title.endswith("; without ±: equal in all seeds, so no interval and no test (-)") and rows[0][1] == "1.0 (-)"
    title, header, rows = table_of(settings(tickets([90.0, 91.0]) + tickets([90.0, 91.0], density="erk")), "Layerwise density")
    assert title.endswith("; without ±: equal in all seeds, so no interval")
    assert rows[0][header.index("difference"):] == ["0.00", "1.000", "1.000", "2"]
    title, _, _ = table_of(settings(tickets([90.0]) + tickets([90.5], density="erk")), "Layerwise density")
    assert title.endswith("; without ±: one seed, so no interval and no test (-)")


def test_all_of_a_change_is_over_the_seeds_that_its_rows_share():
    changes = ({}, {"lr": 0.3}, {"gain": 1.0}, {"rank": "value"}, {"weights": "kaiming_normal"})
    runs = [ticket(90.0 + seed + (change != {}) * p * seed, seed=seed, er_p=p, **change) for p in (0.2, 0.5) for change in changes
            for seed in range(3 if p == 0.2 or not change else 2)]
    title, _, rows = table_of(settings(runs), "What a change does")
    assert "of the seeds that all of them have" in title
    everything = next(row for row in rows if row[:2] == ["gain 1", "all"])
    assert everything[-1] == "2" and everything[-4].startswith("0.17 ")


def test_long_rows_stay_different_within_the_width():
    names = [f"chain:conv3p1-relu-max2-conv3p1-relu-max2-flatten-linear-relu-linear-{end}" for end in ("relu", "linear")]
    runs = [run for model, weights, method in product(names, ("signed_constant", "kaiming_normal"), ("gem_miner", "gates"))
            for run in tickets([90.0, 91.0], model=model, weights=weights, method=method)]
    runs += [finished(control_config(run.config, role), 99.0 + run.seed / 7) for run in runs
             for role in ("random_trained", "er_trained", "dense_trained")]
    found = settings(runs)
    text = summarise(runs, found)
    assert "..\n" not in text and ".. " not in text
    _, header, rows = tables(found)[0]
    wrapped = fit(header, rows)
    assert max(map(len, wrapped.splitlines())) <= WIDTH
    whole = "".join(wrapped.split())
    assert all("".join(part for part in name.split("-")[-1]) in whole for name in names) and len(wrapped.splitlines()) > len(rows)


def test_what_follows_a_part_that_is_wrapped_keeps_its_blank():
    name = "chain:conv3p1-relu-max2-conv3p1-relu-max2-flatten-linear"
    assert " ".join(wrap(f"{name}, erk, global", 40).split("\n")).endswith("linear, erk, global")


def test_layers_of_long_names_stay_different():
    rows = [{"name": f"{'encoder.' * 5}layer{place}.self_attention.out_projection.weight", "entries": 4, "p_l": 1.0, "edges": 4,
             "kept": 2, "density": 0.5} for place in (1, 2)]
    text = layer_table({"layers": rows, "entries": 8, "edges": 8, "kept": 4, "edge_density": 1.0, "final_density": 0.5})
    assert "layer1" in text and "layer2" in text and max(map(len, text.splitlines())) <= WIDTH


def test_one_seed_is_no_test():
    runs = [run for p in (0.2, 0.5) for method, value in (("edge_popup", 95.0), ("biprop", 60.0))
            for run in tickets([value], method=method, er_p=p)]
    found = settings(runs)
    assert verdicts(found) == ["In 2 of 2 settings there is one seed, which is no test of which method is best."]
    dense = settings(tickets([90.0], er_p=0.5, k=0.4) + tickets([91.0], er_p=1.0, k=0.2))
    assert verdicts(dense) == ["Of starting inside an ER network or dense there is one seed, which is no test."]


def test_where_nothing_else_varies_no_place_is_named():
    runs = tickets([95.0, 95.5, 95.2], method="edge_popup") + tickets([60.0, 60.7, 60.1], method="biprop")
    assert verdicts(settings(runs)) == ["edge_popup is best: clearly above biprop (Holm p < 0.05, 3 seeds)."]


def frozen_controls(runs, value=10.0):
    return [finished(control_config(run.config, "random"), value + run.seed / 7) for run in runs]


def test_starting_sparse_is_told_both_ways_with_the_number_of_seeds():
    pairs = ((0.1, [95.0, 95.5, 96.1]), (0.2, [80.0, 80.4, 81.1]), (0.4, [90.0, 91.0, 93.0]))
    runs = [run for k, accuracies in pairs for run in tickets(accuracies, er_p=0.5, k=2 * k)]
    runs += [run for k, _ in pairs for run in tickets([90.1, 90.9, 91.0], er_p=1.0, k=k)]
    assert verdicts(settings(runs)) == [
        "At equal p k, starting inside an ER network is clearly better than starting dense in 1, clearly worse in 1, undecided "
        "in 1 of 3 comparisons (Holm p < 0.05, 3 seeds)."]
    assert "(Holm p < 0.05, 2 to 3 seeds)" in verdicts(settings(runs[1:]))[0]


def test_tickets_that_are_drawn_at_random_are_not_tested_against_the_random_control():
    runs = tickets([90.0, 91.0, 92.5]) + tickets([10.0, 11.0, 9.5], method="random")
    found = settings(runs + frozen_controls(runs))
    assert [case.setting.factors["method"] for case in advantages(found, trained=False)] == ["edge_popup"]
    assert any("above their controls with frozen weights in the one comparison " in sentence for sentence in verdicts(found))
    drawn = settings(runs[3:] + frozen_controls(runs[3:]))
    assert verdicts(drawn) == []


def test_two_seeds_that_can_decide_nothing_are_said_to():
    runs = [run for place in range(20) for run in tickets([90.0, 91.0], k=0.04 * (place + 1))]
    words = "With 2 seeds a difference is clear among 20 only where it is 20 times the ± of its 95% interval, and none is"
    assert any(sentence.startswith(words) for sentence in verdicts(settings(runs + frozen_controls(runs))))
    enough = [run for place in range(20) for run in tickets([90.0, 91.0, 90.5, 90.7], k=0.04 * (place + 1))]
    assert not any("times" in sentence for sentence in verdicts(settings(enough + frozen_controls(enough))))


@pytest.mark.parametrize(("value", "text"), [(-0.004, "0.00"), (-0.006, "-0.01"), (0.0, "0.00"), (-1.0, "-1.00")])
def test_no_number_is_minus_nought(value, text):
    assert Mean(value, None, 1).text(2) == text


def test_the_csv_names_each_column_once(tmp_path):
    runs = tickets([90.0], epochs=7)
    runs[0].result["epochs"] = 5
    write_csv(tmp_path / "results.csv", runs)
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert len(set(header)) == len(header) == len(row)
    assert (row[header.index("epochs")], row[header.index("epochs_done")]) == ("7", "5")


def test_a_report_without_a_finished_run_names_no_pictures(tmp_path):
    write_report(tmp_path, [Run(tmp_path, Config(), None, "it failed")])
    assert written(tmp_path) == f"written to {tmp_path}/: results.csv report.txt report.html"


def test_a_report_of_some_runs_tells_of_the_others(tmp_path):
    run = tickets([90.0])[0]
    for name in (run.config.hash(), "0123456789ab", "a copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
    (tmp_path / run.config.hash() / "metrics.jsonl").write_text('{"epoch": 1, "test_accuracy": 90.0}\n')
    mine = finished(run.config, 90.0, path=tmp_path / run.config.hash())
    text = " ".join(write_report(tmp_path, [mine]).split())
    assert f"1 other finished run in {tmp_path}/ is no part of this" in text
    text = " ".join(write_report(tmp_path, [mine], whole=True).split())
    assert "python run.py report" not in text and f"Left out: 1 result.json under {tmp_path}/" in text
    assert written(tmp_path) == f"written to {tmp_path}/: results.csv report.txt report.html figures/"
    other = finished(run.config, 90.0, path=tmp_path / "0123456789ab")
    (tmp_path / "0123456789ab" / "metrics.jsonl").write_text('{"epoch": 1, "test_accuracy": 90.0}\n')
    assert "other finished" not in write_report(tmp_path, [mine, other])


def test_no_heading_is_broken_within_a_word_and_controls_on_request_have_a_table_of_their_own():
    runs = tickets([90.0, 91.0, 92.5], er_p=0.5) + tickets([80.0, 82.0, 81.0], er_p=0.2)
    runs += [finished(control_config(run.config, role), 50.0 + run.seed + len(role))
             for run in runs for role, control in CONTROLS.items() if control.trained]
    found = settings(runs)
    usual, more = (table_of(found, title)[1] for title in ("Test accuracy", "Further controls with trained weights"))
    assert usual == ["p", "density", "ticket %", "random, trained", "ER, trained", "dense, trained", "seeds"]
    assert more[2:-1] == [SHORT[role] for role, control in CONTROLS.items() if control.trained and not control.usual]
    assert "ticket, trained" in table_of(found, "Ticket minus further control with trained weights")[1]
    lines = fit(*table_of(found, "Ticket minus further")[1:]).splitlines()
    rule = next(place for place, line in enumerate(lines) if line.startswith("---"))
    assert set(" ".join(lines[:rule]).split()) <= {word for cell in more for word in cell.split()} | {"p", "seeds"}
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(("values", "said"), [
    ([(90, 10)], "clearly above their controls with frozen weights in the one comparison ("),
    ([(90, 10), (80, 10)], "clearly above their controls with frozen weights in all 2 comparisons ("),
    ([(10, 90), (90, 10)], "clearly above their controls with frozen weights in 1, clearly below in 1 of 2 comparisons ("),
    ([(10, 90)], "clearly below their controls with frozen weights in the one comparison ("),
    ([(50, 50)], "neither clearly above nor below their controls with frozen weights in the one comparison ("),
    ([(90, 10), (50, 50)], "clearly above their controls with frozen weights in 1, undecided in 1 of 2 comparisons (")])
def test_a_verdict_says_nothing_of_what_no_comparison_is(values, said):
    noise = (0.1, 0.3, 0.2)
    runs = []
    for p, (high, low) in zip((0.5, 0.2), values, strict=False):
        mine = tickets([high + one for one in noise], er_p=p)
        runs += mine + [finished(control_config(run.config, "random"), low + 7 * noise[run.seed - 1]) for run in mine]
    (sentence,) = [one for one in verdicts(settings(runs)) if "frozen weights" in one]
    assert sentence.startswith(f"Tickets are {said}")
