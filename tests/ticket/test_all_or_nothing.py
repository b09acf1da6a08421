"""apply, release and load_sparse do the whole of it or nothing: what is refused leaves a network as it was, so that a second,
right call makes of it what it makes of a fresh one."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from popup import UsageError, attach, extract
from popup.ticket import left_dense, load_sparse, release

KINDS = ({}, {"sparse": True}, {"trainable": True})


class Final(nn.Linear):
    """A class that allows no further one."""

    def __init_subclass__(cls):
        raise TypeError("Final\nis final")


class Guarded(nn.Linear):
    """A class whose weight can be given once."""

    def __setattr__(self, name, value):
        if name == "weight" and self.__dict__.get("closed"):
            raise AttributeError("the weight is fixed")
        super().__setattr__(name, value)


class Sealed(nn.Linear):
    """A class of which nothing can be taken off."""

    def __delattr__(self, name):
        raise RuntimeError("nothing of Sealed goes")


class Offset(nn.Module):
    """A buffer that no state_dict holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.zeros(1), persistent=False)

    def forward(self, x):
        return x + self.offset


def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def ticket():
    return extract(attach(make(), er_p=0.5, k=0.5))


def seen(net):
    """All of a network that a call may change."""
    tensors = {name: (id(tensor), tensor.requires_grad, tensor.detach().clone().to_dense())
               for name, tensor in (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False))}
    return tensors, [(name, id(module), type(module), {key: value for key, value in vars(module).items() if key[0] != "_"})
                     for name, module in net.named_modules()]


def same(one, other):
    """Whether nothing has changed, the order included."""
    (tensors, modules), (others, theirs) = one, other
    return modules == theirs and list(tensors) == list(others) and all(
        tensors[name][:2] == others[name][:2] and (tensors[name][2].is_meta or torch.equal(tensors[name][2], others[name][2]))
        for name in tensors)


def equal(one, other):
    """Whether two networks hold the same, bit for bit, in modules of the same names."""
    (mine, theirs) = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine) and [
        (name, parameter.requires_grad) for name, parameter in one.named_parameters()] == [
        (name, parameter.requires_grad) for name, parameter in other.named_parameters()] and [
        type(module).__name__ for module in one.modules()] == [type(module).__name__ for module in other.modules()]


def expanded_buffer(net):
    net[1].running_mean = torch.zeros(1).expand(6)


def expanded_bias(net):
    net[3].bias = nn.Parameter(torch.zeros(1).expand(3))


def overlapping_weight(net):
    net[3].weight = nn.Parameter(torch.zeros(9).as_strided((3, 6), (1, 1)))


def bias_in_a_graph(net):
    net[3].bias.requires_grad_(False)
    net[3].bias.mul_(torch.ones(3, requires_grad=True))


def sparse_buffer(net):
    net[1].running_var = torch.ones(6).to_sparse()


def one_memory_for_two(net):
    net[1].running_var = net[1].running_mean


def lazy(net):
    net[1] = nn.LazyBatchNorm1d()


REFUSED = {expanded_buffer: "1.running_mean", expanded_bias: "3.bias", bias_in_a_graph: "3.bias",
           sparse_buffer: "1.running_var", one_memory_for_two: "1.running_mean", lazy: "1.weight"}


def names_it(error, name):
    return re.match(rf"'?{re.escape(name)}\b", str(error.value)) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("change", REFUSED)
def test_a_network_that_cannot_be_written_to_is_refused_by_name_and_stays(change, kind, ticket):
    net, right = make(), make()
    change(net)
    before = seen(net) if change is not lazy else None
    with pytest.raises(UsageError) as refused:
        ticket.apply(net, **kind)
    assert names_it(refused, REFUSED[change])
    assert before is None or same(before, seen(net))
    for place in (1, 3):  # as the remedy has it
        net[place] = right[place]
    assert equal(ticket.apply(net, **kind), ticket.apply(make(), **kind))


