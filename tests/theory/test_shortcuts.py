"""A residual block built within epsilon, in one ER source of p = 0.5 that has no shortcut itself."""

from math import sqrt

import torch
from torch import nn

from models import MODELS
from models.resnet import residual
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.theory.construction import construct
from popup.theory.plan import make_plan
from popup.theory.reading import read_target
from popup.theory.wish import Wish
from popup.ticket import load, verify
from popup.ticket.assembled import assemble

LOW, HIGH = -1.0, 1.0


def built(net, image, wish, path):
    """(construction, the largest gap on random inputs and corners, the ticket read back)."""
    target = read_target(net, image, LOW, HIGH)
    plan = make_plan(target, 0.5, wish)
    source = MODELS[f"chain:{target.source(plan.doubled)}"](image, target.widths[-1], plan.widths)
    recipe = Recipe(er_p=0.5, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3))
    layers = find_layers(source)
    found = construct(target, plan, recipe, layers, recipe.densities(layers))
    ticket = load(assemble(recipe, found.layers, found.spare, {}).save(path))
    x = torch.rand(300, *image) * (HIGH - LOW) + LOW
    x = torch.cat([x, x.sign()])
    with torch.no_grad():
        gap = float((ticket.apply(source).eval()(x) / found.multiple - net(x)).abs().max())
    return found, gap, ticket


def test_a_residual_block_of_two_linear_layers_is_proved(tmp_path):
    """In a source of twice the depth; the bound is of the whole domain."""
    torch.manual_seed(0)
    net = MODELS["chain:flatten-linear-relu-skip-linear-relu-linear-add-relu-linear"]((1, 1, 3), 2, (2, 2, 2)).eval()
    found, gap, ticket = built(net, (1, 1, 3), Wish(0.2, doubled=True), tmp_path / "t.safetensors")
    assert 0 < gap <= found.guaranteed <= 0.2 and verify(ticket).holds


def test_a_block_of_a_resnet_with_norms_is_met(tmp_path):
    """Stem, a block with a projection, mean and linear layer, norms folded: convolutions of stride 2 and 1."""
    torch.manual_seed(0)
    net = residual((1, 4, 4), 2, (1, 2), (0, 1))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3), nn.init.uniform_(module.running_var, 0.5, 2)
    found, gap, ticket = built(net.eval(), (1, 4, 4), Wish(0.5), tmp_path / "t.safetensors")
    assert 0 < gap < 0.5 and gap <= found.guaranteed and verify(ticket).holds
    assert [layer.spec.shape[2:] for layer in ticket.layers] == [(1, 1), (3, 3), (3, 3), (3, 3), ()]
