"""A method of one's own with a book of its own (several coats: a kept edge has one, two or three times its W) through all of
popup: the class and its line in the registry are all that it takes."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

import popup
from popup import SearchSettings, attach, compare, extract, load, merge, verify
from popup.lab.config import Config
from popup.lab.report.tables import proof_lines
from popup.lab.runs.controls import Subnetwork, random_subnetwork, redrawn_weights, shuffled_mask, whole_source
from popup.lab.training.diagnostics import diagnose
from popup.search.contract import gate_faults
from popup.search.keys import magnitude_keys
from popup.search.methods import METHODS
from popup.search.methods.method import Method
from popup.search.network import search_of
from popup.source.books import Factors
from popup.ticket.use import ticket_use
from tests.laws import CLASSES, IMAGE, assert_laws, tiny


class Coats(Method):
    """The edges with the largest |s|, the larger of these with more coats."""

    book = Factors("coats3", 4, factors=(0.0, 1.0, 2.0, 3.0))
    uses = ("score_scale", "anneal")

    def keys(self, layer, scores):
        return magnitude_keys(scores)

    def codes(self, layer, scores, selected):
        bound = self.settings.score_scale / layer.spec.fan_in**0.5
        coats = 1 + (scores.detach().abs() > 0.75 * bound).int() + (scores.detach().abs() > 0.9 * bound)
        return coats.to(torch.uint8) * selected


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(METHODS, "coats", Coats)


def searched(seed=3, data=5, method="coats", **options):
    """A network after a whole run, its outcome, and inputs."""
    torch.manual_seed(data)
    images, labels = torch.randn(24, *IMAGE), torch.arange(24) % CLASSES
    config = Config().replace(er_p=0.6, k=0.5, weights="kaiming_normal", epochs=2, batch_size=8, method=method, seed=seed, lr=1.0,
                              **options)
    net = tiny()
    return net, popup.fit(net, (images, labels), (images, labels), config), images


@pytest.mark.parametrize("weights", ["kaiming_normal", "signed_constant"])
def test_it_keeps_the_laws(weights):
    net = attach(tiny(), er_p=0.6, k=0.4, seed=3, weights=weights, method="coats")
    assert_laws(net, 3)
    search = search_of(attach(tiny(), er_p=0.6, k=0.4, search=SearchSettings("coats", anneal="linear", scope="global")))
    for search.progress in (0.0, 0.5, 1.0):
        assert gate_faults(search, search.training_gates()) == {}


def test_a_run_proves_it():
    _, outcome, _ = searched()
    assert outcome.proof.holds and outcome.proof.anew
    assert not any(line.startswith("  BROKEN") for line in proof_lines(asdict(outcome.proof)))


@pytest.mark.parametrize("form", [{}, {"compress": True}, {"embed_weights": True}])
def test_its_ticket_is_saved_loaded_applied_and_verified(form, tmp_path):
    net, _, images = searched()
    ticket = load(extract(net).save(tmp_path / "t", **form))
    assert {1, 2, 3} <= set(np.concatenate([layer.codes for layer in ticket.layers]).tolist())
    assert verify(ticket).holds and ticket.book == Coats.book
    plain = ticket.apply(tiny())
    assert ticket_use(ticket, plain, images) == ()
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), net.eval()(images))
        assert torch.equal(plain(images), merge(net).eval()(images))
    for layer, codes in zip(search_of(net).layers, search_of(net).codes(), strict=True):
        weight = plain.get_parameter(layer.spec.name).flatten()[layer.flat_edges()]
        assert torch.equal(weight, layer.values * codes)
    assert load(tmp_path / "t").save(tmp_path / "u", **form).read_bytes() == (tmp_path / "t").read_bytes()


def test_its_ticket_is_compared_and_diagnosed():
    (one, _, _), (other, _, _) = searched(data=5), searched(data=6)
    total = compare(extract(one), extract(other))[-1]
    assert 0 < total.alike < total.both < total.first
    found = diagnose(extract(one), tiny(), IMAGE)
    assert len(found["ticket"]["dead"]) == 4


def start_of(ticket):
    return Subnetwork([layer.drawn(ticket.recipe, ticket.book) for layer in ticket.layers],
                      [layer.codes for layer in ticket.layers], ticket.book)


@pytest.mark.parametrize("control", [random_subnetwork, shuffled_mask, redrawn_weights, whole_source])
def test_its_controls_have_its_counts_a_code(control):
    ticket = extract(searched()[0])
    start = start_of(ticket)
    for drawn, codes, found in zip(start.sources, start.codes, control(start), strict=True):
        own = dict(zip(drawn.source.edges.tolist(), drawn.source.values.tolist(), strict=True))
        if control is whole_source:
            assert np.array_equal(found.values, drawn.source.values)
            continue
        assert len(found.edges) == np.count_nonzero(codes) and set(found.edges) <= set(drawn.source.edges)
        if control is not redrawn_weights:
            coats = found.values / np.array([own[edge] for edge in found.edges.tolist()])
            assert np.array_equal(np.bincount(coats.round().astype(int), minlength=4)[1:], np.bincount(codes, minlength=4)[1:])
