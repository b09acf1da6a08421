"""A head of attention built in a random one: its products are the target's, the better the larger its key and value dimension."""

import json
from math import sqrt

import numpy as np
import torch
from torch import nn

from popup.lab.commands import law_command
from popup.lab.commands.command import main
from popup.source.layer_source import draw_layer
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.theory.attention import build_product
from popup.ticket import load, verify
from popup.ticket.assembled import assemble

WIDTH, TOKENS = 3, 5


class Head(nn.Module):
    """softmax(q k') v, then the output's layer, without biases and without a scale."""

    def __init__(self, inner):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, WIDTH, bias=False)

    def forward(self, x):  # [n, tokens, width]
        return self.out((self.query(x) @ self.key(x).transpose(1, 2)).softmax(2) @ self.value(x))


def built(inner, path=None, p=0.5):
    """(largest error of an entry of either product, the largest gap on random tokens, the ticket)."""
    draw = np.random.default_rng(0)
    goals = draw.uniform(-1, 1, (2, WIDTH, WIDTH))
    net = Head(inner)
    recipe = Recipe(er_p=p, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3))
    query, key, value, out = find_layers(net)
    densities = recipe.densities([query, key, value, out])
    scores = build_product(goals[0], recipe, (query, key), densities[:2], True, 1e-5)
    values = build_product(goals[1], recipe, (value, out), densities[2:], False, 1e-5)
    ticket = assemble(recipe, [*scores.layers, *values.layers], [*scores.spare, *values.spare], {})
    ticket = ticket if path is None else load(ticket.save(path))
    x = torch.rand(200, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted = (x @ torch.from_numpy(goals[0]).float() @ x.transpose(1, 2)).softmax(2) @ x @ torch.from_numpy(goals[1]).float()
        gap = float((ticket.apply(net)(x) - wanted).abs().max())
    return max(np.abs(part.error).max() for part in (scores, values)), gap, ticket


def test_a_head_is_built_the_nearer_the_larger_its_key_and_value_dimension():
    found = [built(inner)[:2] for inner in (48, 144, 288)]
    errors, gaps = zip(*found, strict=True)
    assert errors[0] > 20 * errors[1] > 100 * errors[2] and gaps[0] > 20 * gaps[1] > 100 * gaps[2]
    assert errors[2] < 1e-4 and gaps[2] < 1e-4


def test_it_is_an_ordinary_ticket_whose_products_are_those_of_the_errors(tmp_path):
    error, _, ticket = built(72, tmp_path / "t.safetensors")
    assert verify(ticket).holds
    state, draw = ticket.state_dict(), np.random.default_rng(0)
    goals = draw.uniform(-1, 1, (2, WIDTH, WIDTH))
    query, key, value, out = (state[f"{name}.weight"].double().numpy() for name in ("query", "key", "value", "out"))
    off = [np.abs(query.T @ key - goals[0]).max(), np.abs(value.T @ out.T - goals[1]).max()]
    assert abs(max(off) - error) < 1e-6 and ((query != 0).sum(1) <= 1).all() and ((value != 0).sum(1) <= 1).all()
    for layer in ticket.layers:
        source = draw_layer(ticket.recipe, layer.spec, layer.p_l)
        weight = state[layer.spec.name].numpy().reshape(-1)
        assert np.array_equal(weight[source.edges][layer.selected], source.values[layer.selected])


def test_the_command_measures_the_error_against_the_dimension(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(law_command, "DIMENSIONS", (24, 120))
    assert main(["law", "--er-p", "0.9", "--epsilon", "0.1", "--parameters", "20", "--sources", "0", "--all-at-once", "0",
                 "--attention", "3", "--out", str(tmp_path)], {}) == 0
    assert "largest error of an entry of query times key, 4 features, 3 sources" in capsys.readouterr().out
    rows = json.loads((tmp_path / "law.json").read_text())["attention"]
    small, large = ([row["error"] for row in rows if row["inner"] == inner] for inner in (24, 120))
    assert len(small) == len(large) == 3 and min(small) > 20 * max(large)
