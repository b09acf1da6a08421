"""A ticket whose layers have densities of a rule of its own, not the source's: counts, scales, the file, controls, reports."""

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import nn

from models import MODELS
from popup import SearchSettings, TicketError, UsageError, advance, attach, densities, extract, load, scores, verify
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.report.factors import asked, even_name, matters
from popup.lab.report.shares import heat
from popup.lab.runs.controls import control_config
from popup.search.methods import METHODS
from popup.search.network import search_of
from popup.source import DENSITIES, find_layers, layer_densities
from popup.source.densities import layer_shares
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove

INPUTS = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plain():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(32, 3))


def searched(steps=3, **options):
    net = attach(plain(), seed=3, **options)
    before = frozen_hashes(net)
    optimiser = torch.optim.SGD(scores(net), lr=0.5, momentum=0.9)
    for step in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(INPUTS), torch.arange(9) % 3).backward()
        optimiser.step()
        advance(net, (step + 1) / steps)
    return net, before


def kept(net):
    return [row.kept for row in densities(net)]


@pytest.mark.parametrize("density", DENSITIES)
def test_from_all_weights_a_ticket_has_the_densities_that_an_er_source_would_have(density):
    wanted = layer_densities(find_layers(plain()), 0.3, density)
    for row, p in zip(densities(attach(plain(), er_p=1.0, k=0.3, ticket_density=density)), wanted, strict=True):
        assert row.kept == max(1, int(p * row.entries + 0.5)) and row.k == pytest.approx(p)


def test_a_layer_that_has_fewer_edges_keeps_all_and_the_others_have_its_rest():
    """20, 40 and 60 edges of 100 weights each: a third is by balanced 40 / 3 a layer, and five sixths are 20, 40 and 40."""
    layers = [replace(find_layers(nn.Linear(10, 10, bias=False))[0], name=name) for name in "abc"]
    p_l = [0.2, 0.4, 0.6]
    assert layer_shares(layers, p_l, 1 / 3, "balanced") == pytest.approx([2 / 3, 1 / 3, 2 / 9])
    assert layer_shares(layers, p_l, 5 / 6, "balanced") == pytest.approx([1, 1, 2 / 3])
    assert layer_shares(layers, p_l, 1.0, "balanced") == [1, 1, 1]
    assert layer_shares(layers, [0.0, 0.4, 0.6], 0.5, "uniform") == pytest.approx([1, 0.625, 0.25 / 0.6])


@pytest.mark.parametrize("density", [name for name in DENSITIES if name != "pyramidal"])  # which gets another slope
def test_of_a_source_by_the_same_rule_each_layer_keeps_about_k(density):
    """All that differs is what a layer that was full takes."""
    rows = densities(attach(plain(), er_p=0.1, k=0.5, density=density, ticket_density=density, mask="exact"))
    assert [row.k for row in rows if row.p_l < 1] == pytest.approx([rows[-1].k] * sum(row.p_l < 1 for row in rows))
    assert sum(row.kept for row in rows) == pytest.approx(sum(row.edges for row in rows) / 2, abs=len(rows))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_laws_hold_and_the_file_is_the_ticket(method, scope, tmp_path):
    net, before = searched(er_p=0.6, k=0.2, density="erk", ticket_density="balanced", scope=scope, method=method)
    ticket = extract(net)
    assert prove(net, before, INPUTS).holds and verify(ticket).holds
    again = load(ticket.save(tmp_path / "t"))
    assert again.recipe == ticket.recipe and [layer.k for layer in again.layers] == [layer.k for layer in ticket.layers]
    assert verify(again).holds and (again.save(tmp_path / "u").read_bytes() == (tmp_path / "t").read_bytes())
    one, other = again.apply(plain()).eval(), ticket.apply(plain()).eval()
    assert torch.equal(one(INPUTS), other(INPUTS)) and torch.equal(one(INPUTS), net.eval()(INPUTS))
    even = attach(plain(), er_p=0.6, k=0.2, density="erk", seed=3, scope=scope)
    assert sum(kept(net)) == pytest.approx(sum(kept(even)), abs=2) and (scope == "global" or kept(net) != kept(even))


def test_weights_are_scaled_for_what_their_layer_keeps():
    net = attach(plain(), er_p=1.0, k=0.1, ticket_density="erk", gain=1.3)
    for layer, row in zip(search_of(net).layers, densities(net), strict=True):
        assert layer.values.abs().unique().item() == pytest.approx(1.3 / sqrt(layer.spec.fan_in * row.k))


