"""A weight that is computed on its edges alone, in whatever way a forward uses it, in copies and in states."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from popup import SearchSettings, UsageError, advance, attach, detach, extract, merge, scores
from popup.search.network import search_of
from tests.search.computed import PLAIN, Uses, assert_alike, both, by_both, chain, noise, sparse_of, trained


def without_gradients_first(layer, x):
    weight = layer.weight
    with torch.no_grad():
        size, same = weight.norm(), layer.weight.norm()
        part = layer(x)
    with torch.inference_mode():
        total = float(layer.weight.sum())
    return F.linear(x, weight * 1.0) / (size + total + same) + part + layer(x)


def added(layer, x):
    """A checkpoint's part asks for the weight within the pass, and once more in the backward pass."""
    return checkpoint(layer, x, use_reentrant=False) + layer(x) + checkpoint(lambda given: given @ layer.weight.t(), x,
                                                                            use_reentrant=False)


USES = {
    "sum": lambda layer, x: layer(x) + layer.weight.sum(), "transposed": lambda layer, x: x @ layer.weight.t(),
    "times one": lambda layer, x: F.linear(x, layer.weight * 1.0, layer.bias), "twice": lambda layer, x: layer(x) + layer(2 * x),
    "bias by name": lambda layer, x: F.linear(x, layer.weight, bias=layer.bias),
    "weight by name": lambda layer, x: F.linear(x, weight=layer.weight), "all by name": lambda layer, x: F.linear(
        input=x, weight=layer.weight), "bilinear": lambda layer, x: F.bilinear(x, x, torch.stack(16 * [layer.weight[:12]])),
    "a part": lambda layer, x: F.linear(x, layer.weight)[..., :1] + F.linear(x[..., :6], layer.weight[:, ::2]),
    "written": lambda layer, x: layer(x).mul_(2).clamp_(min=0), "without gradients": without_gradients_first, "anew": added,
    "gradients within": lambda layer, x: layer(x) * torch.autograd.grad(layer(x).sum(), x, create_graph=False)[0].sum()}


@pytest.mark.parametrize("use", USES)
def test_a_weight_may_be_used_in_any_way(use, kernels):
    def used(net):
        found = [*trained(net, noise(7, 12)), *trained(net, noise(7, 12, seed=4))]
        with torch.no_grad():
            return [*found, *([] if use == "gradients within" else [net.eval()(noise(7, 12))])]
    by_both(lambda: Uses(USES[use]), used)


def test_a_weight_tells_of_itself_what_a_dense_one_does(kernels):
    def told(layer, x):
        weight = layer.weight
        seen.append([weight.shape, weight.dtype, weight.device, weight.requires_grad, weight.is_leaf, weight.grad_fn is None,
                     isinstance(weight, torch.Tensor), isinstance(weight, nn.Parameter), torch.is_tensor(weight), weight.numel(),
                     len(weight), weight.stride(), weight.is_contiguous(), weight.ndim, weight.size(0), weight.dim(),
                     weight.is_inference(), weight.layout, weight.nelement(), weight.element_size(), weight.is_floating_point(),
                     weight.detach().tolist()])
        return layer(x)
    seen = []
    for net in both(lambda: Uses(told)):
        search_of(net).looked = True  # or a plain copy would tell as well
        net(noise(2, 12))
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                net(noise(2, 12))
    assert len(seen) == 6 and seen[:3] == seen[3:]


def test_a_checkpointed_part_has_fresh_weights_in_each_pass(kernels):
    """What the backward pass computes anew is not for the next pass, which has other scores."""
    class Parts(nn.Sequential):
        reentrant = False

        def forward(self, x):
            return checkpoint(self[2], self[1](self[0](x)), use_reentrant=self.reentrant)

    def search(net):
        found = []
        for step in range(3):
            found += trained(net, noise(7, 12, seed=step))
            for score in scores(net):
                score.data.copy_(1 / score.data)  # the ranking is turned over
        return found
    for Parts.reentrant in (False, True):
        by_both(lambda: Parts(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)), search)
    by_both(chain, lambda net: (checkpoint(net, noise(7, 12), use_reentrant=False).square().sum().backward(),
                                [score.grad for score in scores(net)])[1])
    by_both(chain, lambda net: (checkpoint(net, noise(7, 12).requires_grad_(), use_reentrant=True).square().sum().backward(),
                                [score.grad for score in scores(net)])[1])


