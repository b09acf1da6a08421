"""Several processes on one run, by torchrun and gloo: what one process finds, to float noise, and a lost one ends all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models import MODELS
from popup.errors import UsageError
from popup.lab.commands.arguments import parse
from popup.lab.commands.command import _do, main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.prepared import prepare
from popup.lab.training.batches import Batches
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.ranks import Ranks, under_torchrun
from popup.lab.training.stop import Stop, Stopped
from popup.ticket.ticket import load
from tests.lab import under_torchrun as program

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


def spread(out, configs):
    """The runs of tests/lab/under_torchrun.py, by two ranks."""
    command = [*TORCHRUN, str(ROOT / "tests/lab/under_torchrun.py"), str(out), json.dumps(configs)]
    done = subprocess.run(command, cwd=ROOT, env=QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def seen(out, number, ranks):
    """What each rank has seen of the run of a config."""
    return [json.loads((out / str(number) / f"seen{rank}of{ranks}.json").read_text()) for rank in range(ranks)]


ALIKE = [
    {"model": "normed", "epochs": 2, "batch_size": 64, "augment": ["crop"], "first_scores": "gradient"},
    {"model": "mlp", "widths": [64], "epochs": 2, "batch_size": 64, "scope": "global", "accumulate": 2, "temperature": "learned"},
    {"model": "normed", "epochs": 2, "batch_size": 64, "compute": "sparse"},
    {"model": "mlp", "widths": [64], "epochs": 2, "batch_size": 64, "method": "iterand", "redraw_every": 10, "anneal": "cubic"}]
ENDED = {"widths": [32], "batch_size": 64, "epochs": 4, "compute": "dense"}  # what a run that was ended comes to
APART = {"model": "normed", "epochs": 1, "batch_size": 64, "role": "dense_trained", "k": 1.0, "er_p": 1.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All of them by two ranks and by one, which is this process: starting others is what takes time."""
    out = tmp_path_factory.mktemp("ranks")
    spread(out / "two", [*ALIKE, {**APART, "sync_norm": False}, ENDED])
    program.main(out / "one", [*map(program.config_of, [*ALIKE, APART])], Machine("cpu"))
    return out


@pytest.mark.parametrize("number", range(len(ALIKE)))
def test_two_ranks_find_what_one_finds_to_float_noise(number, runs):
    one, *other = seen(runs / "two", number, 2)
    (alone,) = seen(runs / "one", number, 1)
    assert len(one["masks"]) == 2 and one["masks"] == other[0]["masks"], "the same mask on every rank in each epoch"
    assert one["scores"] == other[0]["scores"], "bit for bit"
    np.testing.assert_allclose(one["scores"], alone["scores"], atol=2e-5)
    assert one["loss"] == pytest.approx(alone["loss"], abs=1e-3) and one["holds"] and other[0]["holds"]
    assert sorted(one["images"] + other[0]["images"]) == sorted(alone["images"]), "each image once, on one rank"
    assert not set(one["images"]) <= set(other[0]["images"])
    (place,) = (path.parent for path in (runs / "two" / str(number)).glob("*/result.json"))
    assert json.loads((place / "result.json").read_text())["ranks"] == 2
    assert len((place / "metrics.jsonl").read_text().splitlines()) == 2, "one rank writes"


@pytest.mark.parametrize(("rank", "asked", "due"), [(0, False, True), (1, False, False), (1, True, True)])
def test_rank_0s_clock_and_whoever_is_asked_say_when_a_checkpoint_is_written(rank, asked, due, tmp_path):
    """The others write none, so that their clocks would say so after each step."""
    class Asked(Ranks):
        def highest(self, *numbers):
            said.append(numbers)
            return [0, 0]

    said, checkpoints = [], Checkpoints(tmp_path / "c", seconds=1e-9)
    checkpoints.stop.save = asked
    checkpoints.agree(SimpleNamespace(ranks=Asked(rank, 2)))
    assert said == [(0, due)]


