"""The report as a page: what stands where, by day and by night, wide and narrow."""

import re
import shlex
from itertools import product

import pytest
from torch import nn

from popup import attach, extract
from popup.lab.commands.arguments import parse
from popup.lab.config import Config
from popup.lab.recipes import RECIPES
from popup.lab.report.answer import answer
from popup.lab.report.command import command_of, in_common
from popup.lab.report.comparison import settings
from popup.lab.report.heading import facts_of, title_of
from popup.lab.report.look import COLOURS, GROUND, INK, NIGHT
from popup.lab.report.report import report_text, write_report
from popup.lab.report.results import Run
from popup.lab.report.summary import tables
from popup.lab.runs.controls import CONTROLS, control_config
from tests.lab.made_up import finished, ticket, tickets, with_metrics

pytestmark = pytest.mark.drawn
ACCURACIES = [90.0, 91.0, 92.5]


def a_grid():
    runs = [run for p, k in product((0.2, 0.5), (0.25, 0.5)) for run in tickets(ACCURACIES, p * k, er_p=p, k=k, epochs=2)]
    return runs + [finished(control_config(run.config, "er_trained"), 93.0 + run.seed, run.config.source.er_p) for run in runs]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    write_report(out, with_metrics(a_grid(), out / "run"))
    return (out / "report.html").read_text(encoding="utf-8"), out


def test_the_answer_stands_before_the_table_and_the_table_before_the_pictures(page):
    text, _ = page
    places = [text.index(part) for part in ("<h1>Strong lottery tickets: mlp on digits</h1>", 'class="answer"', "<dt>data</dt>",
                                            "<table>", "<figure>", "Ticket minus control")]
    assert places == sorted(places)


def test_every_picture_has_a_caption_and_words_for_those_who_do_not_see_it(page):
    text, _ = page
    figures = re.findall("<figure>.*?</figure>", text, re.S)
    assert len(figures) >= 3
    for figure in figures:
        assert re.search("<figcaption>[^<]{40,}</figcaption>", figure, re.S)
        assert all(len(words) > 30 for words in re.findall('role="img" aria-label="([^"]*)"', figure))
        assert figure.count('class="wide" role="img"') == figure.count('class="narrow" role="img"') >= 1
    assert "Bars are 95% t intervals over 3 seeds." in figures[0]
    assert "Lines: ticket from an ER source with, p = 0.5, p = 0.2" in figures[0]


def test_narrow_pictures_are_of_a_telephones_width(page):
    text, _ = page
    narrow = re.findall(r'class="narrow".*?<svg [^>]*?width="([\d.]+)pt"', text, re.S)
    assert narrow and all(float(width) * 96 / 72 <= 361 for width in narrow)


def test_pictures_have_colours_of_the_night_for_each_of_the_day(page):
    text, out = page
    svg = (out / "figures" / "accuracy.svg").read_text(encoding="utf-8")
    used = {colour for colour in re.findall("(?:fill|stroke): (#[0-9a-f]{6})", svg.split("</style>", 1)[1])}
    assert used >= {GROUND, INK} and used <= NIGHT.keys()
    for source in (svg, text):
        for day in used:
            assert f'[style*="stroke: {day}"] {{ stroke: {NIGHT[day]} !important }}' in source
        assert "prefers-color-scheme: dark" in source


