"""The proof at the point of use: what the products of a network really get, against what the ticket says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from popup.search.reach import look
from popup.ticket.sparse import sparse_layers
from popup.ticket.ticket import Ticket

NOISE = {torch.float32: 1e-3, torch.bfloat16: 6e-2}  # of an output's largest: sums in another order differ by less
CANCELLED = 1e3  # so far below other inputs' outputs are those that hold little but noise


def look_at_use(net: nn.Module, expected: Mapping[str, torch.Tensor], inputs: torch.Tensor,
                forward: Callable[[nn.Module], torch.Tensor] | None = None) -> tuple[tuple[str, ...], torch.Tensor]:
    """What is wrong with the weights that the products of the plain network `net` get, by layer, and what it gives of `inputs`.

    `expected`: each layer's effective weight, which must get there entry by entry (after casts). Each must get there.
    """
    seen, outputs = look(net, expected, inputs, forward)
    faults = [f"{name} {seen.faults[name]}" if name in seen.faults else f"{name} reaches no product"
              for name in seen.reached if name in seen.faults or name in seen.unreached]
    return tuple(faults), outputs


def ticket_use(ticket: Ticket, net: nn.Module, inputs: torch.Tensor,
               forward: Callable[[nn.Module], torch.Tensor] | None = None) -> tuple[str, ...]:
    """What is wrong with the use that `net`, to which the ticket was applied, makes of it: its weights are drawn once more."""
    expected = {layer.spec.name: layer.weight(ticket.recipe, ticket.book).to(inputs.device) for layer in ticket.layers}
    return look_at_use(net, expected, inputs, forward)[0]


def sparse_faults(ticket: Ticket, net: nn.Module, inputs: torch.Tensor,
                  forward: Callable[[nn.Module], torch.Tensor] | None = None) -> tuple[str, ...]:
    """What is wrong with `net`, to which the ticket was applied with `sparse`: a sparse layer must hold the kept edges, drawn
    once more, entry by entry, and nothing else; what is left dense must reach its products as it ought to.

    That a sparse layer computes with what it holds is seen by its outputs beside a dense network's alone.
    """
    held, faults, expected = sparse_layers(net), [], {}
    for layer in ticket.layers:
        name = layer.spec.name
        if name not in held:
            expected[name] = layer.weight(ticket.recipe, ticket.book).to(inputs.device)
            continue
        places, values = layer.kept_weights(ticket.recipe, ticket.book)
        if not np.array_equal(held[name].places().cpu().numpy(), places):
            faults.append(f"{name} holds other edges than the ticket keeps")
        elif not torch.equal(held[name].values.cpu(), values.to(held[name].values.dtype)):
            faults.append(f"{name} holds other weights than the ticket's")
    return (*faults, *look_at_use(net, expected, inputs, forward)[0])


def differing(first: torch.Tensor, second: torch.Tensor) -> int:
    """How many of the outputs [n, ...] differ by more than float noise; what is no number differs. Outputs that cancel to next to
    nothing are as noisy as those of other inputs that are CANCELLED times as large."""
    gaps, sizes = (part.abs().flatten(1).amax(1) for part in (first.float() - second.float(), first.float()))
    largest = float(sizes[sizes.isfinite()].max()) if bool(sizes.isfinite().any()) else 0.0
    return int((~(gaps <= NOISE.get(first.dtype, 1e-3) * sizes.clamp(min=largest / CANCELLED))).sum())
