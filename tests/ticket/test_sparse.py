"""A ticket's sparse network: the same predictions from the kept edges alone, which layers stay dense, and what is refused."""

import copy
import io
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations

import models
from popup import TicketError, UsageError, attach, extract
from popup.ticket import SparseLinear, left_dense, load_sparse, sparse_layers
from popup.ticket.use import differing, sparse_faults
from tests.ticket.test_ticket import IMAGE, NETWORKS, images, searched

WIDE = (3, 32, 32)
VISION = {"vit": lambda: models.vit(IMAGE, 4, (24, 32)),
          "torchvision vit": lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 24, num_classes=4),
          "torchvision swin": lambda: torchvision.models.SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], num_classes=4),
          "encoder": lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(64, 2, 16, batch_first=True), nn.Flatten(),
                                           nn.Linear(192, 4))}
DENSE = {"mlp": 0, "small_conv": 4, "resnet18": 20, "attention": 2, "volume": 2,
         "vit": 1, "torchvision vit": 5, "torchvision swin": 9, "encoder": 4}


class Reshaping(nn.Module):
    """A forward that merges dimensions by view, as a linear layer's outputs allow."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(192, 6), nn.Linear(36, 4)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)).view(1, -1)).expand(len(x), 4)


class Own(nn.Linear):
    """A linear layer of somebody's own."""


class Listed(nn.Module):
    """A forward that goes by a list of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(192, 6), nn.Linear(6, 4)
        self.order = [self.first, nn.ReLU(), self.second]

    def forward(self, x):
        x = x.flatten(1)
        for module in self.order:
            x = module(x)
        return x


def build(name):
    return {**NETWORKS, **VISION}[name]()


def ticket_of(net, **options):
    """The ticket of the network's source at once: no search is needed for what is asked here."""
    return extract(attach(net, **{"er_p": 0.4, "k": 0.5, "seed": 3, **options}))


def both(ticket, make):
    """The ticket's dense and its sparse network."""
    return ticket.apply(make()).eval(), ticket.apply(make(), sparse=True).eval()


@pytest.mark.parametrize("name", DENSE)
def test_the_outputs_are_the_dense_networks(name):
    """Also where attention, or a fused kernel, reads the weight of a linear layer from outside."""
    ticket = ticket_of(build(name))
    dense, sparse = both(ticket, lambda: build(name))
    inputs = torch.randn(6, *WIDE) if name.startswith("torchvision") else images()
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            assert not differing(dense(inputs), sparse(inputs))
    dense_names = left_dense(sparse, ticket.specs)
    assert len(dense_names) == DENSE[name] and not set(dense_names) & set(sparse_layers(sparse))
    assert len(dense_names) + len(sparse_layers(sparse)) == len(ticket.layers)
    if name in ("torchvision swin", "encoder"):
        assert sum("reads it itself" in words for words in dense_names.values()) == (8 if "swin" in name else 2)
    assert not sparse_faults(ticket, sparse, inputs) and not any(part.requires_grad for part in sparse.parameters())


@pytest.mark.parametrize("options", [{}, {"method": "signed"}, {"method": "biprop"}, {"method": "iterand"}, {"bias": "search"},
                                     {"weights": "kaiming_normal", "scope": "global"}, {"er_p": 1.0, "k": 1.0},
                                     {"weights": "given"}], ids=str)
def test_a_sparse_layer_holds_the_weights_of_the_ticket_to_the_bit(options):
    ticket = extract(searched("mlp", **options))
    dense, sparse = both(ticket, NETWORKS["mlp"])
    state = ticket.state_dict()
    assert len(sparse_layers(sparse)) == 3
    for layer in ticket.layers:
        if layer.spec.weight is None:
            found = sparse_layers(sparse)[layer.spec.name]
            assert torch.equal(found.weight, state[layer.spec.name]) and len(found.values) == layer.kept
            assert {found.crow.dtype, found.col.dtype} == {torch.int32} and found.values.dtype is torch.float32
    assert not differing(dense(images()), sparse(images()))


@pytest.mark.parametrize("count", [1, 2, 32, 128, 256, 300])
def test_any_number_of_images(count):
    dense, sparse = both(ticket_of(NETWORKS["mlp"]()), NETWORKS["mlp"])
    assert not differing(dense(images(count)), sparse(images(count)))


def test_copies_pickles_and_state_dicts_are_the_network():
    ticket = ticket_of(NETWORKS["mlp"]())
    sparse = ticket.apply(NETWORKS["mlp"](), sparse=True)
    other = ticket.apply(NETWORKS["mlp"](), sparse=True)
    other[1].values.zero_()
    other.load_state_dict(sparse.state_dict())
    saved = io.BytesIO()
    torch.save(sparse, saved)
    saved.seek(0)
    for found in (copy.deepcopy(sparse), pickle.loads(pickle.dumps(sparse)), torch.load(saved, weights_only=False), other):
        assert torch.equal(found(images()), sparse(images()))
    assert list(sparse[1].state_dict()) == ["bias", "crow", "col", "values"]


