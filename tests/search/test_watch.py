"""What reaches a product is seen: every kind of layer and of kernel, copies followed, what is computed or written told apart."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import UsageError, attach, extract, fit, merge
from popup.search.network import search_of
from popup.search.reach import check_reached
from popup.search.watch import watched
from popup.source.layers import find_layers


class Custom(nn.Module):
    """One linear layer `a`, 6 to 6, and a forward that uses it somehow."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.use = nn.Linear(6, 6), forward
        self.register_buffer("buffer", torch.full((6, 6), 0.5))

    def forward(self, x):
        return self.use(self, x)


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


KINDS = {
    "linear": (lambda: nn.Linear(6, 4), (2, 6)), "linear 4d": (lambda: nn.Linear(6, 4), (2, 3, 3, 6)),
    "no bias": (lambda: nn.Linear(6, 4, bias=False), (2, 3, 6)), "1d": (lambda: nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9)),
    "2d": (lambda: nn.Conv2d(3, 6, 3), (2, 3, 8, 8)), "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=4, stride=2), (2, 4, 8, 8)),
    "3d": (lambda: nn.Conv3d(2, 4, 3), (2, 2, 5, 5, 5)), "same": (lambda: nn.Conv2d(3, 6, 3, padding="same"), (2, 3, 8, 8)),
    "circular": (lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), (2, 3, 8, 8)),
    "packed": (Attention, (2, 5, 8)), "split": (lambda: Attention(kdim=8, vdim=8), (2, 5, 8)),
    "bias kv": (lambda: Attention(add_bias_kv=True), (2, 5, 8)),
    "encoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), (2, 5, 8)),
    "chain": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)),
              (2, 3, 8, 8)),
}
SETTINGS = {"plain": {}, "gradients": {"grad": True}, "inference": {"inference": True}, "double": {"dtype": torch.float64},
            "bfloat16": {"dtype": torch.bfloat16}, "autocast": {"autocast": True}, "channels last": {"last": True}}


def look(net, expected, x, grad=False, *, inference=False, autocast=False):
    """What is seen of `net` on `x`."""
    modes = torch.inference_mode() if inference else torch.set_grad_enabled(grad)
    with modes, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return watched(net, expected, lambda: net(x), x)


