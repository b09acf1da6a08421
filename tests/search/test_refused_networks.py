"""What attach and its fellows refuse: in one line, and with nothing changed."""

from math import inf, nan

import pytest
import torch
from torch import nn

import popup
from popup import Recipe, UsageError, attach, densities, detach, extract, merge, scores
from popup.search import SearchSettings
from popup.search.network import is_attached, search_of
from tests.search.attached import plain, small


def snapshot(net):
    """All that a failing attach might have changed."""
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()
             if not isinstance(tensor, nn.parameter.UninitializedTensorMixin)}
    return (state, [(name, id(parameter), parameter.requires_grad) for name, parameter in net.named_parameters()],
            [type(module) for module in net.modules()], len(net._forward_hooks), len(net._forward_pre_hooks), set(vars(net)))


def assert_same(before, after):
    assert before[1:] == after[1:] and before[0].keys() == after[0].keys()
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())


def lazily():
    return nn.Sequential(nn.Linear(3, 3), nn.LazyBatchNorm1d())


def tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Embedding(3, 3))
    net[2].weight = net[0].weight
    nn.init.normal_(net[1].weight)
    return net


FAILING = {
    "tied": (tied, {"er_p": 0.5}, "2.weight is the same tensor as 0.weight, which alone"),
    "lazy norm": (lazily, {"er_p": 0.5}, "lazy"),
    "no weight": (lambda: nn.Sequential(nn.BatchNorm1d(3)), {"er_p": 0.5}, "no weight to mask"),
    "attached already": (small, {"er_p": 0.5}, "attached already"),
    "a part is attached": (lambda: nn.Sequential(small(), nn.Linear(5, 2)), {"er_p": 0.5}, "^0 is attached already, and its"),
    "no er_p": (plain, {}, "er_p is None"),
    "er_p and a mapping": (plain, {"er_p": 0.5, "density": {"0.weight": 1}}, "pass er_p with a density's name"),
    "er_p zero": (plain, {"er_p": 0}, "er_p is 0"), "er_p above 1": (plain, {"er_p": 1.5}, "er_p is 1.5"),
    "er_p nan": (plain, {"er_p": nan}, "er_p is nan"), "er_p a word": (plain, {"er_p": "a"}, "er_p is 'a'"),
    "er_p true": (plain, {"er_p": True}, "er_p is True"), "k zero": (plain, {"er_p": 1, "k": 0.0}, "k is 0.0"),
    "k above 1": (plain, {"er_p": 1, "k": 2}, "k is 2"), "density": (plain, {"er_p": 1, "density": "erg"}, "mean 'erk'"),
    "density given": (plain, {"er_p": 1, "density": "given"}, "mapping"),
    "mapping short": (plain, {"density": {"0.weight": 0.5}}, "no p_l for '3.weight'"),
    "mapping unknown": (plain, {"density": {"0.wight": 0.5}}, "mean '0.weight'"),
    "mask": (plain, {"er_p": 1, "mask": "x"}, "unknown mask"),
    "method": (plain, {"er_p": 1, "method": "popup"}, "edge_popup"),
    "no method": (plain, {"er_p": 1, "method": "built"}, "'built' marks tickets .* edge_popup"),
    "weights": (plain, {"er_p": 1, "weights": "normal"}, "kaiming_normal"),
    "scale": (plain, {"er_p": 1, "scale": "x"}, "scale"),
    "scope": (plain, {"er_p": 1, "scope": "globl"}, "mean 'global'"), "gain": (plain, {"er_p": 1, "gain": -1}, "gain is -1"),
    "gain too large": (plain, {"er_p": 1, "gain": 1e200}, "gain is 1e"),
    "seed": (plain, {"er_p": 1, "seed": -3}, "seed is -3"),
    "score scale": (plain, {"er_p": 1, "score_scale": inf}, "score_scale is inf"),
    "recipe a number": (plain, {"recipe": 0.5}, r"recipe is 0.5: pass popup.Recipe\(...\)"),
    "recipe and keywords": (plain, {"recipe": Recipe(), "k": 0.25}, "recipe is given beside keywords"),
    "recipe and er_p": (plain, {"recipe": Recipe(), "er_p": 0.2}, "recipe is given beside keywords"),
    "recipe without masks": (plain, {"recipe": Recipe(mask="given")}, "pass mask='given' with masks"),
    "recipe without densities": (plain, {"recipe": Recipe(density="given")}, "mapping"),
    "search a word": (plain, {"er_p": 1, "search": "signed"}, r"search is 'signed': pass popup.SearchSettings\(...\)"),
    "search and keywords": (plain, {"er_p": 1, "search": SearchSettings(), "scope": "global"}, "search is given beside keywords"),
    "no edge anywhere": (lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), {"er_p": 1e-9}, "no edge in any"),
}