@pytest.mark.parametrize("kind", ({}, {"trainable": True}), ids=str)
def test_a_weight_whose_entries_overlap_is_refused(kind, ticket):
    net = make()
    overlapping_weight(net)
    before = seen(net)
    with pytest.raises(UsageError) as refused:
        ticket.apply(net, **kind)
    assert names_it(refused, "3.weight") and same(before, seen(net))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_what_torch_jit_made_is_refused(ticket):
    net = torch.jit.trace(make().eval(), torch.ones(2, 8))
    with pytest.raises(UsageError, match="the one that it was made of"):
        ticket.apply(net)


@pytest.mark.parametrize("place", [1, 3])
def test_what_was_made_in_inference_mode_learns_nothing_and_is_refused(place, ticket):
    net = make()
    with torch.inference_mode():
        net[place] = make()[place]
    before = seen(net)
    with pytest.raises(UsageError) as refused:
        ticket.apply(net, trainable=True)
    assert names_it(refused, f"{place}.weight") and same(before, seen(net))
    assert equal(ticket.apply(net), ticket.apply(make())), "what is frozen may be of inference mode"
    net = make()
    before = seen(net)
    with torch.inference_mode(), pytest.raises(UsageError, match="inference mode is on"):
        ticket.apply(net, trainable=True)
    assert same(before, seen(net)) and equal(ticket.apply(net, trainable=True), ticket.apply(make(), trainable=True))


@pytest.mark.parametrize("kind", [Final, Sealed])
@pytest.mark.parametrize("meta", [False, True])
def test_a_class_that_cannot_hold_zeros_is_undone(kind, meta, ticket):
    """No check finds these: torch is at work on the second layer then."""
    net = make()
    net[3] = kind(6, 3)
    net = net.to("meta") if meta else net
    before = seen(net)
    with pytest.raises(UsageError) as refused:
        ticket.apply(net, trainable=True)
    assert names_it(refused, "3.weight") and kind.__name__ in str(refused.value) and same(before, seen(net))
    net[3] = make()[3].to("meta" if meta else "cpu")
    assert equal(ticket.apply(net, trainable=True), ticket.apply(make(), trainable=True))


def test_a_release_that_fails_on_the_way_is_undone(ticket):
    net = make()
    net[3] = Guarded(6, 3)
    ticket.apply(net, trainable=True)
    net[3].closed = True
    before = seen(net)
    with pytest.raises(AttributeError, match="the weight is fixed"):
        release(net)
    assert same(before, seen(net)) and parametrize.is_parametrized(net[0]) and parametrize.is_parametrized(net[3])
    net[3].closed = False
    names = [name for name, _ in make().named_parameters()]
    assert [name for name, _ in release(net).named_parameters()] == names and type(net[3]) is Guarded


def test_whatever_else_raises_is_undone(ticket, monkeypatch):
    for kind in KINDS:
        for failing in ("popup.ticket.ticket.write_all", "popup.ticket.ticket.put_in", "popup.ticket.ticket.hold_zeros"):
            if "hold" in failing and not kind.get("trainable"):
                continue
            net = make()
            before = seen(net)
            with monkeypatch.context() as patch, pytest.raises(MemoryError):
                patch.setattr(failing, lambda *_: (_ for _ in ()).throw(MemoryError()))
                ticket.apply(net, **kind)
            assert same(before, seen(net)) and equal(ticket.apply(net, **kind), ticket.apply(make(), **kind))


