"""What a run has found, and how result.json holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.measure import measured
from popup.lab.training.state import Metrics
from popup.search.density import LayerDensity
from popup.ticket.proof import Proof

Result = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """Metrics by epoch, each layer's densities as realised, fp32 or bf16, how layers computed; of a ticket its proof, and what
    its masks look like, and its least bytes; how many weights (no vectors) are in no layer and stay `dense`."""

    history: list[Metrics]
    densities: list[LayerDensity]
    precision: str
    compute: str = "dense"
    proof: Proof | None = None
    diagnostics: dict[str, Any] = field(default_factory=dict)
    dense: int = 0
    ticket_bytes: int | None = None


def describe(config: Config, found: Found) -> Result:
    """What a run has found, as result.json holds it: what the task measures, of the last epoch; densities and precision as
    realised."""
    history, proof, measure = found.history, found.proof, measured(found.history[-1])
    layers = [row.record() for row in found.densities]
    entries, edges, kept = (sum(row[column] for row in layers) for column in ("entries", "edges", "kept"))
    return {
        "hash": config.hash(), "role": config.task.role, measure.column: history[-1][measure.column],
        "test_loss": history[-1]["test_loss"], "train_loss": history[-1].get("train_loss"), "epochs": history[-1]["epoch"],
        "realised_precision": found.precision, "realised_compute": found.compute,
        "entries": entries, "edges": edges, "kept": kept, "edge_density": edges / entries,
        "final_density": kept / entries, "dense": found.dense, "layers": layers, "diagnostics": found.diagnostics,
        "ticket_bytes": found.ticket_bytes,
        "proof": proof and {**asdict(proof), "holds": proof.holds},
    }


def describe_data(data: Dataset) -> Result:
    """Which data they were, and whether accuracies are of the test data or of a held-out part of the training data."""
    return {"data": data.title, "data_fingerprint": data.fingerprint, "evaluated_on": data.evaluated_on,
            "images": [len(data.train[0]), len(data.test[0])], "classes": data.classes}
