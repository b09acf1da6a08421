"""The training loop: learn the scores of an attached network, evaluate its ticket each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from popup.errors import UsageError
from popup.lab.batches import Batches, Normalise
from popup.lab.config import Config, TrainingSettings
from popup.search.attach import attach_recipe, merge
from popup.search.network import is_attached, scores
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import Proof, prove

EVALUATION_BATCH = 1024
Metrics = dict[str, Any]


class RunFailed(Exception):
    """A run that cannot go on: the message is one line with the reason."""


@dataclass(frozen=True)
class Outcome:
    """What a run found: metrics by epoch, and the proof of the laws. The last epoch's accuracy is the result."""

    history: list[Metrics]
    proof: Proof

    @property
    def test_accuracy(self) -> float:
        """Percent, of the last epoch."""
        return self.history[-1]["test_accuracy"]


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """The rate after `progress` epochs: linear up to `lr` over the warm-up, then half a cosine down to 0."""
    if progress < settings.warmup:
        return settings.lr * progress / settings.warmup
    rest = settings.epochs - settings.warmup
    return settings.lr * (1 + cos(pi * (progress - settings.warmup) / rest)) / 2 if rest else settings.lr


def fit(net: nn.Module, train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor],
        config: Config | None = None, on_epoch: Callable[[Metrics], None] = lambda metrics: None) -> Outcome:
    """Search for a ticket in `net`, which is attached by `config` if it is not yet.

    `train`, `test`: (images [n, ...], labels int64 [n]); uint8 images are normalised with the training set's channel
    statistics, float ones are used as they are. `on_epoch` gets each epoch's metrics: epoch, lr, train_loss,
    test_loss, test_accuracy (percent). Raises RunFailed when the loss is not finite.
    """
    config = config or Config()
    if not is_attached(net):
        attach_recipe(net, config.source, config.search)
    device = scores(net)[0].device
    train, test = _checked(train, "train", device), _checked(test, "test", device)
    batches = Batches(*train, config.training.batch_size, config.training.augment, config.source.seed)
    optimizer = torch.optim.SGD(scores(net), lr=config.training.lr, momentum=config.training.momentum,
                                weight_decay=config.training.weight_decay)
    before, history = frozen_hashes(net), []
    for epoch in range(config.training.epochs):
        metrics = {"epoch": epoch + 1, **train_epoch(net, batches, epoch, optimizer, config.training)}
        metrics |= evaluate(merge(net), *test, batches.normalise)
        history.append(metrics)
        on_epoch(metrics)
    return Outcome(history, prove(net, before, batches.normalise(test[0][:EVALUATION_BATCH])))


def train_epoch(net: nn.Module, batches: Batches, epoch: int, optimizer: torch.optim.Optimizer,
                settings: TrainingSettings) -> Metrics:
    """One pass over the training data; the loss is read once, at its end."""
    net.train()
    losses = torch.zeros(batches.steps, device=batches.images.device)
    for step, (inputs, labels) in enumerate(batches.epoch(epoch)):
        optimizer.param_groups[0]["lr"] = learning_rate(settings, epoch + step / batches.steps)
        loss = F.cross_entropy(net(inputs), labels, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[step] = loss.detach()
    rate = optimizer.param_groups[0]["lr"]
    _check_finite(losses, epoch, rate)
    return {"lr": rate, "train_loss": float(losses.mean())}


def _check_finite(losses: torch.Tensor, epoch: int, rate: float) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise RunFailed(f"the loss is not finite at step {int(bad[0]) + 1} of epoch {epoch + 1} "
                        f"(learning rate {rate:.4g}): lower --lr")


@torch.no_grad()
def evaluate(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, normalise: Normalise) -> Metrics:
    """test_loss (cross-entropy) and test_accuracy (percent) of a plain network."""
    net.eval()
    loss, correct = torch.zeros((), device=images.device), torch.zeros((), device=images.device)
    for batch, targets in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
        logits = net(normalise(batch))
        loss += F.cross_entropy(logits, targets, reduction="sum")
        correct += (logits.argmax(1) == targets).sum()
    return {"test_loss": float(loss) / len(labels), "test_accuracy": 100 * float(correct) / len(labels)}


def _checked(split: tuple[torch.Tensor, torch.Tensor], name: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The split on the device, or a UsageError that says what is wrong with it."""
    images, labels = split
    if len(images) != len(labels) or not len(images):
        raise UsageError(f"{name} has {len(images)} images and {len(labels)} labels: pass one label an image, at least one")
    if labels.dtype != torch.int64:
        raise UsageError(f"the labels of {name} have dtype {labels.dtype}: pass class numbers as int64")
    return images.to(device), labels.to(device)