def test_norms_that_are_not_synchronised_give_another_result_that_is_whole(runs):
    one, other = seen(runs / "two", len(ALIKE), 2)
    (alone,) = seen(runs / "one", len(ALIKE), 1)
    assert one["masks"] == other["masks"] and one["scores"] == other["scores"] and one["loss"] == other["loss"]
    assert np.abs(np.subtract(one["scores"], alone["scores"])).max() > 1e-3


def ranks_of(launcher):
    """The processes of torchrun's ranks, by rank, once they are there."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            variables = dict(entry.split("=", 1) for entry in (place / "environ").read_text().split("\0") if "=" in entry)
        except (OSError, ValueError):
            continue
        if parent == launcher and "RANK" in variables:
            found[int(variables["RANK"])] = int(place.name)
    return found


def test_a_killed_rank_ends_the_run_with_one_line_and_one_process_goes_on(tmp_path):
    run = ["--epochs", "24", "--widths", "64", "--batch-size", "64", "--out", str(tmp_path / "runs")]
    process = subprocess.Popen([*TORCHRUN, "run.py", *run, "--checkpoint-seconds", "0.2"], cwd=ROOT, env=QUIET,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "runs").glob("*/checkpoint.safetensors")):
        time.sleep(0.02)
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
    printed, error = process.communicate(timeout=100)
    lines = [line for line in error.splitlines() if line.startswith("popup:")]
    assert process.returncode == 1 and printed.count("mlp on digits") == 1
    assert lines == ["popup: the run failed: one of the 2 processes (ranks) of this run has ended, so all end; the same "
                     "command goes on from the last checkpoint"]
    (place,) = (tmp_path / "runs").iterdir()
    assert (place / "checkpoint.safetensors").exists() and not (place / "result.json").exists()
    assert main(run, MODELS) == 0
    assert main([*run[:-1], str(tmp_path / "whole")], MODELS) == 0
    ours, theirs = (load(out / place.name / "ticket.safetensors") for out in (tmp_path / "runs", tmp_path / "whole"))
    same = [np.mean(one.selected == other.selected) for one, other in zip(ours.layers, theirs.layers, strict=True)]
    assert min(same) > 0.95, "what one process finds from the start, but for float noise and what follows from it"


ASKED = """
import os, signal, socket, sys
import torch._dynamo
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.training import training

evaluate, turns = training.evaluate, []

def asked(*arguments):
    turns.append(1)
    if len(turns) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(*arguments)

def begin(rank, port, ask, more):
    child = os.fork()
    if child:
        return child
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=str(port))
    training.evaluate = asked if ask and rank == 1 else evaluate
    code = main([*sys.argv[1:], *more], MODELS)
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)

for ask, more in ((True, []), (False, ["--log", "tensorboard"])):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    ranks = [begin(rank, port, ask, more) for rank in range(2)]
    print("codes", *(os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks), flush=True)
