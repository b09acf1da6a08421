"""The device "meta", where tensors have no values: what a network would have and cost can be counted there, and no more."""

import pytest
import torch
from torch import nn

from popup import UsageError, attach, densities, extract, merge
from popup.search.methods import METHODS

LOST = r"^0\.weight was attached on \(or moved to\) the device 'meta'.*put the network on a device that has data first"


def plain(device="cpu"):
    with torch.device(device):
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("density", ["uniform", "erk"])
def test_densities_are_those_of_a_network_with_data(density, moved):
    here = attach(plain(), er_p=0.5, density=density, seed=2)
    there = attach(plain(), er_p=0.5, density=density, seed=2).to("meta") if moved else attach(
        plain("meta"), er_p=0.5, density=density, seed=2)
    assert densities(there) == densities(here)


@pytest.mark.parametrize("method", METHODS)
def test_shapes_go_through_as_in_any_network(method):
    net = attach(plain("meta"), er_p=0.5, method=method)
    for training in (True, False):
        assert net.train(training)(torch.empty(2, 6, device="meta")).shape == (2, 4)
    assert merge(net)[0].weight.is_meta


USES = {
    "to_empty": lambda net: net.to_empty(device="cpu"), "to": lambda net: net.to("cpu"), "cpu": lambda net: net.cpu(),
    "extract": extract, "state_dict": lambda net: net.state_dict(),
    "load_state_dict": lambda net: net.load_state_dict(attach(plain(), er_p=0.5).state_dict(), assign=True),
}


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("use", USES)
def test_there_is_no_way_back_to_values_that_are_not_there(use, moved):
    net = attach(plain(), er_p=0.5).to("meta") if moved else attach(plain("meta"), er_p=0.5)
    with pytest.raises(UsageError, match=LOST) as error:
        USES[use](net)
    assert "\n" not in str(error.value)


def test_a_global_scope_counts_nothing_without_scores():
    with pytest.raises(UsageError, match=LOST):
        densities(attach(plain("meta"), er_p=0.5, scope="global"))


def test_weights_that_have_no_values_cannot_be_given():
    with pytest.raises(UsageError, match=r"weights are 'given', and 0\.weight is on the device 'meta'"):
        attach(plain("meta"), er_p=0.5, weights="given")
