"""python run.py verify: the laws on a ticket's file, and where its network can be built, at the point of use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.commands.arguments import parse_as
from popup.lab.commands.rebuild import another_network, open_ticket, rebuild, recorded_config, recorded_image, recorded_precision
from popup.lab.config import Config
from popup.lab.foreign import FAULTS
from popup.lab.inputs import noise
from popup.lab.networks import Models
from popup.lab.precision import Precision
from popup.lab.report.tables import check_lines
from popup.lab.runs.grid import counted
from popup.lab.text import printable
from popup.source.recipe import GIVEN
from popup.ticket.file import TicketError
from popup.ticket.ticket import Ticket
from popup.ticket.use import ticket_use
from popup.ticket.verification import Verification, verify

DONE, FAILED = 0, 1
USED = "at the point of use: in {}, each product gets the ticket's weights, entry by entry"
PROBE = 4  # inputs of noise


@dataclass(frozen=True)
class VerifyOptions:
    """Draw a ticket's source anew and prove the laws on it; and look, with inputs of noise, at what the products of its network
    get."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})
    model: str = field(default="", metadata={"help": "network; none: the one that the ticket names"})


def verify_ticket(arguments: Sequence[str], models: Models) -> int:
    """python run.py verify TICKET"""
    options = parse_as(VerifyOptions, arguments, "verify")
    ticket = open_ticket(options.ticket)
    found = verify(ticket)
    checks = [("the file is whole: its digest is the one that was saved", ()),
              (_origin(ticket, found), found.foreign),
              ("S_P within S_ER: every weight in use is an edge of that source, with its value", found.outside),
              ("exact counts: each layer keeps just what k asks for (a global scope: the network)", found.miscounted),
              ("nothing else is trained: biases are 0, or layers; gains of norms and blocks are 1", found.trained)]
    faults: tuple[str, ...] = ()
    try:
        config = recorded_config(ticket, options.model, loads=False)
        faults, left = _look(ticket, models, config), ""
        checks.append((USED.format(config.task.model), faults))
        if another := another_network(ticket, models, config):
            faults = (*faults, another)
            checks.append(("that is the network of the run", (another,)))
    except NotOfNetwork as error:
        faults, left = (str(error),), ""
        checks.append(("every tensor of the file is one of the network that it is of", faults))
    except UsageError as error:
        left = f"\n{printable(f'  --     at the point of use: not looked at, since {error}')}"
    print("\n".join(check_lines(checks)) + left)
    return DONE if found.holds and not faults else FAILED


def _origin(ticket: Ticket, found: Verification) -> str:
    """Where a ticket's edges come from, and where their weights do."""
    recipe, edges = ticket.recipe, f"the {found.edges:,} edges of {counted(found.layers, 'layer')}"
    drawn, given = recipe.draws_edges, recipe.weights == GIVEN
    first = f"the seed gives {edges}" if drawn else f"the file holds {edges} (mask {recipe.mask})"
    if drawn == given:
        return f"{first}, and {'the file holds' if given else 'the seed gives'} their weights{' (given)' * given}"
    return f"{first} and their weights{' (given)' * given}"


class NotOfNetwork(TicketError):
    """The network can be built, and is another than the ticket's: `eval` refuses such a file."""


def _look(ticket: Ticket, models: Models, config: Config) -> tuple[str, ...]:
    """What is wrong with the use that the ticket's network makes of its weights. A UsageError if it cannot be built here, a
    NotOfNetwork if the file holds something that is not its."""
    try:
        net = rebuild(ticket, models, config)
    except TicketError as error:
        raise NotOfNetwork(str(error)) from None
    precision = Precision.of(net, recorded_precision(ticket))
    inputs = noise(*recorded_image(ticket), PROBE)
    try:
        return point_of_use(ticket, net, inputs, precision)
    except FAULTS as error:
        raise UsageError(f"{config.task.model} takes no inputs {list(inputs.shape)} ({type(error).__name__})") from None


def point_of_use(ticket: Ticket, net: nn.Module, inputs: torch.Tensor, precision: Precision) -> tuple[str, ...]:
    """What is wrong with the use that `net`, which is the ticket, makes of it on `inputs`."""
    return ticket_use(ticket, net, inputs, runner(inputs, precision))


def runner(inputs: torch.Tensor, precision: Precision) -> Callable[[nn.Module], torch.Tensor]:
    """What runs a network on `inputs` in that precision."""
    def forward(net: nn.Module) -> torch.Tensor:
        with precision.autocast():
            return net(precision.inputs(inputs.clone()))

    return forward
