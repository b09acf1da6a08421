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
from popup.lab.datasets import Split
from popup.search.attach import attach_recipe, merge
from popup.search.network import is_attached, scores, search_of
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


def rate_factor(settings: TrainingSettings, progress: float) -> float:
    """The rate after `progress` epochs, of its highest: linear up to 1 over the warm-up, then half a cosine down to 0."""
    if progress < settings.warmup:
        return progress / settings.warmup
    rest = settings.epochs - settings.warmup
    return (1 + cos(pi * (progress - settings.warmup) / rest)) / 2 if rest else 1.0


def fit(net: nn.Module, train: Split, test: Split, config: Config | None = None,
        on_epoch: Callable[[Metrics], None] = lambda metrics: None) -> Outcome:
    """Search for a ticket in `net`, which is attached by `config` if it is not yet.

    `train`, `test`: (images [n, ...], labels int64 [n]); uint8 images are normalised with the training set's channel
    statistics, float ones are used as they are. `on_epoch` gets each epoch's metrics: epoch, lr, train_loss,
    test_loss, test_accuracy (percent). Raises RunFailed when the loss is not finite.
    """
    config = config or Config()
    if not is_attached(net):
        attach_recipe(net, config.source, config.search)
    batches, test = load_batches(net, train, test, config)
    before = frozen_hashes(net)
    churn = Churn(net)
    history = optimise(net, scores(net), batches, test, config.training, config.training.lr, merge,
                       lambda metrics: on_epoch(churn.add_to(metrics)))
    return Outcome(history, prove(net, before, batches.normalise(test[0][:EVALUATION_BATCH])))


class Churn:
    """How the mask moves: compares S_P at the end of each epoch with the one before."""

    def __init__(self, net: nn.Module) -> None:
        self.search = search_of(net)
        self.last = self.search.select()
        self.ever = [mask.clone() for mask in self.last]

    def add_to(self, metrics: Metrics) -> Metrics:
        """Add `churn`, the fraction of kept edges that were not kept an epoch ago, and `never_selected`, the fraction of
        all edges that no epoch has ended with."""
        now = self.search.select()
        entered = sum(int((mask & ~before).sum()) for mask, before in zip(now, self.last, strict=True))
        self.ever = [seen | mask for seen, mask in zip(self.ever, now, strict=True)]
        kept, edges = sum(int(mask.sum()) for mask in now), sum(len(mask) for mask in now)
        self.last = now
        metrics |= {"churn": entered / kept, "never_selected": 1 - sum(int(seen.sum()) for seen in self.ever) / edges}
        return metrics


def load_batches(net: nn.Module, train: Split, test: Split, config: Config) -> tuple[Batches, Split]:
    """The training split as batches, and the test split, both on the device of `net`."""
    device = next(net.parameters()).device
    train, test = _checked(train, "train", device), _checked(test, "test", device)
    return Batches(*train, config.training.batch_size, config.training.augment, config.source.seed), test


def optimise(net: nn.Module, parameters: list[nn.Parameter], batches: Batches, test: Split, settings: TrainingSettings,
             lr: float, plain: Callable[[nn.Module], nn.Module], on_epoch: Callable[[Metrics], None]) -> list[Metrics]:
    """Train `parameters` of `net`; each epoch evaluate `plain(net)`, a network that may be changed. Returns all metrics.

    Before the last evaluation the running statistics of norms are estimated anew with the final weights.
    """
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    history = []
    for epoch in range(settings.epochs):
        metrics = {"epoch": epoch + 1, **train_epoch(net, batches, epoch, optimizer, settings, lr)}
        if epoch + 1 == settings.epochs:
            refresh_statistics(net, batches)
        metrics |= evaluate(plain(net), *test, batches.normalise)
        history.append(metrics)
        on_epoch(metrics)
    return history


def train_epoch(net: nn.Module, batches: Batches, epoch: int, optimizer: torch.optim.Optimizer,
                settings: TrainingSettings, lr: float) -> Metrics:
    """One pass over the training data with a rate of at most `lr`; the loss is read once, at its end."""
    net.train()
    losses = torch.zeros(batches.steps, device=batches.images.device)
    for step, (inputs, labels) in enumerate(batches.epoch(epoch)):
        optimizer.param_groups[0]["lr"] = lr * rate_factor(settings, epoch + step / batches.steps)
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
def refresh_statistics(net: nn.Module, batches: Batches) -> None:
    """Estimate the running statistics of every norm anew, as plain averages over one pass of the training data."""
    norms = [module for module in net.modules() if getattr(module, "running_mean", None) is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
    net.train()
    for inputs, _ in batches.epoch(0):
        net(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


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


def _checked(split: Split, name: str, device: torch.device) -> Split:
    """The split on the device, or a UsageError that says what is wrong with it."""
    images, labels = split
    if len(images) != len(labels) or not len(images):
        raise UsageError(f"{name} has {len(images)} images and {len(labels)} labels: pass one label an image, at least one")
    if labels.dtype != torch.int64:
        raise UsageError(f"the labels of {name} have dtype {labels.dtype}: pass class numbers as int64")
    return images.to(device), labels.to(device)
