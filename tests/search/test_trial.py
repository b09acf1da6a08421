"""What attach refuses by name before it changes anything: weights held elsewhere, and modules that compute with another one."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import UsageError, attach
from popup.search.trial import kind_of, trial


class Standardised(nn.Conv2d):
    """As timm's and transformers' are: the mean of each filter taken off."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Renormalised(nn.Linear):
    def forward(self, x):
        self.weight.data = F.normalize(self.weight.data, dim=1)
        return super().forward(x)


class Clamped(nn.Linear):
    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.weight.clamp_(-0.5, 0.5)
        return super().forward(x)


class Updated(nn.Linear):
    """A low-rank update, as of LoRA."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.update = nn.Parameter(torch.ones(sizes[1], 1))

    def forward(self, x):
        return F.linear(x, self.weight + self.update, self.bias)


class Copying(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.copy = self.weight.detach().clone()

    def forward(self, x):
        return F.linear(x, self.copy, self.bias)


class Masked(nn.MultiheadAttention):
    def forward(self, query, key, value):
        weight = self.in_proj_weight - self.in_proj_weight.mean()
        return F.linear(query, weight), None


class Equalised(nn.Conv2d):
    """A learning rate made equal, as of StyleGAN; prints and draws, as no forward should."""

    def forward(self, x):
        return self._conv_forward(x + torch.rand(()), self.weight * 0.1, self.bias)


class Same(nn.Conv1d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1)))


class Odd(nn.Linear):
    def forward(self, x, *, why):
        return super().forward(x) if why == "because" else None


REFUSED = {
    "standardised": (lambda: Standardised(3, 4, 3), "by sub"), "grouped": (lambda: Standardised(4, 4, 3, groups=2), "by sub"),
    "renormalised": (lambda: Renormalised(6, 6), "is replaced"), "clamped": (lambda: Clamped(6, 6), r"is written to .*clamp_"),
    "updated": (lambda: Updated(6, 6), "by add"), "copying": (lambda: Copying(6, 6), "reaches no product"),
    "attention": (lambda: Masked(8, 2), "by sub"),
}
TAKEN = {"equalised": lambda: Equalised(3, 4, 3), "same": lambda: Same(3, 4, 3), "odd": lambda: Odd(6, 6),
         "a plain subclass": lambda: type("Plain", (nn.Conv3d,), {})(2, 3, 3),
         "attention": lambda: type("Plain", (nn.MultiheadAttention,), {})(8, 2, kdim=8, vdim=8)}


def network(module):
    """The module in a network, with a norm that has something to lose."""
    net = nn.Sequential(module, nn.BatchNorm2d(4), nn.Linear(3, 3))
    nn.init.normal_(net[1].weight)
    return net


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_module_that_computes_with_another_weight_is_refused_by_name_and_nothing_changes(case, device):
    build, words = REFUSED[case]
    with torch.device(device):
        net = network(build())
    before, random = copy.deepcopy(net), torch.get_rng_state()
    with pytest.raises(UsageError, match=rf"^0\.(in_proj_)?weight .*{words}.* in \w+, tried alone") as error:
        attach(net, er_p=0.5)
    assert "\n" not in str(error.value) and torch.equal(torch.get_rng_state(), random)
    for first, second in zip(before.parameters(), net.parameters(), strict=True):
        assert first.requires_grad == second.requires_grad and (device == "meta" or torch.equal(first, second))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("case", TAKEN)
def test_a_module_that_keeps_the_weight_as_it_is_or_cannot_be_tried_is_taken(case, device):
    with torch.device(device):
        net = network(TAKEN[case]())
    random = torch.get_rng_state()
    attach(net, er_p=0.5)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_trial_calls_no_hooks_and_leaves_the_module_as_it_is():
    module, called = Equalised(3, 4, 3), []
    module.register_forward_hook(lambda *_: called.append(1))
    module.register_forward_pre_hook(lambda *_: called.append(2))
    before = module.weight.detach().clone()
    assert trial(module, ["weight"]) is None
    assert not called and len(module._forward_hooks) == len(module._forward_pre_hooks) == 1 and module.training
    assert torch.equal(module.weight, before) and module.weight.requires_grad


def test_one_trial_is_enough_for_modules_that_differ_in_width():
    assert kind_of(Standardised(3, 4, 3)) == kind_of(Standardised(8, 16, 3)) != kind_of(Standardised(3, 4, 5))


def test_a_forward_that_an_instance_was_given_is_tried():
    net = network(nn.Linear(6, 6))
    net[0].forward = partial(lambda module, x: F.linear(x, module.weight.sign()), net[0])
    with pytest.raises(UsageError, match=r"^0\.weight reaches its product .*by sign"):
        attach(net, er_p=0.5)


def test_a_forward_that_uses_the_instance_it_was_given_to_is_taken():
    net = network(nn.Linear(6, 6))
    net[0].forward = lambda x: F.linear(x, net[0].weight)
    attach(net, er_p=0.5)


# --- weights that are held elsewhere

class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(F.linear(x, self.a.weight))


def closure(weight):
    return lambda x: F.linear(x, weight)


def default(weight):
    def use(x, weight=weight):
        return F.linear(x, weight)
    return use


HELD = {
    "itself": lambda net: net.a.weight.detach(), "list": lambda net: [net.a.weight], "dict": lambda net: {"a": net.a.weight},
    "nested": lambda net: {"a": [(net.a.weight, 1)]}, "set": lambda net: {net.a.weight},
    "view": lambda net: [net.a.weight.detach()[1:, 2:]], "transposed": lambda net: (net.a.weight.data.T,),
    "closure": lambda net: closure(net.a.weight), "default": lambda net: default(net.a.weight),
    "partial": lambda net: partial(F.linear, weight=net.a.weight), "closure in a list": lambda net: [closure(net.a.weight)],
    "parameter of the same memory": lambda net: nn.Parameter(net.a.weight.data),
    "a list of parameters": lambda net: nn.ParameterList([net.a.weight]),
    "a module of nobody's": lambda net: [other(net.a.weight)],
}


def other(weight):
    module = nn.Linear(6, 6)
    module.weight = weight
    return module


@pytest.mark.parametrize("case", HELD)
def test_a_weight_that_something_else_holds_is_refused_and_nothing_changes(case):
    net = Holder()
    net.held = HELD[case](net)
    before = net.a.weight.detach().clone()
    with pytest.raises(UsageError, match=r"a\.weight is also held by held|held.* is the same tensor as a\.weight") as error:
        attach(net, er_p=0.5)
    assert "\n" not in str(error.value) and torch.equal(net.a.weight, before)
    assert type(net.a) is nn.Linear and net.b.bias.any() and net.b.bias.requires_grad


def test_a_holder_deep_inside_is_named():
    net = nn.Sequential(Holder(), nn.Linear(6, 6))
    net[0].b.keep = {"first": [net[1].weight]}
    with pytest.raises(UsageError, match=r"^1\.weight is also held by 0\.b\.keep\['first'\]\[0\], which"):
        attach(net, er_p=0.5)


def test_what_holds_modules_or_memory_beside_the_weights_is_taken():
    net = Holder()
    flat = torch.randn(72)
    for place, module in enumerate((net.a, net.b)):
        module.weight = nn.Parameter(flat[36 * place:36 * place + 36].view(6, 6))
    net.modules_by_name, net.loop = {"a": net.a, "use": net.a.forward}, []
    net.loop.append(net.loop)
    attach(net, er_p=0.5)


def test_a_hook_that_holds_the_weight_is_refused():
    net, weights = Holder(), []
    weights.append(net.a.weight)
    net.register_forward_hook(lambda *_: weights[0].sum())
    with pytest.raises(UsageError, match=r"^a\.weight is also held by _forward_hooks"):
        attach(net, er_p=0.5)
