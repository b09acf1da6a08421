"""Networks that compute densely and on their edges alone, and whether what they compute is alike."""

import torch
import torch.nn.functional as F
from torch import nn

from popup import attach, scores
from popup.search.network import search_of

PLAIN = {"er_p": 0.5, "k": 0.5, "weights": "kaiming_normal", "seed": 2}


def alike(first, second):
    """Equal but for float noise, of which a sum of large parts has more."""
    size = max(1e-30, float(second.detach().abs().max())) if second.numel() else 1.0
    return first.dtype is second.dtype and torch.allclose(first, second, rtol=1e-5, atol=1e-5 * size)


def exactly(first, second):
    return torch.allclose(first, second, rtol=1e-12, atol=1e-12 * max(1.0, float(second.detach().abs().max())))


class Pair(nn.Module):
    """Two linear layers that no chain holds."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 5)

    def forward(self, x):
        return self.second(F.relu_(self.first(x)))


class Uses(Pair):
    """A network that uses its first weight by one of the ways below as well."""

    def __init__(self, use):
        super().__init__()
        self.use = use

    def forward(self, x):
        return self.second(self.use(self.first, x))


def chain():
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Linear(16, 40), nn.Tanh(), nn.Linear(40, 5))


def convolutions():
    """Convolutions that can compute sparsely, and some that cannot."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 6, (3, 2), stride=(2, 1), dilation=2,
                         padding=(2, 1), bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2, padding=1),
                         nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"), nn.Conv2d(6, 4, 3, padding="same"),
                         nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(180, 5))


def both(build, **options):
    """The same network attached twice: dense and sparse."""
    found = []
    for name in ("dense", "sparse"):
        torch.manual_seed(0)
        found.append(attach(build(), **{**PLAIN, **options}, compute=name))
    return found


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(net, inputs):
    """A pass, and the gradients of the input and of the scores."""
    for score in scores(net):
        score.grad = None
    inputs = inputs.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = net(inputs)
    output.float().square().sum().backward()
    return [output.detach(), inputs.grad, *(score.grad.clone() for score in scores(net))]


def assert_alike(first, second, same=alike):
    assert len(first) == len(second)
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one.shape == other.shape and same(one, other), (place, float((one - other).abs().max()))


def by_both(build, use, **options):
    """What `use` gives of a dense and of a sparse network is alike; torch draws the same for both."""
    found = []
    for net in both(build, **options):
        torch.manual_seed(1)
        found.append(use(net))
    assert_alike(found[1], found[0])


def sparse_of(net):
    return [layer.spec.name for layer in search_of(net).layers if layer.sparse]
