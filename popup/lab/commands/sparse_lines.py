"""What eval says of a ticket's sparse network: what its layers hold, which are left dense, its outputs beside the dense one's."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from popup.lab.commands.verify_command import PROBE, runner
from popup.lab.data.streamed import Images, first_images, in_parts
from popup.lab.precision import Precision
from popup.lab.report.tables import check_lines
from popup.lab.training.batches import Normalise
from popup.lab.training.training import evaluation_parts
from popup.ticket.sparse import left_dense, sparse_layers
from popup.ticket.ticket import Ticket
from popup.ticket.use import differing, sparse_faults

NAMED = 3  # layers of a reason that are named


def compare_sparse(ticket: Ticket, dense: nn.Module, sparse: nn.Module, images: Images, normalise: Normalise,
                   precision: Precision) -> tuple[list[str], tuple[str, ...]]:
    """The lines, and what is wrong: the sparse network's structure against the ticket, and its outputs against those of the dense
    one, which was looked at, on all `images`."""
    layers = sparse_layers(sparse)
    kept = sum(len(layer.values) for layer in layers.values())
    probe = normalise(first_images(images, PROBE))
    held = sparse_faults(ticket, sparse, probe, runner(probe, precision))
    apart, others = _compare(dense, sparse, images, normalise, precision)
    differ = (f"outputs on {apart} differ",) if apart else ()
    who = "1 layer holds" if len(layers) == 1 else f"{len(layers)} layers hold"
    checks = [(f"sparse: {who} the {kept:,} edges that the ticket keeps of them, with their weights, and nothing else", held),
              (f"sparse: on all {len(images):,} images the outputs are the dense network's within float noise, and "
               f"{others or 'no'} prediction{'s differ' if others > 1 else ' differs'}", differ)]
    return [*check_lines(checks), *_dense_lines(left_dense(sparse, ticket.specs))], (*held, *differ)


def _dense_lines(reasons: dict[str, str]) -> list[str]:
    """A line for each reason why layers are left dense."""
    lines = []
    for reason, count in Counter(reasons.values()).items():
        names = [name for name, words in reasons.items() if words == reason]
        more = f" and {count - NAMED} more" if count > NAMED else ""
        lines.append(f"  --     left dense: {', '.join(names[:NAMED])}{more} ({reason})")
    return lines


@torch.no_grad()
def _compare(dense: nn.Module, sparse: nn.Module, images: Images, normalise: Normalise,
             precision: Precision) -> tuple[int, int]:
    """On how many images the outputs of two networks differ by more than float noise, and on how many the predicted class."""
    apart = others = 0
    for batch in in_parts(images, evaluation_parts(images)):
        inputs = normalise(batch)
        first, second = (runner(inputs, precision)(net) for net in (dense, sparse))
        apart += differing(first, second)
        others += int((first.argmax(-1) != second.argmax(-1)).sum())
    return apart, others
