"""Attached networks in the hands of code that does what few do: inputs that are objects, train() without a return, to_empty."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import UsageError, attach, detach, extract, order_scores, register, scores
from popup.search import compute
from popup.search.network import search_of
from popup.source import maskable

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


class Batched(nn.Module):
    """Reads an object and writes to it, as graph networks do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, batch):
        batch.x = torch.relu(self.first(batch.x))
        return self.second(batch.x)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, parts):
        return sum(self.layer(part) for part in parts)


def test_the_first_look_leaves_the_inputs_as_they_are():
    """It looked with the object itself: the first pass was of what the look had written to it."""
    net = attach(Batched(), er_p=0.5)
    first, second = (net(SimpleNamespace(x=X.clone())) for _ in range(2))
    assert torch.equal(first, second)
    for parts in (lambda: iter([X, X]), lambda: (part for part in [X, X])):
        net = attach(Parts(), er_p=0.5)
        assert torch.equal(net(parts()), net([X, X]))


def test_a_network_whose_train_returns_nothing_is_looked_at_all_the_same():
    class Changing(Parts):
        def forward(self, x):
            return F.linear(x, self.layer.weight - self.layer.weight.mean())

        def train(self, mode=True):
            super().train(mode)

    with pytest.raises(UsageError, match=r"layer\.weight"):
        attach(Changing(), er_p=0.5)(X)

    class Quiet(nn.Linear):
        def train(self, mode=True):
            super().train(mode)

    net = attach(nn.Sequential(Quiet(8, 3)), er_p=0.5)
    assert torch.equal(extract(net).apply(nn.Sequential(Quiet(8, 3)))(X), net(X))


@pytest.mark.parametrize("er_p", [0.3, 1.0])
def test_to_empty_keeps_the_source_and_a_state_restores_the_rest(er_p):
    net = attach(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)), er_p=er_p, weights="kaiming_normal")
    net(X)
    before, state = [layer.values.clone() for layer in search_of(net).layers], {k: v.clone() for k, v in net.state_dict().items()}
    wanted = net.eval()(X)
    net.to_empty(device="cpu")
    assert all(map(torch.equal, before, (layer.values for layer in search_of(net).layers)))
    with torch.no_grad():
        for layer in (0, 2):
            net[layer].bias.zero_()
        net[1].weight.fill_(1), net[1].bias.zero_()
    net.load_state_dict(state)
    assert torch.equal(net(X), wanted)


@pytest.mark.parametrize("kernel", [3, (3, 3)])
def test_a_registered_convolution_with_one_number_for_its_sides_is_attached(kernel, monkeypatch):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel_size, self.weight = kernel, nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.weight)

    class Scaled(Mine):
        def __init__(self):
            super().__init__()
            self.alpha = nn.Parameter(torch.tensor(1.0))
            self.weight = self._parameters.pop("weight")  # the scale comes first

        def forward(self, x):
            return self.alpha * F.conv2d(x, self.weight)

    monkeypatch.setattr(maskable, "KINDS", list(maskable.KINDS))
    register(Mine, "out in *")
    for kind in (Mine, Scaled):
        attach(nn.Sequential(kind()), er_p=0.5)(torch.ones(1, 3, 6, 6)).sum().backward()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_inputs_give_scores_their_gradients_or_are_refused(layout):
    """They went by what computes on edges alone: scores never moved, without a word."""
    def nested():
        return torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)], layout=layout)

    net = attach(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), er_p=0.5, compute="sparse")
    try:
        sum(part.square().sum() for part in net(nested()).unbind()).backward()
    except UsageError as error:
        assert "attach the network with compute='dense'" in str(error)
    else:
        assert all(score.grad is not None and bool(score.grad.any()) for score in scores(net))


def test_an_order_of_scores_leaves_the_mark_of_a_ranks_source_alone():
    """A mark that was written to counts as one that rank 0 has sent."""
    net = attach(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)), er_p=0.5)
    net.register_buffer("still", torch.zeros(3))
    version = net.still._version
    order_scores(net, [(X, torch.arange(5) % 3)])
    assert net.still._version == version and not net[1].running_mean.any()


def test_connected_refuses_a_transposed_convolution_with_groups():
    with pytest.raises(UsageError, match=r"0\.weight \[8, 2, 1, 1\] is a transposed convolution with groups"):
        attach(nn.Sequential(nn.ConvTranspose2d(8, 8, 1, groups=4)), er_p=0.5, connected=True)
    attach(nn.Sequential(nn.ConvTranspose2d(8, 8, 1)), er_p=0.5, connected=True)


def test_a_detached_search_keeps_no_dense_weights():
    net = attach(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3)), er_p=0.5, compute="dense")
    search = search_of(net)
    net(X).sum().backward()
    assert any(group.cached_weight.memory is not None for group in search.groups)
    detach(net)
    assert all(group.cached_weight.memory is None for group in search.groups)


def test_scores_of_another_type_are_not_assigned():
    net = attach(nn.Sequential(nn.Linear(8, 3)), er_p=0.5)
    state = {name: value.bfloat16() if name.endswith("original") else value for name, value in net.state_dict().items()}
    with pytest.raises(UsageError, match=r"the scores of 0\.weight in torch\.bfloat16, and they are torch\.float32"):
        net.load_state_dict(state, assign=True)
    net.load_state_dict(state)
    net(X).sum().backward()


def test_an_attach_looks_through_the_network_for_chains_as_often_whatever_its_layers(monkeypatch):
    """It did once a layer."""
    looked, usual = [], compute.handovers
    monkeypatch.setattr(compute, "handovers", lambda net: looked.append(net) or usual(net))
    for count in (2, 9):
        looked.clear()
        attach(nn.Sequential(*(nn.Linear(4, 4) for _ in range(count))), er_p=0.5, compute="sparse")
        assert len(looked) == 2