"""


def test_a_rank_that_is_asked_to_end_in_an_evaluation_has_all_end_after_it(tmp_path, runs):
    """And the same command goes on to the bytes of a run that nobody ended. Both ranks are forks of one process, which imports
    once."""
    run = ["--epochs", "4", "--widths", "32", "--batch-size", "64", "--checkpoint-seconds", "1000", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", ASKED, *run], cwd=ROOT, env=QUIET, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith("codes")] == ["codes 143 143", "codes 0 0"], done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("popup:")] == [
        "popup: terminated; the same command goes on from here"]
    told = [line for line in done.stdout.splitlines() if "from its checkpoint" in line or line.startswith("epoch   2")]
    assert len(told) == 3, "epoch 2 was over before, and is told again"
    (place,) = (path.parent for path in tmp_path.glob("*/config.json"))
    (whole,) = (runs / "two" / str(len(ALIKE) + 1)).glob("*/ticket.safetensors")
    assert whole.parent.name == place.name and whole.read_bytes() == (place / "ticket.safetensors").read_bytes()


class Asked(Ranks):
    """Two ranks of which this one is asked to end while it waits for what the other says."""

    def highest(self, *numbers):
        if not numbers[0]:
            STOP.ask(signal.SIGTERM)
        return list(numbers)


STOP = Stop()


def test_a_wish_to_end_that_comes_while_the_ranks_agree_is_not_lost():
    class State:
        ranks = Asked(0, 2)
        moving = False

        def settle(self):
            pass

    checkpoints, places = Checkpoints(stop=STOP), []
    with pytest.raises(Stopped), checkpoints.guard(State()):
        for place in range(3):
            places.append(place)
            checkpoints.after_step(State())
    assert places == [0, 1], "heard at the next place"


@pytest.mark.parametrize("option", [["--plan-only"], ["--cluster", "local"]])
def test_what_one_process_does_is_refused_to_several(option, tmp_path):
    request = parse(["--k", "0.3", "0.5", *option, "--out", str(tmp_path)], "", {"model": list(MODELS), "dataset": ["digits"]})
    with pytest.raises(UsageError, match=f"{option[0]} is for a run of one process"):
        _do(request, Laboratory(MODELS, Machine("cpu"), tmp_path, ranks=Ranks(0, 2)))
    assert not list(tmp_path.iterdir())


def test_ranks_that_do_not_meet_can_be_ended(tmp_path):
    told = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29433"}
    process = subprocess.Popen([sys.executable, "run.py", "--out", str(tmp_path / "runs")], cwd=ROOT, env={**QUIET, **told})
    while not any(line.split()[1].endswith(f":{29433:04X}") for kind in ("tcp", "tcp6")
                                for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]):
        assert process.poll() is None
        time.sleep(0.1)  # until it listens for the other
    time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=20) != 0


def test_a_batch_that_cannot_be_dealt_is_refused():
    images, labels = torch.zeros(40, 1, 2, 2), torch.zeros(40, dtype=torch.int64)
    with pytest.raises(UsageError, match=r"a batch of 32 images \(.*\) cannot be dealt to 3 ranks: .* multiple of 3"):
        Batches(images, labels, 32, (), 0, Ranks(0, 3))
    with pytest.raises(UsageError, match="multiple of 5"):
        Batches(images, labels, 32, (), 0, Ranks(), 5)


def test_a_compiled_run_of_several_ranks_is_refused_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "_all", lambda self, value: [value] * self.count)
    laboratory = Laboratory(MODELS, Machine("cpu"), tmp_path, ranks=Ranks(0, 2))
    with pytest.raises(UsageError, match="--compile is for a run of one process, and torchrun started 2"):
        prepare(laboratory, Config.from_flat({"compile": True}))
    assert not list(tmp_path.iterdir())


def test_accumulated_gradients_are_the_batchs_own(tmp_path):
    run = ["--epochs", "1", "--widths", "32", "--batch-size", "64"]
    for name, parts in (("whole", "1"), ("parts", "4")):
        assert main([*run, "--out", str(tmp_path / name), "--accumulate", parts], MODELS) == 0
    found = [json.loads(next((tmp_path / name).glob("*/result.json")).read_text()) for name in ("whole", "parts")]
    assert found[0]["hash"] != found[1]["hash"], "what may change a ticket names its run"
    assert found[0]["train_loss"] == pytest.approx(found[1]["train_loss"], abs=1e-5)
    assert found[0]["test_loss"] == pytest.approx(found[1]["test_loss"], abs=1e-4)


def test_one_process_is_not_under_torchrun():
    told = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert not under_torchrun({}) and not under_torchrun(told) and under_torchrun({**told, "WORLD_SIZE": "2"})
    assert not under_torchrun({"WORLD_SIZE": "4"})


def test_nested_deferrals_end_with_the_outer_one():
    stop = Stop()
    with pytest.raises(Stopped), stop.deferred():
        with stop.deferred():
            stop.ask()
        reached = True
    assert reached
