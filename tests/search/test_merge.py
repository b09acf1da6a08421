"""detach, merge and copies: plain networks of the same outputs, and originals that go on."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from popup import UsageError, attach, densities, detach, extract, merge, scores
from popup.search.network import is_attached, search_of
from popup.search.search import Search
from popup.source.layers import find_layers
from tests.search.attached import images, plain, small, train


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_detach_gives_a_plain_network_of_the_same_outputs(scope, weights):
    net = train(small(scope=scope, weights=weights))
    net.eval()
    expected, rows = net(images()), densities(net)
    assert detach(net) is net
    assert torch.equal(net(images()), expected)
    assert [type(module) for module in net.modules()] == [type(module) for module in plain().modules()]
    assert net.state_dict().keys() == plain().state_dict().keys()
    assert not any(parametrize.is_parametrized(module) for module in net.modules())
    assert not net._forward_hooks and not net._forward_pre_hooks and not net._forward_hooks_always_called
    assert set(vars(net)) == set(vars(plain()))
    assert not any(parameter.requires_grad for parameter in net.parameters())
    kept = [int(net.get_parameter(layer.name).count_nonzero()) for layer in find_layers(net)]
    assert kept == [row.kept for row in rows]
    torch.save(net, io.BytesIO())


def test_merge_leaves_the_original_working_and_apart():
    net = train(small())
    net.eval()
    expected, before = net(images()), [score.detach().clone() for score in scores(net)]
    merged = merge(net)
    assert torch.equal(merged(images()), expected)
    for parameter in merged.parameters():
        parameter.data.zero_()
    assert torch.equal(net(images()), expected)
    net.train()
    train(net)
    assert not any(map(torch.equal, before, scores(net)))
    net.eval()
    assert torch.equal(merge(net)(images()), net(images()))
    detach(net)


@pytest.mark.parametrize("first", ["copy", "original"])
def test_a_deep_copy_lives_on_when_the_other_is_detached(first):
    net = train(small())
    other = copy.deepcopy(net)
    assert all(a is not b and torch.equal(a, b) for a, b in zip(scores(net), scores(other), strict=True))
    train(other, 3)
    detached, kept = (other, net) if first == "copy" else (net, other)
    kept.eval()
    expected = kept(images())
    detach(detached)
    assert torch.equal(kept(images()), expected)
    kept.train()
    before = [score.detach().clone() for score in scores(kept)]
    train(kept)
    assert not any(map(torch.equal, before, scores(kept)))
    assert torch.equal(kept[0].weight != 0, merge(kept)[0].weight != 0)


def test_training_a_copy_is_training_the_original():
    net = small()
    other = copy.deepcopy(net)
    train(net, 3), train(other, 3)
    assert all(map(torch.equal, scores(net), scores(other)))
    assert all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))


def test_attach_detach_attach_is_attach():
    net = train(small(seed=1))
    attach(detach(net), er_p=0.5, k=0.5, seed=2)
    fresh = small(seed=2)
    assert torch.equal(net(images()), fresh(images()))
    train(net), train(fresh)
    assert all(map(torch.equal, scores(net), scores(fresh)))


def test_a_state_dict_of_scores_and_statistics_restores_a_search():
    net = train(small())
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = small()
    other.load_state_dict(torch.load(file))
    assert torch.equal(other.eval()(images()), net.eval()(images()))
    assert not any(name.endswith(("gaps", "values")) for name in net.state_dict()), "the source is drawn again by its seed"


def test_a_whole_attached_network_cannot_be_pickled_and_torch_says_what_can():
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        torch.save(small(), io.BytesIO())


def test_a_network_that_keeps_an_activation_can_be_merged():
    class Keeping(nn.Sequential):
        def forward(self, inputs):
            self.features = torch.relu(self[0](inputs))
            return self[1](self.features)

    net = attach(Keeping(nn.Linear(4, 8), nn.Linear(8, 2)), er_p=0.7)
    found = net(torch.ones(3, 4))
    assert torch.equal(merge(net)(torch.ones(3, 4)), found) and net.features.grad_fn is not None


def test_what_was_parametrized_after_attach_is_not_lost_by_detach():
    net = small()
    parametrize.register_parametrization(net[6], "bias", nn.Identity())
    with pytest.raises(UsageError, match=r"^6\.bias has been parametrized since attach: remove that parametrization first$"):
        detach(net)
    assert net(images()).shape == (4, 5) and len(scores(net)) == 3
    parametrize.remove_parametrizations(net[6], "bias")
    detach(net)
    assert type(net[6]) is nn.Linear and not parametrize.is_parametrized(net[6])


@pytest.mark.parametrize("change", ["replace", "plain"])
def test_a_layer_that_is_no_longer_attached_is_told_of(change):
    net = attach(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), er_p=0.5)
    if change == "replace":
        net[1] = nn.Linear(8, 3)
    else:
        torch.nn.utils.parametrize.remove_parametrizations(net[1], "weight")
    for use in (scores, merge, densities, extract):
        with pytest.raises(UsageError, match=r"1\.weight is no longer what attach made of it"):
            use(net)


@pytest.mark.parametrize("bias", ["zero", "search"])
def test_a_merged_network_has_its_parameters_in_their_order(bias):
    """Flat vectors of parameters and optimisers' states by number go by it."""
    def build():
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.MultiheadAttention(8, 2), nn.Linear(8, 4))

    expected = [name for name, _ in build().named_parameters()]
    net = attach(build(), er_p=0.5, bias=bias)
    assert [name for name, _ in merge(net).named_parameters()] == expected
    assert [name for name, _ in detach(net).named_parameters()] == expected


def test_an_average_of_networks_with_their_buffers_has_the_same_source():
    """torch averages buffers of integers by rounding down, which moved edges."""
    net = attach(nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10)), er_p=0.05, weights="kaiming_normal")
    averaged = AveragedModel(net, use_buffers=True, avg_fn=lambda mean, new, _: 0.9999 * mean + (1 - 0.9999) * new)
    for _ in range(5):
        averaged.update_parameters(net)
    for mine, theirs in zip(search_of(net).layers, search_of(averaged.module).layers, strict=True):
        assert torch.equal(mine.flat_edges(), theirs.flat_edges()) and torch.equal(mine.values, theirs.values)
    assert not any(tensor is layer.values for tensor in net.buffers() for layer in search_of(net).layers)


def test_merge_makes_no_copy_of_the_search(monkeypatch):
    net = attach(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), er_p=0.5, seed=3)
    monkeypatch.setattr(Search, "__getstate__", lambda self: pytest.fail("copied"))
    plain = merge(net)
    assert not plain._forward_pre_hooks and not plain._forward_hooks and type(plain[0]) is nn.Linear and not is_attached(plain)
    assert len(net._forward_pre_hooks) == 3 and is_attached(net)
    plain[0].weight.data.zero_()
    assert torch.equal(merge(net)[0].weight, net[0].weight) and bool(net[0].weight.any())


class Anew(nn.Sequential):
    """A network that builds itself anew where it is copied."""

    def __deepcopy__(self, memo):
        return Anew(nn.Linear(6, 3))


def test_a_copy_that_is_another_network_is_told():
    net = attach(Anew(nn.Linear(6, 3)), er_p=0.5)
    with pytest.raises(UsageError, match="Anew is not attached"):
        merge(net)
    assert is_attached(net) and len(net._forward_pre_hooks) == 3
