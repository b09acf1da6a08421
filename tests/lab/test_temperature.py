"""A learned temperature: the loss's own gradient, one float in the record, no other prediction."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models import MODELS
from popup import Config, load
from popup.lab.commands.command import main
from popup.lab.machine import Machine
from popup.lab.runs.control_run import ready_control
from popup.lab.runs.control_training import run_control
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import make_plain
from popup.lab.training.loss import cross_entropy
from popup.lab.training.temperature import RATE, Temperature

QUICK = ["--epochs", "2", "--widths", "8", "--controls", "none", "--threads", "1"]


def test_gradients_are_autograds_own_and_parts_add_up():
    logits, labels = torch.randn(6, 4, requires_grad=True), torch.arange(6) % 4
    learned, whole = Temperature(torch.device("cpu"), 0.5), Temperature(torch.device("cpu"), 0.5)
    log = torch.tensor(0.3, requires_grad=True)
    learned.log.fill_(0.3), whole.log.fill_(0.3)
    F.cross_entropy(logits * log.exp(), labels, label_smoothing=0.1).backward()
    scaled = whole.scaled(logits)
    assert torch.allclose(whole.back(cross_entropy(scaled, labels, 0.1, 1.0)[1], scaled), logits.grad, atol=1e-7)
    for part in (slice(0, 3), slice(3, 6)):
        scaled = learned.scaled(logits[part])
        learned.back(cross_entropy(scaled, labels[part], 0.1, 0.5)[1], scaled)
    for temperature in (learned, whole):
        slope = temperature.slope()
        assert torch.allclose(slope, log.grad, atol=1e-7) and not temperature.slope().any(), "the next batch begins"
        temperature.step(slope, 0.25)
        assert float(temperature.log) == pytest.approx(0.3 - float(log.grad) * RATE * 0.5, abs=1e-6)


@pytest.mark.parametrize(("size", "share"), [(1e3, 0.1), (1e9, 1.0)])
def test_huge_logits_do_not_end_it_in_one_step(size, share):
    """Sent to 0 at once the factor stayed there, with all gradients 0, and eval took the ticket for a forged one."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = size * torch.randn(64, 4, generator=generator), torch.randint(4, (64,), generator=generator)
    learned, factors = Temperature(torch.device("cpu"), 0.1), []
    for _ in range(100):
        scaled = learned.scaled(logits)
        gradient = learned.back(cross_entropy(scaled, labels, 0.1, 1.0)[1], scaled)
        assert bool(gradient.any())
        learned.step(learned.slope(), share * 0.1)
        factors.append(learned.factor)
    assert factors[0] == pytest.approx(math.exp(-1), rel=1e-4) and 0.001 < factors[-1] * size < 3


def run(out, *options):
    assert main([*QUICK, *options, "--out", str(out)], MODELS) == 0
    (place,) = (path.parent for path in out.glob("*/result.json"))
    return place


def test_a_run_records_it_and_eval_repeats_what_was_measured(tmp_path, capsys):
    place = run(tmp_path / "digits", "--temperature", "learned")
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    assert all(row["temperature"] > 0 != row["temperature"] - 1 for row in rows)
    assert load(place / "ticket.safetensors").about["temperature"] == rows[-1]["temperature"]
    capsys.readouterr()
    assert main(["eval", str(place / "ticket.safetensors")], MODELS) == 0
    assert "repeated exactly" in capsys.readouterr().out
    assert main(["export", str(place / "ticket.safetensors"), str(tmp_path / "plain.safetensors")], MODELS) == 0
    assert f"its loss was of outputs times {rows[-1]['temperature']:.6g} (a learned" in capsys.readouterr().out
    fixed = run(tmp_path / "fixed")
    assert "temperature" not in (fixed / "metrics.jsonl").read_text() and fixed.name != place.name
    assert main(["export", str(fixed / "ticket.safetensors"), str(tmp_path / "plain.safetensors")], MODELS) == 0
    assert "temperature" not in capsys.readouterr().out
    assert fixed.name == Config.from_record(json.loads((fixed / "config.json").read_text())).hash()


@pytest.mark.filterwarnings("ignore:.*stay dense")  # its embeddings
def test_bits_a_byte_are_of_the_scaled_logits(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a word and another word, and so on. " * 200)
    place = run(tmp_path / "runs", "--dataset", f"text:{text}", "--model", "gpt", "--image-size", "8", "--widths", "8", "16",
                "--temperature", "learned")
    capsys.readouterr()
    ticket = str(place / "ticket.safetensors")
    assert main(["eval", ticket, "--dataset", f"text:{text}"], MODELS) == 0
    assert "repeated exactly" in capsys.readouterr().out


def test_controls_with_frozen_weights_are_measured_as_their_ticket_is(tmp_path):
    """What differs is the subnetwork alone: their loss is of logits times the same float, which trained weights need none of."""
    assert main([*QUICK[:4], "--threads", "1", "--workers", "1", "--temperature", "learned", "--controls", "random",
                 "random_trained", "--out", str(tmp_path)], MODELS) == 0
    rows = {json.loads((path / "config.json").read_text())["task"]["role"]: json.loads(
        (path / "metrics.jsonl").read_text().splitlines()[-1]) for path in tmp_path.iterdir() if (path / "result.json").exists()}
    assert rows["random"]["temperature"] == rows["ticket"]["temperature"] != 1 and "temperature" not in rows["random_trained"]
    config = Config.from_record(json.loads(next(tmp_path.glob("*/config.json")).read_text())).replace(role="random")
    laboratory = Laboratory(MODELS, Machine("cpu", 1), tmp_path)
    ready = ready_control(laboratory, make_plain(laboratory, config))
    losses = [run_control(make_plain(laboratory, config).net, laboratory.data(config), config, start, lambda row: None)[0][-1]
              for start in (ready.start, replace(ready.start, temperature=1.0))]
    assert losses[0] == rows["random"] and losses[1]["test_loss"] != losses[0]["test_loss"]
    assert losses[1]["test_accuracy"] == losses[0]["test_accuracy"]


@pytest.mark.parametrize("value", [0, -1.0, "warm", True, None])
def test_a_forged_one_is_refused(value, tmp_path, capsys, forge):
    place = run(tmp_path, "--temperature", "learned", "--epochs", "1")
    ticket = place / "ticket.safetensors"
    forge(ticket, lambda metadata, tensors: metadata["about"].update(temperature=value))
    capsys.readouterr()
    assert main(["eval", str(ticket)], MODELS) == 2
    assert "the ticket records the temperature" in capsys.readouterr().err


def test_what_is_no_word_is_refused(capsys):
    assert main([*QUICK, "--temperature", "warm"], MODELS) == 2
    assert "temperature" in capsys.readouterr().err