def test_two_layers_in_one_memory_are_refused_unless_they_hold_the_same():
    class Pair(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            if tied is not None:
                self.b.weight = self.a.weight if tied else nn.Parameter(self.a.weight.data.t())

        def forward(self, x):
            return self.b(self.a(x))

    two, one = (extract(attach(Pair(tied), er_p=0.5, k=0.5)) for tied in (None, True))
    for tied in (True, False):
        net = Pair(tied)
        before = seen(net)
        with pytest.raises(UsageError) as refused:
            two.apply(net)
        assert names_it(refused, "a.weight") and "b.weight" in str(refused.value) and same(before, seen(net))
    net = one.apply(Pair(True))
    assert net.a.weight is net.b.weight and torch.equal(net.a.weight, one.state_dict()["b.weight"])
    assert torch.equal(one.apply(Pair(None)).b.weight, net.a.weight), "a network that holds it twice may be the ticket"


@pytest.mark.parametrize("places", [(3,), (0, 3)])
def test_release_takes_a_bias_that_is_no_parameter_any_more(places, ticket):
    net = ticket.apply(make(), trainable=True)
    for module in (net[place] for place in places):
        del module.bias
        module.register_buffer("bias", torch.ones(len(module.weight)))
        module.register_parameter("extra", nn.Parameter(torch.ones(1)))
    release(net)
    assert type(net[0]) is type(net[3]) is nn.Linear and list(net[3]._parameters) == ["weight", "extra"]
    assert torch.equal(net[3].weight, ticket.state_dict()["3.weight"]) and "bias" in net[3]._buffers


def test_a_linear_layer_that_holds_more_loses_none_of_it(ticket):
    def more():
        net = make()
        del net[3].bias
        net[3].register_buffer("bias", torch.ones(3))
        return net

    sparse, x = ticket.apply(more(), sparse=True).eval(), torch.randn(5, 8)
    assert torch.equal(sparse(x), ticket.apply(more()).eval()(x)) and list(left_dense(sparse, ticket.specs)) == ["3.weight"]
    state, net = ticket.apply(make(), sparse=True).state_dict(), more()
    before = seen(net)
    with pytest.raises(UsageError, match="another network's state"):
        load_sparse(net, state)
    assert same(before, seen(net))


SPOILT = {"3.bias": {"on meta": lambda tensor: tensor.to("meta"), "sparse": torch.Tensor.to_sparse,
                     "complex": lambda tensor: tensor.to(torch.complex64), "no tensor": lambda tensor: "words"},
          "1.num_batches_tracked": {"float": torch.Tensor.float},
          "3.crow": {"on meta": lambda tensor: tensor.to("meta"), "sparse": torch.Tensor.to_sparse, "no tensor": str},
          "3.values": {"on meta": lambda tensor: tensor.to("meta"), "sparse": torch.Tensor.to_sparse, "no tensor": str}}


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, ways in SPOILT.items() for way in ways])
@pytest.mark.parametrize("meta", [False, True])
def test_a_state_that_cannot_be_read_changes_nothing(name, way, meta, ticket):
    state = ticket.apply(make(), sparse=True).state_dict()
    net = make().to("meta" if meta else "cpu")
    before = seen(net)
    with pytest.raises(UsageError) as refused:
        load_sparse(net, {**state, name: SPOILT[name][way](state[name])})
    assert names_it(refused, name) and same(before, seen(net))
    assert equal(load_sparse(net, state), load_sparse(make(), state))


@pytest.mark.parametrize("change", REFUSED)
def test_a_network_that_no_state_can_be_loaded_into_stays(change, ticket):
    state = ticket.apply(make(), sparse=True).state_dict()
    net, right = make(), make()
    change(net)
    before = seen(net) if change is not lazy else None
    with pytest.raises(UsageError) as refused:
        load_sparse(net, state)
    assert names_it(refused, REFUSED[change]) and (before is None or same(before, seen(net)))
    for place in (1, 3):
        net[place] = right[place]
    assert equal(load_sparse(net, state), load_sparse(make(), state))


def test_a_buffer_without_memory_that_no_state_holds_is_refused():
    ticket = extract(attach(nn.Sequential(nn.Linear(8, 6), Offset()), er_p=0.5, k=0.5))
    state = ticket.apply(nn.Sequential(nn.Linear(8, 6), Offset()), sparse=True).state_dict()
    net = nn.Sequential(nn.Linear(8, 6), Offset()).to("meta")
    before = seen(net)
    for call in (lambda: load_sparse(net, state), lambda: ticket.apply(net), lambda: ticket.apply(net, trainable=True)):
        with pytest.raises(UsageError) as refused:
            call()
        assert names_it(refused, "1.offset") and same(before, seen(net))
