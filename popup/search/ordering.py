"""First scores by the first gradients: to which edges the sizes go that were drawn for a layer's scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from popup.errors import UsageError
from popup.search.network import search_of, unwrapped
from popup.search.sharding import is_sharded
from popup.source.frozen import is_norm
from popup.source.labels import as_rows

IGNORED = -100  # torch's own label of a place that does not count


def order_scores(net: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Hand the first scores of an attached network out anew, in place: in each layer the highest go to the edges whose weight
    lowers the loss most, by the gradient of the mean cross-entropy over the `batches` (inputs [n, ...], labels int64 [n]; of
    tokens both int64 [n, tokens]; a label of -100 does not count).

    A layer's scores keep their sizes, so that learning rates mean what they did; edges of one gradient keep their order. The
    gradient is that of the first training pass (while k is annealed all edges count), with the norms' statistics of each batch;
    the network is in evaluation otherwise, so that dropout is off. That a weight is worth its product with the gradient is SNIP's
    criterion (Lee et al., ICLR 2019, arXiv 1810.02340, equation 4), which takes the size alone: here an edge that raises the loss
    comes last. Raises UsageError once a step was made, of a method that takes no such scores, for labels that are none of the
    network's classes, and where a gradient is not finite.
    """
    search = search_of(net)
    if search.steps:
        raise UsageError(f"the search is at step {search.steps}: first scores are ordered before the first one")
    if "first_scores" not in search.method.uses:
        raise UsageError(f"method {search.settings.method} takes no first scores by the gradient: leave popup.order_scores out")
    scores, net = search.scores(), unwrapped(net)
    if is_sharded(net, search.settings.method, search.between):
        raise UsageError("FSDP2's fully_shard has taken the network, and first scores are ordered as a whole: call "
                         "popup.order_scores before it")
    search.ordering = True
    try:
        with _quiet(net):
            gradients = _gradients(net, scores, batches)
    finally:
        search.ordering = False
    for layer, gradient in zip(search.layers, gradients, strict=True):
        if not gradient.isfinite().all():
            raise UsageError(f"the first gradients of {layer.spec.name} are not finite: use a smaller gain, or first_scores "
                             "'random'")
    with torch.no_grad():
        for layer, score, gradient in zip(search.layers, scores, gradients, strict=True):
            score.copy_(search.method.reordered(score, gradient))
            first = search.method.first_memory(layer, score.cpu(), search.recipe.seed)
            for name, value in first.items():
                layer.memory(name).copy_(value)
    search.ordered = True


def _gradients(net: nn.Module, scores: list[nn.Parameter],
               batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    """dL/ds of each layer [edges]; 0 where the network does not use it."""
    totals, count = [torch.zeros_like(score) for score in scores], 0
    for batch in _each(batches):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            found = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise UsageError(f"a batch is a {found}: give a list, or a loader, of pairs (inputs, labels)")
        inputs, labels = batch
        with torch.enable_grad():
            logits = net(inputs)
            if not torch.is_tensor(logits):
                raise UsageError(f"the network gives a {type(logits).__name__}, and first scores take the loss of logits: "
                                 "attach to a module that gives these, or give first_scores 'random'")
            rows, wanted = as_rows(logits.float(), labels, IGNORED)
            loss = F.cross_entropy(rows, wanted, reduction="sum")
        for total, part in zip(totals, torch.autograd.grad(loss, scores, allow_unused=True), strict=True):
            if part is not None:
                total += part
        count += int((wanted != IGNORED).sum())
    if not count:
        raise UsageError("there are no batches with labels to order first scores by: give one at least")
    return [total / count for total in totals]


def _each(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    try:
        return iter(batches)
    except TypeError:
        raise UsageError(f"batches is of type {type(batches).__name__}: give a list, or a loader, of pairs (inputs, labels)"
                         ) from None


@contextmanager
def _quiet(net: nn.Module) -> Iterator[None]:
    """Let the network's norms be in training and all else in evaluation, and leave modes and statistics as they were."""
    modes = [(module, module.training) for module in net.modules()]
    held = [(module, name, buffer, buffer.clone()) for module in net.modules() for name, buffer in module._buffers.items()
            if buffer is not None]
    for module, _ in modes:
        module.training = is_norm(module)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, before in held:
                module._buffers[name] = buffer  # a forward may have put another in its place
                if not torch.equal(buffer, before):  # to write to one says that it has changed, as the mark of a rank's source
                    buffer.copy_(before)