def inputs(shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def names_of(net):
    return [layer.name for layer in find_layers(net)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_is_seen_as_it_is_plain_attached_and_from_its_ticket(kind, setting, training):
    options = dict(SETTINGS[setting])
    (build, shape), dtype, last = KINDS[kind], options.pop("dtype", torch.float32), options.pop("last", False)
    net = build().to(dtype).train(training)
    if last and len(shape) == 4:
        net = net.to(memory_format=torch.channels_last)
    fresh, x, names = copy.deepcopy(net), inputs(shape, dtype), names_of(net)
    found = look(net, dict.fromkeys(names), x, **options)
    assert not found.faults and not found.unreached and list(found.reached) == names
    attach(net, er_p=0.5, k=0.5)
    pairs = zip(search_of(net).layers, search_of(net).select(), strict=True)
    expected = {layer.spec.name: layer.dense(mask) for layer, mask in pairs}
    for subject in (net, merge(net), extract(net).apply(fresh)):
        found = look(subject, expected, x, **options)
        assert not found.faults and not found.unreached
    wrong = {name: tensor.clone() for name, tensor in expected.items()}
    place = tuple(wrong[names[-1]].nonzero()[0])
    wrong[names[-1]][place] = 0
    for subject in (net, merge(net)):
        assert list(look(subject, wrong, x, **options).faults) == names[-1:], "one entry that is not the ticket's"


def test_the_fused_kernel_is_looked_at_itself():
    net, x, name = KINDS["encoder"][0]().eval(), inputs((2, 5, 8)), "layers.1.linear2.weight"
    assert set(look(net, dict.fromkeys(names_of(net)), x).reached.values()) == {1}
    assert "_transformer_encoder_layer_fwd" in look(net, {name: torch.zeros(8, 16)}, x).faults[name]


def test_a_bias_that_is_a_layer_is_seen_too():
    net, x = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(216, 4)), inputs((2, 3, 8, 8))
    attach(net, er_p=0.5, bias="search")
    names = [layer.spec.name for layer in search_of(net).layers]
    found = look(net, dict.fromkeys(names), x)
    assert not found.faults and not found.unreached and "2.bias" in found.reached
    plain = Custom(lambda self, x: x @ self.a.weight.T + self.a.bias)
    found = look(plain, {"a.weight": None, "a.bias": None}, inputs((2, 6)))
    assert not found.faults and not found.unreached


FAITHFUL = {
    "matmul": lambda self, x: x @ self.a.weight.T, "einsum": lambda self, x: torch.einsum("oi,bi->bo", self.a.weight, x),
    "a cat": lambda self, x: F.linear(x, torch.cat([self.a.weight, self.buffer])).mean() + x,
    "pieces": lambda self, x: torch.cat([F.linear(x, part) for part in self.a.weight.chunk(3)], 1),
    "a stack": lambda self, x: torch.stack([self.a.weight, self.a.weight]) @ x[0],
    "padded": lambda self, x: F.linear(F.pad(x, (0, 2)), F.pad(self.a.weight, (0, 2))),
    "flipped": lambda self, x: F.linear(x, self.a.weight.flip(1)), "cloned": lambda self, x: F.linear(x, self.a.weight.clone()),
    "data": lambda self, x: F.linear(x, self.a.weight.data), "a row of it": lambda self, x: x * self.a.weight[0],
    "as a filter": lambda self, x: F.conv1d(x[:, :, None], self.a.weight[:, :, None]).flatten(1),
    "cast": lambda self, x: F.linear(x.double(), self.a.weight.double()).float(),
    "scaled": lambda self, x: F.linear(x, self.a.weight * 0.3),
    "divided": lambda self, x: F.linear(x, -self.a.weight / self.buffer),
    "scaled in place": lambda self, x: F.linear(x, self.a.weight.clone().mul_(3)),
    "normalised": lambda self, x: F.linear(x, F.normalize(self.a.weight, dim=1)),
    "a spectral norm": lambda self, x: F.linear(x, self.a.weight / (self.buffer[0] @ self.a.weight @ self.buffer[0]).abs()),
    "its size beside": lambda self, x: F.linear(x, self.a.weight) + 0 * self.a.weight.norm(),
    "modulated": lambda self, x: torch.bmm(x[:, None], x[:, :, None] * self.a.weight)[:, 0],
    "of constants": lambda self, x: x + F.linear(self.buffer, self.a.weight).mean(), "twice": lambda self, x: self.a(self.a(x)),
    "by index": lambda self, x: F.embedding(x.argmax(1), self.a.weight) + x,
}
UNFAITHFUL = {
    "centred": (lambda self, x: F.linear(x, self.a.weight - self.a.weight.mean()), "computed of it"),
    "standardised": (lambda self, x: F.linear(x, F.batch_norm(self.a.weight[None], None, None, training=True)[0]), "batch_norm"),
    "by layer norm": (lambda self, x: F.linear(x, F.layer_norm(self.a.weight, (6,))), "layer_norm"),
    "with an update": (lambda self, x: F.linear(x, self.a.weight + 0.1 * self.buffer), "by add"),
    "with one of the input": (lambda self, x: F.linear(x, self.a.weight + 0.1 * x.mean()), "by add"),
    "low rank": (lambda self, x: F.linear(x, self.a.weight - self.buffer @ self.a.weight), "by sub"),
    "rounded": (lambda self, x: F.linear(x, self.a.weight.round()), "by round"),
    "standardised and split": (lambda self, x: F.linear(x, self.a.weight.sub(1)[:3]), "by sub"),
    "into a buffer": (lambda self, x: F.linear(x, torch.zeros(6, 6).copy_(self.a.weight).sub_(1)), "computed of it"),
    "a copy is written to": (lambda self, x: F.linear(x, self.a.weight.clone().clamp_(min=0)), "by clamp_"),
    "another mask": (lambda self, x: F.linear(x, self.a.weight * (self.buffer.cumsum(0) > 1)), "other values"),
    "written to": (lambda self, x: F.linear(x, self.a.weight.data.sub_(1)), "is written to"),
    "written to through a view": (lambda self, x: F.linear(x, self.a.weight.detach()[0].fill_(1)[None]), "is written to"),
    "written to by numpy": (lambda self, x: (self.a.weight.detach().numpy().fill(1), self.a(x))[1], "other values"),
    "written to at the end": (lambda self, x: (self.a(x), self.a.weight.detach().numpy().fill(1))[0], "is written to"),
    "renormalised": (lambda self, x: (setattr(self.a.weight, "data", F.normalize(self.a.weight.data)), self.a(x))[1],
                     "is replaced"),
}


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("use", FAITHFUL)
def test_what_keeps_zeros_where_they_are_is_faithful(use, grad, attached):
    net, x = Custom(FAITHFUL[use]), inputs((6, 6))
    if attached:
        attach(net, er_p=0.8)
    found = look(net, {"a.weight": None}, x, grad)
    assert not found.faults and not found.unreached
    if use not in ("scaled", "divided", "scaled in place", "normalised", "a spectral norm"):
        assert look(net, {"a.weight": net.a.weight.detach() * 2}, x, grad).faults
    assert look(net, {"a.weight": torch.eye(6)}, x, grad).faults


@pytest.mark.parametrize("use", UNFAITHFUL)
def test_what_fills_zeros_or_changes_them_is_a_fault_and_nothing_is_changed(use):
    forward, words = UNFAITHFUL[use]
    net, x = Custom(forward), inputs((6, 6))
    before, parameter, address = net.a.weight.detach().clone(), net.a.weight, net.a.weight.data_ptr()
    found = look(net, {"a.weight": None}, x)
    assert words in found.faults["a.weight"]
    assert torch.equal(net.a.weight, before) and net.a.weight is parameter and parameter.data_ptr() == address
    with pytest.raises(UsageError, match=r"^a\.weight .*ticket; let forward") as error:
        check_reached(net, find_layers(net), x)
    assert "\n" not in str(error.value) and torch.equal(net.a.weight, before)


@pytest.mark.parametrize("use", ["centred", "standardised", "with an update", "standardised and split", "renormalised"])
def test_without_data_the_chain_of_operations_tells(use):
    with torch.device("meta"):
        net, x = Custom(UNFAITHFUL[use][0]), torch.empty(6, 6)
    assert UNFAITHFUL[use][1] in look(net, {"a.weight": None}, x).faults["a.weight"]


@pytest.mark.parametrize("use", sorted(set(FAITHFUL) - {"its size beside"}))
def test_without_data_a_faithful_chain_is_seen(use):
    with torch.device("meta"):
        net, x = Custom(FAITHFUL[use]), torch.empty(6, 6)
    found = look(net, {"a.weight": None}, x)
    assert not found.faults and not found.unreached


# --- a probe of a plain network

class Held(nn.Module):
    """The issue's: a forward that holds the weight itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)
        self.other = [self.a.weight.detach().clone()]

    def forward(self, x):
        return self.b(F.linear(x, self.other[0]).relu())


class Auxiliary(nn.Module):
    """A second head that only training uses, and a norm with statistics."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout())
        self.head, self.aux = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        x = self.body(x)
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


def test_a_layer_that_is_never_reached_is_named():
    with pytest.raises(UsageError, match=r"^a\.weight reaches no product of Held's forward pass"):
        check_reached(Held(), find_layers(Held()), inputs((4, 6)))


def test_a_layer_of_training_alone_counts_and_nothing_is_changed():
    net = Auxiliary()
    net.head.eval()
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    output = check_reached(net, find_layers(net), inputs((4, 6)))
    assert output.shape == (4, 3) and torch.equal(torch.get_rng_state(), random)
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_search_refuses_what_its_probe_sees():
    split = inputs((8, 6)), torch.arange(8) % 3
    renormalised = nn.Sequential(Custom(UNFAITHFUL["renormalised"][0]), nn.Linear(6, 3))
    for net, words in ((Held(), "reaches no product"), (renormalised, "replaced")):
        before = copy.deepcopy(net.state_dict())
        with pytest.raises(UsageError, match=words):
            fit(net, split, split)
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items()), "nothing is changed"


def test_a_look_leaves_no_hooks_and_the_search_as_it_was():
    net, x = attach(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), er_p=0.5), inputs((2, 6))
    before = net(x)
    look(net, {"0.weight": None, "1.weight": None}, x, grad=True)
    assert torch.equal(net(x), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net[0].modules())
