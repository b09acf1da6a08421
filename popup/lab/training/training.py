"""The training loop: learn what learns of a network, and evaluate each epoch what it has become."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, isfinite, pi, prod

import torch
import torch.nn.functional as F
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config, TrainingSettings
from popup.lab.data.dataset import Split, check_alike
from popup.lab.data.streamed import Images, in_parts
from popup.lab.measure import measure_of
from popup.lab.precision import Precision
from popup.lab.randomness import seeded, undrawn
from popup.lab.training.batches import Batches, Normalise
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.loss import cross_entropy
from popup.lab.training.norms import averaging, running, synchronised
from popup.lab.training.optimizers import SETTLE_EVERY, settle
from popup.lab.training.ranks import Ranks
from popup.lab.training.splits import checked
from popup.lab.training.state import Metrics, TrainingState
from popup.lab.training.stop import RunFailed

EVALUATION_BATCH, EVALUATION_PIXELS = 1024, 1 << 24  # at most, at once
PIXELS_A_TOKEN = 1024  # whose memory a token takes: its logits and all that a network makes of it


def rate_factor(settings: TrainingSettings, progress: float) -> float:
    """The rate after `progress` epochs, of its highest: linear up to 1 over the warm-up, then half a cosine down to 0."""
    if progress < settings.warmup:
        return progress / settings.warmup
    rest = settings.epochs - settings.warmup
    return (1 + cos(pi * (progress - settings.warmup) / rest)) / 2 if rest else 1.0


def load_batches(net: nn.Module, train: Split, test: Split, config: Config, ranks: Ranks) -> tuple[Batches, Split]:
    """The training split as batches, and the test split, both on the device of `net`."""
    first = next(net.parameters(), None)
    if first is None:
        raise UsageError(f"{type(net).__name__} has no parameters, so that there is nothing to search or to train")
    device = first.device
    train, test = checked(train, "train", device), checked(test, "test", device)
    check_alike(train[0], test[0])
    settings = config.training
    return Batches(*train, settings.batch_size, settings.augment, config.source.seed, ranks, settings.accumulate), test


def optimise(state: TrainingState, batches: Batches, test: Split, settings: TrainingSettings, lr: float,
             plain: Callable[[nn.Module], nn.Module], on_epoch: Callable[[Metrics], None],
             checkpoints: Checkpoints) -> list[Metrics]:
    """Train the parameters of `state`; each epoch evaluate `plain(net)`, a network that may be changed. Returns all metrics.

    Goes on from the checkpoint if there is one; `on_epoch` gets the metrics of the epochs before it again. Before the
    last evaluation the running statistics of norms are estimated anew with the final weights.
    """
    with seeded(batches.seed, "training", state.device), synchronised(state.net, state.ranks, settings.sync_norm):
        state.ranks.check_equal("the frozen source", str(state.frozen))
        checkpoints.resume(state)
        if settings.compile:
            state.compile()
        if state.search:
            state.search.resume(state.done, state.done / (settings.epochs * batches.steps))
        with undrawn(state.device):
            for metrics in state.history:
                on_epoch(metrics)
        with checkpoints.guard(state):
            while state.epoch < settings.epochs:
                metrics = train_epoch(state, batches, settings, lr, checkpoints)
                if state.epoch + 1 == settings.epochs:
                    with seeded(batches.seed, "statistics", state.device):  # the same however often it is begun
                        refresh_statistics(state.net, batches, state.precision)
                state.ranks.share_norms(state.net)
                metrics |= evaluate(plain(state.net), *test, batches.normalise, state.precision, state.ranks,
                                    metrics.get("temperature", 1.0))
                with checkpoints.stop.deferred():
                    state.ranks.check_equal("the mask", state.fingerprint() if state.ranks.count > 1 else "")
                    state.moving = True
                    metrics |= state.churn.measure() if state.churn else {}
                    state.finish_epoch(metrics)
                    state.moving = False
                    on_epoch(metrics)
                if state.epoch < settings.epochs:
                    checkpoints.agree(state)
            checkpoints.finish(state)
    return state.history


def train_epoch(state: TrainingState, batches: Batches, settings: TrainingSettings, lr: float,
                checkpoints: Checkpoints) -> Metrics:
    """The rest of an epoch, with a rate of at most `lr`; the losses are read once, at its end."""
    rates = [lr * rate_factor(settings, state.epoch + step / batches.steps) for step in range(batches.steps)]
    steps = settings.epochs * batches.steps
    state.net.train()
    checkpoints.begin_epoch(state)
    with checkpoints.stop.deferred():
        for inputs, labels in batches.epoch(state.epoch, state.step):
            train_step(state, inputs, labels, rates[state.step], settings)
            if state.search:
                state.search.advance(state.done / steps)
            state.moving = False
            checkpoints.after_step(state)
    state.settle()
    _check_finite(state, rates)
    found = {"epoch": state.epoch + 1, "lr": rates[-1], "train_loss": float(state.losses.mean())}
    return found | ({"temperature": state.temperature.factor} if state.temperature else {})


def train_step(state: TrainingState, inputs: torch.Tensor, labels: torch.Tensor, rate: float,
               settings: TrainingSettings) -> None:
    """One step of the optimiser at `rate`. The state is `moving` until the search has taken note of it."""
    state.moving = True
    state.optimizer.param_groups[0]["lr"] = rate
    for parameter in state.parameters:
        parameter.grad = None
    parts, loss = settings.accumulate, state.losses[state.step]
    batch = zip(inputs.chunk(parts), labels.chunk(parts), strict=True) if parts > 1 else [(inputs, labels)]
    for place, part in enumerate(batch):
        with state.ranks.exchange(state.forward, now=place + 1 == parts):
            loss += backward(state, *part, settings.label_smoothing, 1 / parts)
    if state.hold:
        state.hold()
    state.optimizer.step()
    if state.temperature:
        state.temperature.step(state.ranks.mean(state.temperature.slope()), rate)
    state.step += 1
    if state.device.type == "cpu" and state.done % SETTLE_EVERY == 0:  # a GPU is as fast with numbers of any size
        settle(state.optimizer)


def backward(state: TrainingState, inputs: torch.Tensor, labels: torch.Tensor, smoothing: float,
             share: float) -> torch.Tensor:
    """Add the gradients of a part of a batch to those before; returns its share of the batch's loss."""
    with state.precision.autocast():
        logits = state.forward(state.precision.inputs(inputs))
    logits = logits.float().flatten(0, -2)  # of texts each place counts as an image does
    scaled = state.temperature.scaled(logits) if state.temperature else logits
    loss, gradient = cross_entropy(scaled, labels.flatten(), smoothing, share)
    gradient = state.temperature.back(gradient, scaled) if state.temperature else gradient
    penalty = state.search.penalty() if state.search else None
    if penalty is None:
        torch.autograd.backward(logits, gradient)
    else:
        torch.autograd.backward([logits, penalty * share], [gradient, None])
    return loss


