"""Methods at equal bytes: what a ticket takes, the line between measured sizes, the table and the picture."""

import math

import pytest
import torch

from models import MODELS
from popup import attach, extract
from popup.lab.commands.command import main
from popup.lab.report.comparison import settings
from popup.lab.report.figures import PICTURES
from popup.lab.report.results import read_directory
from popup.lab.report.sizes import at_equal_bytes, size_table
from tests.lab.made_up import tickets


def sized(sizes, accuracies, **fields):
    """Runs of three seeds at each size; a seed adds a tenth of its number to the accuracy."""
    runs = []
    for place, (size, accuracy) in enumerate(zip(sizes, accuracies, strict=True)):
        own = tickets([accuracy, accuracy + 0.1, accuracy + 0.2], 0.1 / 2**place, er_p=0.2, k=0.5 / 2**place, **fields)
        for run in own:
            run.result["ticket_bytes"] = size
        runs += own
    return runs


def test_between_two_sizes_accuracy_is_on_the_line_over_the_logarithm():
    plain = sized([1000, 400, 100], [97, 95, 90], method="coats")
    signed = sized([1600, 400, 100], [98, 96, 80], method="signed")
    found = {(case.first, case.size): case for case in at_equal_bytes(settings(plain + signed))}
    assert found.keys() == {("coats", 100.0), ("signed", 400.0), ("signed", 1000.0)}
    middle = 96 + (98 - 96) * math.log(1000 / 400) / math.log(1600 / 400)
    assert found["signed", 1000.0].accuracies[0] == pytest.approx({0: middle, 1: middle + 0.1, 2: middle + 0.2})
    assert found["signed", 1000.0].accuracies[1] == pytest.approx({0: 97, 1: 97.1, 2: 97.2})
    assert found["signed", 1000.0].difference.value == pytest.approx(middle - 97)


def test_where_a_method_has_no_ticket_of_the_size_it_is_not_compared():
    found = at_equal_bytes(settings(sized([1000, 400], [97, 95], method="coats") + sized([300, 100], [98, 96], method="signed")))
    assert found == []


def test_the_best_of_a_size_stands_first_and_holm_counts_all_pairs():
    runs = []
    for place, method in enumerate(("coats", "draws", "signed")):
        own = sized([1000, 100], [90 + place, 80 + 3 * place], method=method)
        for run in own:
            run.result["test_accuracy"] += run.seed * 0.3 * (place == 1)  # so that differences vary over seeds
        runs += own
    title, header, rows = size_table(settings(runs))
    assert "Holm over all pairs" in title and header[0] == "bytes"
    assert [(row[0], row[1].split()[0], row[2].split()[0]) for row in rows] == [
        ("100", "signed", "coats"), ("100", "signed", "draws"), ("1,000", "signed", "coats"), ("1,000", "signed", "draws")]


def test_methods_of_one_book_are_told_by_their_density_alone():
    runs = sized([1000, 100], [97, 90], method="edge_popup") + sized([1000, 100], [96, 91], method="averaged")
    assert at_equal_bytes(settings(runs)) == [] and PICTURES["bytes"].draw(settings(runs)) == []


def test_runs_of_before_do_not_say_what_they_take():
    runs = tickets([90, 91], method="coats") + tickets([92, 93], method="signed")
    assert at_equal_bytes(settings(runs)) == [] and PICTURES["bytes"].draw(settings(runs)) == []


def test_the_picture_has_a_line_for_each_method_over_bytes():
    runs = sized([1000, 100], [97, 90], method="coats") + sized([1600, 160], [98, 80], method="signed")
    (figure,) = PICTURES["bytes"].draw(settings(runs))
    (panel,) = figure.axes
    assert panel.get_xlabel() == "bytes of the ticket, compressed" and panel.get_xscale() == "log"
    assert [sorted(bars[0].get_xdata()) for bars in panel.containers] == [[100, 1000], [160, 1600]]


def test_a_ticket_takes_what_its_compressed_file_holds_beside_its_names(tmp_path):
    nets = {method: attach(MODELS["mlp"]((1, 8, 8), 10), er_p=0.2, k=0.05, method=method, seed=1)
            for method in ("edge_popup", "signed")}
    for net in nets.values():
        net.eval()(torch.zeros(1, 1, 8, 8))
    taken = {method: extract(net).least_bytes() for method, net in nets.items()}
    file = extract(nets["signed"]).save(tmp_path / "ticket", compress=True).read_bytes()
    assert taken["signed"] == len(file) - 8 - int.from_bytes(file[:8], "little")
    kept = sum(layer.kept for layer in extract(nets["signed"]).layers)
    assert taken["edge_popup"] + kept // 8 <= taken["signed"] <= taken["edge_popup"] + kept // 8 + 3


QUICK = ["--epochs", "1", "--widths", "64", "--seeds", "2", "--controls", "none", "--workers", "1", "--threads", "1", "--out"]


@pytest.mark.drawn
def test_a_sweep_of_signed_and_plain_edges_is_one_comparison(tmp_path, capsys):
    """`signed` has a unit of first scores of its own, which its record names: nobody has asked for another one."""
    assert main([*QUICK, str(tmp_path), "--method", "edge_popup", "signed", "--k", "0.5", "0.05"], MODELS) == 0
    said = capsys.readouterr().out
    assert "--method edge_popup signed" in (tmp_path / "report.html").read_text(), "the command that has made them"
    assert "score_unit" not in said and "Method: the best mean" in said and "Methods at equal bytes" in said
    assert all(run.ticket_bytes > 0 for run in read_directory(tmp_path).runs)
    assert ",ticket_bytes," in (tmp_path / "results.csv").read_text() and (tmp_path / "figures" / "bytes.png").exists()
    assert main([*QUICK, str(tmp_path / "units"), "--method", "signed", "--score-unit", "auto", "fan_in"], MODELS) == 0
    assert "score_unit" in capsys.readouterr().out
