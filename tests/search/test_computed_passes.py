"""Passes that compute on edges alone: their gradients, what is written between them, and the memory that they take."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from popup import UsageError, attach, merge, scores
from popup.search.network import search_of
from popup.search.sparse_weight import SparseWeight
from popup.source import edges
from tests.search.computed import PLAIN, Uses, alike, both, by_both, chain, noise, trained


def test_gradients_of_several_passes_and_of_a_graph_that_is_kept(kernels):
    def several(net):
        outputs = [net(noise(7, 12, seed=seed)).square().sum() for seed in range(3)]
        sum(outputs[:2]).backward()
        outputs[2].backward(retain_graph=True)
        outputs[2].backward()
        return [score.grad for score in scores(net)]
    by_both(chain, several)
    by_both(chain, several, method="sampled")


def test_scores_that_do_not_learn(kernels):
    def use(net):
        scores(net)[0].requires_grad_(False)
        inputs = noise(7, 12).requires_grad_()
        net(inputs).square().sum().backward()
        assert scores(net)[0].grad is None
        found = [inputs.grad.clone(), scores(net)[1].grad]
        for score in scores(net):
            score.requires_grad_(False)
        net(inputs).sum().backward()
        return [*found, inputs.grad]
    by_both(chain, use)


def test_scores_of_another_call_are_those_that_are_used(kernels):
    def use(net):
        given = {name: (1 / part.detach()).requires_grad_() for name, part in net.named_parameters() if "original" in name}
        output = torch.func.functional_call(net, given, (noise(7, 12),))
        output.sum().backward()
        return [output, *(part.grad for part in given.values()), net(noise(7, 12))]
    by_both(chain, use)


def test_what_is_written_between_forward_and_backward_is_noticed(kernels):
    for net in both(chain):
        loss = net(noise(7, 12)).sum()
        torch.optim.SGD(scores(net), lr=0.1)
        with torch.no_grad():
            scores(net)[1].neg_()
        with pytest.raises((RuntimeError, UsageError), match="modified by an inplace operation"):
            loss.backward()
    for net in both(lambda: Uses(lambda layer, x: layer(x))):
        inputs = noise(7, 12).t().contiguous().t()  # lies as the products want it, so they take no copy
        loss = net(inputs).sum()
        inputs.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_dense_weight_that_a_forward_writes_to_is_refused(kernels):
    def writes(layer, x):
        layer.weight.data.mul_(2)
        return F.linear(x, layer.weight * 1.0)
    for net in both(lambda: Uses(writes)):
        search_of(net).looked = True  # as if the look before the first pass had not seen it
        with pytest.raises(UsageError, match=r"first\.weight was written to"):
            net(noise(7, 12))


def test_what_is_differentiated_twice_is_refused_and_not_without_gradient(kernels):
    _, net = both(chain)
    inputs = noise(7, 12).requires_grad_()
    (gradient,) = torch.autograd.grad(net(inputs).square().sum(), inputs, create_graph=True)  # which alone does no harm
    assert alike(gradient, trained(net, noise(7, 12))[1])
    with pytest.raises(UsageError, match=r"weight computes on its edges alone, .* compute='dense'"):
        gradient.square().sum().backward()


def test_torch_compile_searches_and_what_takes_no_attached_network_takes_none(kernels):
    def use(net):
        run, found = torch.compile(net, backend="eager"), []
        for step in range(2):
            run(noise(7, 12, seed=step)).square().sum().backward()
            found += [score.grad.clone() for score in scores(net)]
        return found
    by_both(chain, use)
    for net in both(chain):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises((RuntimeError, ValueError)):
                torch.jit.script(net)
            with pytest.raises(UsageError, match="merge"):
                torch.jit.trace(net, noise(7, 12))


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in numbers."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for part in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(part, torch.Tensor) and part.layout is torch.strided:
                self.count = max(self.count, part.numel())
        return found


def test_a_step_makes_no_dense_weight_and_no_dense_gradient(kernels, monkeypatch):
    net = attach(nn.Sequential(nn.Linear(600, 500), nn.ReLU(), nn.Linear(500, 400), nn.ReLU(), nn.Linear(400, 10)), er_p=0.05,
                 k=0.5, compute="sparse")
    merge(net)  # the look before the first pass takes a plain copy
    net(noise(4, 600))
    optimiser = torch.optim.SGD(scores(net), lr=0.1, momentum=0.9)
    monkeypatch.setattr(edges, "expand", lambda *_: pytest.fail("a dense weight"))
    with Largest() as largest:
        net(noise(4, 600)).square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            net.eval()(noise(4, 600))
    most = max(layer.count for layer in search_of(net).layers)
    assert 0 < largest.count <= most + 600 < 0.06 * 600 * 500


def test_a_pass_holds_one_weight_that_is_gone_after_it(kernels):
    net = attach(chain(), **PLAIN, compute="sparse")
    held = []
    net[2].register_forward_hook(lambda module, inputs, output: held.append([module.weight, module.weight]))
    net(noise(7, 12))
    first, again = held[-1]
    assert type(first) is SparseWeight and first is again and search_of(net).passes.now() is None
    assert type(net[2].weight) is torch.Tensor
