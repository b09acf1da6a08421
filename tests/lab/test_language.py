"""A language model through the command line: what is measured is bits a byte, less is better, and everything says so."""

import csv
import io
import json
import math
import re
from dataclasses import asdict
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

import popup
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.data.datasets import DataRequest, load_dataset
from popup.lab.measure import ACCURACY, BITS, MEASURES, OF_TOKENS, measure_in, measured
from popup.lab.report.comparison import settings
from popup.lab.report.contrasts import advantages, best_contrasts
from popup.lab.report.figures import PICTURES
from popup.lab.report.report import report_text
from popup.lab.report.results import read_directory
from popup.lab.report.verdicts import verdicts

pytestmark = [pytest.mark.drawn, pytest.mark.filterwarnings("ignore:.*stay dense")]  # embeddings
SMALL = ["--widths", "8", "16", "--image-size", "16", "--batch-size", "16", "--threads", "1", "--workers", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A text with a rhythm, a grid on it with controls, and a ticket on images in one directory."""
    place = tmp_path_factory.mktemp("language")
    topics = import_module("pydoc_data.topics").topics
    (place / "text.txt").write_text(topics["assert"] * 3, encoding="utf-8")
    with pytest.warns(UserWarning, match="stay dense"):
        assert main(["--dataset", f"text:{place / 'text.txt'}", "--er-p", "1", "0.3", "--seeds", "2", "--controls", "random",
                     "dense_trained", *SMALL, "--out", str(place / "runs")], MODELS) == 0
    return place


def rows(place):
    return list(csv.DictReader(io.StringIO((place / "runs" / "results.csv").read_text())))


def tickets(place):
    return sorted(place.glob("runs/*/ticket.safetensors"))


def test_metrics_results_and_table_hold_bits_a_byte_and_no_accuracy(place):
    assert len(rows(place)) == 4 + 4 + 2
    for row in rows(place):
        assert row["status"] == "finished" and row["test_accuracy"] == "" and row["proof_holds"] in ("True", "")
        assert float(row["test_bits"]) == pytest.approx(float(row["test_loss"]) / math.log(2), rel=1e-6)
        (metrics,) = map(json.loads, (place / "runs" / row["hash"] / "metrics.jsonl").read_text().splitlines())
        assert metrics["test_bits"] == float(row["test_bits"]) and "test_accuracy" not in metrics


def test_the_report_is_in_bits_a_byte_and_says_what_is_better(place):
    text = (place / "runs" / "report.txt").read_text()
    assert "Test loss in bits a byte at the last epoch" in text and "ticket bits" in text
    assert "accuracy" not in text.lower() and "%" not in re.sub(r"95%|[\d.]+% of the masked weights", "", text)
    page = (place / "runs" / "report.html").read_text()
    assert "Loss against final density" in page and "test loss (bits a byte)" in page and "ccuracy" not in page
    assert "windows to train on" in page and "for test loss" in page and "images" not in page and "nats" not in page
    assert "kept / all masked weights" in page and "all weights" not in page + text
    assert page.count("that are in none and stay dense") == 1  # tickets and controls are of one network
    names = {path.stem for path in (place / "runs" / "figures").iterdir()}
    assert "loss" in names and "accuracy" not in names


def test_curves_are_of_one_loss_in_bits_a_byte(place):
    """The loss that is measured and that of training, in one unit on one axis."""
    made = made_up(place, lambda config: 3.0)
    for setting in made:
        for run in setting.runs:
            rows = [json.loads((run.path / "metrics.jsonl").read_text())] * 2
            vars(run)["metrics"] = lambda rows=rows: rows
    (figure,) = PICTURES["training"].draw(made)
    (panel,) = figure.axes
    assert panel.get_ylabel() == "test loss (bits a byte), training dashed"
    row = made[0].runs[0].metrics()[0]
    means = [np.mean([run.metrics()[0][name] for run in made[0].runs]) for name in ("train_loss", "test_bits")]
    assert [line.get_ydata()[0] for line in panel.lines[:2]] == pytest.approx([means[0] / math.log(2), means[1]])
    assert row["test_bits"] == pytest.approx(row["test_loss"] / math.log(2))
    assert PICTURES["training"].caption(made) == "Loss by epoch, means over seeds."


def test_the_first_lines_tell_of_windows_and_tokens(place):
    data = load_dataset(f"text:{place / 'text.txt'}", DataRequest(place, side=16))
    (line,) = data.described()
    assert re.fullmatch(r"text\.txt: [\d,]+ windows of 16 tokens, 256 classes, [\d,]+ test windows", line)


def test_a_ticket_is_evaluated_verified_shown_and_compared_in_bits_a_byte(place, capsys):
    path = tickets(place)[0]
    for command, wanted in ((["eval", str(path)], "repeated exactly"), (["verify", str(path)], "at the point of use: in gpt"),
                            (["show", str(path)], "test_bits: "), (["diff", str(path), str(path)], " bits a byte")):
        assert main(command, MODELS) == 0
        told = capsys.readouterr().out
        assert wanted in told and "BROKEN" not in told and "accuracy" not in told and "%" not in told
    assert main(["eval", str(path), "--sparse"], MODELS) == 0
    assert "the outputs are the dense network's within float noise" in capsys.readouterr().out


def test_a_record_of_another_loss_is_not_repeated(place, tmp_path, capsys):
    ticket = popup.load(tickets(place)[0])
    ticket.about["test_bits"] += 1e-9
    ticket.save(tmp_path / "other.safetensors")
    assert main(["eval", str(tmp_path / "other.safetensors")], MODELS) == 1
    assert "NOT repeated" in capsys.readouterr().out


def test_a_ticket_is_exported_as_a_program_of_tokens(place, tmp_path, capsys):
    out = tmp_path / "out.pt2"
    assert main(["export", str(tickets(place)[0]), str(out)], MODELS) == 0
    assert "its inputs are windows of tokens [16]" in capsys.readouterr().out
    tokens = torch.randint(256, (3, 16), generator=torch.Generator().manual_seed(0))
    plain = popup.load(tickets(place)[0]).apply(MODELS["gpt"]((16,), 256, (8, 16))).eval()
    torch.testing.assert_close(torch.export.load(out).module()(tokens), plain(tokens), rtol=1e-4, atol=1e-5)


def test_an_interrupted_search_goes_on_to_the_same_ticket(place, tmp_path, monkeypatch):
    """Stopped within an epoch, begun again by the same command."""
    from popup.lab.training import training

    path, calls, step = tickets(place)[0], [], training.train_step
    config = Config.from_record(json.loads((path.parent / "config.json").read_text()))
    arguments = ["--dataset", config.task.dataset, "--er-p", str(config.source.er_p), "--seed", str(config.source.seed), *SMALL,
                 "--out", str(tmp_path)]

    def interrupted(*given):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append(step(*given))

    monkeypatch.setattr(training, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(arguments, MODELS)
    assert list(tmp_path.glob("*/checkpoint.safetensors"))
    monkeypatch.setattr(training, "train_step", step)
    assert main(arguments, MODELS) == 0
    (again,) = tmp_path.glob("*/ticket.safetensors")
    assert again.parent.name == path.parent.name and again.read_bytes() == path.read_bytes()


def test_a_report_of_images_and_texts_compares_each_with_its_like(place, monkeypatch):
    monkeypatch.setattr("popup.lab.report.report.PICTURES", {"layers": PICTURES["layers"]})
    assert main(["--epochs", "1", "--widths", "8", "--out", str(place / "runs")], MODELS) == 0
    text = report_text(place / "runs", read_directory(place / "runs").runs)
    assert "Test accuracy in % at the last epoch" in text and "Test loss in bits a byte at the last epoch" in text
    assert main(["report", str(place / "runs")], MODELS) == 0
    names = {path.name for path in (place / "runs" / "figures").iterdir()}
    assert {"layers.png", "test_bits-layers.png"} <= names


def made_up(place, bits):
    """The settings of the grid as if tickets of p = 1 and 0.3 and their controls had come to these `bits`."""
    runs = [run for run in read_directory(place / "runs").runs if run.measure is BITS]
    for run in runs:
        run.result["test_bits"] = bits(run.config) + 0.001 * run.seed
    return settings(runs)


def test_less_is_better_in_contrasts_and_verdicts(place):
    noise = np.random.default_rng(0)
    found = made_up(place, lambda config: 3.0 + 1e-4 * noise.random() + (config.task.role == "random") * 5)
    assert all(one.gain > 4 and one.difference.value < -4 for one in advantages(found, trained=False))
    (sentence,) = [one for one in verdicts(found) if "frozen weights" in one]
    assert "clearly below their controls with frozen weights in all 2 comparisons" in sentence
    assert "bits a byte (random subnetwork" in sentence
    found = made_up(place, lambda config: 3.0 + 1e-4 * noise.random() - (config.task.role == "random") * 2)
    (sentence,) = [one for one in verdicts(found) if "frozen weights" in one]
    assert "clearly above their controls with frozen weights in all 2 comparisons" in sentence
    best = best_contrasts(made_up(place, lambda config: 1 + config.source.er_p + 1e-4 * noise.random()), "er_p")
    assert {contrast.first.value("er_p") for contrast in best} == {0.3}


@pytest.mark.parametrize(("arguments", "words"), [
    (["--model", "mlp"], "model 'mlp' cannot be built for windows of tokens [64]"),
    (["--dataset", "digits", "--model", "gpt"], "gpt reads windows of tokens: give it a text"),
    (["--mask", "synflow", "--weights", "kaiming_normal", "--widths", "8", "16"], "mask is 'synflow'"),
    (["--augment", "flip", "--widths", "8", "16"], "augmentations are for images"),
    (["--dataset", "text:none.txt"], "cannot read the text")])
def test_what_a_text_cannot_be_used_with_is_one_line(arguments, words, tmp_path, capsys):
    assert main(["--dataset", "text:", *arguments, "--out", str(tmp_path)], MODELS) == 2
    line = capsys.readouterr().err.strip()
    assert words in line and len(line.splitlines()) == 1


def test_snip_takes_a_batch_of_text(tmp_path):
    data = load_dataset("text:", DataRequest(tmp_path, side=16))
    net = MODELS["gpt"]((16,), 256, (8, 16))
    outcome = popup.fit(net, tuple(part[:64] for part in data.train), tuple(part[:8] for part in data.test),
                        Config().replace(mask="snip", er_p=0.3, weights="kaiming_normal", epochs=1, batch_size=16))
    assert outcome.proof.holds and sum(row.edges for row in popup.densities(net)) == math.floor(
        0.3 * sum(row.entries for row in popup.densities(net)) + 0.5)


def test_fit_learns_a_text_of_ones_own_and_says_what_it_measures():
    """Any network that makes logits of each place, a recurrent one that popup only reads from too; labels need not be bytes."""
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedded, self.hidden, self.out = nn.Embedding(5, 16), nn.Linear(16, 64), nn.Linear(64, 5)

        def forward(self, tokens):
            return self.out(torch.relu(self.hidden(self.embedded(tokens))))

    torch.manual_seed(0)
    tokens = torch.arange(640).view(64, 10) % 5
    outcome = popup.fit(Reader(), (tokens, (tokens + 1) % 5), (tokens, (tokens + 1) % 5),
                        Config().replace(er_p=0.5, epochs=20, batch_size=8, label_smoothing=0.0, optimizer="adam", lr=0.05))
    assert outcome.measure is OF_TOKENS and repr(outcome).startswith(f"Outcome({outcome.value:.4f} bits a token after 20 epochs")
    assert outcome.value == outcome.history[-1]["test_bits"]
    assert outcome.value < 0.3 < math.log2(5) and outcome.proof.holds


def test_labels_that_are_not_of_each_place_are_refused():
    tokens = torch.zeros(4, 6, dtype=torch.int64)
    with pytest.raises(popup.UsageError, match=r"makes \[2, 6, 3\] of 2 inputs: it must make logits \[n, classes\]"):
        popup.fit(nn.Sequential(nn.Embedding(5, 40), nn.Linear(40, 3)), (tokens, tokens[:, 0]), (tokens, tokens[:, 0]))
    with pytest.raises(popup.UsageError, match=r"it must make logits \[n, 6, classes\]"):
        popup.fit(nn.Sequential(nn.Embedding(5, 40), nn.Flatten(), nn.Linear(240, 3)), (tokens, tokens), (tokens, tokens))


def test_every_measure_says_all_of_itself_and_has_a_column_of_its_own():
    for measure in MEASURES:
        assert measured({"epoch": 1, measure.column: 1.0}) is measure
        assert all(value != "" for value in asdict(measure).values())
        assert (measure.better, measure.worse) == (("above", "below") if measure.up == 1 else ("below", "above"))
    assert len({measure.column for measure in MEASURES}) == len(MEASURES) and measure_in({"epoch": 1}) is None
    assert ACCURACY.of(12.0, 3, 4) == 75.0 and BITS.of(4 * math.log(2), 3, 2) == 2.0
