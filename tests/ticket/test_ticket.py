"""Tickets: extract, save, load, apply, bit for bit, and the refusal of networks that are another architecture's."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import models
from popup import SearchSettings, TicketError, UsageError, attach, densities, extract, load, merge, scores
from popup.source import Recipe
from popup.ticket import contents

IMAGE = (3, 8, 8)


class Attention(nn.Module):
    """Parameters of every kind: packed weights, a token, norm affines, biases, a buffer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)
        self.register_buffer("scale", torch.rand(1))

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2) @ torch.ones(3, 8)], 1)
        return self.head(self.norm(self.scale * x + self.attention(x, x, x)[0])[:, 0])


NETWORKS = {
    "mlp": lambda: models.mlp(IMAGE, 4, (16, 8)), "small_conv": lambda: models.small_conv(IMAGE, 4, (4, 6)),
    "resnet18": lambda: models.resnet18(IMAGE, 4, (4, 4, 6, 6)), "attention": Attention,
    "volume": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Flatten(),
        nn.Unflatten(1, (4, 192)), nn.Conv1d(4, 4, 5, groups=2), nn.Flatten(), nn.Linear(752, 4)),
}


def images(count=6):
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(0))


def searched(name="small_conv", **options):
    """A network after two steps, with what a norm has seen."""
    net = attach(NETWORKS[name](), **{"er_p": 0.3, "k": 0.5, "seed": 3, **options})
    optimiser = torch.optim.SGD(scores(net), lr=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images()), torch.arange(6) % 4).backward()
        optimiser.step()
    return net.eval()


