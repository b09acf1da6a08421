"""verify on tickets that break a law, each in a file that is whole: each is told of, in its own line."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from popup import SearchSettings, TicketError, attach, extract, load, verify


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.PReLU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4))


@pytest.fixture
def ticket():
    return extract(attach(network(), er_p=0.5, k=0.5, seed=1))


def test_an_honest_ticket_holds(ticket):
    assert verify(ticket).holds and "2.weight" in ticket.given  # of PReLU, which attach leaves as it is


@pytest.mark.parametrize("room", ["given", "statistics", "constants"])
def test_a_weight_that_hides_a_layers_is_outside_and_its_file_is_refused(room, ticket, tmp_path):
    entry = (1.0, (8, 6)) if room == "constants" else torch.randn(8, 6)
    forged = replace(ticket, **{room: getattr(ticket, room) | {"0.weight": entry}})
    assert verify(forged).outside == ("0.weight",) and not verify(forged).holds
    with pytest.raises(TicketError, match=r"'0\.weight' is there more than once"):
        load(forged.save(tmp_path / "t"))


@pytest.mark.parametrize("name", ["0.bias", "1.weight", "1.bias", "4.weight", "4.bias", "5.bias"])
def test_a_bias_or_an_affine_that_was_trained_is_told_of(name, ticket, tmp_path):
    """extract refuses it; a file may hold it."""
    value, shape = ticket.constants[name]
    trained = torch.full(shape, value)
    trained[0] += 0.1
    constants = {other: pair for other, pair in ticket.constants.items() if other != name}
    found = verify(load(replace(ticket, constants=constants, given=ticket.given | {name: trained}).save(tmp_path / "t")))
    assert found.trained == (name,) and not found.holds and not (found.foreign or found.outside or found.miscounted)


def test_constants_are_0_for_biases_and_1_for_gains(ticket, tmp_path):
    forged = replace(ticket, constants=ticket.constants | {"0.bias": (1.0, (8,))})
    assert verify(forged).trained == ("0.bias",)
    with pytest.raises(TicketError, match=r"the constant '0.bias' is not \[0, shape\]"):
        load(forged.save(tmp_path / "t"))


def test_the_floor_of_a_global_scope_is_verified():
    net = attach(network(), er_p=0.5, k=0.3, seed=1, search=SearchSettings(scope="global", floor=0.5))
    ticket = extract(net)
    assert verify(ticket).holds
    kept = {layer.spec.name: layer.kept for layer in ticket.layers}
    raised = replace(ticket, settings=replace(ticket.settings, floor=1.0))
    wanted = {layer.spec.name: round(0.3 * len(layer.selected)) for layer in ticket.layers}
    assert set(verify(raised).miscounted) == {name for name in kept if kept[name] < wanted[name]} != set()
