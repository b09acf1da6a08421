"""A state_dict of an attached network is all of its search: what it was saved from and what it is loaded into go on alike."""

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
    with pytest.raises(RuntimeError, match="memory_locked"):
        attached("frozen", mask="exact").load_state_dict(state)


def test_a_refused_state_has_changed_nothing():
    net, state = attached("edge_popup", seed=2, mask="exact"), attached("edge_popup", mask="exact").state_dict()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match="another source"):
        net.load_state_dict(state)
    with pytest.raises(UsageError, match="another source"):
        nn.Sequential(net).load_state_dict({f"0.{name}": tensor for name, tensor in state.items()})
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())
