"""How inputs, outputs and gradients lie of layers that compute on their edges alone: as those of dense ones, to whoever looks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import attach
from popup.search import compute
from popup.search.network import search_of
from tests.search.computed import both, by_both, chain, convolutions, noise, sparse_of, trained

IMAGES = {"usual": lambda: noise(4, 3, 9, 9), "none": lambda: noise(0, 3, 9, 9), "one": lambda: noise(1, 3, 9, 9),
          "channels last": lambda: noise(4, 3, 9, 9).to(memory_format=torch.channels_last),
          "every other": lambda: noise(4, 6, 18, 9)[:, ::2, ::2], "turned": lambda: noise(4, 3, 9, 9).transpose(2, 3)}


def last(images):
    return images.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("lie", IMAGES)
def test_images_that_lie_in_any_way(lie, kernels):
    def use(net):
        images = IMAGES[lie]()
        with torch.no_grad():
            output = net.eval()(images)
        return [output, *trained(net.eval(), images)]
    by_both(convolutions, use)


FORMS = {"one channel": lambda: noise(2, 1, 8, 8), "one channel, last": lambda: last(noise(2, 1, 8, 8)),
         "last": lambda: last(noise(2, 3, 8, 8)), "every other image": lambda: last(noise(4, 3, 8, 8))[::2],
         "every other row": lambda: last(noise(2, 3, 16, 8))[:, :, ::2],
         "cropped": lambda: last(noise(2, 3, 10, 10))[:, :, 1:9, 1:9], "some channels": lambda: last(noise(2, 6, 8, 8))[:, :3],
         "permuted": lambda: noise(2, 8, 8, 3).permute(0, 3, 1, 2), "one image": lambda: last(noise(1, 3, 8, 8)),
         "expanded": lambda: noise(1, 3, 8, 8).expand(2, 3, 8, 8), "cropped, first": lambda: noise(2, 3, 10, 10)[:, :, 1:9, 1:9]}


@pytest.mark.parametrize("form", FORMS)
def test_an_output_lies_as_torch_lays_it(form):
    """By that goes what Dropout drops."""
    pytest.importorskip("numba")
    x, found = FORMS[form](), []
    for net in both(lambda: nn.Sequential(nn.Conv2d(x.shape[1], 4, 3, padding=1), nn.Dropout(0.5))):
        y = net[0](x)
        torch.manual_seed(1)
        found.append((y.stride(), net(x) == 0))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


WRONG = [{"stride": 0}, {"stride": -1}, {"padding": -1}, {"stride": 1.5}, {"padding": 1.5}, {"dilation": 0}, {"dilation": -1},
         {"stride": (1, 2, 3)}, {"stride": True}, {"stride": "2"}]


@pytest.mark.parametrize("how", WRONG, ids=str)
@pytest.mark.parametrize("later", [False, True])
def test_a_convolution_that_is_wrong_is_refused_as_torch_refuses_it(how, later):
    pytest.importorskip("numba")
    x, told = noise(2, 3, 8, 8), []
    dense, sparse = both(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, **{} if later else how)))
    assert sparse_of(sparse) == (["0.weight"] if later else [])
    for net in (dense, sparse):
        for name, value in how.items():
            setattr(net[0], name, value if isinstance(value, tuple) else (value, value))
        with pytest.raises((RuntimeError, TypeError)) as refused:
            net(x)
        told.append((refused.type, str(refused.value).splitlines()[0].replace("SparseWeight", "Tensor")))
    assert told[0] == told[1]


def test_a_padding_of_one_number_in_a_tuple_is_that_of_both_sides():
    x = noise(2, 3, 8, 8)
    by_both(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=(1,))), lambda net: trained(net, x))


def test_an_attach_that_fails_changes_nothing(monkeypatch):
    """Whatever it is of, until the first weight is replaced."""
    pytest.importorskip("numba")
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    before, call_of, x = copy.deepcopy(net), compute.call_of, noise(3, 6)

    def fails(module, spec, *others):
        if spec.name == "2.weight":
            raise MemoryError
        return call_of(module, spec, *others)

    monkeypatch.setattr(compute, "call_of", fails)
    with pytest.raises(MemoryError):
        attach(net, er_p=0.5, k=0.5, compute="sparse")
    assert type(net[0]) is nn.Linear and all(parameter.requires_grad for parameter in net.parameters())
    assert all(map(torch.equal, net.state_dict().values(), before.state_dict().values()))
    monkeypatch.undo()
    attach(net, er_p=0.5, k=0.5, compute="sparse")(x).sum().backward()


@pytest.mark.parametrize("images", [(4, 3, 3, 3), (4, 3, 9, 0), (3, 2, 9, 9), (1, 4, 3, 9, 9)])
def test_images_that_do_not_fit_are_refused_as_torch_refuses_them(images):
    pytest.importorskip("numba")
    told = []
    for net in both(lambda: nn.Sequential(nn.Conv2d(3, 4, 5, padding=0))):
        with pytest.raises(RuntimeError) as refused:
            net(noise(*images))
        told.append(str(refused.value))
    assert told[0] == told[1]


def test_hooks_see_what_they_would_see_of_a_dense_layer(kernels):
    """Outputs that lie as torch lays them, also where a chain hands them on; hooks that change them, and backward ones."""
    def use(net):
        seen = []
        for module in net:
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.view(-1).detach().clone()))
            module.register_full_backward_hook(lambda module, given, of: seen.extend(
                part.view(-1).detach().clone() for part in (*given, *of) if part is not None))
        net[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 3,))
        net[0].register_forward_hook(lambda module, inputs, output: seen.append(module.weight.detach().clone()) or output * 2)
        return [*trained(net, noise(7, 12)), *seen]
    by_both(lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 40), nn.Tanh(), nn.Linear(40, 5)), use)


class Walked(nn.Sequential):
    """A chain in another network, which calls its modules one by one, or a slice of it."""

    def __init__(self, sliced):
        super().__init__(chain())
        self.sliced = sliced

    def forward(self, x):
        if self.sliced:
            x = self[0][:3](x).view(-1).view(len(x), 40)
            return self[0][3:](x)
        for module in self[0]:
            x = module(x).view(-1).view(len(x), -1)
        return x


class Flat(nn.Module):
    def forward(self, x):
        return x.view(-1).tanh().view(x.shape)


@pytest.mark.parametrize("sliced", [False, True])
def test_who_goes_through_a_chain_sees_outputs_as_torch_lays_them(sliced, kernels):
    by_both(lambda: Walked(sliced), lambda net: trained(net, noise(7, 12)))


@pytest.mark.parametrize("how", ["replaced", "another forward", "hook of all", "hook before all", "backward hook of all"])
def test_what_is_put_into_a_chain_later_sees_outputs_as_torch_lays_them(how, kernels):
    def use(net):
        trained(net, noise(7, 12))  # which is looked at first, in a plain copy
        if how == "replaced":
            net[3] = Flat()
        elif how == "another forward":
            net[3].forward = Flat().forward
        else:
            register = getattr(nn.modules.module, {"hook of all": "register_module_forward_hook",
                                                   "hook before all": "register_module_forward_pre_hook",
                                                   "backward hook of all": "register_module_full_backward_hook"}[how])
            net[1].inplace = False  # torch refuses it beside a backward hook
            handle = register(lambda module, given, *of: [part.view(-1) for part in given if part is not None] and None)
            try:
                return trained(net, noise(7, 12))
            finally:
                handle.remove()
        return trained(net, noise(7, 12))
    by_both(chain, use)


def test_what_dropout_drops_is_what_it_drops_in_a_dense_network_and_beside_a_hook(kernels):
    def use(net):
        found = trained(net, noise(7, 12))
        net[0].register_forward_hook(lambda module, inputs, output: None)
        torch.manual_seed(1)
        return [*found, *trained(net, noise(7, 12))]
    by_both(lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 5)), use)


def test_what_follows_a_sparse_layer_is_sparse_where_it_is_narrow_and_else_gets_contiguous_inputs():
    """A dense product takes activations that lie unit by unit badly."""
    pytest.importorskip("numba")
    net = nn.Sequential(nn.Linear(784, 600), nn.ReLU(), nn.Linear(600, 600), nn.Tanh(), nn.Linear(600, 10), nn.ReLU(),
                        nn.Linear(10, 10))
    found, lay = {}, []

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.linear:
                lay.append(args[0].is_contiguous())
            return func(*args, **kwargs or {})

    for second in (0.1, 0.9):
        density = {"0.weight": 0.1, "2.weight": second, "4.weight": 1.0, "6.weight": 0.5}
        attached = attach(copy.deepcopy(net), k=0.5, density=density)
        found[second] = [layer.sparse for layer in search_of(attached).layers]
        attached(torch.randn(64, 784)).sum().backward()  # the first is looked at, in a plain copy
        with Seen():
            attached(torch.randn(64, 784)).sum().backward()
    assert found == {0.1: [True, True, True, True], 0.9: [True, False, False, False]}
    assert lay == [True, False, False, False, True, True, True, True]
