"""What a ticket says of its run, so that `eval` can repeat its accuracy from the file alone (popup/ticket/file.py)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.training.batches import Normalise


def about_run(config: Config, data: Dataset, accuracy: float, precision: str, normalise: Normalise) -> dict[str, Any]:
    """`accuracy`: in percent, of the last epoch; `precision`: that it was measured in."""
    return {"task": asdict(config.task), "test_accuracy": accuracy, "data": data.title,
            "data_fingerprint": data.identity(), "precision": precision, "evaluated_on": data.evaluated_on,
            "image": data.image, "classes": data.classes, "normalise": normalise.record()}
