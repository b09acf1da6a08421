"""What a control starts from."""

import numpy as np
import torch
from torch import nn

import popup
from popup.lab.runs.controls import Subnetwork, redrawn_weights
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
