"""A state_dict of an attached network is all of its search: what it was saved from and what it is loaded into go on alike."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from popup import SearchSettings, UsageError, attach, extract, merge, scores
from popup.search.methods import METHODS
from popup.search.network import advance, search_of


def attached(method, seed=1, **options):
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    return attach(net, er_p=0.8, k=0.5, seed=seed, search=SearchSettings(method, redraw_every=2), **options)


def search_on(net, first, last):
    for step in range(first, last):
        torch.manual_seed(step)
        for score in scores(net):
            score.grad = None
        net.train()(torch.randn(5, 6)).square().sum().backward()
        for score in scores(net):
            score.data -= 0.05 * score.grad
        advance(net, (step + 1) / 12)


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_search_goes_on_as_if_it_had_not_been_saved(method):
    net, other = attached(method), attached(method)
    search_on(net, 0, 6)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(net.state_dict())))
    for _ in range(2):
        assert search_of(other).steps == search_of(net).steps and search_of(other).progress == search_of(net).progress
        assert torch.equal(merge(other).eval()(torch.ones(2, 6)), merge(net).eval()(torch.ones(2, 6)))
        for mine, theirs in zip(extract(other).layers, extract(net).layers, strict=True):
            assert np.array_equal(mine.selected, theirs.selected)
        search_on(net, 6, 12)
        search_on(other, 6, 12)


def test_scores_of_another_source_or_another_kind_of_method_are_refused():
    state = attached("averaged", mask="exact").state_dict()
    with pytest.raises(UsageError, match=r"0\.weight are of another source"):
        attached("averaged", seed=2, mask="exact").load_state_dict(state)
    with pytest.raises(UsageError, match="memory_locked"):
        attached("frozen", mask="exact").load_state_dict(state)


def test_a_refused_state_has_changed_nothing():
    net, state = attached("edge_popup", seed=2, mask="exact"), attached("edge_popup", mask="exact").state_dict()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match="another source"):
        net.load_state_dict(state)
    with pytest.raises(UsageError, match="another source"):
        nn.Sequential(net).load_state_dict({f"0.{name}": tensor for name, tensor in state.items()})
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())


def searched(method="edge_popup", steps=6):
    net = attached(method)
    search_on(net, 0, steps)
    return net


def only(state, *parts):
    return {name: tensor for name, tensor in state.items() if any(part in name for part in parts)}


def without(state, *parts):
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


def before(state, prefix, part=""):
    return {prefix * (part in name) + name: tensor for name, tensor in state.items()}


def mixed(state):
    return state | only(searched(steps=3).state_dict(), "3.parametrizations")


SCORES, OWN = (f"0.parametrizations.weight.{name}" for name in ("original", "0._extra_state"))


def said(state, **changes):
    """A layer's state that says something else."""
    found = json.loads(bytes(state.tolist())) | changes
    return torch.tensor(list(json.dumps({name: value for name, value in found.items() if value is not None}).encode()),
                        dtype=torch.uint8)


