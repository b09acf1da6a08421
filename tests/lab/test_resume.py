"""Runs that survive: stopped or killed at any moment and begun again, they leave what an uninterrupted run leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import popup
from models import MODELS
from popup.files import write_atomically
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.precision import Precision
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training import training
from popup.lab.training.checkpoint import CheckpointError, Checkpoints
from popup.lab.training.loss import cross_entropy
from popup.lab.training.state import TrainingState
from popup.lab.training.stop import RunFailed, Stop, Stopped
from popup.search.methods import METHODS
from popup.ticket.sealed import seal, unseal

ROOT = Path(__file__).parents[2]
STEPS = 15  # of an epoch of 1,437 or so images at batch size 92


class Shift(nn.Module):
    """A parameter that is no layer's and starts random: the seed must give it again."""

    def __init__(self, channels):
        super().__init__()
        self.token = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x):
        return x + self.token


def noisy(image, classes, widths=(), width=1.0):
    """Batch norm, dropout and a random token: running statistics and torch's generator are part of the state."""
    return nn.Sequential(nn.Conv2d(image[0], 6, 3), nn.Dropout(0.2), nn.BatchNorm2d(6), nn.ReLU(), Shift(6), nn.Flatten(),
                         nn.Dropout(0.3), nn.Linear(216, classes))


NETWORKS = {**MODELS, "noisy": noisy}


def config(**changes):
    return Config.from_flat({"epochs": 3, "batch_size": 92, "widths": (16,), **changes})


def laboratory(out, stop=None, seconds=3600.0):
    return Laboratory(NETWORKS, Machine("cpu", checkpoint_seconds=seconds), out, stop)


def left_by(out, wanted):
    """The bytes of what a run leaves that does not depend on time."""
    place = out / wanted.hash()
    return {name: (place / name).read_bytes() for name in ("ticket.safetensors", "metrics.jsonl") if (place / name).exists()}


CASES = [{}, {"model": "small_conv", "widths": (4, 4), "scope": "global", "augment": ("crop", "flip"), "momentum": 0.0},
         {"model": "noisy", "widths": (), "weight_decay": 1e-3, "warmup": 1.5}, {"role": "er_trained", "k": 1.0},
         {"optimizer": "adam", "lr": 0.003, "first_scores": "gradient"}, {"optimizer": "sign", "lr": 0.001},
         {"compute": "sparse", "temperature": "learned"}]


@pytest.mark.parametrize("changes", CASES)
def test_a_stopped_run_goes_on_to_the_same_bytes(changes, tmp_path, stop_at):
    wanted = config(**changes)
    run(laboratory(tmp_path / "whole"), wanted)
    for looks in (1, STEPS, STEPS + 1, 2 * STEPS + 5, 3 * STEPS + 6):
        out, seen = tmp_path / str(looks), []
        with pytest.raises(Stopped) as stopped:
            run(laboratory(out, stop_at(looks)), wanted)
        assert stopped.value.code == 130
        directory = laboratory(out).directory(wanted)
        assert directory.checkpoint.exists() and directory.result() is None
        run(laboratory(out), wanted, seen.append)
        assert left_by(out, wanted) == left_by(tmp_path / "whole", wanted)
        assert [metrics["epoch"] for metrics in seen] == [1, 2, 3] and not directory.checkpoint.exists()


@pytest.mark.parametrize("method", METHODS)
def test_whatever_a_method_remembers_goes_on_to_the_same_bytes(method, tmp_path, stop_at):
    """Averages, locked edges, redraws, frozen edges, noise, and the course of k, stopped in its middle and near its end."""
    wanted = config(method=method, er_p=0.5, k=0.3, anneal="cubic", anneal_until=0.7, redraw_every=6, epochs=3)
    run(laboratory(tmp_path / "whole"), wanted)
    for looks in (STEPS - 2, 3 * STEPS - 4) if METHODS[method].learns else (STEPS - 2,):
        with pytest.raises(Stopped):
            run(laboratory(tmp_path / str(looks), stop_at(looks)), wanted)
        run(laboratory(tmp_path / str(looks)), wanted)
        assert left_by(tmp_path / str(looks), wanted) == left_by(tmp_path / "whole", wanted)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_during_an_evaluation_is_heard_at_once(epoch, tmp_path, monkeypatch):
    """Even in the last one, before which the running statistics have been estimated anew with dropout at work."""
    wanted, stop, calls = config(model="noisy", widths=()), Stop(), []
    run(laboratory(tmp_path / "whole"), wanted)

    evaluate = training.evaluate

    def asked(*arguments):
        calls.append(1)
        if len(calls) == epoch:
            stop.ask(signal.SIGTERM)
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", asked)
        with pytest.raises(Stopped) as stopped:
            run(laboratory(tmp_path / "cut", stop), wanted)
    assert stopped.value.code == 143 and len(calls) == epoch
    run(laboratory(tmp_path / "cut"), wanted)
    assert left_by(tmp_path / "cut", wanted) == left_by(tmp_path / "whole", wanted)


