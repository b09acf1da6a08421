"""--skip and --only: what they leave dense through the command line, and what reports say of it."""

import csv
import io
import json
import warnings

import pytest
import torch

import popup
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.commands.ending import plain_warnings
from popup.lab.report.comparison import show

QUICK = ["--epochs", "1", "--widths", "8", "8", "--threads", "1", "--workers", "1", "--controls", "none"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A grid with the head left dense, in one directory with the grid in which it is not."""
    out = tmp_path_factory.mktemp("skip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("popup.lab.report.report.PICTURES", {})
        for options in (["--skip", "5"], []):
            assert main([*QUICK, "--seeds", "2", *options, "--out", str(out)], MODELS) == 0
    return out


def tickets(runs):
    found = [popup.load(path) for path in sorted(runs.glob("*/ticket.safetensors"))]
    return [ticket for ticket in found if ticket.recipe.skip], [ticket for ticket in found if not ticket.recipe.skip]


def test_what_is_skipped_is_in_the_recipe_and_dense_in_the_ticket(runs):
    skipped, whole = tickets(runs)
    assert len(skipped) == len(whole) == 2
    for ticket in skipped:
        assert ticket.recipe.skip == ("5",) and [spec.name for spec in ticket.specs] == ["1.weight", "3.weight"]
        assert [*ticket.given] == ["5.weight"] and bool(ticket.given["5.weight"].all())
        net = ticket.apply(MODELS["mlp"]((1, 8, 8), 10, (8, 8)))
        assert torch.equal(net.get_parameter("5.weight"), ticket.given["5.weight"])


def test_a_report_tells_skipped_from_whole_and_what_densities_are_of(runs, capsys, monkeypatch):
    monkeypatch.setattr("popup.lab.report.report.PICTURES", {})
    assert main(["report", str(runs)], MODELS) == 0
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert "kept / all masked weights" in words  # and which of both is the best is luck, other luck on each processor
    assert "of the masked weights (skip 5)" in words or "of the weights (skip none)" in words
    rows = [line.split() for line in text.splitlines() if line.startswith(("skip", "none", "5 "))]
    assert [row[0] for row in rows] == ["skip", "none", "5"]
    page = (runs / "report.html").read_text()
    assert "mlp: 576 weights in 2 layers, and 80 that are in none and stay dense; mlp: 656 weights in 3 layers" in page
    table = list(csv.DictReader(io.StringIO((runs / "results.csv").read_text())))
    assert {row["skip"] for row in table} == {"", "5"} and {row["entries"] for row in table} == {"576", "656"}
    assert {json.loads((path / "result.json").read_text())["dense"] for path in runs.iterdir() if (path / "result.json").exists()
            } == {0, 80}


def test_a_ticket_is_shown_verified_and_evaluated(runs, capsys):
    path = str(next(path for path in runs.glob("*/ticket.safetensors") if popup.load(path).recipe.skip))
    assert main(["show", path], MODELS) == 0
    text = capsys.readouterr().out
    assert ", skip 5\n" in text and "1 given parameters, 80 dense weights" in text
    assert main(["verify", path], MODELS) == main(["eval", path], MODELS) == 0
    assert "BROKEN" not in capsys.readouterr().out


def test_only_masks_what_it_names(tmp_path):
    assert main([*QUICK, "--only", "3", "5.weight", "--skip", "5", "--out", str(tmp_path)], MODELS) == 0
    (path,) = tmp_path.glob("*/ticket.safetensors")
    ticket = popup.load(path)
    assert [spec.name for spec in ticket.specs] == ["3.weight"] and {*ticket.given} == {"1.weight", "5.weight"}
    assert ticket.recipe.only == ("3", "5.weight") and ticket.recipe.skip == ("5",)


@pytest.mark.parametrize(("options", "words"), [
    (["--skip", "4"], "the pattern '4' is of no parameter (of skip)"), (["--only", "hed"], "'hed' is of no parameter (of only)"),
    (["--skip", "*"], "no weight to mask"), (["--only", "3", "--skip", "3"], "what skip and only leave out")])
def test_a_choice_of_nothing_is_one_line(options, words, tmp_path, capsys):
    for command in ([*QUICK], ["densities", "--model", "mlp", "--widths", "8", "8"]):
        assert main([*command, *options, "--out", str(tmp_path / "out")], MODELS) == 2
        line = capsys.readouterr().err
        assert words in line and line.count("\n") == 1


def test_the_rules_are_compared_on_the_layers_that_are_masked(tmp_path, capsys):
    arguments = ["densities", "--model", "mlp", "--image", "1", "8", "8", "--widths", "8", "8", "--out", str(tmp_path)]
    assert main([*arguments, "--skip", "5"], MODELS) == 0
    assert "576 weights in 2 layers" in capsys.readouterr().out
    assert main([*arguments, "--only", "[35]"], MODELS) == 0
    for rows in json.loads((tmp_path / "densities.json").read_text()).values():
        assert [row["layer"] for row in rows] == ["3.weight", "5.weight"]


def test_several_values_read_as_what_they_are():
    assert [show(value) for value in ((), (256, 64), ("*.head", "up"))] == ["none", "256-64", "*.head+up"]


def test_a_warning_of_popups_is_one_line():
    """What others warn of keeps the place that it comes from."""
    with plain_warnings():
        said = [warnings.formatwarning(UserWarning("words"), UserWarning, file, 3, "code") for file in (popup.__file__, __file__)]
    assert said[0] == "popup: words\n" and "test_skip.py:3: UserWarning: words" in said[1]
    assert "UserWarning" in warnings.formatwarning(UserWarning("words"), UserWarning, popup.__file__, 3, "code")
