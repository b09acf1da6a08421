"""Layers that compute on their edges alone: what they compute is what dense ones do, whatever is done with them, and no dense
weight is made."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import models
from popup import SearchSettings, UsageError, advance, attach, detach, extract, merge, scores
from popup.search.contract import gate_faults
from popup.search.methods import METHODS
from popup.search.network import search_of
from popup.search.sparse_weight import SparseWeight
from popup.source import edges
from tests.laws import CLASSES, IMAGE, assert_laws, gates_used, law_count
from tests.search.computed import (
    PLAIN,
    Pair,
    alike,
    assert_alike,
    both,
    by_both,
    chain,
    convolutions,
    exactly,
    noise,
    sparse_of,
    trained,
)

BUILT = {"pair": (Pair, (7, 12)), "chain": (chain, (7, 12)), "convolutions": (convolutions, (4, 3, 9, 9))}


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BUILT)
def test_every_method_computes_what_it_computes_densely(name, method, scope, kernels):
    """In training and evaluation, while k falls and weights are drawn anew; the scores are set alike after each step, since
    noise can make another edge the better one."""
    build, shape = BUILT[name]
    settings = SearchSettings(method, scope, anneal="linear", redraw_every=2)
    dense, sparse = both(build, search=settings)
    assert not sparse_of(dense) and len(sparse_of(sparse)) == {"pair": 2, "chain": 3, "convolutions": 1 + 3 * (
        kernels == "numba")}[name]
    for step in range(4):
        inputs, found = noise(*shape, seed=step), []
        for net in (dense, sparse):
            torch.manual_seed(step)
            found.append(trained(net.train(), inputs))
        assert_alike(found[1], found[0])
        for one, other in zip(scores(dense), scores(sparse), strict=True):
            one.data -= 0.1 * one.grad / (1e-9 + one.grad.abs().max())
            other.data.copy_(one.data)
        for net in (dense, sparse):
            advance(net, (step + 1) / 5)
        with torch.no_grad():
            assert_alike([sparse.eval()(inputs)], [dense.eval()(inputs)])
    assert [layer.codes.tolist() for layer in extract(sparse).layers] == [
        layer.codes.tolist() for layer in extract(dense).layers]


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("method", METHODS)
def test_in_float64_it_is_the_product_with_a_masked_weight(name, method, kernels):
    """Against a plain network whose weights are laid out by hand: each edge's own weight times what its gate says."""
    build, shape = BUILT[name]
    net = attach(build().double(), **PLAIN, method=method, compute="sparse")
    inputs = noise(*shape).double().requires_grad_()
    output, gates = gates_used(net, lambda: net(inputs))
    assert gate_faults(search_of(net), gates) == {}
    plain = copy.deepcopy(net)
    detach(plain)
    weights = []
    for layer, gate in zip(search_of(net).layers, gates, strict=True):
        edge_weights = layer.book.values(layer, gate.codes).double() * gate.factor
        weight = torch.zeros(layer.spec.entries, dtype=torch.float64)
        weight[layer.flat_edges()] = edge_weights.float().double()
        parameter = plain.get_parameter(layer.spec.name)
        parameter.requires_grad_().data.copy_(weight.view(layer.spec.shape))
        weights.append(parameter)
    again = inputs.detach().clone().requires_grad_()
    expected = plain(again)
    output.square().sum().backward()
    expected.square().sum().backward()
    assert output.dtype is torch.float64
    assert_alike([output, inputs.grad], [expected, again.grad], exactly)
    for layer, gate, score, weight in zip(search_of(net).layers, gates, scores(net), weights, strict=True):
        method, dense = search_of(net).method, weight.grad.flatten()[layer.flat_edges()].float()
        own = layer.own if method.scores_an_edge > 1 else method.weights(layer)  # a draw [each, edges] for each score, or one
        assert alike(score.grad, (dense * own).flatten() * method.slope(layer, score.detach(), gate))


