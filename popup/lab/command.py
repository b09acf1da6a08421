"""The command line: python run.py OPTIONS searches for tickets and reports them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from popup.errors import UsageError
from popup.lab.arguments import Request, parse
from popup.lab.config import Config
from popup.lab.datasets import DATASETS
from popup.lab.plots import plot_training
from popup.lab.record import RunDirectory, check_writable
from popup.lab.run import Laboratory, Models, Result
from popup.lab.tables import layer_table, proof_lines
from popup.lab.training import Metrics, RunFailed

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

DESCRIPTION = """popup finds strong lottery tickets inside Erdos-Renyi networks: weights are random and frozen, a fixed ER
mask keeps a fraction p of them, and learned scores select the fraction k of those edges that makes the ticket.

example: python run.py --er-p 0.2 --k 0.5 --density erk"""


def main(arguments: Sequence[str], models: Models) -> int:
    """Do what the command line asks for; returns the exit code. `models` maps names to network builders."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _search(parse(arguments, DESCRIPTION, {"model": list(models), "dataset": list(DATASETS)}), models)
    except UsageError as error:
        return _say(f"popup: {error}", USAGE)
    except (RunFailed, OSError) as error:
        return _say(f"popup: the run failed: {error}", FAILED)
    except KeyboardInterrupt:
        return _say("popup: interrupted", INTERRUPTED)


def _terminate(number: int, frame: object) -> None:
    sys.exit(_say("popup: terminated", TERMINATED))


def _say(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code


def _search(request: Request, models: Models) -> int:
    laboratory = Laboratory(models, request.machine, check_writable(Path(request.output.out)))
    if len(request.configs) > 1:
        raise UsageError("several values ask for a sweep, which this version does not have yet: give one of each")
    config = request.configs[0]
    directory = laboratory.directory(config)
    result = directory.result()
    if result is not None:
        _report(directory, result)
        print("this run was finished before; remove its directory to run it again")
        return DONE
    print(_title(config))
    with Progress(config.training.epochs) as progress:
        result = laboratory.run(config, progress)
    plot_training(directory.picture, directory.metrics(), config, laboratory.data(config).title)
    _report(directory, result)
    return DONE if result["proof"]["holds"] else _say("popup: a law is broken: see BROKEN above", FAILED)


def _title(config: Config) -> str:
    source, task = config.source, config.task
    return (f"{task.model} on {task.dataset}: ER source p = {source.er_p:g} ({source.density}), "
            f"keeping k = {source.k:g} of the edges, seed {source.seed}")


def _report(directory: RunDirectory, result: Result) -> None:
    print(f"\n{layer_table(result)}\n")
    print(f"test accuracy {result['test_accuracy']:.2f}% at the last epoch ({result['epochs']}), "
          f"final density {result['final_density']:.4f}, {result['seconds']:.1f} s; one seed, so no interval")
    print("proof, checked on the finished run:", *proof_lines(result["proof"]), sep="\n")
    print(f"written to {directory.path}/: config.json metrics.jsonl result.json ticket.safetensors training.png")


class Progress:
    """A bar on a terminal; elsewhere about ten plain lines."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar = tqdm(total=epochs, unit="epoch", disable=None, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def __call__(self, metrics: Metrics) -> None:
        line = f"loss {metrics['train_loss']:.4f}, test accuracy {metrics['test_accuracy']:.2f}%"
        self.bar.update()
        self.bar.set_postfix_str(line)
        epoch = metrics["epoch"]
        if self.bar.disable and (epoch == self.epochs or epoch % max(1, self.epochs // 10) == 0):
            print(f"epoch {epoch:>3} of {self.epochs}: {line}", flush=True)
