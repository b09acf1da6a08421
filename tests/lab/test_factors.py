"""What a report takes for one value of a factor, and what it compares with what: on made-up accuracies."""

import pytest

from popup.lab.config import Config
from popup.lab.report.answer import answer
from popup.lab.report.comparison import settings
from popup.lab.report.contrasts import best_contrasts, source_contrasts
from popup.lab.report.factors import EITHER
from popup.lab.report.figures import PICTURES
from popup.lab.report.layer_figures import layers_said
from popup.lab.report.verdicts import verdicts
from popup.lab.runs.controls import control_config
from tests.lab.made_up import finished, tickets, with_metrics

HIGH, LOW = [90.0, 91.0, 90.4], [80.3, 80.1, 81.2]


def rows(runs):
    """Name and mean of each setting."""
    return {setting.label(): round(setting.accuracy.value, 1) for setting in settings(runs)}


def sides(contrasts):
    return [(one.first.label(), one.second.label()) for one in contrasts]


def test_tickets_of_a_computed_mask_are_not_as_uniform_as_their_source():
    """Its layerwise densities are its own, so a uniform ticket is another one."""
    runs = [run for rule, values in (("source", HIGH), ("uniform", LOW))
            for run in tickets(values, mask="snip", er_p=0.2, k=0.5, ticket_density=rule)]
    assert rows(runs) == {"ticket_density source": 90.5, "ticket_density uniform": 80.5}
    drawn = [run for rule in ("source", "uniform") for run in tickets(HIGH, er_p=0.2, k=0.5, ticket_density=rule)]
    assert len(settings(drawn)) == 1, "uniform sources have one ticket by both names"


@pytest.mark.parametrize("rule", ["uniform", "erk"])
def test_starting_sparse_is_compared_with_starting_dense_whatever_density_tickets_have(rule):
    """A uniform ticket of a complete source is the source's by the other name."""
    runs = tickets(LOW, er_p=0.2, k=0.5, density="erk", ticket_density=rule) + tickets(
        HIGH, er_p=1.0, k=0.1, density="erk", ticket_density=rule)
    assert sides(source_contrasts(settings(runs))) == [("er_p 0.2, k 0.5", "er_p 1, k 0.1")]


def test_a_dense_ticket_with_two_names_meets_the_sparse_ones_of_each(tmp_path):
    runs = [run for rule, values in (("source", LOW), ("uniform", [70.1, 70.0, 70.7]), ("erk", [60.2, 60.9, 61.0]))
            for run in tickets(values, er_p=0.2, k=0.5, density="erk", ticket_density=rule)]
    runs += tickets(HIGH, er_p=1.0, k=0.1) + tickets([85.0, 85.4, 86.0], er_p=1.0, k=0.1, ticket_density="erk")
    found = settings(with_metrics(runs, tmp_path / "run"))
    assert {setting.factors["ticket_density"] for setting in found} == {"source", "uniform", "erk", EITHER}
    met = {one.first.factors["ticket_density"]: one.second.factors["ticket_density"] for one in source_contrasts(found)}
    assert met == {"source": EITHER, "uniform": EITHER, "erk": "erk"}
    assert [one.second.factors["ticket_density"] for one in best_contrasts(found, "ticket_density")
            if one.first.factors["ticket_density"] == EITHER] == ["erk"]
    for picture in PICTURES.values():
        picture.draw(found), picture.caption(found)


def test_what_is_best_somewhere_and_not_everywhere_is_told_where():
    runs = tickets(HIGH, method="edge_popup") + tickets(LOW, method="coats", coats=2) + tickets(
        [95.0, 96.1, 95.6], method="coats", coats=4)
    said = [sentence for sentence in verdicts(settings(runs)) if " is best" in sentence]
    assert [sentence.split(" (")[0] for sentence in said] == [
        "At coats 2 edge_popup is best: clearly above coats", "At coats 4 coats is best: clearly above edge_popup"]


def test_a_tie_is_one_comparison():
    runs = tickets(HIGH, method="edge_popup") + tickets(HIGH[::-1], method="coats", coats=2) + tickets(
        [95.0, 96.1, 95.6], method="coats", coats=4)
    found = settings(runs)
    pairs = [frozenset((id(one.first), id(one.second))) for one in best_contrasts(found, "method")]
    assert len(pairs) == len(set(pairs))


def test_the_dense_network_that_is_told_of_is_the_one_of_the_best_mean():
    runs = [run for epochs, values, level in ((1, LOW, 80.0), (30, HIGH, 98.0)) for run in [
        *tickets(values, epochs=epochs), *(finished(control_config(one.config, "dense_trained"), level + one.seed)
                                           for one in tickets(values, epochs=epochs))]]
    assert [sentence for sentence in answer(settings(runs)) if "dense" in sentence] == [
        "The dense network of the best mean with trained weights reaches 99.0 ±2.5%."]
    one = [run for run in runs if run.config.training.epochs == 1]
    assert "The dense network with trained weights reaches 81.0 ±2.5%." in answer(settings(one))


def test_the_caption_says_which_side_is_better():
    runs = tickets(LOW, er_p=0.2, k=0.5) + tickets(HIGH, er_p=1.0, k=0.1)
    assert "above 0 the ER source is better. Bars are" in PICTURES["sparse_against_dense"].caption(settings(runs))


def test_a_bias_without_an_edge_is_no_cut():
    config = Config().replace(bias="search", er_p=0.05)
    run = finished(config, 50.0)
    run.result["layers"] = [{"name": name, "entries": 10, "edges": edges, "density": 0.0}
                            for name, edges in (("1.weight", 5), ("1.bias", 0), ("3.weight", 0))]
    assert layers_said(settings([run])).count("No edge was drawn in") == 1
    assert "No edge was drawn in 3.weight" in layers_said(settings([run]))
