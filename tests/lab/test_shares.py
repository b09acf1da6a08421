"""What is said of a selection over the whole network: layers that are left with next to nothing, logits that are too large."""

import dataclasses
from math import prod, sqrt
from pathlib import Path

import pytest

from models import MODELS
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.report.results import Run, read_directory
from popup.lab.report.shares import heat, shares_line, shares_lines

GLOBAL = Config().replace(scope="global", k=0.1, gain=1.5, bias="search")


def result(*layers, series=None):
    """Layers of twice as many entries as edges."""
    rows = [{"name": name, "entries": max(1, 2 * edges), "p_l": 0.5, "edges": edges, "kept": kept}
            for name, edges, kept in layers]
    return {"layers": rows, "diagnostics": {"er": {}, "ticket": {}} | ({} if series is None else {"series": series})}


EVEN = result(("0.weight", 100, 10), ("2.weight", 1000, 100))
HOT = result(("0.weight", 100, 60), ("2.weight", 1000, 200), ("2.bias", 10, 10), ("4.weight", 1000, 50))
COLD = result(("0.weight", 100, 2), ("2.weight", 1000, 108))


def test_logits_are_larger_by_the_root_of_each_layers_share_and_the_gain_that_is_told_makes_up_for_it():
    assert heat(GLOBAL, HOT) == pytest.approx(sqrt(6 * 2 * 0.5))
    gain = float(shares_line(GLOBAL, HOT).partition("gain, of ")[2].split()[0])
    assert prod([gain / 1.5] * 3) * heat(GLOBAL, HOT) == pytest.approx(1, rel=0.01), "many layers make much of a little"
    assert "2.45 times" in shares_line(GLOBAL, HOT) and "a smaller --gain" in shares_line(GLOBAL, HOT)
    assert "0.465 times" in shares_line(GLOBAL, COLD) and "a larger --gain" in shares_line(GLOBAL, COLD)


def test_gains_by_pattern_are_advised_by_pattern():
    line = shares_line(GLOBAL.replace(gain="1.1 *.0=2.0"), HOT)
    assert "a smaller --gain, of 0.816 *.0=1.48 for these," in line  # times 2.45 to the power of -1/3


def test_a_layer_of_few_entries_is_scaled_for_one_edge_at_least():
    """Its one edge of three is no three times its share at k = 0.1: no layer's weights are scaled for less than one entry."""
    small = result(("0.weight", 1000, 100), ("2.weight", 3, 1), ("4.weight", 2, 1))
    assert heat(GLOBAL, small) == pytest.approx(1) and shares_line(GLOBAL, small) == ""


def test_logits_are_told_of_where_layers_follow_one_another_and_may_where_a_record_does_not_say():
    rows = (("0.weight", 100, 60), ("2.weight", 1000, 200), ("4.weight", 1000, 50))
    told = {series: shares_line(GLOBAL, result(*rows, series=series)) for series in (True, False, None)}
    assert told[False] == "" and "scaled for; a smaller --gain" in told[True]
    assert "scaled for, unless norms or shortcuts are between; a smaller" in told[None]
    cut = result(*rows, ("6.weight", 0, 0), series=True)
    assert shares_line(GLOBAL, cut) == "", "without an edge in a layer there are no logits"


def test_a_weight_may_be_called_a_bias_where_no_biases_are_searched():
    found = result(("0.weight", 100, 10), ("1.position_bias", 1000, 9))
    assert shares_line(GLOBAL.replace(bias="zero"), found).startswith("1.position_bias is left with 9")


@pytest.mark.parametrize("config", [GLOBAL.replace(scope="layer"), GLOBAL.replace(scale="edges")], ids=["layer", "edges"])
def test_nothing_is_said_where_layers_keep_k_or_are_scaled_otherwise(config):
    assert shares_line(config, HOT) == "" and shares_line(GLOBAL, EVEN) == ""


