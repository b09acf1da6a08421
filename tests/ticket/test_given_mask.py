"""A mask of one's own in place of S_ER: the laws on it, law 5's variant (the edges are the file's, all else the seed's), its
ticket there and back, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import models
from popup import SearchSettings, TicketError, UsageError, advance, attach, densities, extract, load, scores, verify
from popup.search.attach import attach_recipe
from popup.search.methods import METHODS
from popup.search.network import search_of
from popup.source import Recipe, draw_layer, find_layers, synflow
from popup.source.masks import given_edges
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove

INPUTS = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
P = {"0.weight": 0.6, "3.weight": 0.2, "7.weight": 0.05}


def plain():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(32, 3))


def own_masks():
    """Random masks of three densities that no stream of popup gives."""
    chance = np.random.default_rng(7)
    return {layer.name: chance.random(layer.shape) < P[layer.name] for layer in find_layers(plain())}


def searched(**options):
    net = attach(plain(), mask="given", masks=own_masks(), seed=3, **options)
    before = frozen_hashes(net)
    optimiser = torch.optim.SGD(scores(net), lr=0.5, momentum=0.9)
    for step in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(INPUTS), torch.arange(9) % 3).backward()
        optimiser.step()
        advance(net, (step + 1) / 3)
    return net, before


@pytest.mark.parametrize("method", METHODS)
def test_the_laws_hold_on_a_given_mask(method):
    net, before = searched(k=0.3, method=method)
    assert prove(net, before, INPUTS).holds and verify(extract(net)).holds
    for row, mask, layer in zip(densities(net), own_masks().values(), search_of(net).layers, strict=True):
        assert torch.equal(layer.flat_edges(), torch.from_numpy(np.flatnonzero(mask)))
        assert row.edges == mask.sum() and row.p_l == mask.mean() and row.kept == max(1, int(0.3 * row.edges + 0.5))


def test_everything_but_the_edges_is_drawn_from_the_seed_and_scaled_for_the_realised_density():
    net = attach(plain(), mask="given", masks=own_masks(), seed=3, weights="kaiming_normal")
    other = attach(plain(), density={name: float(mask.mean()) for name, mask in own_masks().items()}, seed=3,
                   weights="kaiming_normal", mask="exact")
    for layer, drawn in zip(search_of(net).layers, search_of(other).layers, strict=True):
        dense = draw_layer(replace(search_of(other).recipe, density="uniform"), layer.spec, 1.0).values
        expected = dense[layer.flat_edges()] / np.float32(layer.p_l**0.5)
        assert layer.p_l == drawn.p_l and layer.count == drawn.count
        assert layer.values.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"compress": True}, {"embed_weights": True}, {"weights": "given"}])
def test_a_ticket_stores_the_mask_and_gives_the_network_again(options, tmp_path):
    weights = {"weights": options.pop("weights")} if "weights" in options else {}
    net, _ = searched(k=0.1, **weights)
    path = extract(net).save(tmp_path / "ticket", **options)
    ticket, again = load(path), tmp_path / "again"
    assert ticket.save(again, **options).read_bytes() == path.read_bytes()
    for layer, mask in zip(ticket.layers, own_masks().values(), strict=True):
        assert np.array_equal(layer.edges, np.flatnonzero(mask))
    assert verify(ticket).holds and torch.equal(ticket.apply(plain()).eval()(INPUTS), net.eval()(INPUTS))


def test_the_masks_bits_lie_in_the_file_as_its_documentation_says(tmp_path):
    tensors = safetensors.torch.load_file(extract(searched()[0]).save(tmp_path / "ticket"))
    for name, mask in own_masks().items():
        stored = int.from_bytes(tensors[f"edges/{name}"].numpy().tobytes(), "little")
        assert [stored >> place & 1 for place in range(mask.size)] == mask.ravel().astype(int).tolist()
        assert stored >> mask.size == 0


def first(metadata):
    return metadata["layers"][0]


CHANGES = {
    "no edges": (lambda m, t: t.pop("edges/0.weight"), "no edges/0.weight"),
    "edges of another layer": (lambda m, t: t.update({"edges/0.weight": t["edges/3.weight"].clone()}), "bits need"),
    "another edge": (lambda m, t: t["edges/0.weight"][:1].bitwise_xor_(3), "edges/0.weight are not the edges"),
    "a bit after the last": (lambda m, t: t["edges/0.weight"].__setitem__(6, 255), "after the last"),
    "floats": (lambda m, t: t.update({"edges/0.weight": t["edges/0.weight"].float()}), "dtype uint8"),
    "another p_l": (lambda m, t: first(m).update(p_l=first(m)["p_l"] + 1e-6), "have another density"),
    "another er_p": (lambda m, t: m["recipe"].update(er_p=0.5), "are not er_p 0.5"),
    "a drawn mask": (lambda m, t: m["recipe"].update(mask="bernoulli", er_p=0.2), "er_p 0.2 gives"),
    "a criterion": (lambda m, t: m["recipe"].update(mask="snip", er_p=0.9), "are not er_p 0.9"),
    "a density": (lambda m, t: m["recipe"].update(density="erk"), "leave density out"),
    "no mask at all": (lambda m, t: first(m).update(p_l=0.0, edges=0, kept=0), "0.weight"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_forged_mask_is_refused(case, tmp_path, forge):
    change, words = CHANGES[case]
    path = extract(searched()[0]).save(tmp_path / "ticket")
    forge(path, change)
    with pytest.raises(TicketError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_seed_forged_into_the_ticket_is_seen_in_the_weights(tmp_path, forge):
    path = extract(searched()[0]).save(tmp_path / "ticket")
    forge(path, lambda metadata, tensors: metadata["recipe"].update(seed=4))
    assert "0.weight" in verify(load(path)).foreign


def test_a_moved_edge_is_reported_by_the_proof():
    net, before = searched()
    layer = search_of(net).layers[1]
    layer.gaps[1:].copy_(layer.gaps[1:].flip(0))
    for group in search_of(net).groups:
        group.forget()
    assert prove(net, before, INPUTS).changed == ("3.weight/edges",)


def test_a_layer_may_be_without_edges(tmp_path):
    masks = own_masks()
    masks["3.weight"][:] = False
    net = attach(plain(), mask="given", masks=masks)
    ticket = load(extract(net).save(tmp_path / "ticket"))
    assert [row.edges for row in ticket.densities()][1] == 0 and verify(ticket).holds


def test_masks_may_be_tensors():
    masks = {name: torch.from_numpy(mask) for name, mask in own_masks().items()}
    one, other = (search_of(attach(plain(), mask="given", masks=given)).layers for given in (masks, own_masks()))
    assert all(torch.equal(left.gaps, right.gaps) for left, right in zip(one, other, strict=True))


REFUSED = {
    "no masks": ({"masks": None}, "pass mask='given' with masks"),
    "masks without their word": ({"mask": "bernoulli", "er_p": 0.2}, "pass mask='given' with masks"),
    "er_p beside them": ({"er_p": 0.2}, "without er_p and density"),
    "a density beside them": ({"density": "erk"}, "without er_p and density"),
    "a layer too few": ({"masks": {"0.weight": own_masks()["0.weight"]}}, "no mask for '3.weight'"),
    "a layer too many": ({"masks": {**own_masks(), "3.wait": None}}, "did you mean '3.weight'"),
    "another shape": ({"masks": {**own_masks(), "0.weight": own_masks()["0.weight"][:1]}}, r"must be bool \[6, 1, 3, 3\]"),
    "numbers": ({"masks": {**own_masks(), "0.weight": own_masks()["0.weight"] * 1.0}}, "is float64"),
    "nothing": ({"masks": {name: mask & False for name, mask in own_masks().items()}}, "masks of all 3 layers are empty"),
    "a criterion": ({"mask": "snip", "masks": None, "er_p": 0.2}, "so no seed draws the edges of 0.weight: attach a"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_mask_is_refused_and_nothing_changed(case):
    changes, words = REFUSED[case]
    net = plain()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match=words):
        attach(net, **{"mask": "given", "masks": own_masks(), **changes})
    assert net.state_dict().keys() == before.keys() and all(map(torch.equal, net.state_dict().values(), before.values()))


def test_a_computed_mask_keeps_its_name_in_the_ticket(tmp_path):
    recipe, layers = Recipe(er_p=0.3, mask="synflow", weights="kaiming_normal"), find_layers(models.mlp((1, 8, 8), 3, (9,)))
    net = models.mlp((1, 8, 8), 3, (9,))
    attach_recipe(net, recipe, SearchSettings(), edges=given_edges(layers, synflow(net, recipe, (1, 8, 8))))
    ticket = load(extract(net).save(tmp_path / "ticket"))
    assert ticket.recipe == recipe and verify(ticket).holds
    assert sum(row.edges for row in ticket.densities()) == round(0.3 * (64 * 9 + 9 * 3))
    with pytest.raises(UsageError, match="leave density out"):
        replace(recipe, density="erk")
    with pytest.raises(UsageError, match="use weights 'kaiming_normal'"):
        replace(recipe, weights="signed_constant")