@pytest.mark.parametrize("shape", [(192,), (5, 192), (0, 192), (2, 3, 192), (2, 0, 192), (2, 3, 5, 192)])
def test_inputs_of_any_shape_and_their_gradient(shape):
    dense, sparse = (net[1] for net in both(ticket_of(NETWORKS["mlp"]()), NETWORKS["mlp"]))
    x = torch.randn(shape, requires_grad=True)
    ours, theirs = sparse(x), dense(x)
    assert ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-5)
    found, wanted = (torch.autograd.grad(out.square().sum(), x)[0] for out in (ours, theirs))
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("x", [torch.ones(2, 96), torch.ones(2, 384), torch.ones(2, 192, dtype=torch.float64)])
def test_inputs_that_a_linear_layer_refuses_are_refused(x):
    sparse = ticket_of(NETWORKS["mlp"]()).apply(NETWORKS["mlp"](), sparse=True)
    with pytest.raises(RuntimeError, match=r"SparseLinear.*takes torch.float32 \[..., 192\]"):
        sparse[1](x)


def test_other_types_and_autocast():
    ticket = ticket_of(NETWORKS["mlp"]())
    dense, sparse = both(ticket, NETWORKS["mlp"])
    double = ticket.apply(NETWORKS["mlp"]().double(), sparse=True)
    assert double[1].values.dtype is torch.float64 and double[1].col.dtype is torch.int32
    assert torch.allclose(double(images().double()), dense.double()(images().double()), rtol=0, atol=1e-12)
    wanted = sparse(images())
    with torch.autocast("cpu", torch.bfloat16):
        found = sparse(images().bfloat16())
    assert found.dtype is torch.float32 and torch.allclose(found, sparse(images().bfloat16().float()), atol=1e-5)
    for count in (6, 40):
        found = copy.deepcopy(sparse).to(torch.bfloat16)(images(count).bfloat16())
        assert found.dtype is torch.bfloat16 and found.float()[:6].sub(wanted).abs().max() < 0.1 * wanted.abs().max()


def test_layers_without_an_edge():
    """A mask of one's own may leave a layer none."""
    masks = {"1.weight": torch.ones(16, 192, dtype=torch.bool), "3.weight": torch.zeros(8, 16, dtype=torch.bool),
             "5.weight": torch.ones(4, 8, dtype=torch.bool)}
    dense, sparse = both(ticket_of(NETWORKS["mlp"](), er_p=None, mask="given", masks=masks), NETWORKS["mlp"])
    assert not len(sparse[3].values)
    for count in (1, 6, 200):
        assert torch.equal(dense(images(count)), sparse(images(count)))


def test_a_forward_that_reshapes_by_view_gets_what_a_linear_layer_gives():
    dense, sparse = both(ticket_of(Reshaping()), Reshaping)
    assert torch.allclose(dense(images()), sparse(images()), atol=1e-5)
    chain = ticket_of(NETWORKS["mlp"]()).apply(NETWORKS["mlp"](), sparse=True)
    assert [chain[place].by_columns for place in (1, 3, 5)] == [True, True, False]
    assert chain(images()).is_contiguous() and not chain[1](torch.ones(6, 192)).is_contiguous()


def hooked(net):
    net[3].register_forward_hook(lambda module, inputs, out: out * 2)
    return net


def own_class(net):
    net[3] = Own(16, 8)
    return net


def own_forward(net):
    net[3].forward = lambda x: nn.functional.linear(x, net[3].weight) * 2
    return net


def marked(net):
    net[3].is_head = True
    return net


@pytest.mark.parametrize(("change", "words"), [
    (hooked, "hooks, or a forward of its own"), (own_class, "of Own, not of nn.Linear itself"),
    (own_forward, "hooks, or a forward of its own")])
def test_what_is_more_than_a_linear_layer_stays_dense(change, words):
    ticket = ticket_of(NETWORKS["mlp"]())
    dense, sparse = both(ticket, lambda: change(NETWORKS["mlp"]()))
    reasons = left_dense(sparse, ticket.specs)
    assert list(reasons) == ["3.weight"] and words in reasons["3.weight"] and len(sparse_layers(sparse)) == 2
    assert not differing(dense(images()), sparse(images()))


def test_a_layer_that_is_held_elsewhere_and_a_network_that_is_one_stay_dense():
    dense, sparse = both(ticket_of(Listed()), Listed)
    assert not sparse_layers(sparse) and torch.equal(dense(images()), sparse(images()))
    single = ticket_of(nn.Linear(4, 3))
    net = single.apply(nn.Linear(4, 3), sparse=True)
    assert type(net) is nn.Linear and torch.equal(net.weight, single.state_dict()["weight"])
    assert set(left_dense(sparse, ticket_of(Listed()).specs).values()) == {"something else holds it too"}