def test_a_layer_that_is_all_but_cut_is_named_whatever_the_scale():
    cut = result(("0.weight", 100, 60), ("2.weight", 1000, 9), ("3.weight", 0, 0))
    told = "2.weight is left with 9 of 1,000 edges, 0.09 of its share k = 0.1: --floor 0.3"
    for config in (GLOBAL, GLOBAL.replace(scale="none")):
        assert shares_line(config, cut).startswith(told)
    runs = [Run(Path("run"), GLOBAL.replace(seed=seed), found, None) for seed, found in enumerate((cut, HOT, cut, EVEN))]
    control = dataclasses.replace(runs[0], config=GLOBAL.replace(role="shuffled"))
    lines = shares_lines([*runs, control, dataclasses.replace(runs[0], result=None, failure="ended")])
    assert [line.partition(" selected")[0] for line in lines] == ["2 of 4 tickets", "1 of 4 tickets"]
    assert told in lines[0] and "2.45 times" in lines[1]
    assert shares_lines(runs[3:]) == []


def test_of_many_the_worst_is_named_with_its_settings_and_too_large_is_not_too_small():
    """In a folder of several k the first one's k, share and gain are no other's."""
    cut, worse = (result(("0.weight", 100, 60), ("2.weight", 1000, kept)) for kept in (9, 1))
    signed = GLOBAL.replace(k=0.05, method="signed", score_unit="kept")  # as a run of it is recorded
    found = [(cut, GLOBAL), (worse, signed), (HOT, GLOBAL), (COLD, GLOBAL.replace(seed=3))]
    lines = shares_lines([Run(Path("run"), config, each, None) for each, config in found])
    assert [line.partition(".")[0] for line in lines] == [
        "2 of 4 tickets selected over the whole network have a layer that is all but cut, most of all ticket p=0",
        "1 of 4 tickets selected over the whole network has logits that are too large: ticket p=0",
        "1 of 4 tickets selected over the whole network has logits that are too small: ticket p=0"]
    assert "k=0.05 seed 0 bias search method signed scope global. There 2.weight is left with 1 of 1,000 edges, 0.02" in lines[0]
    assert "a smaller" in lines[1] and "seed 3" in lines[2] and "a larger" in lines[2]


def test_a_record_without_layers_says_nothing_and_a_layer_that_keeps_nothing_is_named():
    assert shares_line(GLOBAL, result()) == "" and heat(GLOBAL, result(("0.weight", 9, 0), ("2.weight", 9, 9))) == 0
    assert shares_line(GLOBAL, result(("0.weight", 90, 0), ("2.weight", 90, 18))).startswith("0.weight is left with 0 of 90")


def test_biases_alone_have_shares_too():
    assert "0.bias is left with 1" in shares_line(GLOBAL, result(("0.bias", 1000, 1), ("2.bias", 100, 100)))


def test_a_run_and_a_report_say_it_and_what_they_advise_helps(tmp_path, capsys):
    out = ["--out", str(tmp_path), "--threads", "1", "--workers", "1"]
    grid = ["--er-p", "1", "--k", "0.05", "--scope", "global", "--epochs", "8"]
    assert main([*grid, *out], MODELS) == 0
    assert "3.weight is left with" in capsys.readouterr().out
    assert main([*grid, "--floor", "0.3", *out], MODELS) == 0
    assert "is left with" not in capsys.readouterr().out
    assert main(["report", str(tmp_path)], MODELS) == 0
    told = "1 of 2 tickets selected over the whole network has a layer that is all but cut: ticket p=1 k=0.05 seed 0"
    assert told in " ".join(capsys.readouterr().out.split())
    assert told in (tmp_path / "report.html").read_text()
    runs = read_directory(tmp_path).runs
    assert all(run.found["diagnostics"]["series"] is True for run in runs)
    cut, whole = sorted(run.accuracy for run in runs)
    assert cut < 20 and whole > 40