def test_an_annealed_search_begins_with_every_edge_and_gives_each_layer_its_own_scale():
    net = attach(plain(), er_p=1.0, k=0.1, ticket_density="erk", search=SearchSettings(anneal="cubic", anneal_until=1.0))
    search, before = search_of(net), None
    for progress in (0.0, 0.3, 0.6, 0.9, 1.0):
        advance(net, progress)
        gates = search.training_gates()
        now = [int(gate.codes.sum()) for gate in gates]
        for gate, layer, row, count in zip(gates, search.layers, densities(net), now, strict=True):
            assert gate.factor == pytest.approx(sqrt(row.k * layer.count / count), rel=0.05)
        assert before is None or all(count <= last for count, last in zip(now, before, strict=True))
        before = now
        assert progress or now == [layer.count for layer in search.layers]
    assert now == kept(net) and all(gate.plain for gate in gates)


@pytest.mark.parametrize("change", [
    lambda layer, k: layer.update(k=1.1 * k), lambda layer, k: layer.pop("k"), lambda layer, k: layer.update(k=0.0),
    lambda layer, k: layer.update(k="all")])
def test_a_file_with_another_k_of_a_layer_is_refused(change, forge, tmp_path):
    path = extract(attach(plain(), er_p=0.6, k=0.2, ticket_density="erk")).save(tmp_path / "t")
    forge(path, lambda metadata, tensors: change(metadata["layers"][1], metadata["layers"][1]["k"]))
    with pytest.raises(TicketError, match="k"):
        load(path)


def test_a_file_of_a_ticket_that_is_spread_as_its_source_has_no_k(forge, tmp_path):
    path = extract(attach(plain(), er_p=0.6, k=0.2)).save(tmp_path / "t")
    assert b"ticket_density" not in path.read_bytes() and b'"k":null' not in path.read_bytes()
    forge(path, lambda metadata, tensors: metadata["layers"][0].update(k=0.2))
    with pytest.raises(TicketError, match="where ticket_density is 'source'"):
        load(path)


def test_controls_that_train_the_source_are_the_same_run():
    config = Config().replace(er_p=0.4, ticket_density="erk")
    for role in ("er_trained", "dense_trained"):
        assert control_config(config, role).hash() == control_config(config.replace(ticket_density="source"), role).hash()
    assert control_config(config, "random").source.ticket_density == "erk"


def test_logits_are_measured_against_what_each_layers_weights_are_scaled_for():
    config = Config().replace(er_p=1.0, k=0.1, ticket_density="erk", scope="global")
    rows = [{"name": f"{place}.weight", "entries": 1000, "edges": 1000, "p_l": 1.0, "kept": kept, "density": kept / 1000, "k": k}
            for place, (kept, k) in enumerate([(50, 0.05), (150, 0.15)])]
    assert heat(config, {"layers": rows}) == pytest.approx(1)
    assert heat(config, {"layers": [{**row, "k": 0.1} for row in rows]}) == pytest.approx(sqrt(0.75))


@pytest.mark.parametrize(("p", "k"), [(0.7, 0.1), (0.2, 0.1), (0.3, 0.5), (1.0, 0.3)])
def test_one_as_uniform_as_its_source_is_the_ticket_of_k_in_each_layer(p, k):
    even, usual = (attach(plain(), er_p=p, k=k, ticket_density=rule) for rule in ("uniform", "source"))
    assert [layer.recipe.k for layer in search_of(even).layers] == [k] * 3
    assert [row.kept for row in densities(even)] == [row.kept for row in densities(usual)]
    config = Config().replace(er_p=p, k=k)
    found = [config.replace(ticket_density=rule) for rule in ("uniform", "erk")]
    assert [asked(config, even_name(found))["ticket_density"] for config in found] == ["source", "erk"]


def test_a_sweep_compares_them_and_repeats_its_tickets(tmp_path, capsys):
    grid = ["--er-p", "1", "--k", "0.05", "--ticket-density", "source", "erk", "--epochs", "1", "--widths", "32", "--controls",
            "random", "shuffled", "redrawn", "source", "er_trained", "--workers", "1", "--out", str(tmp_path)]
    assert main(grid, MODELS) == 0
    out = capsys.readouterr().out
    assert "11 runs" in out and "ticket_density" in out
    assert "Layerwise density of tickets: the best mean against the others" in out
    assert not matters(Config().replace(k=1.0, ticket_density="erk"), "ticket_density"), "all edges are kept"
    (ticket,) = [path for path in tmp_path.glob("*/ticket.safetensors") if load(path).recipe.ticket_density == "erk"]
    assert main(["verify", str(ticket)], MODELS) == 0 and main(["eval", str(ticket)], MODELS) == 0
    assert main(["show", str(ticket)], MODELS) == 0 and "ticket_density" in capsys.readouterr().out


def test_an_unknown_one_is_told_with_those_there_are(capsys):
    with pytest.raises(UsageError, match="ticket_density"):
        attach(plain(), er_p=0.5, ticket_density="er")
    assert main(["--ticket-density", "er"], MODELS) == 2
    assert "source, uniform, erk" in capsys.readouterr().err.replace("'", "")
