"""Biases as edges: which modules have them, how they are drawn and scaled, and that every part of popup knows them."""

from math import sqrt

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from torch import nn

from models import MODELS
from popup import (
    SearchSettings,
    TicketError,
    UsageError,
    advance,
    attach,
    densities,
    detach,
    extract,
    load,
    merge,
    scores,
    verify,
)
from popup.lab.commands.command import main
from popup.lab.report.comparison import settings
from popup.lab.report.results import read_directory
from popup.lab.runs.controls import CONTROLS
from popup.search.network import search_of
from popup.source import Layer, Recipe, draw_layer, find_layers
from popup.source.densities import DENSITIES
from popup.source.streams import Stream
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove

INPUTS = torch.randn(9, 3, 6, 6, generator=torch.Generator().manual_seed(0))
NAMES = ["0.weight", "0.bias", "3.weight", "6.weight", "6.bias"]


def plain():
    """A norm with a bias, which stays 0, and a layer without one."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), nn.ReLU(),
                         nn.Flatten(), nn.Linear(32, 7))


def searched(**options):
    net = attach(plain(), **{"er_p": 0.7, "k": 0.5, "bias": "search", "seed": 3, **options})
    before = frozen_hashes(net)
    optimiser = torch.optim.SGD(scores(net), lr=0.5, momentum=0.9)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(INPUTS), torch.arange(9) % 7).backward()
        optimiser.step()
    return net, before


def test_each_module_with_a_bias_has_a_layer_more_behind_its_weight():
    layers = find_layers(plain(), biases=True)
    assert [layer.name for layer in layers] == NAMES
    assert layers[1] == Layer("0.bias", (6,), layers[0]) and layers[1].fan_in == 27 and layers[1].entries == 6
    assert [layer.name for layer in find_layers(plain())] == [name for name in NAMES if name.endswith("weight")]


def test_a_bias_whose_weight_is_another_modules_is_told_of():
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6, bias=False))
    net[1].weight = net[2].weight = net[0].weight
    with pytest.warns(UserWarning, match=r"^bias is 'search', and 1\.bias stays 0: a layer's bias is that of the first module"):
        attach(net, er_p=0.5, bias="search")
    assert [row.name for row in densities(net)] == ["0.weight", "0.bias"]
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    net[1].weight = net[0].weight
    attach(net, er_p=0.5, bias="search", skip="1.bias")  # it is meant


def test_attention_has_one_bias_for_its_projections():
    for options, names in (({}, ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]),
                           ({"bias": False}, ["in_proj_weight", "out_proj.weight"]),
                           ({"kdim": 6}, ["q_proj_weight", "in_proj_bias", "k_proj_weight", "v_proj_weight",
                                          "out_proj.weight", "out_proj.bias"])):
        assert [layer.name for layer in find_layers(nn.MultiheadAttention(8, 2, **options), biases=True)] == names
    net = attach(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), er_p=0.6, bias="search")
    net.eval()
    tokens = torch.randn(2, 5, 8)
    assert len(scores(net)) == 8  # (torch fuses a layer without gradients, and then rounds otherwise)
    assert torch.allclose(merge(net)(tokens), net(tokens), atol=1e-5)


@pytest.mark.parametrize("density", DENSITIES)
def test_the_density_rule_is_for_weights_and_a_bias_has_its_weights_density_and_deviation(density):
    options = {"er_p": 0.3, "k": 0.5, "density": density, "seed": 1}
    without, net = attach(plain(), **options), attach(plain(), **options, bias="search")
    rows = {row.name: row for row in densities(net)}
    assert [rows[row.name] for row in densities(without)] == densities(without)
    for layer in search_of(net).layers:
        weight = rows[layer.spec.name.replace("bias", "weight")]
        fan_in = {"0": 27, "3": 54, "6": 32}[layer.spec.name[0]]
        deviation = sqrt(2) / sqrt(fan_in * max(weight.p_l * 0.5, 1 / weight.entries))
        assert rows[layer.spec.name].p_l == weight.p_l
        assert layer.values.abs().numpy() == pytest.approx(np.full(layer.count, deviation), rel=1e-6)


def test_biases_come_from_streams_of_their_own_and_shift_no_other_draw():
    net = attach(plain(), er_p=1.0, weights="kaiming_normal", bias="search", seed=9)
    without = attach(plain(), er_p=1.0, weights="kaiming_normal", seed=9)
    pairs = {layer.spec.name: layer for layer in search_of(net).layers}
    for layer in search_of(without).layers:
        assert torch.equal(pairs[layer.spec.name].values, layer.values)
    alone = draw_layer(Recipe(er_p=1.0, weights="kaiming_normal", seed=9, bias="search"), find_layers(plain(), True)[1], 1.0)
    assert np.array_equal(pairs["0.bias"].values.numpy(), alone.values) and len(set(alone.values)) == 6


@pytest.mark.parametrize("options", [{}, {"scope": "global"}, {"method": "iterand"}, {"weights": "given"}])
def test_a_search_with_biases_is_proven_and_its_ticket_gives_the_network_again(options, tmp_path):
    net, before = searched(**options)
    assert prove(net, before, INPUTS).holds and [row.name for row in densities(net)] == NAMES
    path = extract(net).save(tmp_path / "ticket", embed_weights=True)
    ticket = load(path)
    assert verify(ticket).holds and ticket.save(tmp_path / "again", embed_weights=True).read_bytes() == path.read_bytes()
    other = ticket.apply(plain()).eval()
    assert torch.equal(other(INPUTS), net.eval()(INPUTS)) and other[0].bias.count_nonzero() == densities(net)[1].kept
    assert not other[1].bias.any() and ticket.constants.keys() == {"1.weight", "1.bias"}
    detached = detach(net)
    assert torch.equal(detached(INPUTS), other(INPUTS)) and isinstance(detached[6].bias, nn.Parameter)


def test_biases_learn_scores():
    net, _ = searched()
    first = attach(plain(), er_p=0.7, k=0.5, bias="search", seed=3)
    assert all(not torch.equal(*pair) for pair in zip(scores(net), scores(first), strict=True))


def test_given_masks_name_the_biases_too():
    masks = {layer.name: np.ones(layer.shape, dtype=bool) for layer in find_layers(plain(), biases=True)}
    masks["0.bias"][1] = False
    net = attach(plain(), mask="given", masks=masks, bias="search")
    assert [row.edges for row in densities(net)] == [162, 5, 432, 224, 7]
    del masks["6.bias"]
    with pytest.raises(UsageError, match=r"no mask for '6\.bias'"):
        attach(plain(), mask="given", masks=masks, bias="search")


CHANGES = {
    "a bias without its weight": (lambda m, t: m["layers"].insert(0, m["layers"].pop(1)), "the shape of '0.bias'"),
    "a bias of two dimensions": (lambda m, t: m["layers"][1].update(shape=[6, 1]), "the shape of '0.bias'"),
    "biases that are 0": (lambda m, t: m["recipe"].update(bias="zero"), "the shape of '0.bias'"),
    "another density": (lambda m, t: m["layers"][1].update(p_l=0.6), "uniform at er_p 0.7 gives"),
    "no such word": (lambda m, t: m["recipe"].update(bias="given"), "unknown bias 'given'"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_forged_bias_is_refused(case, tmp_path, forge):
    change, words = CHANGES[case]
    path = extract(searched()[0]).save(tmp_path / "ticket")
    forge(path, change)
    with pytest.raises(TicketError, match=words):
        load(path)


def test_a_ticket_of_another_bias_is_another_architecture():
    with pytest.raises(TicketError, match=r"layer '0\.bias' that the other lacks"):
        extract(searched()[0]).check_layers(nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), *list(plain())[1:]))


def test_a_sweep_with_biases_its_controls_and_the_commands_about_its_ticket(tmp_path, capsys):
    arguments = ["--epochs", "1", "--widths", "12", "--bias", "search", "--er-p", "0.5", "--controls", "all"]
    assert main([*arguments, "--workers", "1", "--out", str(tmp_path)], MODELS) == 0
    (setting,) = settings(read_directory(tmp_path).runs)
    assert all(len(setting.controls[role]) == 1 for role in CONTROLS)
    rows = setting.runs[0].result["layers"]
    assert [row["name"] for row in rows] == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert [row["kept"] for row in setting.controls["random"][0].result["layers"]] == [row["kept"] for row in rows]
    assert setting.controls["dense_trained"][0].config.source.bias == "zero"
    path = str(setting.runs[0].path / "ticket.safetensors")
    for command, words in (("verify", "ok"), ("eval", "repeated exactly"), ("show", "bias search")):
        assert main([command, path], MODELS) == 0
        assert words in capsys.readouterr().out
    assert main(["export", path, str(tmp_path / "plain.safetensors"), "--csr"], MODELS) == 0


def test_a_criterion_that_ranks_weights_has_no_biases():
    with pytest.raises(UsageError, match="bias is 'search' and mask is 'snip', which ranks weights alone"):
        Recipe(mask="snip", bias="search")


def separate(**options):
    return attach(nn.MultiheadAttention(8, 2, kdim=3, vdim=5), **{"er_p": 0.9, "k": 0.5, "bias": "search", "seed": 4, **options})


@pytest.mark.parametrize("scale", ["final", "edges", "none", "unit"])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_each_third_of_separate_projections_bias_has_the_deviation_of_its_own_weight(weights, scale):
    net = separate(weights=weights, scale=scale, er_p=1.0)
    layers = {layer.spec.name: layer for layer in search_of(net).layers}
    stream = Stream(4, "weights", "in_proj_bias")
    drawn = np.where(stream.bits(24), 1, -1) if weights == "signed_constant" else ndtri((stream.words32(24) + 0.5) / 2**32)
    share = {"final": 0.5, "edges": 1.0, "none": 1.0, "unit": None}[scale]
    for place, (name, fan_in) in enumerate((("q", 8), ("k", 3), ("v", 5))):
        deviation = sqrt(2) / sqrt(fan_in * share if share else 1)
        part = slice(8 * place, 8 * place + 8)
        assert layers["in_proj_bias"].values[part].numpy() == pytest.approx(drawn[part] * deviation, rel=1e-6)
        if weights == "signed_constant":
            assert layers["in_proj_bias"].values[part].abs().unique() == layers[f"{name}_proj_weight"].values.abs().unique()


@pytest.mark.parametrize("options", [{}, {"density": "erk"}, {"mask": "exact", "scope": "global"},
                                     {"search": SearchSettings("iterand", redraw_every=1, redraw_rate=0.5)}])
@pytest.mark.parametrize("embed", [False, True])
def test_a_ticket_of_separate_projections_gives_the_network_again(options, embed, tmp_path):
    net = separate(**options)
    for step in range(3):
        advance(net, (step + 1) / 3)
    ticket = load(extract(net).save(tmp_path / "t", embed_weights=embed))
    assert verify(ticket).holds and ticket.layers[1].spec == find_layers(nn.MultiheadAttention(8, 2, kdim=3, vdim=5), True)[1]
    assert [part.shape for part in ticket.layers[1].spec.weights] == [(8, 8), (8, 3), (8, 5)]
    merged = merge(net).state_dict()
    assert all(torch.equal(tensor, merged[name]) for name, tensor in ticket.state_dict().items())


@pytest.mark.parametrize("embed", [False, True])
def test_a_ticket_of_before_the_thirds_differed_is_read_as_it_was_drawn(embed, tmp_path):
    """Its whole bias has the deviation of the query's weight."""
    net = separate(er_p=1.0)
    bias = search_of(net).layers[1]
    bias.values.copy_(bias.values.sign() * bias.values[0].abs())
    path = extract(net).save(tmp_path / "t", embed_weights=embed)
    ticket = load(path)
    kept = ticket.state_dict()["in_proj_bias"]
    assert torch.equal(kept, merge(net).in_proj_bias) and kept.abs().unique().numel() == 2 and verify(ticket).holds
    assert ticket.save(tmp_path / "again", embed_weights=embed).read_bytes() == path.read_bytes()
