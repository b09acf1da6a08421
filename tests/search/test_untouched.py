"""What attach froze and something has changed since: extract refuses it by name; what may change is let pass."""

import copy

import pytest
import torch
from torch import nn

from popup import UsageError, attach, densities, extract, load, merge, scores, verify
from popup.search.network import search_of


class Network(nn.Module):
    """Frozen parameters of every kind: biases, affines, a gain, a token, a table, a slope, a bias that is a matrix."""

    def __init__(self):
        super().__init__()
        self.token, self.cls_token = nn.Parameter(torch.randn(1, 8)), nn.Parameter(torch.zeros(1, 8))
        self.table = nn.Embedding(3, 8)
        self.position_bias = nn.Parameter(torch.randn(2, 8))
        self.gamma = nn.Parameter(torch.full((8,), 1e-5))
        self.fc, self.norm, self.act, self.out = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.PReLU(), nn.Linear(8, 4)

    def forward(self, x):
        x = x + self.token + self.cls_token + self.table(torch.arange(len(x)) % 3) + self.position_bias.sum(0)
        return self.out(x + self.gamma * self.act(self.norm(self.fc(x))))


@pytest.fixture
def net():
    return attached()


@pytest.mark.filterwarnings("ignore:.* of the weights stay dense")
def attached(**options):
    return attach(Network(), **{"er_p": 0.8, "k": 0.5, "seed": 1, **options})


pytestmark = pytest.mark.filterwarnings("ignore:.* of the weights stay dense")
SET = {"fc.bias": 0, "out.bias": 0, "norm.bias": 0, "norm.weight": 1, "gamma": 1}
OWN = ["token", "cls_token", "table.weight", "position_bias", "act.weight"]


def refused(net, words):
    with pytest.raises(UsageError, match=words) as error:
        extract(net)
    assert "\n" not in str(error.value) and "popup.scores(net) alone" in str(error.value)
    assert merge(net) and densities(net), "which say what is there"


@pytest.mark.parametrize("name", [*SET, *OWN])
def test_what_was_trained_is_refused_by_name(name, net):
    parameter = net.get_parameter(name).requires_grad_(True)
    extract(net)  # nothing has changed yet
    optimiser = torch.optim.SGD([parameter, *scores(net)], lr=0.1)
    net(torch.randn(5, 8)).square().sum().backward()
    optimiser.step()
    refused(net, f"^{name} is not {SET[name]} any more, as attach left it" if name in SET else f"^{name} has changed since")


@pytest.mark.parametrize("change", [
    lambda net: net.fc.reset_parameters(), lambda net: nn.init.normal_(net.fc.bias),
    lambda net: net.apply(lambda module: module.reset_parameters() if isinstance(module, nn.Linear) else None),
    lambda net: net.load_state_dict({"fc.bias": torch.ones(8)}, strict=False),
    lambda net: setattr(net.fc, "bias", nn.Parameter(torch.rand(8))), lambda net: net.fc.bias.data.numpy().fill(3)])
def test_what_was_reset_loaded_or_replaced_is_refused_by_name(change, net):
    with torch.no_grad():
        change(net)
    refused(net, r"^fc\.bias is not 0 any more")


def test_what_is_gone_or_new_is_refused_by_name(net):
    other = copy.deepcopy(net)
    net.token = None
    with pytest.raises(UsageError, match=r"^token is no longer a parameter of the network that was attached"):
        extract(net)
    other.extra = nn.ConvTranspose1d(2, 2, 2)
    refused(other, r"^extra\.weight was not a parameter of the network that was attached")


def test_values_that_are_put_back_are_as_they_were(net):
    before = net.token.detach().clone()
    net.token.data.zero_()
    refused(net, "^token has changed")
    net.token.data.copy_(before)
    extract(net)


@pytest.mark.parametrize("options", [{}, {"bias": "search"}, {"scope": "global"}, {"weights": "given"}])
def test_what_may_change_is_let_pass(options, tmp_path):
    net = attached(**options)
    optimiser = torch.optim.SGD(scores(net), lr=0.1)
    net(torch.randn(5, 8)).square().sum().backward()
    optimiser.step()
    nn.init.normal_(net.norm.running_mean)
    for same in (net, copy.deepcopy(net), nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net)), net.norm.double() and net):
        assert verify(load(extract(same).save(tmp_path / "t"))).holds


def test_a_search_that_is_loaded_brings_its_own_tokens_and_no_trained_bias():
    net, other = attached(), attached()
    assert not torch.equal(net.token, other.token)
    other.load_state_dict(net.state_dict())
    assert torch.equal(extract(other).given["token"], net.token)
    net.cls_token.data.add_(1)  # of the network that the search is of
    other.load_state_dict(net.state_dict())
    extract(other)
    net.fc.bias.data.add_(1)
    other.load_state_dict(net.state_dict())
    refused(other, r"^fc\.bias is not 0")


def test_a_token_that_is_loaded_alone_is_refused():
    net = attached()
    net.load_state_dict({"token": torch.ones(1, 8)}, strict=False)
    refused(net, "^token has changed since")


def test_nothing_of_the_size_of_a_parameter_is_kept(net):
    assert all(isinstance(mark, (str, float)) for mark in search_of(net).untouched._marks.values())
    assert search_of(net).untouched._marks.keys() == {*SET, *OWN}
