"""Kill a run with -9 at random moments until it is done, and compare what it leaves with an uninterrupted run's.

    python tests/lab/kill.py KILLS MODEL[:ROLE] ...

A checkpoint is written after every step, so that many kills fall into its write. Prints one JSON line a model; the tests
run this file in a process of its own, since it forks.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from models import MODELS
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs.flow import run as run_config
from popup.lab.runs.laboratory import Laboratory

LEFT_BEHIND = {"config.json", "metrics.jsonl", "result.json", "ticket.safetensors"}


def run(out: Path, config: Config, seconds: float, data: dict) -> None:
    """One run in this process; the data set is loaded once, before the forks."""
    laboratory = Laboratory(MODELS, Machine("cpu", checkpoint_seconds=seconds), out)
    laboratory._data = data
    if config.task.role != "ticket" and not laboratory.directory(config.replace(role="ticket")).ticket.exists():
        run_config(laboratory, config.replace(role="ticket"))
    run_config(laboratory, config)


def killed(out: Path, config: Config, delay: float, data: dict) -> bool:
    """Run in a child and kill it after `delay` seconds; whether it was still running then."""
    child = os.fork()
    if not child:
        run(out, config, 0.0, data)
        os._exit(0)
    end = time.monotonic() + delay
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(kills: int, model: str, role: str = "ticket") -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads; torch has one here
    torch.set_num_threads(1)
    chance = random.Random(f"{model} {role}")
    config = Config.from_flat({"model": model, "role": role, "epochs": 4, "batch_size": 64,
                               "widths": (64,) if model == "mlp" else (8, 8)})
    with tempfile.TemporaryDirectory() as directory:
        whole, data = Path(directory) / "whole", {}
        laboratory = Laboratory(MODELS, Machine("cpu"), whole)
        laboratory.data(config)
        data = laboratory._data
        run(whole, config, 3600.0, data)
        began = time.monotonic()
        assert not killed(Path(directory) / "timed", config, 3600.0, data)  # in a child too: there the start is slower
        span = time.monotonic() - began
        done, writing, finished, same = 0, 0, 0, True
        while done < kills or not finished:
            out, patience = Path(directory) / f"killed{finished}", span / 2
            place = out / config.hash()
            while killed(out, config, chance.uniform(0.0, patience), data):
                done += 1
                patience *= 1.1  # on a machine that has become slower a run could otherwise be killed for ever as it starts
                writing += any(".checkpoint" in path.name for path in place.glob(".*.part"))
            finished += 1
            left = {path.name for path in place.iterdir()}
            same &= left == LEFT_BEHIND - ({"ticket.safetensors"} if role != "ticket" else set())
            for name in ("ticket.safetensors", "metrics.jsonl"):
                files = [where / config.hash() / name for where in (out, whole)]
                same &= not files[1].exists() or files[0].read_bytes() == files[1].read_bytes()
            results = [json.loads((where / config.hash() / "result.json").read_text()) for where in (out, whole)]
            same &= all(results[0][name] == results[1][name] for name in ("test_accuracy", "test_loss", "proof"))
    print(json.dumps({"model": model, "role": role, "kills": done, "in a write": writing, "finished": finished,
                      "same": same}))


if __name__ == "__main__":
    for name in sys.argv[2:]:
        main(int(sys.argv[1]), *name.split(":"))
