"""A control's network: given its subnetwork's weights, trained if they are to be, and evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from popup.lab.config import Config, TrainingSettings
from popup.lab.data.datasets import Dataset, Split
from popup.lab.precision import Precision
from popup.lab.randomness import seeded
from popup.lab.runs.controls import CONTROLS, TRAINED_GAIN
from popup.lab.runs.subnetwork import Subnetwork
from popup.lab.training.batches import Batches
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.norms import synchronised
from popup.lab.training.optimizers import sgd
from popup.lab.training.ranks import Ranks
from popup.lab.training.state import Metrics, TrainingState
from popup.lab.training.training import evaluate, load_batches, optimise, refresh_statistics
from popup.source.frozen import freeze
from popup.source.layer_source import LayerSource, draw_values
from popup.source.layers import locate
from popup.ticket.filling import fill
from popup.ticket.hashes import hash_array


def run_control(net: nn.Module, data: Dataset, config: Config, start: Subnetwork,
                on_epoch: Callable[[Metrics], None], checkpoints: Checkpoints | None = None,
                ranks: Ranks | None = None) -> tuple[list[Metrics], list[LayerSource]]:
    """Turn the plain network `net` into the control of `config`, train it if it is to be, and evaluate it.

    Returns its metrics (one row if nothing is trained) and the subnetwork that was evaluated, with the weights it began with.
    """
    control = CONTROLS[config.task.role]
    layers = control.build(start)
    batches, test = load_batches(net, data.train, data.test, config, ranks or Ranks())
    searched = {source.spec.name for source in layers}
    learning = [name for name, parameter in net.named_parameters() if parameter.requires_grad or name in searched]
    freeze(net)
    precision = Precision.of(net, config.training.precision)
    if control.trained:
        if control.prunes:
            fill(net, start.dense)
        layers = _fresh(layers, config) if control.fresh else layers
        settings = finetuning(config.training) if control.prunes else config.training
        for name in learning:  # what the network holds fixed stays fixed
            net.get_parameter(name).requires_grad_(True)
        return _train_weights(net, layers, settings, precision, batches, test, on_epoch, checkpoints or Checkpoints()), layers
    _set_weights(net, layers)
    with seeded(config.source.seed, "statistics", test[0].device), synchronised(net, batches.ranks, config.training.sync_norm):
        refresh_statistics(net, batches, precision)
    factor = start.temperature  # the ticket's: what differs is the subnetwork
    metrics = {"epoch": 0, **evaluate(net, *test, batches.normalise, precision, batches.ranks, factor),
               **({} if factor == 1 else {"temperature": factor})}
    on_epoch(metrics)
    return [metrics], layers


def finetuning(settings: TrainingSettings) -> TrainingSettings:
    """The schedule of a pruned network's fine-tuning: the dense network's, over as many epochs as are asked for."""
    epochs = settings.finetune_epochs or settings.epochs
    return replace(settings, epochs=epochs, warmup=min(settings.warmup, float(epochs)))


def _fresh(layers: Sequence[LayerSource], config: Config) -> list[LayerSource]:
    """The layers with Kaiming normal weights, scaled for the density that each really has."""
    recipe = replace(config.source, k=1.0, weights="kaiming_normal", scale="final", gain=TRAINED_GAIN)
    return [replace(source, values=draw_values(recipe, source.spec, max(1, len(source.edges)) / source.spec.entries,
                                               source.edges, "trained weights")) for source in layers]


def _set_weights(net: nn.Module, layers: Sequence[LayerSource]) -> list[torch.Tensor]:
    """Write each layer's values at its edges and 0 elsewhere; returns the masks as float of the weights' shapes."""
    masks = []
    for source in layers:
        module, attribute = locate(net, source.spec.name)
        dense, mask = (np.zeros(source.spec.entries, dtype=np.float32) for _ in range(2))
        dense[source.edges], mask[source.edges] = source.values, 1
        weight = getattr(module, attribute)
        weight.data.copy_(torch.from_numpy(dense).view(source.spec.shape))
        masks.append(torch.from_numpy(mask).view(source.spec.shape).to(weight))
    return masks


def _train_weights(net: nn.Module, layers: Sequence[LayerSource], settings: TrainingSettings, precision: Precision,
                   batches: Batches, test: Split, on_epoch: Callable[[Metrics], None],
                   checkpoints: Checkpoints) -> list[Metrics]:
    """Ordinary training of the parameters that learn, from the layers' weights, those outside the mask held at 0 by masking
    their gradients."""
    masks = _set_weights(net, layers)
    masked = [(net.get_parameter(source.spec.name), mask) for source, mask in zip(layers, masks, strict=True)
              if len(source.edges) < source.spec.entries]

    def hold() -> None:
        for weight, mask in masked:
            if weight.grad is not None:
                weight.grad.mul_(mask)

    parameters, lr = [parameter for parameter in net.parameters() if parameter.requires_grad], settings.weight_lr
    frozen = {source.spec.name: hash_array(source.edges) for source in layers}
    state = TrainingState(net, parameters, sgd(parameters, settings, lr), batches.steps, precision,
                          frozen=frozen, ranks=batches.ranks, hold=hold)
    return optimise(state, batches, test, settings, lr, lambda trained: trained, on_epoch, checkpoints)
