"""The layerwise rules side by side: run.py densities, and the layers of a report."""

import json

import pytest

from models import MODELS
from popup.lab.commands.command import main
from popup.lab.report.comparison import settings
from popup.lab.report.figures import PICTURES
from popup.lab.report.layer_figures import _degrees_of, short_names
from popup.lab.report.results import read_directory
from popup.source.densities import DENSITIES, layer_densities
from popup.source.layer_source import draw_edges
from popup.source.layers import Layer, find_layers
from popup.source.recipe import Recipe

pytestmark = pytest.mark.drawn
NONE = ("dead_units", "inputs_without_edges", "expected_inputs_without_edges")


def test_every_rule_is_drawn_with_its_densities(tmp_path, capsys):
    assert main(["densities", "--model", "small_conv", "--er-p", "0.1", "--out", str(tmp_path)], MODELS) == 0
    record = json.loads((tmp_path / "densities.json").read_text())
    layers = [Layer(layer.name, layer.shape) for layer in find_layers(MODELS["small_conv"]((3, 32, 32), 10))]
    assert list(record) == list(DENSITIES)
    for name, rows in record.items():
        assert [row["p_l"] for row in rows] == layer_densities(layers, 0.1, name)
        assert [row["layer"] for row in rows] == [layer.name for layer in layers]
        assert all(row["mean_in"] * row["shape"][0] == pytest.approx(row["edges"]) for row in rows)
    text = capsys.readouterr().out
    assert "dead units" in text and max(map(len, text.splitlines()[:-1])) <= 120  # the last has the directory
    assert (tmp_path / "densities.png").stat().st_size > 10_000 and "@media" in (tmp_path / "densities.svg").read_text()


def test_cut_layers_are_named(tmp_path, capsys):
    arguments = ["--model", "mlp", "--image", "1", "2", "2", "--widths", "3", "4", "--er-p", "0.02", "--density", "uniform"]
    assert main(["densities", *arguments, "--out", str(tmp_path)], MODELS) == 0
    assert "uniform: no edge was drawn in " in capsys.readouterr().out


def test_a_connected_source_is_counted_as_it_is_drawn_and_expected(tmp_path, capsys):
    arguments = ["densities", "--model", "small_conv", "--density", "uniform", "erk", "--er-p", "0.2"]
    assert main([*arguments, "--connected", "--out", str(tmp_path)], MODELS) == 0
    assert main([*arguments, "--out", str(tmp_path / "drawn")], MODELS) == 0
    record, drawn = (json.loads((place / "densities.json").read_text()) for place in (tmp_path, tmp_path / "drawn"))
    recipe = Recipe(er_p=0.2, density="uniform", connected=True)
    layers = find_layers(MODELS["small_conv"]((3, 32, 32), 10))
    for layer, p_l, row, before in zip(layers, recipe.densities(layers), record["uniform"], drawn["uniform"], strict=True):
        assert row["edges"] == len(draw_edges(recipe, layer, p_l)) and row["expected_in"] == before["expected_in"]
    for name in record:
        assert all(row[which] == 0 for row in record[name] for which in (*NONE, "expected_dead_units"))
        assert sum(row[NONE[1]] for row in drawn[name]) > 0 and sum(row[NONE[2]] for row in drawn[name]) > 0
    capsys.readouterr()
    assert main([*arguments[:-1], "0.1", "--connected", "--out", str(tmp_path)], MODELS) == 2
    words = "--density uniform: p_l of 2.weight is 0.1, which is 4096 of its 40960 weights, and to connect each of its 10 outputs"
    assert f"{words} and 4096 inputs takes 4097" in capsys.readouterr().err


@pytest.mark.parametrize("connected", [False, True])
def test_a_report_expects_units_without_edges_of_sources_that_may_have_some(connected, tmp_path):
    options = ["--er-p", "0.2", "--widths", "32", "--epochs", "1", *["--connected"] * connected]
    assert main([*options, "--out", str(tmp_path)], MODELS) == 0
    (run,) = read_directory(tmp_path).runs
    degrees = _degrees_of(run)
    assert degrees and all((one.expected_unfed > 0) != connected and (one.expected_unheard > 0) != connected for one in degrees)


@pytest.mark.parametrize(("arguments", "entries"), [([], 64 * 256), (["--window", "16", "--classes", "32"], 64 * 32)])
def test_networks_of_texts_have_windows(arguments, entries, tmp_path):
    assert main(["densities", "--model", "gpt", "--widths", "64", "64", *arguments, "--out", str(tmp_path)], MODELS) == 0
    head = json.loads((tmp_path / "densities.json").read_text())["erk"][-1]
    assert head["layer"] == "head.weight" and head["shape"][0] * head["shape"][1] == entries


def test_networks_of_features_have_one_number(tmp_path):
    options = ["--model", "chain:linear-relu-linear", "--image", "30", "--widths", "8", "--classes", "3"]
    assert main(["densities", *options, "--out", str(tmp_path)], MODELS) == 0
    assert [row["shape"] for row in json.loads((tmp_path / "densities.json").read_text())["erk"]] == [[8, 30], [3, 8]]


@pytest.mark.parametrize(("arguments", "words"), [
    ("--window 8 --image 3 8 8", "beside --image"), ("--window -1", "window is -1"),
    ("--er-p 0", "er_p is 0"), ("--density ekr", "did you mean 'erk'"), ("--image 3 32", "channels, height and width"),
    ("--model resnet8", "unknown model 'resnet8'"), ("--density", "no value"), ("--mask snip", "unknown mask 'snip'")])
def test_wrong_input_is_one_line(arguments, words, capsys, tmp_path):
    assert main(["densities", *arguments.split(), "--out", str(tmp_path / "out")], MODELS) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_report_counts_the_edges_of_its_tickets_units(tmp_path):
    options = ["--epochs", "1", "--widths", "8", "--controls", "none", "--density", "erk", "balanced", "--workers", "1"]
    assert main([*options, "--out", str(tmp_path)], MODELS) == 0
    found = settings(read_directory(tmp_path).runs)
    (figure,) = PICTURES["layers"].draw(found)
    assert [panel.get_xlabel() for panel in figure.axes] == [
        "edges (filled), kept (open) / entries", "edges into a unit", "edges out of a unit", "units without an edge (%)"]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["1.weight", "3.weight"]
    layer = found[0].runs[0].result["layers"][0]
    means = figure.axes[1].containers[0][0].get_xdata()
    assert means[0] == pytest.approx(layer["edges"] / 8)


def test_short_names_stay_different():
    names = [f"encoder.layers.{place}.self_attention.out_projection.weight" for place in range(12)]
    short = short_names([*names, "1.weight", "conv1.weight"], 14)
    assert len(set(short)) == 14 and all(len(name) <= 14 for name in short) and short[-2:] == ["1.weight", "conv1"]
