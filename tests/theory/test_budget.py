"""The error budget bounds the output, every parameter being off by as much as it allows, in the worst direction."""

import copy

import pytest
import torch
from torch import nn

from popup.theory.budget import plan_tolerances
from popup.theory.reading import read_target


@pytest.mark.parametrize(("hidden", "sizes", "epsilon"), [(50, (0.0, 0.0), 0.1), (256, (1e-4, 1e-3), 0.1), (16, (0.1, 0.3), 0.1)])
def test_parameters_within_their_tolerances_keep_the_output_within_epsilon(hidden, sizes, epsilon):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    for layer, size in zip((net[1], net[3]), sizes, strict=True):
        nn.init.uniform_(layer.weight, -size, size), nn.init.zeros_(layer.bias)
    tolerances = plan_tolerances(read_target(net, (1, 8, 8), 0.0, 1.0), epsilon)
    net.double()
    other = copy.deepcopy(net)
    with torch.no_grad():
        for layer, tolerance in zip((other[1], other[3]), tolerances, strict=True):
            layer.weight += tolerance
            layer.bias += tolerance
        inputs = torch.ones(1, 1, 8, 8, dtype=torch.float64)
        assert 0 < (other(inputs) - net(inputs)).abs().max() <= epsilon