WRONG = {  # what becomes of a whole state_dict: what is said of it
    "one layer": (lambda s: without(s, "3.parametrizations"), r"no 3\.par\S+\.original, of 3\.weight, and 2 of .* 4"),
    "one layer renamed": (lambda s: before(s, "net.", "3.param"), r"no 3\.parametrizations\.weight\.original"),
    "scores alone": (lambda s: without(s, "_extra_state"), r"no 0\.parametrizations\.weight\.0\._extra_state, of 0\.weight"),
    "states without scores": (lambda s: without(s, ".original"), r"no 0\.parametrizations\.weight\.original, of 0\.weight"),
    "one without its scores": (lambda s: without(s, "3.parametrizations.weight.original"), r"of 3\.weight, and 3 of"),
    "all wrapped": (lambda s: before(s, "module."), r"has module\.0\.\S+, which here is 0\.\S+: take the wrapper's prefix"),
    "all renamed": (lambda s: before(s, "backbone."), r"has backbone\.0\.\S+, which is no entry of this search"),
    "compiled": (lambda s: before(s, "_orig_mod."), r"has _orig_mod\.0\.\S+, which here is 0\.\S+"),
    "statistics wrapped": (lambda s: before(only(s, "running"), "module."), r"module\.1\.running_mean, which here is 1\.running"),
    "plain weights": (lambda s: nn.Sequential(nn.Linear(6, 8)).state_dict(), r"weight 0\.weight, and 0\.weight is attached"),
    "plain weights beside states": (lambda s: s | {"3.weight": torch.ones(4, 8)}, r"weight 3\.weight, .* load it before"),
    "wrapped weights": (lambda s: {"module._orig_mod.3.weight": torch.ones(4, 8)}, r"_orig_mod\.3\.weight, and 3\.weight"),
    "of another method": (lambda s: searched("averaged").state_dict(), r"has 0\.\S+\.memory_\w+, which is no entry of this"),
    "of another method, without a memory": (lambda s: searched("signed").state_dict(),
                                            r"0\.weight are of a search by method 'signed', and this one is by edge_popup"),
    "scores of another length": (lambda s: s | {SCORES: s[SCORES][:-1]}, r"original \[\d+\], and here it is \[\d+\]"),
    "scores without data": (lambda s: s | {SCORES: s[SCORES].to("meta")}, r"original without data"),
    "zeros for a state": (lambda s: s | {OWN: torch.zeros_like(s[OWN])}, r"state of 0\.weight in the state_dict is none that"),
    "a state of floats": (lambda s: s | {OWN: s[OWN] + 0.5}, r"state of 0\.weight in the state_dict is none that"),
    "no progress": (lambda s: s | {OWN: said(s[OWN], progress=None)}, r"state of 0\.weight in the state_dict is none that"),
    "progress in words": (lambda s: s | {OWN: said(s[OWN], progress="x")}, r"state of 0\.weight in the state_dict is none that"),
    "steps below 0": (lambda s: s | {OWN: said(s[OWN], steps=-1)}, r"state of 0\.weight in the state_dict is none that"),
    "of two moments": (mixed, "layers after 3 and others after 6 steps"),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", WRONG)
def test_a_state_dict_has_the_states_of_all_layers_or_of_none_and_is_refused_while_nothing_is_changed(case, strict):
    change, words = WRONG[case]
    net, state = attached("edge_popup"), change(searched().state_dict())
    was = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match=words) as error:
        net.load_state_dict(state, strict=strict)
    assert "\n" not in str(error.value) and search_of(net).steps == 0
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in was.items())


def test_a_state_of_before_methods_were_noted_is_loaded():
    net, state = attached("edge_popup"), searched().state_dict()
    for key in (key for key in state if key.endswith("_extra_state")):
        state[key] = said(state[key], method=None)
    net.load_state_dict(state)
    assert search_of(net).steps == 6


def test_tied_layers_are_not_assigned():
    def tied():
        net = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 5))
        net[2].weight = net[0].weight
        return attach(net, er_p=0.5, k=0.5)
    net, state = tied(), tied().state_dict()
    with pytest.raises(UsageError, match=r"0\.weight and 2\.weight share their scores"):
        net.load_state_dict(state, assign=True)
    with pytest.raises(UsageError, match=r"load dict\(state\) without assign"):
        net.load_state_dict(state)  # torch has noted assign in the state's own metadata
    net.load_state_dict(dict(state))
    net(torch.randn(4, 5)).sum().backward()
    attached("edge_popup").load_state_dict(searched().state_dict(), assign=True)


@pytest.mark.parametrize("wrap", [False, True])
def test_statistics_alone_are_loaded_and_the_search_goes_on_where_it_was(wrap):
    net, whole = searched(), searched(steps=2).state_dict()
    scores_before = [score.clone() for score in scores(net)]
    target, statistics = (nn.Sequential(net), before(only(whole, "running"), "0.")) if wrap else (net, only(whole, "running"))
    target.load_state_dict(statistics, strict=False)
    assert torch.equal(net[1].running_mean, whole["1.running_mean"]) and search_of(net).steps == 6
    assert all(map(torch.equal, scores_before, scores(net)))


def test_a_part_that_is_called_module_is_no_wrapper():
    def build():
        return attach(nn.ModuleDict({"module": nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))}), er_p=0.8)
    net = build()
    net["module"][1].running_mean.fill_(2.0)
    other = build()
    other.load_state_dict(net.state_dict())
    other.load_state_dict(only(net.state_dict(), "running"), strict=False)
    assert (other["module"][1].running_mean == 2).all()
    with pytest.raises(UsageError, match=r"module\.0\.weight is attached"):
        other.load_state_dict({"module.0.weight": torch.ones(8, 6)}, strict=False)
