"""Every kind of maskable module: the laws in a search, merged as attached as a ticket in a fresh network, the point of use."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import UsageError, attach, detach, extract, load, merge, register, scores, verify
from popup.search.network import computing, search_of
from popup.source import maskable
from popup.source.layers import find_layers
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove
from tests.laws import CLASSES, assert_laws, batch


class Turned(nn.Module):
    """A linear layer the other way round, with a bias, as transformers' Conv1D is."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.kernel)


class Experts(nn.Module):
    """Three linear layers that lie behind one another; each input has its own."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, outputs, inputs))

    def forward(self, x, which):
        return torch.stack([F.linear(row, self.weight[int(place)]) for row, place in zip(x, which, strict=True)])


class Everything(nn.Module):
    """One module of each kind, a tensor that two use, one module used twice, and an embedding that is asked for or not."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3, stride=8), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
        self.turned, self.experts, self.both = Turned(24, 8), Experts(8, 8), nn.Bilinear(8, 8, 8)
        self.line, self.places = nn.ConvTranspose1d(1, 2, 4, stride=2), nn.Embedding(3, 8)
        self.twice = self.again = nn.Linear(8, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(36, CLASSES)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.up(self.conv(x).relu()), 2).flatten(1)
        which = torch.arange(len(x)) % 3
        x = self.experts(self.turned(x).relu(), which) + self.places(which)
        x = self.both(x, x.tanh()).relu()
        x = self.again(self.twice(x).relu()) + self.second(self.first(x).relu())
        return self.head(self.line(x[:, None]).flatten(1))


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """The registry with two kinds of one's own, for a test."""
    monkeypatch.setattr(maskable, "KINDS", list(maskable.KINDS))
    register(Turned, "in out", weight="kernel")
    register(Experts, "copies out in")


NAMES = ["conv.weight", "up.weight", "turned.kernel", "experts.weight", "both.weight", "line.weight", "places.weight",
         "twice.weight", "first.weight", "head.weight"]


@pytest.mark.parametrize("options", [{}, {"density": "erk", "weights": "kaiming_normal"}, {"scope": "global", "mask": "exact"},
                                     {"method": "signed", "er_p": 1.0}, {"bias": "search", "only": "*"}])
def test_the_laws_hold_for_every_kind(options):
    net = attach(Everything(), **{"er_p": 0.5, "k": 0.4, "seed": 7, "only": ("*",), **options})
    masked = [layer.spec.name for layer in search_of(net).layers]
    assert [name for name in masked if not name.endswith("bias")] == NAMES
    assert_laws(net, steps=2)


def searched(net):
    """After two steps, in evaluation mode."""
    optimiser, (x, labels) = torch.optim.SGD(scores(net), lr=0.5, momentum=0.9), batch(net)
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimiser.step()
    return net.eval()


@pytest.mark.parametrize("options", [{"only": "*"}, {"skip": ("up", "places")}, {"weights": "given", "only": "*", "bias": "zero"},
                                     {"bias": "search", "skip": "places"}, {"only": ("turned", "experts", "first", "second")}])