def brightness(colour):
    """The relative luminance of WCAG 2."""
    parts = [int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", COLOURS)
def test_no_line_is_yellow_on_white(colour):
    """Okabe and Ito's yellow has a contrast of 1.3 to white, their orange 2.2."""
    for ground, line in ((GROUND, colour), (NIGHT[GROUND], NIGHT[colour])):
        low, high = sorted((brightness(ground), brightness(line)))
        assert (high + 0.05) / (low + 0.05) > 2.1


def test_a_column_has_one_meaning():
    found = settings([run for density in ("erk", "uniform") for run in tickets(ACCURACIES, density=density)])
    for _, header, _ in tables(found):
        assert len(set(header)) == len(header)
    _, header, rows = tables(found)[0]
    assert [row[header.index("layerwise")] for row in rows] == ["erk", "uniform"]
    assert [row[header.index("density")] for row in rows] == ["0.1000", "0.1000"]


def test_the_command_is_the_grids():
    runs = a_grid()
    command = "python run.py --er-p 0.2 0.5 --k 0.25 0.5 --epochs 2 --seeds 3 --controls er_trained"
    assert command_of(runs) == command and dict(facts_of(runs))["command"] == command
    assert command_of(tickets([90.0])) == "python run.py" and command_of(tickets([90.0, 91.0])) == (
        "python run.py --seeds 2 --controls none")
    for more, chosen in ((" --controls all", CONTROLS), ("", [role for role, control in CONTROLS.items() if control.usual])):
        others = [finished(control_config(run.config, role), 9.0) for run in runs[:12] for role in chosen]
        assert command_of([*runs, *others]) == command.removesuffix(" --controls er_trained") + more
    odd = ticket(90.0, dataset="folder:/a b", widths=(8, 9), redistribute=False, density="erk", seed=4)
    assert command_of([odd]) == "python run.py --density erk --no-redistribute --dataset 'folder:/a b' --widths 8 9 --seed 4"


def again(runs):
    """The names of the runs that the command of `runs` would do."""
    words = shlex.split(command_of(runs))
    assert words[:2] == ["python", "run.py"]
    return {config.hash() for config in parse(words[2:], "", {}).configs}


@pytest.mark.parametrize("asked", ["--er-p 0.2 1 --final-density 0.1 --density erk", "--er-p 0.3 --final-density 0.1 0.2",
                                   "--er-p 0.05 0.2 1 --final-density 0.03 0.1 0.5", "--er-p 0.7 1 --k 0.1 0.3"])
def test_the_command_of_a_comparison_at_equal_final_densities_is_one(asked):
    configs = parse([*shlex.split(asked), "--seeds", "2", "--seed", "3", "--controls", "none"], "", {}).configs
    runs = [finished(config, 90.0) for config in configs]
    assert again(runs) == {config.hash() for config in configs}
    assert ("--final-density" in command_of(runs)) == ("0.3 --" not in asked and "--k" not in asked)
    assert command_of(runs[1:]) is None, "a seed of one setting is not there"


def test_the_command_of_runs_on_texts_says_what_is_not_usual_there():
    """Where nobody asks they have the settings of gpt_text."""
    config = RECIPES["gpt_text"].config()
    usual = [finished(config.replace(seed=seed), 2.0) for seed in (0, 1)]
    assert command_of(usual) == "python run.py --dataset text: --seeds 2 --controls none"
    for changed in ({"epochs": 30, "optimizer": "sgd", "lr": 0.1}, {"label_smoothing": 0.1}, {"model": "mlp"}):
        runs = [finished(config.replace(seed=seed, **changed), 2.0) for seed in (0, 1)]
        assert again(runs) == {run.config.hash() for run in runs}
        assert "--lr" in in_common(runs) if "lr" in changed else "--lr" not in in_common(runs)
    mixed = usual + tickets([90.0])
    assert in_common(mixed) == "" and command_of(mixed) is None


@pytest.mark.parametrize(("er_p", "sides", "said"), [
    (0.05, (512, 512), True), (0.5, (512, 512), False), (0.05, (64, 64), False), (0.05, None, True)])
def test_that_layers_compute_densely_is_said_where_they_would_not_unasked(er_p, sides, said, tmp_path):
    run = ticket(90.0, path=tmp_path, er_p=er_p, compute="dense")
    if sides:
        extract(attach(nn.Sequential(nn.Linear(*sides)), er_p=er_p)).save(tmp_path / "ticket.safetensors")
        run.result["layers"] = [{"name": "0.weight", "entries": sides[0] * sides[1], "p_l": er_p, "edges": 9, "density": 0.1}]
    assert ("--compute dense" in command_of([run])) == said
    auto = ticket(90.0, path=tmp_path, er_p=0.01, compute="auto")
    assert command_of([run, auto]) == (None if said else f"python run.py --er-p 0.01 {er_p:g} --controls none")


def test_runs_of_no_one_grid_have_no_command():
    assert command_of(tickets(ACCURACIES) + tickets(ACCURACIES, lr=0.3)) is None, "--lr takes one value"
    assert command_of(a_grid()[1:]) is None
    several = [tickets(ACCURACIES, ticket_density="erk"), tickets(ACCURACIES, lr=0.3, ticket_density="erk")]
    told = dict(facts_of([run for each in several for run in each]))["command"]
    assert told.startswith("several commands, all with ") and "--ticket-density erk" in told and "--lr" not in told


def test_the_heading_tells_data_network_runs_and_versions(tmp_path):
    (run,) = with_metrics(tickets([90.0]), tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text("{}")
    result = {**run.result, "data": "digits (embedded)", "images": [1438, 359], "entries": 84480, "versions": {"torch": "2.14"}}
    facts = dict(facts_of([Run(run.path, run.config, result, None)]))
    assert facts["data"] == "digits (embedded): 1,438 images to train on, 359 for test accuracy"
    assert facts["network"] == "mlp: 84,480 weights in 1 layer" and facts["runs"] == "1 run: 1 ticket, 1 seed"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["date"]) and facts["versions"].startswith("torch 2.14, report by popup ")
    assert title_of([Run(run.path, run.config, None, "lost")]) == "Strong lottery tickets: mlp on digits"


def test_the_heading_names_a_ticket_and_each_network_once(tmp_path):
    runs = tickets([90.0, 91.0])
    there = [Run(tmp_path / f"run{run.seed}", run.config, {**run.result, "entries": 9, "dense": 4}, None) for run in runs]
    assert "ticket" not in dict(facts_of(there, there))
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1/ticket.safetensors").touch()
    control = finished(control_config(runs[0].config, "dense_trained"), 95.0)
    facts = dict(facts_of([*there, Run(control.path, control.config, {**control.result, "entries": 9}, None)], there))
    assert facts["ticket"] == "run1/ticket.safetensors (of the best mean, seed 1)"
    assert facts["network"] == "mlp: 9 weights in 1 layer, and 4 that are in none and stay dense"
    assert "A ticket: " not in report_text(tmp_path, runs)
    assert f"A ticket: {tmp_path}/run1/ticket.safetensors (of the best" in report_text(tmp_path, there).replace("\n", " ")


def test_the_answer_is_the_best_the_sparsest_and_what_trained_weights_reach():
    runs = tickets([90.0, 91.0, 92.0], 0.1, k=0.5) + tickets([80.0, 81.0, 82.0], 0.05, k=0.25)
    runs += [finished(control_config(run.config, "dense_trained"), 95.0 + run.seed) for run in runs[:3]]
    assert answer(settings(runs)) == [
        "The best mean of 2 settings is 91.0 ±2.5% test accuracy, with 10% of the weights (k 0.5).",
        "The sparsest tickets, with 5% of the weights (k 0.25), reach 81.0 ±2.5%.",
        "The dense network with trained weights reaches 96.0 ±2.5%.",
        "Behind ± is half of the 95% t interval over 3 seeds."]
    assert answer(settings(tickets([90.0]))) == [
        "The ticket reaches 90.0% test accuracy, with 10% of the weights.", "There is one seed, so no interval and no test."]


def test_a_warning_stands_above_the_answer(tmp_path):
    runs = [Run(run.path, run.config, {**run.result, "data_fingerprint": name}, None)
            for run, name in zip(with_metrics(tickets([90.0, 91.0]), tmp_path / "run"), "ab", strict=True)]
    write_report(tmp_path, runs)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index('<p class="warning">WARNING, not of the same images') < page.index('class="answer"')


def test_what_runs_are_called_is_text_to_the_page(tmp_path):
    config = Config().replace(dataset="folder:/<b>&\"x", model="a:b<script>")
    write_report(tmp_path, with_metrics([finished(config, 90.0)], tmp_path / "run"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>&" not in page and "b<script>" not in page and "a:b&lt;script&gt; on folder:/&lt;b&gt;&amp;&quot;x" in page
