"""Run by torchrun in the tests: small runs, of which every rank writes down the masks, images and scores.

    torchrun --nproc-per-node N tests/lab/under_torchrun.py OUT JSON-OF-CONFIGS

The run of the first config is in OUT/0, and so on.
"""

import hashlib
import json
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import nn

from models import MODELS
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.batches import Batches
from popup.lab.training.ranks import joined
from popup.lab.training.state import TrainingState
from popup.lab.training.stop import Stop


def normed(image, classes):
    """Batch norm between a convolution and a linear layer."""
    return nn.Sequential(nn.Conv2d(image[0], 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, classes))


def main(out: Path, configs: list[Config], machine: Machine) -> None:
    epoch, finish, seen = Batches.epoch, TrainingState.finish_epoch, {}

    def watched(batches, number, first=0):
        for inputs, labels in epoch(batches, number, first):
            seen["images"] += [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:12] for image in inputs]
            yield inputs, labels

    def note(state, metrics):
        finish(state, metrics)
        seen["masks"].append(state.fingerprint())
        seen["scores"] = torch.cat([parameter.detach().flatten() for parameter in state.parameters]).tolist()

    with (patch.object(Batches, "epoch", watched), patch.object(TrainingState, "finish_epoch", note),
          joined(machine) as (ranks, device)):
        for number, config in enumerate(configs):
            seen |= {"masks": [], "images": [], "scores": []}
            place = out / str(number)
            result = run(Laboratory({**MODELS, "normed": normed}, machine, place, Stop(), ranks, device), config)
            seen |= {"loss": result["test_loss"], "holds": (result["proof"] or {}).get("holds")}
            (place / f"seen{ranks.rank}of{ranks.count}.json").write_text(json.dumps(seen))


def config_of(flat: dict[str, object]) -> Config:
    """The config of a flat record, whose lists JSON wrote for tuples."""
    return Config.from_flat({name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), [*map(config_of, json.loads(sys.argv[2]))], Machine("cpu"))