def test_merged_is_attached_is_a_ticket_in_a_fresh_network(options, tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = searched(attach(Everything(), er_p=0.5, k=0.4, density="erk", seed=7, **options))
    ticket = load(extract(net).save(tmp_path / "t.safetensors", compress=True))
    monkeypatch.setattr(maskable, "KINDS", maskable.KINDS[2:])  # who applies it need not know the kinds of one's own
    assert verify(ticket).holds
    fresh, (x, _) = ticket.apply(Everything()).eval(), batch(net)
    with torch.no_grad():
        for other in (merge(net), fresh):
            assert torch.equal(net(x), other(x))
    assert [layer.spec for layer in ticket.layers] == [layer.spec for layer in search_of(net).layers]
    assert ticket.recipe == search_of(net).recipe


def test_the_proof_sees_every_kind_at_its_point_of_use():
    net = attach(Everything(), er_p=0.5, k=0.4, only="*")
    before = frozen_hashes(net)
    searched(net)
    proof = prove(net, before, batch(net)[0], extract(net), Everything())
    assert proof.holds and not proof.misused, proof
    wrong = Everything()
    wrong.turned.forward = lambda x: x @ (wrong.turned.kernel + 1) + wrong.turned.bias
    assert any(words.startswith("turned.kernel") for words in prove(net, before, batch(net)[0], extract(net), wrong).misused)


def test_layers_that_have_no_product_on_their_edges_compute_densely():
    net = attach(Everything(), er_p=0.1, only="*", compute="sparse")
    sparse = [layer.spec.name for layer in search_of(net).layers if layer.sparse]
    assert set(sparse) <= {"conv.weight", "head.weight"} and "head.weight" in sparse, computing(net)
    searched(net)
    with torch.no_grad():
        assert torch.allclose(net(batch(net)[0]), merge(net)(batch(net)[0]), atol=1e-5)


def test_a_tied_tensor_has_one_mask_and_stays_tied():
    net = attach(Everything(), er_p=0.5, k=0.4, skip="places")
    assert net.first.parametrizations.weight.original is net.second.parametrizations.weight.original
    assert torch.equal(net.first.weight, net.second.weight)
    state = searched(net).state_dict()
    other = attach(Everything(), er_p=0.5, k=0.4, skip="places")
    other.load_state_dict(state)
    assert torch.equal(other.eval()(batch(net)[0]), net(batch(net)[0]))
    short = {name: tensor for name, tensor in state.items() if not name.startswith("second.parametrizations")}
    with pytest.raises(UsageError, match=r"no second\.parametrizations\.weight\.original"):
        other.load_state_dict(short, strict=False)
    copied = copy.deepcopy(net)
    assert copied.first.parametrizations.weight.original is copied.second.parametrizations.weight.original
    plain = detach(copied)
    assert plain.first.weight is plain.second.weight and type(plain.second) is nn.Linear
    assert list(plain.first._parameters) == ["weight", "bias"] and torch.equal(plain(batch(net)[0]), net(batch(net)[0]))


def test_what_is_skipped_stays_as_it_is_and_comes_with_the_ticket():
    torch.manual_seed(1)
    net = Everything()
    own = net.head.weight.detach().clone()
    searched(attach(net, er_p=0.5, k=0.4, skip=("head", "places")))
    ticket = extract(net)
    assert torch.equal(net.head.weight, own) and torch.equal(ticket.given["head.weight"], own)
    assert ticket.recipe.skip == ("head", "places")
    with torch.no_grad():
        assert torch.equal(ticket.apply(Everything()).eval()(batch(net)[0]), net(batch(net)[0]))


def test_below_half_masked_is_an_error_unless_it_is_meant():
    def build():
        return nn.Sequential(nn.Embedding(40, 8), nn.Linear(8, 8))

    with pytest.raises(UsageError, match=r"^83\.3% of the weights would stay dense: 0\.weight \(320\); .*skip=\('0', \.\.\.\)"):
        attach(build(), er_p=0.5)
    for options in ({"skip": "0"}, {"only": "1"}, {"only": ["*"]}):
        attach(build(), er_p=0.5, **options)
    with pytest.raises(UsageError, match="would stay dense"):
        attach(nn.Sequential(*build(), nn.Linear(8, 2)), er_p=0.5, skip="2")


@pytest.mark.parametrize("options", [{"skip": 3}, {"only": (1,)}, {"skip": ("",)}, {"only": {"a": 1}}])
def test_patterns_that_are_none_are_refused(options):
    name, = options
    with pytest.raises(UsageError, match=f"^{name} is .*: pass names of modules or parameters, or patterns"):
        attach(Everything(), er_p=0.5, **options)


def test_a_module_of_a_kind_that_changes_its_weight_is_refused():
    class Centred(Turned):
        def forward(self, x):
            return x @ (self.kernel - self.kernel.mean()) + self.bias

    with pytest.raises(UsageError, match=r"^0\.kernel reaches its product .* in Centred, tried alone.*skip=\('0',\)"):
        attach(nn.Sequential(Centred(4, 6)), er_p=0.5)
    assert [layer.name for layer in find_layers(nn.Sequential(Centred(4, 6), nn.Linear(6, 2)), skip=("0",))] == ["1.weight"]


class Words(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8, **options), nn.Linear(8, 20, bias=False)

    def forward(self, x):
        return self.head(self.table(x))


def test_a_table_with_sparse_gradients_learns_as_one_without():
    nets = [attach(Words(sparse=sparse), er_p=0.5, only=("table", "head")) for sparse in (True, False)]
    for net in nets:
        net(torch.tensor([3, 4, 3])).square().sum().backward()
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(*map(scores, nets), strict=True))


def test_a_table_whose_padding_would_get_edges_is_refused():
    """To that row torch gives no gradient, so that what is kept of it is chance; a head that is tied to it gives one."""
    with pytest.raises(UsageError, match=r"^table\.weight has edges in row 3, the padding_idx of its table, whose scores"):
        attach(Words(padding_idx=3), er_p=0.5, only=("table", "head"))
    attach(Words(padding_idx=3), er_p=0.5, skip="table")
    masks = {name: torch.ones(20, 8, dtype=torch.bool) for name in ("table.weight", "head.weight")}
    masks["table.weight"][3] = False
    attach(Words(padding_idx=3), mask="given", masks=masks, only=("table", "head"))
    tied = Words(padding_idx=3)
    tied.head.weight = tied.table.weight
    net = attach(tied, er_p=0.5, only=("table", "head"))
    net(torch.tensor([3])).square().sum().backward()
    assert bool(scores(net)[0].grad.any())
