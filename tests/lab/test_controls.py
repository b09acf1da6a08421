"""What a control starts from."""

import numpy as np
import pytest
import torch
from torch import nn

import popup
from popup.lab.runs.subnetwork import Subnetwork, random_subnetwork, redrawn_weights, shuffled_mask, whole_source
from popup.source.books import PLAIN


def test_redrawn_weights_are_made_into_what_the_method_makes_of_weights():
    net = popup.attach(nn.Linear(10, 16), er_p=0.7, k=0.3, weights="kaiming_normal", method="biprop")
    ticket = popup.extract(net)
    layer = ticket.layers[0]
    start = Subnetwork([layer.drawn(ticket.recipe, ticket.book)], [layer.codes], ticket.book)
    [redrawn] = redrawn_weights(start)
    sizes = np.unique(np.abs(redrawn.values))
    assert len(redrawn.values) == layer.kept > 1 and len(sizes) == 1, "one scale a layer"
    signs = torch.from_numpy(np.sign(redrawn.values) == np.sign(start.sources[0].source.values[layer.selected]))
    assert 0 < int(signs.sum()) < layer.kept, "of another draw"
    plain = Subnetwork(start.sources, start.codes, PLAIN)
    drawn = redrawn_weights(plain)[0].values
    assert float(sizes[0]) == np.abs(drawn).mean(dtype=np.float64).astype(np.float32)


def signed():
    """A signed ticket's layers as controls start from them."""
    net = popup.attach(nn.Sequential(nn.Linear(10, 16), nn.Linear(16, 9)), er_p=0.7, k=0.3, weights="kaiming_normal",
                       method="signed")
    ticket = popup.extract(net)
    return Subnetwork([layer.drawn(ticket.recipe, ticket.book) for layer in ticket.layers],
                      [layer.codes for layer in ticket.layers], ticket.book)


def turned(drawn, found):
    """How many kept weights have their own sign, and how many the other; each is one of the source's, by its place."""
    own = dict(zip(drawn.source.edges.tolist(), drawn.source.values.tolist(), strict=True))
    factors = found.values / np.array([own[edge] for edge in found.edges.tolist()], np.float32)
    assert set(factors.tolist()) <= {1.0, -1.0}
    return [int((factors == 1).sum()), int((factors == -1).sum())]


@pytest.mark.parametrize("control", [random_subnetwork, shuffled_mask])
def test_random_and_shuffled_subnetworks_have_the_counts_a_code_of_a_signed_ticket(control):
    start = signed()
    for drawn, codes, found in zip(start.sources, start.codes, control(start), strict=True):
        assert turned(drawn, found) == [int((codes == code).sum()) for code in (1, 2)] and min(turned(drawn, found)) > 0
        assert not np.array_equal(found.edges, drawn.source.edges[codes != 0]), "at other places"
        assert np.array_equal(found.edges, np.unique(found.edges))


def test_redrawn_weights_of_a_signed_ticket_keep_its_edges_and_its_signs():
    start = signed()
    fresh = redrawn_weights(Subnetwork(start.sources, [np.ones(len(codes), bool) for codes in start.codes], PLAIN))
    for drawn, codes, found, plain in zip(start.sources, start.codes, redrawn_weights(start), fresh, strict=True):
        kept = codes != 0
        assert np.array_equal(found.edges, drawn.source.edges[kept])
        assert np.array_equal(found.values, np.where(codes == 2, -plain.values, plain.values)[kept])
        assert not np.array_equal(np.abs(found.values), np.abs(drawn.source.values[kept])), "of another draw"


def test_the_whole_source_knows_nothing_of_codes():
    start = signed()
    assert all(found is drawn.source for found, drawn in zip(whole_source(start), start.sources, strict=True))