def test_a_run_stopped_again_and_again_goes_on(tmp_path, stop_at):
    wanted = config(model="noisy", widths=())
    run(laboratory(tmp_path / "whole"), wanted)
    stops = 0
    for _ in range(20):
        try:
            run(laboratory(tmp_path / "often", stop_at(7)), wanted)
            break
        except Stopped:
            stops += 1
    assert stops >= 6 and left_by(tmp_path / "often", wanted) == left_by(tmp_path / "whole", wanted)


def test_an_interrupt_within_a_step_writes_nothing_that_is_half(tmp_path, monkeypatch):
    """Without Stop's handlers (a caller of Laboratory in Python) Ctrl-C can come between the backward pass and the step."""
    wanted, calls = config(), []

    def interrupt(*arguments, **options):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return cross_entropy(*arguments, **options)

    monkeypatch.setattr("popup.lab.training.training.cross_entropy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(laboratory(tmp_path), wanted)
    assert not laboratory(tmp_path).directory(wanted).checkpoint.exists()


def test_kill_9_at_random_moments():
    """More of them: python tests/lab/kill.py 20 mlp"""
    command = [sys.executable, str(ROOT / "tests/lab/kill.py"), "2", "mlp", "small_conv", "mlp:er_trained"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 3 and all(line["kills"] >= 2 and line["same"] for line in found)


@pytest.mark.parametrize(("number", "code", "word"), [
    (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_ends_a_run_within_a_step_with_a_checkpoint_and_one_line(number, code, word, tmp_path):
    command = [sys.executable, "-u", "run.py", "--epochs", "400", "--widths", "16", "--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = None
    while process.poll() is None and not (metrics and metrics[0].stat().st_size):
        time.sleep(0.02)
        metrics = list(tmp_path.glob("*/metrics.jsonl"))
    process.send_signal(number)
    began = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == code and time.monotonic() - began < 10
    assert error == f"popup: {word}; the same command goes on from here\n"
    assert [path.name for path in metrics[0].parent.glob("*.safetensors")] == ["checkpoint.safetensors"]


def test_a_checkpoint_of_another_run_is_refused_with_one_line(tmp_path, stop_at):
    for seed in (0, 1):
        with pytest.raises(Stopped):
            run(laboratory(tmp_path, stop_at(20)), config(seed=seed))
    one, other = (laboratory(tmp_path).directory(config(seed=seed)).checkpoint for seed in (0, 1))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match="is of a run with another config; remove it") as error:
        run(laboratory(tmp_path), config(seed=0))
    assert "\n" not in str(error.value)
    one.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"is (damaged|no popup checkpoint).*remove it"):
        run(laboratory(tmp_path), config(seed=0))
    one.write_bytes(content)
    run(laboratory(tmp_path), config(seed=0))


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path, stop_at):
    """It lacks the fields that came later, as its run's config.json does, and the name is the same."""
    wanted = config(compute="dense")
    run(laboratory(tmp_path / "whole"), wanted)
    with pytest.raises(Stopped):
        run(laboratory(tmp_path / "cut", stop_at(20)), wanted)
    path = laboratory(tmp_path / "cut").directory(wanted).checkpoint
    metadata, tensors = unseal(path, "checkpoint", (1,))
    for group, name in (("training", "compute"), ("training", "optimizer"), ("source", "skip"), ("search", "coats")):
        del metadata["config"][group][name]
    metadata = {name: value for name, value in metadata.items() if name not in ("kind", "format", "digest")}
    path.write_bytes(seal("checkpoint", 1, metadata, tensors))
    seen = []
    run(laboratory(tmp_path / "cut"), wanted, seen.append)
    assert left_by(tmp_path / "cut", wanted) == left_by(tmp_path / "whole", wanted)
    for broken in (7, {"training": 7}, {"training": {"momentum": "x"}}, None):
        with pytest.raises(Stopped):
            run(laboratory(tmp_path / str(broken), stop_at(20)), wanted)
        path = laboratory(tmp_path / str(broken)).directory(wanted).checkpoint
        path.write_bytes(seal("checkpoint", 1, {**metadata, "config": broken}, tensors))
        with pytest.raises(CheckpointError, match="of a run with another config"):
            run(laboratory(tmp_path / str(broken)), wanted)


def test_checkpoints_hold_no_frozen_weight(tmp_path, stop_at):
    wanted = config(widths=(256, 256), er_p=0.05)
    with pytest.raises(Stopped):
        run(laboratory(tmp_path, stop_at(20)), wanted)
    edges = 0.05 * 84480
    header = 24000  # its config and random states; the weights alone would be 16896
    assert laboratory(tmp_path).directory(wanted).checkpoint.stat().st_size < 2 * 4 * edges + edges / 4 + header


def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_can_go_on(tmp_path, monkeypatch, stop_at):
    wanted = config()
    run(laboratory(tmp_path / "whole"), wanted)
    with pytest.raises(Stopped):
        run(laboratory(tmp_path / "full", stop_at(20)), wanted)
    checkpoint = laboratory(tmp_path / "full").directory(wanted).checkpoint
    before = checkpoint.read_bytes()

    def full(path, content):
        if path == checkpoint:
            raise OSError(28, "No space left on device", str(path))
        write_atomically(path, content)

    monkeypatch.setattr("popup.lab.training.checkpoint.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        run(laboratory(tmp_path / "full", seconds=0.0), wanted)
    monkeypatch.undo()
    assert checkpoint.read_bytes() == before
    run(laboratory(tmp_path / "full"), wanted)
    assert left_by(tmp_path / "full", wanted) == left_by(tmp_path / "whole", wanted)


def test_a_loss_that_is_not_finite_names_step_and_rate_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    wanted = config(epochs=1)
    calls = []

    def broken(*arguments):
        calls.append(1)
        return [part * (float("nan") if len(calls) == 8 else 1.0) for part in cross_entropy(*arguments)]

    monkeypatch.setattr("popup.lab.training.training.cross_entropy", broken)
    with pytest.raises(RunFailed, match=r"not finite at step 8 of epoch 1 \(learning rate 0\.05\d+\): lower --lr"):
        run(laboratory(tmp_path, seconds=0.0), wanted)
    monkeypatch.undo()
    directory = laboratory(tmp_path).directory(wanted)
    assert directory.result() is None and directory.checkpoint.exists()
    run(laboratory(tmp_path / "whole"), wanted)
    run(laboratory(tmp_path), wanted)  # the state of step 7 was good
    assert left_by(tmp_path, wanted) == left_by(tmp_path / "whole", wanted)


def test_no_more_checkpoints_than_they_pay_for(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", seconds=1.0)
    checkpoints._cost = 0.1
    checkpoints._last = time.perf_counter() - 4.9
    assert not checkpoints._due()
    checkpoints._last -= 0.2
    assert checkpoints._due()


def test_a_run_leaves_the_callers_generator_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(laboratory(tmp_path), config(model="noisy", widths=(), epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_a_run_on_other_images_is_refused(tmp_path):
    net = popup.attach(nn.Sequential(nn.Linear(4, 2)), er_p=1.0)
    state = TrainingState(net, popup.scores(net), torch.optim.SGD(popup.scores(net), lr=0.1), 3, Precision.of(net, "fp32"))
    Checkpoints(tmp_path / "checkpoint").of(Config(), "a").write(state)
    Checkpoints(tmp_path / "checkpoint").of(Config(), "a").resume(state)
    with pytest.raises(CheckpointError, match="on other images"):
        Checkpoints(tmp_path / "checkpoint").of(Config(), "b").resume(state)


def test_a_checkpoint_in_another_precision_is_refused_and_says_why(tmp_path):
    """`auto` may come to another one on another machine, or by the rule of another version."""
    net = popup.attach(nn.Sequential(nn.Linear(4, 2)), er_p=1.0)
    states = [TrainingState(net, popup.scores(net), torch.optim.SGD(popup.scores(net), lr=0.1), 3, Precision.of(net, wanted))
              for wanted in ("bf16", "fp32")]
    Checkpoints(tmp_path / "checkpoint").write(states[0])
    with pytest.raises(CheckpointError) as error:
        Checkpoints(tmp_path / "checkpoint").resume(states[1])
    words = ["'bf16'", "'fp32'", "--precision auto", "version", "machine", "remove it to begin anew"]
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
