"""What a run and a report say of layers without an edge."""

import dataclasses
from pathlib import Path

from models import MODELS
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.report.cuts import cut_line, cut_lines
from popup.lab.report.results import Run

PLAIN = Config().replace(er_p=0.02, density="pyramidal")


def result(series=True, **edges):
    return {"layers": [{"name": name.replace("_", "."), "entries": 100, "edges": count} for name, count in edges.items()],
            "diagnostics": {"series": series}}


def test_layers_without_an_edge_are_named_and_biases_are_none():
    assert cut_line(PLAIN, result(a_weight=1, b_weight=9)) == ""
    assert cut_line(PLAIN, result(a_weight=0, b_weight=9)) == (
        "no edge was drawn in a.weight: the network is cut there; raise --er-p or choose another --density")
    assert cut_line(PLAIN.replace(bias="search"), result(a_weight=1, a_bias=0)) == ""
    assert cut_line(PLAIN.replace(mask="snip", density="uniform"), result(a_weight=0)).endswith("cut there; raise --er-p")
    for unknown in (result(False, a_weight=0), {**result(a_weight=0), "diagnostics": None}):
        assert "the network is cut there, unless a shortcut leads by; raise" in cut_line(PLAIN, unknown)
    assert "in a, b, c and 2 more:" in cut_line(PLAIN, result(a=0, b=0, c=0, d=0, e=0, f=1))


def test_of_many_tickets_it_is_said_how_many_and_controls_are_not_counted():
    cut, whole = result(a_weight=0, b_weight=9), result(a_weight=3, b_weight=9)
    runs = [Run(Path("run"), PLAIN.replace(seed=seed), found, None) for seed, found in enumerate((whole, cut, cut))]
    others = [dataclasses.replace(runs[1], config=PLAIN.replace(role="shuffled")),
              dataclasses.replace(runs[1], result=None, failure="ended")]
    (line,) = cut_lines([*runs, *others])
    assert line.startswith("2 of 3 tickets are of sources with a layer without an edge") and "p=0.02 k=0.5 seed 1" in line
    assert line.endswith("choose another --density.") and "at which the network is cut, such" in line
    beside = Run(Path("run"), PLAIN.replace(mask="snip", density="uniform"), result(False, a_weight=0), None)
    (line,) = cut_lines([*runs, beside])
    assert "is cut, unless a shortcut leads by, such" in line and line.endswith(": raise --er-p.")
    assert cut_lines(runs[:2])[0].startswith("1 of 2 tickets is of a source with") and cut_lines(runs[:1]) == []


def test_a_run_and_a_sweep_say_it_and_what_they_advise_helps(tmp_path, capsys):
    options = ["--widths", "32", "32", "--er-p", "0.03", "--epochs", "1", "--controls", "none", "--threads", "1",
               "--workers", "1", "--out", str(tmp_path)]
    assert main([*options, "--density", "pyramidal"], MODELS) == 0
    assert "no edge was drawn in 5.weight: the network is cut there" in capsys.readouterr().out
    assert main([*options, "--density", "pyramidal", "erk"], MODELS) == 0
    told = "1 of 2 tickets is of a source with a layer without an edge, at which the network is cut, such as ticket p=0.03"
    assert told in " ".join(capsys.readouterr().out.split())
    assert main([*options, "--density", "erk"], MODELS) == 0
    assert "no edge was drawn" not in capsys.readouterr().out
