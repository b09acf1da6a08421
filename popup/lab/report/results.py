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
from popup.lab.runs.controls import TICKET
from popup.lab.runs.directory import ANEW, read_config, read_failure, read_metrics, read_result, searched_metrics
from popup.lab.runs.schema import Damaged
from popup.lab.text import printable

MEASURED = ("test_accuracy", "test_loss", "train_loss", "entries", "edges", "kept", "edge_density", "final_density")
COST = ("seconds", "peak_memory", "realised_precision", "threads", "ranks", "hardware")


@dataclass(frozen=True)
class Run:
    """One run of a grid: its config, and its result or the reason why there is none."""

    path: Path
    config: Config
    result: dict[str, Any] | None
    failure: str | None

    @property
    def found(self) -> dict[str, Any]:
        """The result of a run that has one."""
        if self.result is None:
            raise ValueError(f"{self.path} has no result")
        return self.result

    @property
    def measure(self) -> Measure:
        """What its task measures."""
        return measured(self.found)

    @property
    def accuracy(self) -> float:
        """Test accuracy in percent, or what else its task measures."""
        return self.found[self.measure.column]

    @property
    def seed(self) -> int:
        return self.config.source.seed

    @property
    def ticket_bytes(self) -> int | None:
        """What its ticket takes, compressed; None of a control, and of a result of before, which does not say."""
        return self.found.get("ticket_bytes")

    def metrics(self) -> list[dict[str, Any]]:
        """All epochs' metrics."""
        return read_metrics(self.path)


@dataclass(frozen=True)
class Reading:
    """What a directory holds: runs in the order of their settings, seeds last, and of each directory that cannot be read why."""

    runs: list[Run]
    damaged: dict[Path, str]


def read_runs(paths: Iterable[Path]) -> Reading:
    """The finished and the failed runs among the directories `paths`. Runs that are still going are left out."""
    places: dict[str, tuple[Path, Config]] = {}
    runs, damaged = [], {}
    for path in paths:
        try:
            config = read_config(path / "config.json")
        except (Damaged, OSError) as error:
            damaged[path] = _line(path, error)
            continue
        name = config.hash()
        if name not in places or path.name == name:  # of the copies that somebody has kept of a run the one of its name counts
            places[name] = path, config
    for path, config in places.values():
        try:
            runs.append(_read_run(path, config))
        except (Damaged, OSError) as error:
            damaged[path] = _line(path, error)
    over = [run for run in runs if run is not None]
    order = sorted(over, key=lambda run: (json.dumps(run.config.replace(seed=0).record(), sort_keys=True), run.seed))
    return Reading(order, damaged)


def _line(path: Path, error: Damaged | OSError) -> str:
    """Why a run cannot be read."""
    return f"{error.filename or path}: {error.strerror}" if isinstance(error, OSError) else str(error)


def read_directory(out: Path, empty: bool = False) -> Reading:
    """All finished and failed runs under `out`; a UsageError if there is none, unless it may be `empty`."""
    try:
        paths = sorted(path.parent for path in out.glob("*/config.json"))
    except OSError as error:
        raise UsageError(f"cannot read {str(out)!r} ({error.strerror})") from None
    found = read_runs(paths)
    if not found.runs and found.damaged:
        more = f" (and {len(found.damaged) - 1} more such runs)" if len(found.damaged) > 1 else ""
        raise UsageError(f"{next(iter(found.damaged.values()))}{more}")
    if not found.runs and not empty:
        raise UsageError(f"{str(out)!r} holds no finished run: name the --out directory of a run or sweep")
    return found


def _read_run(path: Path, config: Config) -> Run | None:
    """The run in a directory, None if it is still going. What a picture of it needs is looked at too."""
    result = read_result(path, config)
    if result is None:
        failure = read_failure(path)
        return None if failure is None else Run(path, config, None, failure)
    if config.task.role == TICKET and len(searched_metrics(path)) != result["epochs"]:
        raise Damaged(f"{path / 'metrics.jsonl'} is damaged (its last epoch is not the result's, {result['epochs']}): {ANEW}")
    return Run(path, config, result, None)


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """The tidy table: one row a run."""
    factors = list(Config().flat())
    columns = [*MEASURED, *(measure.column for measure in MEASURES if measure.column not in MEASURED
                            and any(measure.column in (run.result or {}) for run in runs))]
    versions = ("python", "torch", "numpy")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["hash", "status", *factors, "epochs_done", *columns, "ticket_bytes", "proof_holds", *COST, *versions,
                     "reason"])
    for run in runs:
        result, flat = run.result or {}, run.config.flat()
        proof = (result.get("proof") or {}).get("holds")
        cells = [flat[name] for name in factors] + [result.get(name) for name in ("epochs", *columns, "ticket_bytes")] + [proof]
        cells += [result.get(name) for name in COST] + [result.get("versions", {}).get(name) for name in versions]
        status = "finished" if run.result else "failed"
        writer.writerow([run.path.name, status, *(_cell(cell) for cell in cells), _cell(run.failure or "")])
    write_atomically(path, text.getvalue().encode())


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return " ".join(str(part) for part in value)
    return "" if value is None else printable(value, len(value)) if isinstance(value, str) else value
