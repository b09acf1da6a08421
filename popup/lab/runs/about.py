"""What a ticket says of its run, so that `eval` can repeat its accuracy from the file alone (popup/ticket/file.py)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.inputs import Tokens
from popup.lab.measure import measure_of
from popup.lab.training.batches import Normalise


def about_run(config: Config, data: Dataset, value: float, precision: str, normalise: Normalise) -> dict[str, Any]:
    """`value`: what the task measures, of the last epoch; `precision`: that it was measured in."""
    tokens = {"vocabulary": data.image.vocabulary} if isinstance(data.image, Tokens) else {}
    return {"task": asdict(config.task), measure_of(data.test[1]).column: value, "data": data.title,
            "data_fingerprint": data.identity(), "precision": precision, "evaluated_on": data.evaluated_on,
            "image": data.image, "classes": data.classes, "normalise": normalise.record(), **tokens}
