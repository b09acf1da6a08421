"""A network of one attached layer, and what a pass gives its scores."""

import torch
from torch import nn

from popup import SearchSettings, attach, scores
from popup.search.network import search_of


def one_layer(method, inputs=8, outputs=6, er_p=1.0, k=0.5, **options):
    """A linear layer without bias, its layer in the search and its scores."""
    settings = SearchSettings(method, **{name: options.pop(name) for name in [*options] if name in vars(SearchSettings())})
    net = attach(nn.Sequential(nn.Linear(inputs, outputs, bias=False)), er_p=er_p, k=k, search=settings, **options)
    return net, search_of(net).layers[0], scores(net)[0]


def pass_through(net, layer):
    """W_eff of a training pass, flat at the edges, and dL/dW_eff for the loss sum(W_eff * C) with a random C."""
    cotangent = torch.randn(layer.spec.shape, generator=torch.Generator().manual_seed(1))
    net.train()
    output = net(torch.eye(layer.spec.shape[1]))  # [in, out]: W_eff transposed
    (output.T * cotangent).sum().backward()
    places = layer.flat_edges()
    return output.detach().T.flatten()[places], cotangent.flatten()[places]
