"""A small convolutional network with norms, attached or not, and steps of it."""

import torch
from torch import nn

from popup import attach, scores


def small(**options):
    """A convolutional network with norms, attached."""
    return attach(plain(), **{"er_p": 0.5, "k": 0.5, **options})


def plain():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2), nn.GroupNorm(2, 8),
                         nn.Flatten(), nn.Linear(8 * 16, 5))


def images(count=4):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def train(net, steps=2, inputs=None):
    """Steps of SGD on a fixed batch."""
    inputs = images() if inputs is None else inputs
    optimiser = torch.optim.SGD(scores(net), lr=0.5, momentum=0.9)
    for _ in range(steps):
        optimiser.zero_grad()
        output = net(inputs)
        nn.functional.cross_entropy(output, torch.arange(len(output)) % output.shape[1]).backward()
        optimiser.step()
    return net
