"""What is on disk as rows: one a run, with every factor, the realised densities, accuracies and what it cost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popup.errors import UsageError
from popup.files import write_atomically
from popup.lab.config import Config
from popup.lab.measure import MEASURES, Measure, measured
from popup.lab.runs.directory import read_config, read_json, read_metrics

MEASURED = ("test_accuracy", "test_loss", "train_loss", "entries", "edges", "kept", "edge_density", "final_density")
NEEDED = ("final_density", "layers")  # without which there is nothing to report
COST = ("seconds", "peak_memory", "realised_precision", "threads", "ranks", "hardware")


@dataclass(frozen=True)
class Run:
    """One run of a grid: its config, and its result or the reason why there is none."""

    path: Path
    config: Config
    result: dict[str, Any] | None
    failure: str | None

    @property
    def measure(self) -> Measure:
        """What its task measures."""
        return measured(self.result)

    @property
    def accuracy(self) -> float:
        """Test accuracy in percent, or what else its task measures."""
        return self.result[self.measure.column]

    @property
    def seed(self) -> int:
        return self.config.source.seed

    def metrics(self) -> list[dict[str, Any]]:
        """All epochs' metrics."""
        return read_metrics(self.path)


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """The finished and the failed runs among the directories `paths`, in the order of their settings, seeds last.

    Runs that are still going are left out.
    """
    runs = [run for run in map(_read_run, paths) if run is not None]
    return sorted(runs, key=lambda run: (json.dumps(run.config.replace(seed=0).record(), sort_keys=True), run.seed))


def read_directory(out: Path, empty: bool = False) -> list[Run]:
    """All finished and failed runs under `out`; a UsageError if there is none, unless it may be `empty`."""
    try:
        paths = sorted(path.parent for path in out.glob("*/config.json"))
    except OSError as error:
        raise UsageError(f"cannot read {str(out)!r} ({error.strerror})") from None
    runs = read_runs(_one_a_config(paths))
    if not runs and not empty:
        raise UsageError(f"{str(out)!r} holds no finished run: name the --out directory of a run or sweep")
    return runs


def _one_a_config(paths: Sequence[Path]) -> list[Path]:
    """The directories without the copies that somebody has kept of a run: the one that bears the run's hash counts."""
    found: dict[str, Path] = {}
    for path in paths:
        name = read_config(path / "config.json").hash()
        if name not in found or path.name == name:
            found[name] = path
    return list(found.values())


def _read_run(path: Path) -> Run | None:
    result, failure = read_json(path / "result.json"), (read_json(path / "failure.json") or {}).get("reason")
    if result is None and failure is None:
        return None
    lost = [] if result is None else [name for name in NEEDED if name not in result]
    if lost := lost or ["test_accuracy"] * (result is not None and measured(result) is None):
        raise UsageError(f"{path / 'result.json'} has no {lost[0]}, so it is no result of a run: remove that run's directory and "
                         "run it again")
    return Run(path, read_config(path / "config.json"), result, failure if result is None else None)


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """The tidy table: one row a run."""
    factors = list(Config().flat())
    columns = [*MEASURED, *(measure.column for measure in MEASURES if measure.column not in MEASURED
                            and any(measure.column in (run.result or {}) for run in runs))]
    versions = ("python", "torch", "numpy")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["hash", "status", *factors, "epochs_done", *columns, "proof_holds", *COST, *versions, "reason"])
    for run in runs:
        result, flat = run.result or {}, run.config.flat()
        proof = (result.get("proof") or {}).get("holds")
        cells = [flat[name] for name in factors] + [result.get(name) for name in ("epochs", *columns)] + [proof]
        cells += [result.get(name) for name in COST] + [result.get("versions", {}).get(name) for name in versions]
        status = "finished" if run.result else "failed"
        writer.writerow([run.path.name, status, *(_cell(cell) for cell in cells), run.failure or ""])
    write_atomically(path, text.getvalue().encode())


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return " ".join(str(part) for part in value)
    return "" if value is None else value
