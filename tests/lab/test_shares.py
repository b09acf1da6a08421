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

GLOBAL = Config().replace(scope="global", k=0.1, gain=1.5)


def result(*layers):
    return {"layers": [{"name": name, "edges": edges, "kept": kept} for name, edges, kept in layers]}


EVEN = result(("0.weight", 100, 10), ("2.weight", 1000, 100))
HOT = result(("0.weight", 100, 60), ("2.weight", 1000, 200), ("2.bias", 10, 10), ("4.weight", 1000, 50))
COLD = result(("0.weight", 100, 2), ("2.weight", 1000, 108))


def test_logits_are_larger_by_the_root_of_each_layers_share_and_the_gain_that_is_told_makes_up_for_it():
    assert heat(GLOBAL, HOT) == pytest.approx(sqrt(6 * 2 * 0.5))
    gain = float(shares_line(GLOBAL, HOT).partition("gain, of ")[2].split()[0])
    assert prod([gain / 1.5] * 3) * heat(GLOBAL, HOT) == pytest.approx(1, rel=0.05)
    assert "2.45 times" in shares_line(GLOBAL, HOT) and "a smaller --gain" in shares_line(GLOBAL, HOT)
    assert "0.465 times" in shares_line(GLOBAL, COLD) and "a larger --gain" in shares_line(GLOBAL, COLD)
    assert "smaller --gain may" in shares_line(GLOBAL.replace(gain="1.1 *.0=2.0"), HOT)


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
    assert [line.partition(",")[0] for line in lines] == ["In 2 of 4 tickets selected over the whole network",
                                                          "In 1 of 4 tickets selected over the whole network"]
    assert told in lines[0] and "2.45 times" in lines[1]
    assert shares_lines(runs[3:]) == []


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
    assert "In 1 of 2 tickets selected over the whole network" in " ".join(capsys.readouterr().out.split())
    assert "In 1 of 2 tickets" in (tmp_path / "report.html").read_text()
    cut, whole = sorted(run.accuracy for run in read_directory(tmp_path).runs)
    assert cut < 20 and whole > 40