def test_a_parametrized_layer_is_refused_as_ever():
    net = NETWORKS["mlp"]()
    parametrizations.weight_norm(net[3])
    with pytest.raises(UsageError, match="already parametrized"):
        ticket_of(NETWORKS["mlp"]()).apply(net, sparse=True)


def test_marks_on_a_layer_and_its_mode_stay():
    sparse = ticket_of(NETWORKS["mlp"]()).apply(marked(NETWORKS["mlp"]()).eval(), sparse=True)
    assert sparse[3].is_head and not sparse[3].training and isinstance(sparse[3], SparseLinear)


def test_a_network_without_memory_gets_its_own():
    for name in ("mlp", "resnet18"):
        ticket = extract(searched(name))
        with torch.device("meta"):
            net = build(name)
        found, dense = ticket.apply(net, sparse=True).eval(), ticket.apply(build(name)).eval()
        assert not differing(dense(images()), found(images()))


def test_what_is_refused_changes_nothing():
    with torch.device("meta"):
        net = build("vit")
    with pytest.raises(UsageError, match="positions of VisionTransformer has no data"):
        ticket_of(build("vit")).apply(net, sparse=True)
    assert not sparse_layers(net) and all(part.is_meta for part in net.parameters())
    net, ticket = models.mlp(IMAGE, 4, (16, 9)), ticket_of(NETWORKS["mlp"]())
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(TicketError, match="another architecture"):
        ticket.apply(net, sparse=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def moved(layer):
    row = next(row for row in range(layer.out_features) if layer.crow[row + 1] > layer.crow[row])
    free = np.setdiff1d(np.arange(layer.in_features), layer.col[layer.crow[row]:layer.crow[row + 1]].numpy())
    layer.col[layer.crow[row]] = int(free[0])


def handed_over(layer):
    layer.crow[1] -= 1


def scaled(layer):
    layer.values[-1] *= 1.0001


@pytest.mark.parametrize(("spoil", "words"), [(moved, "other edges than the ticket keeps"), (handed_over, "other edges"),
                                              (scaled, "other weights than the ticket's")])
def test_another_edge_or_weight_is_seen(spoil, words):
    ticket = ticket_of(NETWORKS["mlp"]())
    sparse = ticket.apply(NETWORKS["mlp"](), sparse=True).eval()
    spoil(sparse[3])
    (fault,) = sparse_faults(ticket, sparse, images())
    assert fault.startswith("3.weight holds") and words in fault


def test_a_dense_layer_that_is_another_is_seen():
    ticket = extract(searched("small_conv"))
    sparse = ticket.apply(NETWORKS["small_conv"](), sparse=True).eval()
    name = next(iter(left_dense(sparse, ticket.specs)))
    sparse.get_parameter(name).view(-1)[0] += 1
    (fault,) = sparse_faults(ticket, sparse, images())
    assert fault.startswith(name)


@pytest.mark.parametrize("name", ["mlp", "resnet18", "vit"])
def test_its_state_dict_makes_a_plain_network_sparse(name):
    sparse = ticket_of(build(name)).apply(build(name), sparse=True).eval()
    state = safetensors.torch.load(safetensors.torch.save(sparse.state_dict()))
    assert torch.equal(load_sparse(build(name), state).eval()(images()), sparse(images()))
    if name != "vit":
        with torch.device("meta"):
            net = build(name)
        assert torch.equal(load_sparse(net, state).eval()(images()), sparse(images()))


def renamed(path):
    """The sparse layer under another name."""
    return lambda state: state.update({f"{path}.{part}": state.pop(f"3.{part}") for part in ("crow", "col", "values")})


BROKEN = {"a column beyond the last": lambda state: state["3.col"].fill_(16),
          "a column below 0": lambda state: state["3.col"].fill_(-1),
          "rows that end before they begin": lambda state: state["3.crow"].copy_(state["3.crow"].flip(0)),
          "another number of rows": lambda state: state.update({"3.crow": state["3.crow"][1:]}),
          "too few edges": lambda state: state["3.crow"][-1:].sub_(1),
          "fewer values": lambda state: state.update({"3.values": state["3.values"][1:]}),
          "no columns": lambda state: state.pop("3.col"), "no bias": lambda state: state.pop("3.bias"),
          "one more": lambda state: state.update(more=torch.ones(1)),
          "another module": renamed("2"), "no module": renamed("9"),
          "another bias": lambda state: state.update({"3.bias": torch.ones(9)}),
          "columns that are floats": lambda state: state.update({"3.col": state["3.col"].float()})}


@pytest.mark.parametrize("change", BROKEN)
def test_a_state_that_is_not_the_networks_is_one_line_and_changes_nothing(change):
    state = ticket_of(NETWORKS["mlp"]()).apply(NETWORKS["mlp"](), sparse=True).state_dict()
    BROKEN[change](state)
    net = NETWORKS["mlp"]()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(UsageError) as refused:
        load_sparse(net, state)
    assert "\n" not in str(refused.value)
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