class Encoder(nn.Module):
    """A network around a block of torch's that reads weights itself."""

    def __init__(self, block):
        super().__init__()
        self.block, self.last = block, nn.Linear(96, CLASSES)

    def forward(self, x):
        x = x.reshape(len(x), 32, 96)
        attends = isinstance(self.block, nn.MultiheadAttention)
        x = self.block(x, x, x, need_weights=False)[0] if attends else self.block(x)
        return self.last(x.mean(1))


LAWFUL = {
    "linear chain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(),
                                          nn.Linear(30, CLASSES)),
    "small_conv": lambda: models.MODELS["small_conv"](IMAGE, CLASSES, width=1 / 8),
    "vit": lambda: models.MODELS["vit"](IMAGE, CLASSES, width=1 / 32),
    "encoder": lambda: Encoder(nn.TransformerEncoderLayer(96, 2, 40, dropout=0.0, batch_first=True)),
    "attention": lambda: Encoder(nn.MultiheadAttention(96, 2, batch_first=True))}


@pytest.mark.parametrize("method", ["edge_popup", "signed", "iterand", "gates"])
@pytest.mark.parametrize("name", LAWFUL)
def test_the_laws_hold(name, method, kernels):
    net = attach(LAWFUL[name](), er_p=0.3, k=0.4, density="erk", method=method, compute="sparse")
    assert sparse_of(net)
    assert_laws(net, 2, alike)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_law_2_and_3_of_the_product_itself(scope, kernels):
    """The identity as input gives the weight that the product has: selected edges, exactly so many, 0 elsewhere."""
    net = attach(nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 25)), er_p=0.3, k=0.41, scope=scope, compute="sparse")
    given = []
    for place, size in ((0, 30), (1, 20)):
        net[place].register_forward_pre_hook(lambda module, inputs, size=size: (torch.eye(size),))
        net[place].register_forward_hook(lambda module, inputs, output: given.append(output.detach().t()))
    for learning in (True, False):
        given.clear()
        with torch.set_grad_enabled(learning):
            net(torch.ones(1, 30))
        for found, layer, mask in zip(given[-2:], search_of(net).layers, search_of(net).select(), strict=True):
            weight = torch.zeros(layer.spec.entries)
            weight[layer.flat_edges()[mask]] = layer.values[mask]
            assert torch.equal(found.flatten(), weight)
        counts = [int(found.count_nonzero()) for found in given[-2:]]
        wanted = [law_count(0.41, layer.count) for layer in search_of(net).layers]
        assert sum(counts) == sum(wanted) and (scope == "global" or counts == wanted)


@pytest.mark.parametrize("shape", [(12,), (1, 12), (0, 12), (2, 3, 12), (2, 0, 12), (0, 3, 12), (2, 2, 2, 12)])
@pytest.mark.parametrize("build", [Pair, chain])
def test_inputs_of_any_number_of_dimensions(build, shape, kernels):
    by_both(build, lambda net: trained(net, noise(*shape)))


def test_a_filter_of_more_taps_than_16_bits_tell_apart_computes_densely():
    x = noise(1, 1, 1, 65_600)
    for sparse, taps in ((["0.weight"], 65_536), ([], 65_537)):
        dense, net = both(lambda taps=taps: nn.Sequential(nn.Conv2d(1, 2, (1, taps))), er_p=0.01)
        assert sparse_of(net) == sparse
        alike(net(x), dense(x))


def test_an_image_by_itself_is_convolved():
    pytest.importorskip("numba")
    by_both(lambda: nn.Sequential(nn.Conv2d(3, 4, 5)), lambda net: trained(net, noise(3, 9, 9)))


class Uses(Pair):
    """A network that uses its first weight by one of the ways below as well."""

    def __init__(self, use):
        super().__init__()
        self.use = use

    def forward(self, x):
        return self.second(self.use(self.first, x))


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