@pytest.mark.filterwarnings("ignore:.*lazy:UserWarning", "ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("case", FAILING)
def test_a_failing_attach_says_why_in_one_line_and_changes_nothing(case):
    build, options, words = FAILING[case]
    net = build()
    before = snapshot(net)
    with pytest.raises(UsageError, match=words) as error:
        attach(net, **options)
    assert "\n" not in str(error.value)
    assert_same(before, snapshot(net))


@pytest.mark.parametrize("ask", [scores, densities, detach, merge, extract])
def test_a_network_that_is_not_attached_is_told_so(ask):
    with pytest.raises(UsageError, match=r"Sequential is not attached: call popup\.attach"):
        ask(plain())


def test_a_part_of_an_attached_network_is_not_itself_attached():
    with pytest.raises(UsageError, match="Conv2d is not attached"):
        scores(small()[0])


@pytest.mark.parametrize("call", [popup.merge, popup.detach, popup.extract, popup.scores, popup.densities, popup.summary,
                                  popup.penalty, lambda net: popup.attach(net, er_p=0.5), lambda net: popup.advance(net, 0.5),
                                  lambda net: popup.order_scores(net, [])])
@pytest.mark.parametrize("net", [None, "resnet18", {}])
def test_what_is_no_network_is_refused_in_a_line(call, net):
    with pytest.raises(UsageError, match=f"net is a {type(net).__name__}: pass the network itself"):
        call(net)


@pytest.mark.parametrize("field", ["method", "scope", "score_scale"])
def test_settings_refuse_what_they_do_not_know(field):
    with pytest.raises(UsageError, match=field):
        SearchSettings(**{field: "unknown"})


def test_a_replica_of_a_layer_is_told_what_to_use():
    search = search_of(small())
    with pytest.raises(UsageError, match=r"^0\.weight is of a replica \(nn\.DataParallel\?\)"):
        search.gate(search.layers[0]._replicate_for_data_parallel())


def wrappers():
    net = plain()
    yield nn.DataParallel(net)
    yield torch.compile(net, backend="eager")


def test_a_wrapper_is_refused():
    """It has the names `module.` or `_orig_mod.`, and DistributedDataParallel sums the gradients of parameters that are there."""
    for net in wrappers():
        with pytest.raises(UsageError, match=f"{type(net).__name__} wraps a network.*attach the network itself, then wrap it"):
            attach(net, er_p=0.5)


@pytest.mark.parametrize(("options", "why"), [
    ({"density": {}}, "the density mapping has no p_l for '0.weight'"),
    ({"mask": "given", "masks": [1, 2]}, "masks are a list: pass a mapping"),
    ({"mask": "given", "masks": {"0.weight": None, "1.weight": None}}, r"the mask of 0\.weight is")])
def test_densities_and_masks_that_are_none_are_one_line(options, why):
    with pytest.raises(UsageError, match=why):
        attach(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), **options)


def test_a_layer_whose_name_no_ticket_can_hold_is_refused_before_the_search():
    net = nn.ModuleDict({"fine": nn.Linear(4, 3), "an\x1b[31morder": nn.Linear(3, 2)})
    with pytest.raises(UsageError, match=r"'an\\x1b\[31morder\.weight', and names"):
        attach(net, er_p=0.5)
    assert not is_attached(net) and is_attached(attach(net, er_p=0.5, skip=["an*"]))