def test_autocast_gives_its_own_type_of_what_is_computed_in_float32(kernels):
    dense, sparse = both(chain)
    with torch.autocast("cpu", torch.bfloat16):
        found = trained(sparse, noise(7, 12))
    exact = trained(dense, noise(7, 12))
    assert found[0].dtype is torch.bfloat16 and {part.dtype for part in found[1:]} == {torch.float32}
    for one, other in zip(found, exact, strict=True):
        assert float((one.float() - other).norm() / other.norm()) < 0.02
    for net in (dense, sparse):  # what autocast does not cast is refused
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="same dtype"):
            net(noise(7, 12).double())
    for net in both(lambda: chain().double()):
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="same dtype"):
            net(noise(7, 12))
        with torch.autocast("cpu", torch.bfloat16):
            assert net(noise(7, 12).double()).dtype is torch.float64


@pytest.mark.parametrize("wrong", [noise(7, 12).double(), torch.ones(7, 12, dtype=torch.int64), noise(7, 5)])
def test_what_is_no_input_is_refused_as_torch_refuses_it(wrong, kernels):
    told = []
    for net in both(chain):
        with pytest.raises(RuntimeError) as refused:
            net(wrong)
        told.append(str(refused.value))
        assert net(noise(7, 12)).shape == (7, 5)
    assert told[0] == told[1]


def test_copies_averages_and_plain_networks(kernels):
    def use(net):
        other, average = copy.deepcopy(net), torch.optim.swa_utils.AveragedModel(net)
        for score in scores(other):
            score.data.copy_(1 / score.data)
        average.update_parameters(other)
        found = [*trained(other, noise(7, 12)), *trained(net, noise(7, 12)), average(noise(7, 12))]
        plain = chain()
        extract(other).apply(plain)
        with torch.inference_mode():
            found += [net.eval()(noise(7, 12)), other.eval()(noise(7, 12)), plain(noise(7, 12))]
        return [*found, merge(net)(noise(7, 12)), detach(net)(noise(7, 12))]
    by_both(chain, use)


def test_a_copy_within_a_pass_is_in_no_pass(kernels):
    def use(net):
        copies = []
        handle = net[0].register_forward_hook(lambda module, inputs, output: copies.append(copy.deepcopy(net)))
        found = trained(net, noise(7, 12))
        handle.remove()
        for score in scores(copies[-1]):
            score.data.copy_(1 / score.data)
        copies[-1][0]._forward_hooks.clear()
        return [*found, *trained(copies[-1], noise(7, 12))]
    by_both(chain, use)


@pytest.mark.parametrize("method", ["edge_popup", "iterand", "averaged"])
def test_a_state_goes_from_one_to_the_other_and_back(method, kernels):
    dense, sparse = both(chain, search=SearchSettings(method, redraw_every=1))
    for one, other in ((dense, sparse), (sparse, dense)):
        for step in range(3):
            trained(one, noise(7, 12))
            for score in scores(one):
                score.data -= 0.1 * score.grad.sign()
            advance(one, (step + 1) / 9)
        other.load_state_dict(one.state_dict())
        assert_alike(trained(other, noise(7, 12)), trained(one, noise(7, 12)))


def test_without_data_and_in_another_type(kernels):
    for net in both(chain):
        with pytest.raises(UsageError, match="convert the network before"):
            copy.deepcopy(net).double()(noise(7, 12).double())
        lost = net.to("meta")
        lost(noise(7, 12).to("meta")).sum().backward()
        assert scores(lost)[0].grad.is_meta and not sparse_of(lost)
        with torch.device("meta"):
            built = chain()
        assert attach(built, **PLAIN, compute="sparse")(noise(7, 12).to("meta")).shape == (7, 5)


def test_a_weight_that_its_owner_reads_stays_dense(kernels):
    """torch's attention has a linear layer that nobody calls: its weight would be made for each pass."""
    net = attach(nn.MultiheadAttention(12, 2), **PLAIN, compute="sparse")
    assert sparse_of(net) == []
    assert sparse_of(attach(nn.TransformerEncoderLayer(12, 2, 16), **PLAIN, compute="sparse")) == [
        "linear1.weight", "linear2.weight"]
