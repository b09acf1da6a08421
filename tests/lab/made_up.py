"""Made-up runs for the tests of reports: no search, only configs and what a run would have recorded."""

import json
from pathlib import Path

from popup.lab.config import Config
from popup.lab.report.results import Run

LAYERS = [{"entries": 10, "edges": 5, "density": 0.25}]


def ticket(accuracy, kept=0.1, path=Path("nowhere"), **fields):
    """A finished run of a config with `fields`."""
    return finished(Config().replace(**fields), accuracy, kept, path)


def finished(config, accuracy, kept=0.1, path=Path("nowhere")):
    return Run(path, config, {"test_accuracy": accuracy, "final_density": kept, "layers": LAYERS}, None)


def tickets(accuracies, kept=0.1, **fields):
    """A run a seed, counted up from 0."""
    return [ticket(value, kept, seed=seed, **fields) for seed, value in enumerate(accuracies)]


def with_metrics(runs, folder, epochs=2):
    """The runs in directories that hold metrics of each epoch."""
    folder.mkdir(exist_ok=True)
    rows = [{"epoch": epoch + 1, "test_accuracy": 50.0 + epoch} for epoch in range(epochs)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [Run(folder, run.config, run.result, run.failure) for run in runs]
