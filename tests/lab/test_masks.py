"""Sources of pruning criteria from the command line: one run from its mask to its ticket, controls, and the same bytes
again however often it is stopped."""

import json
import signal

import numpy as np
import pytest
import torch

from models import MODELS
from popup import load
from popup.lab.commands.arguments import parse
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.report.comparison import settings
from popup.lab.report.results import read_directory
from popup.lab.runs.controls import CONTROLS, control_config
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build
from popup.lab.training.attachment import computed_edges
from popup.lab.training.batches import Normalise
from popup.lab.training.stop import Stop, Stopped
from popup.source import find_layers, snip
from popup.source.masks import given_edges
from popup.source.streams import Stream

QUICK = ["--epochs", "1", "--widths", "12", "--weights", "kaiming_normal"]
CRITERIA = ["snip", "synflow"]


def laboratory(out, stop=None):
    return Laboratory(MODELS, Machine("cpu"), out, stop)


@pytest.mark.parametrize("mask", CRITERIA)
def test_a_run_of_a_criterion_and_its_ticket_from_the_command_line(mask, tmp_path, capsys):
    assert main([*QUICK, "--mask", mask, "--er-p", "0.1", "--out", str(tmp_path)], MODELS) == 0
    said, (path,) = capsys.readouterr().out, tmp_path.glob("*/ticket.safetensors")
    result = json.loads((path.parent / "result.json").read_text())
    assert f"(by {mask})" in said and result["edges"] == round(0.1 * (64 * 12 + 12 * 10)) and result["proof"]["holds"]
    assert all(row["p_l"] == row["edges"] / row["entries"] for row in result["layers"])
    for command, words in (("verify", f"layers (mask {mask}), and the seed gives their weights"), ("eval", "repeated exactly"),
                           ("show", f"mask {mask}")):
        assert main([command, str(path)], MODELS) == 0
        assert words in capsys.readouterr().out
    assert main(["export", str(path), str(tmp_path / "plain.safetensors")], MODELS) == 0


@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_every_control_of_a_computed_mask_runs_on_the_tickets_source(weights, tmp_path):
    arguments = ["--epochs", "1", "--widths", "12", "--mask", "snip", "--weights", weights, "--gain", "1"]
    assert main([*arguments, "--controls", "all", "--workers", "1", "--out", str(tmp_path)], MODELS) == 0
    (setting,) = settings(read_directory(tmp_path).runs)
    assert all(len(setting.controls[role]) == 1 for role in CONTROLS)
    rows = {role: [row["edges"] for row in runs[0].result["layers"]] for role, runs in setting.controls.items()}
    ticket = [row["edges"] for row in setting.runs[0].result["layers"]]
    assert all(rows[role] == ticket for role, control in CONTROLS.items() if role != "dense_trained" and not control.prunes)
    control = control_config(setting.config, "er_trained")
    edges = computed_edges(build(laboratory(tmp_path), control), control, laboratory(tmp_path).data(control).train)
    found = load(next(tmp_path.glob(f"{setting.config.hash()}/ticket.safetensors")))
    assert all(np.array_equal(edges[layer.spec.name], layer.edges) for layer in found.layers)


def test_snip_looks_at_128_training_images_of_its_own_stream():
    config = Config.from_flat({"mask": "snip", "er_p": 0.2, "widths": (12,), "seed": 3, "validation": 0.5})
    found = laboratory(".")
    images, labels = found.data(config).train
    chosen = np.argsort(Stream(3, "saliency").words64(len(images)), kind="stable")[:128]
    net = build(found, config)
    expected = given_edges(find_layers(net), snip(net, config.source, Normalise(images)(images[chosen]), labels[chosen]))
    edges = computed_edges(net, config, (images, labels))
    assert len(images) < 800 and all(map(np.array_equal, edges.values(), expected.values()))


class StopAt(Stop):
    """Asks to end at the n-th look."""

    looks = 60

    def check(self):
        self.looks -= 1
        if not self.looks:
            self.number = signal.SIGINT
        super().check()


@pytest.mark.parametrize("mask", CRITERIA)
def test_a_stopped_run_of_a_computed_mask_goes_on_to_the_same_bytes(mask, tmp_path):
    config = Config.from_flat({"mask": mask, "weights": "kaiming_normal", "widths": (12,), "epochs": 2})
    run(laboratory(tmp_path / "whole"), config)
    torch.rand(5)
    with pytest.raises(Stopped):
        run(laboratory(tmp_path / "stopped", StopAt()), config)
    assert laboratory(tmp_path / "stopped").directory(config).checkpoint.exists()
    run(laboratory(tmp_path / "stopped"), config)
    tickets = [laboratory(tmp_path / out).directory(config).ticket.read_bytes() for out in ("whole", "stopped")]
    assert tickets[0] == tickets[1]


def test_masks_may_be_compared_in_one_grid_and_have_hashes_of_their_own():
    arguments = ["--mask", "bernoulli", "snip", "synflow", "--weights", "kaiming_normal"]
    configs = parse(arguments, "", {}).configs
    assert [config.source.mask for config in configs] == ["bernoulli", *CRITERIA]
    assert len({config.hash() for config in configs}) == 3
