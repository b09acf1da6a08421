"""--log tensorboard and --log wandb: every metric of every epoch once, offline, and one line where a package is missing."""

import importlib.util
import json
import sys

import pytest

from models import MODELS
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import LOGS, Machine
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.logs import MAKERS
from popup.lab.training.stop import Stopped

RUN = ["--epochs", "2", "--widths", "16"]


def missing(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


def test_the_command_line_knows_every_log():
    assert tuple(MAKERS) == LOGS


@pytest.mark.parametrize("name", LOGS)
def test_a_missing_package_is_one_line_and_nothing_is_off_by_default(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"torch.utils.{name}", None)
    assert main([*RUN, "--out", str(tmp_path), "--log", name], MODELS) == 2
    error = capsys.readouterr().err
    assert error == f"popup: --log {name} needs a package that is not there: python -m pip install {name}\n"
    assert main([*RUN, "--out", str(tmp_path)], MODELS) == 0


def test_an_unknown_log_is_refused_by_name(tmp_path, capsys):
    assert main([*RUN, "--out", str(tmp_path), "--log", "tensorbord"], MODELS) == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err


@missing("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_each_metric_of_each_epoch_once_though_the_run_was_interrupted(tmp_path, stop_at):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = Config.from_flat({"epochs": 3, "batch_size": 92, "widths": (16,)})
    machine = Machine("cpu", log=("tensorboard",))
    with pytest.raises(Stopped):
        run(Laboratory(MODELS, machine, tmp_path, stop_at(34)), config)
    run(Laboratory(MODELS, machine, tmp_path), config)
    (files,) = tmp_path.glob("*/tensorboard")
    found = EventAccumulator(str(files))
    found.Reload()
    lines = [json.loads(line) for line in (files.parent / "metrics.jsonl").read_text().splitlines()]
    assert set(found.Tags()["scalars"]) == set(lines[0]) - {"epoch"}
    for name in lines[0].keys() - {"epoch"}:
        assert [(event.step, event.value) for event in found.Scalars(name)] == [
            (line["epoch"], pytest.approx(line[name], rel=1e-6)) for line in lines]


@missing("wandb")
@pytest.mark.filterwarnings("ignore")
def test_what_wandb_does_not_take_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    assert main([*RUN, "--out", str(tmp_path), "--log", "wandb"], MODELS) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("popup: --log wandb cannot begin a run") and "WANDB_MODE=offline" in line for line in lines) == 1


@missing("wandb")
def test_wandb_writes_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main([*RUN, "--out", str(tmp_path), "--log", "wandb"], MODELS) == 0
    (file,) = tmp_path.glob("*/wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 1000