def _check_finite(state: TrainingState, rates: list[float]) -> None:
    bad, rate = (~state.losses.isfinite()).nonzero(), "--lr" if state.search else "--weight-lr"  # a control's weights learn
    if len(bad):
        step = int(bad[0])
        if not step and not state.epoch:
            weights = "a smaller --gain or another --scale, or " if state.search else ""  # a control's weights have their own
            raise RunFailed(f"the loss is not finite at step 1 of epoch 1, before anything is learned: give {weights}data "
                            "without values that are huge or not finite")
        raise RunFailed(f"the loss is not finite at step {step + 1} of epoch {state.epoch + 1} "
                        f"(learning rate {rates[step]:.4g}): lower {rate}")
    if not state.finite():  # a loss may be finite where scores are not: they are only ranked
        raise RunFailed(f"what is learned is not finite after epoch {state.epoch + 1} (learning rate {rates[0]:.4g}, which the "
                        f"method may have multiplied): lower {rate} or --weight-decay")


@torch.no_grad()
def refresh_statistics(net: nn.Module, batches: Batches, precision: Precision) -> None:
    """Estimate the running statistics of every norm anew, as plain averages over one pass of all ranks' training data."""
    norms = running(net)
    if not norms:
        return
    net.train()
    with averaging(norms) as begin:
        with precision.autocast():
            for number, (inputs, _) in enumerate(batches.epoch(0), 1):
                begin(number)
                net(precision.inputs(inputs))
        for norm in norms:
            norm.running_mean.copy_(batches.ranks.mean(norm.running_mean))
            norm.running_var.copy_(batches.ranks.mean(norm.running_var))


def evaluation_parts(images: Images) -> list[slice]:
    """The batches in which images are evaluated."""
    pixels = prod(images.shape[1:]) * (PIXELS_A_TOKEN if images.dtype is torch.int64 else 1)
    size = min(EVALUATION_BATCH, max(1, EVALUATION_PIXELS // pixels))
    return [slice(start, start + size) for start in range(0, len(images), size)]


@torch.no_grad()
def evaluate(net: nn.Module, images: Images, labels: torch.Tensor, normalise: Normalise,
             precision: Precision, ranks: Ranks | None = None, temperature: float = 1.0) -> Metrics:
    """test_loss (cross-entropy, of logits times `temperature`) of a plain network, and test_accuracy (percent), where labels are
    tokens test_bits; of `ranks` each does some of the batches.

    A RunFailed where the loss is not finite: predictions are then none, and would count as right for class 0.
    """
    net.eval()
    ranks = ranks or Ranks()
    sums = torch.zeros(2, device=images.device)  # loss, correct
    parts = evaluation_parts(images)[ranks.rank::ranks.count]
    for part, batch in zip(parts, in_parts(images, parts), strict=True):
        with precision.autocast():
            logits = net(precision.inputs(normalise(batch))).float().flatten(0, -2)
        logits = logits if temperature == 1 else logits * temperature
        wanted = labels[part].flatten()
        sums[0] += F.cross_entropy(logits, wanted, reduction="sum")
        sums[1] += (logits.argmax(1) == wanted).sum()
    loss, correct = ranks.total(sums).tolist()
    if not isfinite(loss):
        raise RunFailed("the loss is not finite on the images that accuracy is of: what the network computes has grown too "
                        "large for its numbers; a lower rate or a smaller --gain may keep it small")
    measure, count = measure_of(labels), labels.numel()
    return {"test_loss": loss / count, measure.column: measure.of(loss, correct, count)}
