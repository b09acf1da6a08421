"""The pictures of a report on made-up runs: colours, legends, panels, ticks, and that nothing is drawn that cannot be seen."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from matplotlib.figure import Figure

from popup.lab.config import Config
from popup.lab.report.axes import FIGURES as MOST_FIGURES
from popup.lab.report.axes import PANELS, group_title, note
from popup.lab.report.comparison import settings
from popup.lab.report.curves import least_loss
from popup.lab.report.figures import PICTURES
from popup.lab.report.plots import plot_training
from popup.lab.report.report import write_report
from popup.lab.report.scales import round_ticks
from popup.lab.runs.controls import control_config
from tests.lab.made_up import finished, ticket, tickets, with_metrics

pytestmark = pytest.mark.drawn
ACCURACIES = [90.0, 91.0, 92.5]


def draw(name, runs):
    return PICTURES[name].draw(settings(runs))


def written_page(out, runs):
    """The page of a report on the runs."""
    write_report(out, runs)
    return (out / "report.html").read_text(encoding="utf-8")


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def colours(panel):
    return {bars.get_label(): bars[0].get_color() for bars in panel.containers}


def test_a_value_has_one_colour_in_all_panels_and_the_legend_has_all_values():
    """The panels hold different p: one has 0.5 and 0.1, the other 0.2."""
    runs = [run for density, ps in (("erk", (0.5, 0.1)), ("uniform", (0.2,))) for p in ps for k in (0.25, 0.5)
            for run in tickets(ACCURACIES, p * k, density=density, er_p=p, k=k)]
    (figure,) = draw("accuracy", runs)
    first, second = map(colours, figure.axes)
    assert first.keys() == {"p = 0.5", "p = 0.1"} and second.keys() == {"p = 0.2"}
    assert len({*first.values(), *second.values()}) == 3
    assert legend_of(figure) == ["p = 0.5", "p = 0.2", "p = 0.1"]


def with_controls(runs, *roles):
    return [*runs, *(finished(control_config(run.config, role), 95.0, run.result["final_density"])
                     for run in runs for role in roles)]


def test_references_stand_below_a_heading_of_their_own():
    runs = [run for p, k in ((0.5, 0.2), (0.2, 0.5), (0.5, 0.4)) for run in tickets(ACCURACIES, p * k, er_p=p, k=k)]
    (figure,) = draw("accuracy", with_controls(runs, "random", "dense_trained"))
    assert legend_of(figure) == ["ticket from an ER source with", "p = 0.5", "p = 0.2", "compared with",
                                 "dense, weights trained", "random subnetwork"]
    assert figure.legends[0].get_title().get_text() == ""  # it is an entry, in line with the other heading
    merged = "means over the sources of like density, whatever their p"
    assert merged in PICTURES["accuracy"].caption(settings(with_controls(runs, "random", "dense_trained")))
    one = with_controls(runs[:3] + runs[6:], "random")
    assert merged not in PICTURES["accuracy"].caption(settings(one)), "each point is of one source"


def test_methods_have_one_colour_in_all_panels():
    runs = [run for weights, methods in (("signed_constant", ("averaged", "gates")), ("kaiming_normal", ("biprop", "gates")))
            for method in methods for k in (0.25, 0.5) for run in tickets(ACCURACIES, k / 5, method=method, weights=weights, k=k)]
    (figure,) = draw("compared", runs)
    kaiming, signed = map(colours, figure.axes)
    assert kaiming["gates"] == signed["gates"] and kaiming["biprop"] != signed["averaged"]
    assert legend_of(figure) == ["averaged", "biprop", "gates"]


def test_complete_sources_are_in_the_panel_of_each_density():
    runs = [run for density, p, k in product(("erk", "uniform"), (0.2, 1.0), (0.25, 0.5))
            for run in tickets(ACCURACIES, p * k, density=density, er_p=p, k=k)]
    (figure,) = draw("accuracy", runs)
    assert [panel.get_title() for panel in figure.axes] == ["erk", "uniform"]
    assert all(colours(panel).keys() == {"p = 1", "p = 0.2"} for panel in figure.axes)
    heat = draw("heat_map", runs)[0].axes[:2]
    assert all("" not in [text.get_text() for text in panel.texts] for panel in heat)


@pytest.mark.parametrize(("groups", "drawn"), [(PANELS, [6]), (PANELS + 2, [6, 2]), (30, [6] * MOST_FIGURES)])
def test_no_panel_is_dropped_silently(groups, drawn):
    runs = [run for seed in range(groups) for k in (0.25, 0.5) for run in tickets([90.0], k / 5, lr=0.01 * (seed + 1), k=k)]
    for name in ("accuracy", "heat_map") if groups < 10 else ("accuracy",):
        runs += [run for seed in range(groups) for run in tickets([90.0], 0.1, lr=0.01 * (seed + 1), k=0.2, er_p=0.5)]
        figures = draw(name, runs)
        assert [sum(panel.get_xlabel() != "" for panel in figure.axes) for figure in figures] == drawn
        assert figures[-1].get_supxlabel() == ("24 of 30 panels are drawn; the tables have all" if groups == 30 else "")


def test_curves_say_how_many_of_the_settings_they_show(tmp_path):
    runs = with_metrics([run for place in range(20) for run in tickets(ACCURACIES, lr=0.01 * (place + 1))], tmp_path / "run")
    (figure,) = draw("training", runs)
    assert figure.get_supxlabel() == "8 of 20 settings, spread over the grid"
    assert draw("training", runs[:9])[0].get_supxlabel() == ""


@pytest.mark.parametrize(("validation", "word"), [(0.0, "test accuracy"), (0.2, "validation accuracy")])
def test_pictures_say_what_accuracies_are_of(validation, word, tmp_path):
    runs = [run for p, k, method in product((0.2, 0.5), (0.25, 0.5), ("gates", "averaged"))
            for run in tickets(ACCURACIES, p * k, er_p=p, k=k, method=method, validation=validation)]
    runs = with_metrics(runs, tmp_path / "run")
    for name in ("accuracy", "compared", "training"):
        assert all(word in panel.get_ylabel() for figure in draw(name, runs) for panel in figure.axes)
    assert word in draw("heat_map", runs)[0].axes[-1].get_ylabel()


def test_a_line_of_one_point_has_a_marker():
    runs = [run for p, k in ((0.2, 0.5), (0.5, 0.2), (0.5, 0.4)) for run in tickets(ACCURACIES, p * k, er_p=p, k=k)]
    runs = [*runs, *with_controls(runs[:3], "random_trained")[3:]]
    alone = [bars[0] for bars in draw("accuracy", runs)[0].axes[0].containers if len(bars[0].get_xdata()) == 1]
    assert len(alone) == 2 and all(line.get_marker() not in ("", "None", None) for line in alone)


def test_a_p_that_has_one_k_is_a_point_of_the_line_of_that_k():
    runs = [run for p in (0.2, 0.5, 1.0) for run in tickets(ACCURACIES, p / 2, er_p=p)]
    (figure,) = draw("accuracy", runs)
    (line,) = figure.axes[0].containers
    assert line.get_label() == "k = 0.5" and len(line[0].get_xdata()) == 3


def test_a_picture_of_one_point_is_a_sentence(tmp_path):
    runs = tickets([90.0, 91.0, 92.0], 0.1, er_p=0.5, k=0.2) + tickets([90.5, 91.4, 92.6], 0.1, er_p=1.0, k=0.1)
    assert draw("sparse_against_dense", runs) == (
        "From an ER source (p 0.5, k 0.2) accuracy is 0.50 ±0.25 points lower than from a dense one at equal p k.")
    assert "one epoch" in draw("training", with_metrics(runs, tmp_path / "run", epochs=1))
    assert draw("accuracy", runs[:3]) == []
    page = written_page(tmp_path, with_metrics(runs, tmp_path / "run", epochs=1))
    assert "<p>Runs of one epoch have no curve.</p>" in page


@pytest.mark.parametrize("classes", [0, 10])
def test_the_page_draws_a_training_loss_that_can_be_compared_or_none(classes, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(
        f'{{"epoch": {epoch}, "test_accuracy": 50.0, "test_loss": 0.4, "train_loss": {1 / epoch}}}\n' for epoch in (1, 2)))
    runs = [replace(run, path=tmp_path, result={**run.result, "classes": classes}) for run in tickets(ACCURACIES)]
    (figure,) = draw("training", runs)
    lines = {line.get_linestyle(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines["-"] == pytest.approx([0.4, 0.4]) and ("--" in lines) == bool(classes)
    if classes:
        assert lines["--"] == pytest.approx([1 - least_loss(0.1, 10), 1e-6])
    assert ("training dashed" in figure.axes[0].get_ylabel()) == bool(classes)
    assert ("that label smoothing leaves" in PICTURES["training"].caption(settings(runs))) == bool(classes)


def test_siblings_have_one_scale_and_stand_in_the_order_of_p():
    runs = [run for p, method, k in product((0.5, 0.05, 1.0, 0.1), ("gates", "averaged"), (0.25, 0.5))
            for run in tickets([50 + 40 * p, 51 + 40 * p], p * k, er_p=p, method=method, k=k)]
    (figure,) = draw("compared", runs)
    assert [panel.get_title() for panel in figure.axes] == ["p 0.05", "p 0.1", "p 0.5", "p 1"]
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in figure.axes}) == 1


def test_controls_have_intervals_and_stand_at_their_own_density():
    runs = [run for p, k in ((0.2, 0.5), (0.5, 0.4)) for run in tickets(ACCURACIES, p * k, er_p=p, k=k)]
    runs += [finished(control_config(run.config, "er_trained"), 95.0 + run.seed, run.config.source.er_p) for run in runs]
    panel = draw("accuracy", runs)[0].axes[0]
    trained = next(bars for bars in panel.containers if bars.get_label() == "ER source, weights trained")
    assert list(trained[0].get_xdata()) == pytest.approx([0.2, 0.5]) and list(trained[0].get_ydata()) == [96.0, 96.0]
    (lines,) = trained[2]
    assert all(top - low == pytest.approx(2 * 2.484, abs=1e-3) for (_, low), (_, top) in lines.get_segments())
    assert "controls at the density that they have" in PICTURES["accuracy"].caption(settings(runs))


def test_a_narrow_axis_has_as_few_ticks_as_it_has_room_for():
    assert round_ticks(0.009, 1.15) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    assert round_ticks(0.009, 1.15, most=5) == [0.01, 0.03, 0.1, 0.3, 1]
    assert round_ticks(0.0007, 1.15, most=5) == [0.001, 0.01, 0.1, 1]
    assert round_ticks(0.05, 1.15, most=5) == round_ticks(0.05, 1.15) == [0.05, 0.1, 0.2, 0.5, 1]


@pytest.mark.parametrize("kept", [0.3, 0.07, 0.9, 0.00031, 3e-7])
def test_an_axis_of_densities_has_ticks_wherever_they_are(kept):
    runs = [ticket(90.0, kept, k=0.3), ticket(91.0, kept * 1.05, k=0.31)]
    panel = draw("accuracy", runs)[0].axes[0]
    assert len(panel.get_xticks()) >= 2 and all(tick.get_text() for tick in panel.get_xticklabels())


def sparse_and_dense(**fields):
    """Sources of four p and the dense one at the same two final densities."""
    return [run for p, kept in product((0.2, 0.3, 0.5, 0.7, 1.0), (0.1, 0.2))
            for run in tickets([90.0 + p, 91.0, 92.5 - p], kept, er_p=p, k=kept / p, **fields)]


def test_sources_of_one_density_are_drawn_at_it():
    runs = [run for weights in ("signed_constant", "kaiming_normal") for density in ("uniform", "erk")
            for run in sparse_and_dense(weights=weights, density=density)]
    (figure,) = draw("sparse_against_dense", runs)
    assert {panel.get_title() for panel in figure.axes} == {
        f"{density}, {weights}" for density in ("uniform", "erk") for weights in ("signed_constant", "kaiming_normal")}
    for panel in figure.axes:
        drawn = {bars.get_label(): bars[0].get_xdata() for bars in panel.containers}
        assert drawn.keys() == {"p = 0.7", "p = 0.5", "p = 0.3", "p = 0.2"}
        assert all(abs(x / kept - 1) < 0.031 for places in drawn.values() for x, kept in zip(places, (0.1, 0.2), strict=True))
        assert len({x for places in drawn.values() for x in places}) == 8
    assert len({panel.get_ylim() for panel in figure.axes}) == 1


def test_changes_at_several_k_do_not_hide_each_other():
    changes = ({}, {"lr": 0.3}, {"gain": 1.0}, {"rank": "value"}, {"weights": "kaiming_normal"})
    runs = [run for k, p, change in product((0.25, 0.5), (0.2, 0.5), changes)
            for run in tickets(ACCURACIES, k=k, er_p=p, **change)]
    (figure,) = draw("changes", runs)
    heights = [y for bars in figure.axes[0].containers for y in bars[0].get_ydata()]
    assert len(set(heights)) == len(heights) == 16
    assert legend_of(figure)[0] == "p = 0.5, k = 0.5"


def with_layers(runs):
    """The runs with layers that tell a run's density and rate from the others'."""
    return [replace(run, result={**run.result, "layers": [{"entries": 100, "edges": edges, "density": 0.1} for edges in (
        len(run.config.source.density), round(100 * run.config.training.lr))]}) for run in runs]


def test_layers_are_those_of_the_median_p_below_1_and_k():
    grid = [*product((0.1, 0.2, 0.4, 1.0), (0.1, 0.5, 0.9), ("uniform", "erk")), *product((1.0,), (0.2, 0.6, 0.8), ("erk",))]
    runs = [run for p, k, density in grid for run in tickets([90.0], er_p=p, k=k, density=density)]
    (figure,) = draw("layers", with_layers(runs))
    assert figure.get_supxlabel() == "source of p = 0.2, ticket of k = 0.5"
    assert legend_of(figure) == ["density erk", "density uniform"]
    (figure,) = draw("layers", with_layers(tickets([90.0], er_p=1.0, k=0.3)))
    assert figure.get_supxlabel() == "source of p = 1, ticket of k = 0.3"


def test_the_layers_of_the_usual_setting_have_a_name():
    changes = ({}, {"lr": 0.3}, {"gain": 1.0}, {"rank": "value"}, {"density": "erk"})
    (figure,) = draw("layers", with_layers([run for p, change in product((0.2, 0.5), changes)
                                            for run in tickets(ACCURACIES, er_p=p, **change)]))
    assert "nothing changed" in legend_of(figure) and "" not in legend_of(figure)


def long_names():
    """Two networks with long names, times two densities, methods and weights, at two p."""
    models = [f"chain:conv3p1-relu-max2-conv3p1-relu-max2-flatten-linear-relu-linear{end}" for end in ("", "-relu-linear")]
    return [run for place, (p, model, density, method, weights) in enumerate(product(
        (0.2, 0.5), models, ("erk", "uniform"), ("averaged", "edge_popup"), ("kaiming_normal", "signed_constant")))
        for run in tickets([80.0 + place / 4, 81.0 + place / 4], p / 2 + place / 1000, er_p=p, model=model, density=density,
                           method=method, weights=weights)]


@pytest.mark.parametrize("name", ["training", "layers", "accuracy", "compared"])
@pytest.mark.parametrize("methods", [("averaged", "edge_popup"), ("averaged",)], ids=len)
def test_long_legends_leave_the_panels_their_width(name, methods, tmp_path):
    runs = with_metrics(with_layers([run for run in long_names() if run.config.search.method in methods]), tmp_path / "run")
    for figure in draw(name, runs):
        figure.draw_without_rendering()
        whole = figure.bbox
        for panel in [panel for panel in figure.axes if panel.get_xlabel()]:
            box = panel.get_window_extent()
            assert box.width / figure.dpi > 2 and box.height / figure.dpi > 1.5
            for legend in figure.legends:
                beside = legend.get_window_extent()
                assert not beside.overlaps(box)
                assert beside.x0 >= -1 and beside.x1 <= whole.x1 + 1 and beside.y0 >= -1 and beside.y1 <= whole.y1 + 1
        assert all(label.strip() for label in legend_of(figure))


def test_a_note_stands_above_a_legend_below_the_panels(tmp_path):
    (figure,) = draw("training", with_metrics(long_names(), tmp_path / "run"))
    assert figure.legends[0].get_title().get_text() == "8 of 32 settings, spread over the grid"
    note(figure, "another")
    assert figure.legends[0].get_title().get_text() == "another\n8 of 32 settings, spread over the grid"


def test_pictures_of_an_earlier_report_do_not_stay(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("accuracy-3.png", "heat_map.svg", "accuracy_mine.png"):
        (tmp_path / "figures" / name).write_bytes(b"old")
    write_report(tmp_path, with_metrics(tickets(ACCURACIES) + tickets(ACCURACIES, 0.05, k=0.25), tmp_path / "run"))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"accuracy.png", "accuracy.svg", "accuracy_mine.png"} <= names and not {"accuracy-3.png", "heat_map.svg"} & names


@pytest.mark.parametrize(("smoothing", "label"), [(0.1, "training, above the 0.500 that smoothing leaves"), (0.0, "training")])
def test_both_losses_are_0_at_best(smoothing, label, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *arguments, **options: drawn.append(figure))
    history = [{"epoch": epoch, "train_loss": 1.0, "test_loss": 0.5, "test_accuracy": 90.0} for epoch in (1, 2)]
    plot_training(tmp_path / "training.png", history, Config().replace(label_smoothing=smoothing), "digits", 10)
    target = torch.full((10,), smoothing / 10) + (1 - smoothing) * torch.nn.functional.one_hot(torch.tensor(3), 10)
    least = float(-(target * target.clamp_min(1e-30).log()).sum())
    assert drawn[0].axes[0].lines[0].get_ydata() == pytest.approx([1 - least] * 2, abs=1e-6)
    assert [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()] == [label, "test"]


def test_a_panel_names_the_factors_whose_words_could_be_anothers():
    both = [run for source in ("erk", "uniform") for rule in ("erk", "source")
            for run in tickets([90.0], er_p=0.2, density=source, ticket_density=rule)]
    assert {group_title([found], ()) for found in settings(both)} == {
        f"ticket_density {ticket}, {source}" for ticket in ("erk", "source") for source in ("erk", "uniform")}
