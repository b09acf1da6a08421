"""All or nothing: whatever ends an attach before its end leaves the network as it was."""

import importlib

import pytest
import torch
from torch import nn

from popup import UsageError, attach, detach, extract, merge, scores
from popup.search import plain, put_on
from popup.search.trial import trial

# the package shows the function by this name
attaching = importlib.import_module("popup.search.attach")


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 4))
    net(torch.randn(9, 6))  # statistics of its own
    net[0].register_forward_hook(lambda module, inputs, output: None)
    net[3].weight.requires_grad_(False)
    return net


def state(net):
    """All that can be seen of a network: values, what learns, the order of parameters, classes, hooks and attributes."""
    return ([(name, tensor.clone()) for name, tensor in net.state_dict().items()],
            [(name, id(parameter), parameter.requires_grad) for name, parameter in net.named_parameters()],
            [(type(module), list(module._parameters), list(module._modules), list(vars(module)), len(module._forward_hooks),
              len(module._forward_pre_hooks), len(module._load_state_dict_pre_hooks)) for module in net.modules()])


def assert_unchanged(net, before):
    now = state(net)
    assert now[1:] == before[1:] and [name for name, _ in now[0]] == [name for name, _ in before[0]]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(now[0], before[0], strict=True))


def at_the_second(usual, error):
    """`usual`, of which the second call ends in `error`."""
    calls = []

    def call(*given, **options):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return usual(*given, **options)

    return call


ENDS = {"scores": (put_on, "first_scores"), "layer": (put_on, "EdgeWeight"), "put on": (put_on, "ask_for_what_is_ready")}


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("where", ENDS)
@pytest.mark.parametrize("options", [{}, {"weights": "given"}, {"bias": "search"}])
def test_an_end_at_the_second_layer_changes_nothing(where, error, options, monkeypatch):
    net = network()
    before, (module, name) = state(net), ENDS[where]
    with monkeypatch.context() as changed:
        changed.setattr(attaching, "_try_method", lambda settings: None)  # which tries it on a layer of its own
        changed.setattr(module, name, at_the_second(getattr(module, name), error))
        with pytest.raises(error):
            attach(net, er_p=0.6, k=0.5, **options)
    assert_unchanged(net, before)
    assert_trains_as_a_new_one(net, options)


def assert_trains_as_a_new_one(net, options):
    found, x = [], torch.randn(7, 6)
    for one in (net, network()):
        attach(one, er_p=0.6, k=0.5, **options)
        one(x).square().sum().backward()
        found.append([score.grad for score in scores(one)] + list(extract(one).apply(network()).state_dict().values()))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("options", [{}, {"bias": "search"}])
@pytest.mark.parametrize("name", ["_restore_class", "users", "take_saving_back"])
def test_a_detach_that_ends_early_leaves_the_network_attached(name, options, monkeypatch):
    net, x = attach(network(), er_p=0.6, k=0.5, **options), torch.randn(7, 6)
    before = state(net)
    fails = at_the_second(getattr(plain, name), KeyboardInterrupt)
    if name == "take_saving_back":
        fails(net)  # it is called once
    with monkeypatch.context() as changed:
        changed.setattr(plain, name, fails)
        with pytest.raises(KeyboardInterrupt):
            detach(net)
    assert_unchanged(net, before)
    net.train()(x).square().sum().backward()
    output = net.eval()(x)
    assert torch.equal(detach(net)(x), output)


class Strange(nn.Sequential):
    """A network that cannot be attached, as something that attach does to it fails."""

    def __init__(self, how):
        super().__init__(*network())
        vars(self)["how"] = how
        if how == "statistics":
            self[1].reset_running_stats = self.fails
        elif how == "another class":
            self[3].__class__ = Named

    def fails(self):
        raise RuntimeError("strange")

    def __setattr__(self, name, value):
        if name == "popup_search" and self.how == "attribute":
            self.fails()
        super().__setattr__(name, value)


class Named(nn.Linear):
    """A class whose subclasses need a name."""

    def __init_subclass__(cls, name):
        pass


@pytest.mark.parametrize("how", ["statistics", "another class", "attribute"])
def test_a_network_on_which_something_fails_is_unchanged(how):
    net = Strange(how)
    before = state(net)
    with pytest.raises((RuntimeError, TypeError), match=r"strange|name"):
        attach(net, er_p=0.6, k=0.5)
    assert_unchanged(net, before)


class Itself(nn.Linear):
    """A layer of which each copy is itself, as of a frozen trunk that copies share."""

    def __deepcopy__(self, memo):
        return self


def test_a_copy_that_is_no_copy_is_left_alone():
    x = torch.randn(7, 6)
    net = attach(nn.Sequential(Itself(6, 5), nn.ReLU(), nn.Linear(5, 4)), er_p=0.6, k=0.5)
    with pytest.raises(UsageError, match=r"has the same \w*Itself that holds 0\.weight.*popup\.detach"):
        merge(net)
    net(x).square().sum().backward()  # looks at a copy first, where there is one
    wanted = extract(net).apply(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)))(x)
    assert torch.equal(net.eval()(x), wanted) and torch.equal(detach(net)(x), wanted)


def test_a_copy_that_is_no_copy_is_not_tried():
    class Odd(Itself):
        def forward(self, x):
            return super().forward(x)

    net = nn.Sequential(Odd(6, 5), nn.Embedding(4, 3), nn.Linear(5, 4))
    net[0].register_forward_hook(lambda module, inputs, output: None)
    before = state(net)
    with pytest.raises(UsageError):
        attach(net, er_p=0.6, k=0.5, skip="*")
    assert trial(net[0], ["weight"]) is None
    assert_unchanged(net, before)


def test_what_was_shared_stays_shared():
    """An interrupt behind the first of two modules that use one weight."""
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    net[2].weight = net[0].weight
    before, usual = state(net), net[0].weight.detach().clone()
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(attaching, "_try_method", lambda settings: None)
        changed.setattr(put_on, "ask_for_what_is_ready", at_the_second(put_on.ask_for_what_is_ready, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            attach(net, er_p=0.6, k=0.5)
    assert_unchanged(net, before)
    assert net[2].weight is net[0].weight and torch.equal(net[0].weight, usual)
