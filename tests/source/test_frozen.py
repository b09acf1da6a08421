"""What is frozen, and at which value, that is no score: norms that add their weight to 1 at 0, others at 1."""

import pytest
import torch
from torch import nn

from popup import attach, extract, load, verify
from popup.source.frozen import adds_one


class Normed(nn.Module):
    """A norm of somebody else's: `of` says what its weight does."""

    def __init__(self, of, start=0.0, dims=(-1,)):
        super().__init__()
        self.weight, self.of, self.dims = nn.Parameter(torch.full((16,), start)), of, dims

    def forward(self, x):
        size = x.float().square().mean(self.dims, keepdim=True)
        return self.of(x * torch.rsqrt(size + 1e-6), x, self.weight)


class AddingNorm(Normed):
    def __init__(self):
        super().__init__(lambda normal, x, weight: normal * (1 + weight))


class ResponseNorm(Normed):
    """Of channels last, as ConvNeXt's: the input stays, and what the norm gives is added."""

    def __init__(self):
        super().__init__(lambda normal, x, weight: x + weight * normal, dims=(1, 2))


class UsualNorm(Normed):
    def __init__(self):
        super().__init__(lambda normal, x, weight: normal * weight, start=1.0)


class ZeroNorm(Normed):
    """The last of a block, that starts without it."""

    def __init__(self):
        super().__init__(lambda normal, x, weight: normal * weight)


class GatedNorm(Normed):
    """Its forward wants more than we can think of."""

    def __init__(self):
        super().__init__(None)

    def forward(self, x, gate):
        return x * gate


class PlusNorm(nn.LayerNorm):
    def forward(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


@pytest.mark.parametrize(("build", "adds"), [
    (AddingNorm, True), (ResponseNorm, True), (UsualNorm, False), (ZeroNorm, False), (GatedNorm, False),
    (lambda: PlusNorm(16), True), (lambda: nn.LayerNorm(16), False), (lambda: nn.BatchNorm2d(16), False)])
def test_a_norm_is_frozen_where_it_leaves_the_size_of_its_input(build, adds, tmp_path):
    norm, state = build(), torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    assert adds_one(norm) == adds and torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, norm.state_dict()[name]) for name, tensor in before.items()), "it is tried on a copy"
    net = attach(nn.ModuleDict({"layer": nn.Linear(16, 16), "norm": norm}), er_p=0.5)
    assert bool((net.norm.weight == (0 if adds else 1)).all())
    extract(net).save(tmp_path / "ticket.safetensors")
    ticket = load(tmp_path / "ticket.safetensors")
    assert verify(ticket).holds
    fresh = nn.ModuleDict({"layer": nn.Linear(16, 16), "norm": build()})
    nn.init.constant_(fresh.norm.weight, 7.0)
    assert torch.equal(ticket.apply(fresh).norm.weight, net.norm.weight)


def test_without_data_a_norm_is_known_too():
    with torch.device("meta"):
        assert adds_one(AddingNorm()) and not adds_one(UsualNorm())
