"""One forward pass selects once; outside a pass every look at a weight is fresh, after an exception too."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from popup import SearchSettings, UsageError, attach, merge, scores
from popup.search import network
from popup.search.methods import METHODS, Method
from popup.search.network import search_of


def two_layers(**options):
    return attach(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), **{"er_p": 0.6, "k": 0.5, **options})


def turn_over(net):
    """Scores whose ranking is the reverse of what it was."""
    for score in scores(net):
        score.data.copy_(1 / score.data)


@pytest.fixture
def selections(monkeypatch):
    """How often masks were selected, counted in a list."""
    count = []
    top = network.Search.top
    monkeypatch.setattr(network.Search, "top", lambda self, keys, k: count.append(1) or top(self, keys, k))
    return count


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_pass_selects_once_whatever_the_number_of_layers(selections, scope):
    net = two_layers(scope=scope)
    net(torch.ones(1, 6))
    selections.clear()  # of attach, which tries the method, and of the look before the first pass
    for passes in (1, 2, 3):
        net(torch.ones(1, 6))
        assert len(selections) == passes


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_outside_a_pass_a_weight_and_a_part_are_fresh(scope):
    net = two_layers(scope=scope)
    net(torch.ones(1, 6))
    before = [net[0].weight.clone(), net[2].weight.clone()]
    turn_over(net)
    expected = merge(net)
    for place in (0, 2):
        assert not torch.equal(net[place].weight, before[place // 2])
        assert torch.equal(net[place].weight, expected[place].weight)
    assert torch.equal(net[0](torch.ones(1, 6)), expected[0](torch.ones(1, 6)))


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_by_itself_is_the_tickets_and_asks_for_no_other_where_each_is_selected_by_itself(method, monkeypatch):
    net = attach(nn.Sequential(*(nn.Linear(6, 6) for _ in range(3))), er_p=0.6, k=0.5, method=method)
    turn_over(net)
    expected, asked, keys = merge(net), [], type(search_of(net).method).keys
    monkeypatch.setattr(type(search_of(net).method), "keys", lambda self, *unit: asked.append(len(unit[1])) or keys(self, *unit))
    for place, score in enumerate(scores(net)):
        assert torch.equal(net[place].weight, expected[place].weight)
        assert set(asked) == {len(score)}
        asked.clear()


class Fault(RuntimeError):
    """Raised inside a network on purpose."""


def fail(*_):
    raise Fault


@pytest.mark.parametrize("where", ["the module", "a hook of a part", "a later pre-hook", "a forward hook", "the input"])
def test_an_exception_inside_a_pass_leaves_no_stale_mask(where):
    net = two_layers()
    handle = {"the module": lambda: net.insert(1, Failing()),
              "a hook of a part": lambda: net[2].register_forward_hook(fail),
              "a later pre-hook": lambda: net.register_forward_pre_hook(fail),
              "a forward hook": lambda: net.register_forward_hook(fail, prepend=True), "the input": lambda: None}[where]()
    with pytest.raises((Fault, RuntimeError)):
        net(torch.ones(1, 5 if where == "the input" else 6))
    if where == "the module":
        del net[1]
    elif handle is not None:
        handle.remove()
    turn_over(net)
    expected = merge(net)
    assert torch.equal(net[0].weight, expected[0].weight)
    assert torch.equal(net(torch.ones(1, 6)), expected(torch.ones(1, 6)))


class Failing(nn.Module):
    def forward(self, x):
        raise Fault


def test_each_pass_sees_the_scores_as_they_are():
    net = two_layers()
    inputs = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        assert torch.equal(net(inputs), merge(net)(inputs))
        turn_over(net)
        with torch.no_grad():
            assert torch.equal(net(inputs), merge(net)(inputs))


def test_scores_may_change_between_forward_and_backward():
    """The gradient is that of the pass: the slope of the scores that were ranked is kept, or torch refuses it."""
    net = two_layers()
    loss = net(torch.ones(1, 6)).sum()
    with torch.no_grad():
        scores(net)[0].neg_()
    with pytest.raises(UsageError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_add_up_over_passes():
    net = two_layers()
    inputs = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    net(inputs).sum().backward()
    once = [score.grad.clone() for score in scores(net)]
    net(inputs).sum().backward()
    assert all(torch.equal(score.grad, 2 * first) for score, first in zip(scores(net), once, strict=True))


def test_checkpointing_recomputes_the_same_pass():
    inputs = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    net = two_layers()
    other = copy.deepcopy(net)
    net(inputs).sum().backward()
    whole = [score.grad for score in scores(net)]
    checkpoint(other, inputs, use_reentrant=False).sum().backward()
    assert all(torch.equal(score.grad, grad) for score, grad in zip(scores(other), whole, strict=True))


class Parts(nn.Sequential):
    """A network whose second half is computed anew in the backward pass, or not."""

    anew = False

    def forward(self, x):
        x = self[1](self[0](x))
        return checkpoint(self[2], x, use_reentrant=False) if self.anew else self[2](x)


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize("search", [SearchSettings(anneal="linear"), SearchSettings("gates"), SearchSettings("sampled"),
                                    SearchSettings("averaged"), SearchSettings("gem_miner"),
                                    SearchSettings("biprop", scope="global")])
def test_a_part_that_is_computed_anew_has_the_gates_of_its_forward_pass(search, evaluated):
    found = []
    for anew in (False, True):
        net = attach(Parts(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), er_p=0.6, k=0.5, search=search)
        net.anew = anew
        if METHODS[search.method].training_keys is not Method.training_keys:  # or training would be by the ticket
            turn_over(net)
        torch.manual_seed(0)
        inputs = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
        total = net(inputs).square().sum()
        if evaluated:  # with the ticket, which an averaged search trains by another selection
            with torch.no_grad():
                net.eval()(inputs)
            net.train()
        total.backward()
        found.append([score.grad for score in scores(net)])
    assert all(map(torch.equal, *found)) and found[0][1].count_nonzero()


def test_a_whole_network_that_is_computed_anew_must_not_have_been_another():
    """Reentrant checkpoints run the forward pass without gradients, which is done with the ticket."""
    inputs = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    net, other = two_layers(), two_layers()
    net(inputs).sum().backward()
    checkpoint(other, inputs, use_reentrant=True).sum().backward()
    assert all(torch.equal(one.grad, two.grad) for one, two in zip(scores(net), scores(other), strict=True))
    for search in (SearchSettings(anneal="linear"), SearchSettings("sampled"), SearchSettings("averaged")):
        with pytest.raises(UsageError, match="use_reentrant=False"):
            checkpoint(two_layers(search=search), inputs, use_reentrant=True).sum().backward()


def test_a_copy_selects_by_its_own_scores():
    net = two_layers()
    other = copy.deepcopy(net)
    turn_over(other)
    assert search_of(other) is not search_of(net)
    assert torch.equal(other(torch.ones(1, 6)), merge(other)(torch.ones(1, 6)))
    assert torch.equal(net(torch.ones(1, 6)), merge(net)(torch.ones(1, 6)))
    assert not torch.equal(net[0].weight, other[0].weight)


def test_autocast_and_inference_mode_keep_the_same_edges():
    net = two_layers()
    expected = [net[place].weight != 0 for place in (0, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.ones(1, 6)).sum().backward()
    assert scores(net)[0].grad.dtype is torch.float32
    with torch.inference_mode():
        assert torch.equal(net(torch.ones(1, 6)), merge(net)(torch.ones(1, 6)))
    assert all(torch.equal(net[place].weight != 0, mask) for place, mask in zip((0, 2), expected, strict=True))


def test_torch_compile_of_an_attached_network_searches_as_ever():
    found = []
    for compiled in (False, True):
        net = two_layers(er_p=0.6, k=0.5)
        run = torch.compile(net, backend="eager") if compiled else net
        for turn in range(3):
            torch.manual_seed(turn)
            run(torch.randn(3, 6)).square().sum().backward()
            for score in scores(net):
                score.data -= 0.1 * score.grad
        found.append([score.detach().clone() for score in scores(net)])
    assert all(map(torch.equal, *found))


def test_a_part_that_is_trained_by_itself_is_refused_where_training_is_not_by_the_ticket():
    """Outside a pass of the whole network a layer has the ticket, which `gates` would get no gradient from."""
    net = two_layers(method="gates")
    loss = net[2](net[:2](torch.ones(3, 6))).square().sum()
    with pytest.raises(UsageError, match=r"a part of the network.*method gates.*call the network"):
        loss.backward()
    assert torch.equal(net[0].weight, merge(net)[0].weight)  # to look at
    whole, parts = two_layers(), two_layers()
    whole(torch.ones(3, 6)).square().sum().backward()
    parts[2](parts[:2](torch.ones(3, 6))).square().sum().backward()
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(scores(whole), scores(parts), strict=True))


def test_a_network_in_float64_is_cast_by_no_autocast():
    net = attach(nn.Sequential(nn.Linear(6, 8)).double(), er_p=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.ones(2, 6).double()).dtype is torch.float64