OPTIONS = [{}, {"weights": "kaiming_normal", "mask": "exact", "density": "erk"}, {"scope": "global", "density": "balanced"},
           {"er_p": 1.0, "k": 1e-6, "scale": "none", "density": "pyramidal"}, {"er_p": 0.01}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_round_trip_is_exact_in_every_bit(name, options, tmp_path):
    net = searched(name, **options)
    fresh, merged = NETWORKS[name](), merge(net)
    ticket = load(extract(net, {"model": name}).save(tmp_path / "ticket.safetensors"))
    assert ticket.apply(fresh) is fresh
    assert fresh.state_dict().keys() == merged.state_dict().keys() == ticket.state_dict().keys()
    for key, tensor in merged.state_dict().items():
        for other in (fresh.state_dict()[key], ticket.state_dict()[key]):
            assert other.dtype is tensor.dtype and torch.equal(other, tensor), key
    assert torch.equal(fresh.eval()(images()), net(images()))
    assert not any(parameter.requires_grad for parameter in fresh.parameters())
    assert ticket.about == {"model": name} and ticket.densities() == densities(net)
    NETWORKS[name]().load_state_dict(ticket.state_dict(), strict=True)


def test_a_mapping_of_densities_survives(tmp_path):
    net = attach(NETWORKS["mlp"](), density={"1.weight": 0.1, "3.weight": 0.7, "5.weight": 1}, seed=1)
    ticket = load(extract(net).save(tmp_path / "t"))
    assert [row.p_l for row in ticket.densities()] == [0.1, 0.7, 1.0] and ticket.recipe.density == "given"
    assert torch.equal(ticket.apply(NETWORKS["mlp"]())(images()), net(images()))


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_tickets_have_equal_bytes(name, tmp_path):
    torch.manual_seed(0)
    net = searched(name)
    content = extract(net, {"b": 1, "a": [2, 3]}).save(tmp_path / "1").read_bytes()
    assert extract(copy.deepcopy(net), {"a": [2, 3], "b": 1}).save(tmp_path / "2").read_bytes() == content
    assert load(tmp_path / "1").save(tmp_path / "3").read_bytes() == content


def test_a_ticket_is_of_its_moment(tmp_path):
    net = searched()
    ticket = extract(net)
    before = merge(net).state_dict()
    for score in scores(net):
        score.data.copy_(1 / score.data)
    net.train()(images() * 3)
    assert all(torch.equal(ticket.state_dict()[name], tensor) for name, tensor in before.items())
    assert not torch.equal(extract(net).state_dict()["2.weight"], before["2.weight"])


def test_a_ticket_is_about_one_bit_an_edge(tmp_path):
    net = attach(models.mlp(IMAGE, 10, (500, 500)), er_p=0.2)
    edges = sum(row.edges for row in densities(net))
    assert extract(net).save(tmp_path / "t").stat().st_size < edges / 8 + 4096


def test_biases_and_affines_set_after_attach_are_in_no_ticket():
    for place, attribute, value in ((-1, "bias", 0.25), (1, "weight", 3.0)):
        net = searched("resnet18")
        getattr(net[place], attribute).data.fill_(value)
        with pytest.raises(UsageError, match=rf"{attribute} is not [01] any more, as attach left it"):
            extract(net)
        assert (getattr(merge(net)[place], attribute) == value).all(), "merge copies what the network computes"


def test_a_ticket_applies_to_a_network_of_another_dtype(tmp_path):
    net = searched("small_conv")
    ticket = extract(net)
    double = ticket.apply(NETWORKS["small_conv"]().double()).eval()
    assert torch.allclose(double(images().double()).float(), net(images()), atol=1e-5)


OTHERS = {
    "wider": (lambda: models.small_conv(IMAGE, 4, (4, 7)), r"layer '0\.5\.weight' has shape \[7, 4, 3, 3\] in the network"),
    "more classes": (lambda: models.small_conv(IMAGE, 5, (4, 6)), r"has shape \[5, 24\] in the network and \[4, 24\]"),
    "deeper": (lambda: models.small_conv(IMAGE, 4, (4, 6, 6)), "in the ticket: the ticket is of another architecture"),
    "shallower": (lambda: models.small_conv(IMAGE, 4, (4,)), "lacks: the ticket is of another architecture"),
    "an mlp": (lambda: models.mlp(IMAGE, 4, (16,)), "lacks: the ticket is of another architecture"),
    "no bias": (lambda: without_bias(), r"parameter or buffer '2\.bias'"),
    "one buffer more": (lambda: with_buffer(), "parameter or buffer 'extra'"),
}


def without_bias():
    net = NETWORKS["small_conv"]()
    net[2].bias = None
    return net


def with_buffer():
    net = NETWORKS["small_conv"]()
    net.register_buffer("extra", torch.zeros(2))
    return net


@pytest.mark.parametrize("case", OTHERS)
def test_another_architecture_is_refused_unchanged(case):
    build, words = OTHERS[case]
    ticket, net = extract(searched("small_conv")), build()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(TicketError, match=words) as error:
        ticket.apply(net)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_an_attached_network_is_not_a_plain_one():
    with pytest.raises(UsageError, match="parametrized"):
        extract(searched()).apply(attach(NETWORKS["small_conv"](), er_p=0.3))


@pytest.mark.parametrize("change", [
    {"seed": 4}, {"weights": "kaiming_normal"}, {"k": 0.25}, {"gain": 1.0}, {"mask": "exact"}])
def test_a_recipe_that_draws_another_source_is_refused(change):
    ticket = extract(searched())
    changed = replace(ticket, recipe=replace(ticket.recipe, **change))
    net = NETWORKS["small_conv"]()
    before = net[-1].weight.clone()
    with pytest.raises(TicketError, match="the seed gives other"):
        changed.apply(net)
    assert torch.equal(net[-1].weight, before)


def test_ticket_errors_are_value_errors():
    assert issubclass(TicketError, UsageError) and issubclass(TicketError, ValueError)


def test_records_of_before_some_fields_were_there_have_their_defaults():
    recipe, settings = vars(Recipe(seed=4)), vars(SearchSettings("frozen"))
    first = {name: recipe[name] for name in recipe.keys() - {"bias"}}
    assert contents.recipe(first) == Recipe(seed=4)
    old = {"method": "frozen", "scope": "layer", "score_scale": 1.0}
    assert contents.settings(old) == SearchSettings("frozen") == contents.settings(settings)
    assert contents.settings({**old, "method": "gates"}) == SearchSettings("gates", hard_from=1.0), "as gates learned then"
    for used in (SearchSettings("gates", hard_from=1.0), SearchSettings("gates"), SearchSettings("coats", coats=2)):
        assert contents.settings(used.record()) == used
    with pytest.raises(ValueError, match="lacks the field 'er_p'"):
        contents.recipe({name: recipe[name] for name in recipe.keys() - {"er_p"}})
