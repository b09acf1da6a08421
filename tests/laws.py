"""The laws as assertions on any attached network, by its method's contract: what tests/test_laws.py runs over the registries and
tests/ticket/test_wrong_methods.py over methods that are wrong. The counts and the order are worked out here by sorting."""

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from math import isclose, prod

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from models.gpt import GPT
from popup import advance, densities, merge, scores
from popup.search.contract import gate_faults
from popup.search.network import search_of
from popup.source import DENSITIES
from popup.source.layer_source import draw_layer, draw_values

IMAGE, CLASSES = (3, 32, 32), 4
WINDOWS = {"gpt": (8,)}  # what networks read that read no images


def tiny():
    """Layers of very different sizes, with a grouped convolution and a norm."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(),
                         nn.Flatten(), nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, CLASSES))


def batch(net):
    """Inputs such as the network reads, and labels."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(net, GPT):
        text = torch.randint(CLASSES, (6, *WINDOWS["gpt"]), generator=generator)
        return text, text.roll(-1, 1)
    return torch.randn(6, *IMAGE, generator=generator), torch.arange(6) % CLASSES


def weights_seen(net):
    """A dict that each forward pass fills with every layer's effective weight, by name."""
    seen = {}
    for layer in search_of(net).layers:
        name = layer.spec.name
        module, attribute = net.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        within = ""
        if isinstance(module, NonDynamicallyQuantizableLinear):  # whose weight its owner reads
            owner, _, within = name.rpartition(".")[0].rpartition(".")
            module = net.get_submodule(owner)
        module.register_forward_hook(lambda module, inputs, output, name=name, within=within, attribute=attribute: seen.update(
            {name: getattr(module.get_submodule(within), attribute).detach().clone()}))
    return seen


def source_of(net):
    """The source drawn anew from the recipe alone: for each layer its edges and dense weights."""
    recipe, source = search_of(net).recipe, []
    for layer, k in zip(search_of(net).layers, law_shares(net), strict=True):
        assert isclose(k, layer.recipe.k, rel_tol=1e-9)
        fresh = draw_layer(replace(recipe, k=layer.recipe.k), layer.spec, layer.p_l)
        edges, values = torch.from_numpy(fresh.edges), torch.from_numpy(fresh.values)
        source.append((layer.spec, edges, torch.zeros(layer.spec.entries).index_copy(0, edges, values)))
    return source


def law_shares(net):
    """k_l of each layer: k, or where the ticket has a density of its own the rule's own share of so many edges (RULES) that no
    layer has fewer of, its level found by halving; a bias has its weight's."""
    search = search_of(net)
    name, k, weights = search.recipe.ticket_density, search.recipe.k, [layer for layer in search.layers if not layer.spec.weight]
    if name == "source" or k == 1:
        return [k] * len(search.layers)
    sizes, most = [layer.spec.entries for layer in weights], [layer.p_l for layer in weights]
    wanted = k * sum(p * size for p, size in zip(most, sizes, strict=True))
    rule, low, high = rule_of(name)(weights, wanted / sum(sizes)), 0.0, 1e12
    for _ in range(200):
        level = (low + high) / 2
        kept = sum(min(p, level * part) * size for p, part, size in zip(most, rule, sizes, strict=True))
        low, high = (low, level) if kept > wanted else (level, high)
    found = {layer.spec.name: float(f"{min(1.0, max(1e-12, low * part / p)):.12g}")
             for layer, part, p in zip(weights, rule, most, strict=True)}
    return [found[(layer.spec.weight or layer.spec).name] for layer in search.layers]


def pyramid(layers, p):
    """r^l of the l-th layer with the total p, r found by halving."""
    sizes, low, high = [layer.spec.entries for layer in layers], 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(size * middle**depth for depth, size in enumerate(sizes, 1))
        low, high = (low, middle) if total > p * sum(sizes) else (middle, high)
    return [low**depth for depth in range(1, len(sizes) + 1)]


def erk(layers, filter_size):
    """(n_in + n_out + the filter) / the entries between them."""
    return [(one.inputs + one.outputs + (filter_size(one.kernel) if one.kernel else 0))
            / (one.inputs * one.outputs * prod(one.kernel)) for one in (layer.spec.connects for layer in layers)]


RULES = {"uniform": lambda layers, p: [1.0] * len(layers), "erk": lambda layers, p: erk(layers, prod),
         "erk_sum": lambda layers, p: erk(layers, sum), "pyramidal": pyramid,
         "balanced": lambda layers, p: [1 / layer.spec.entries for layer in layers]}


def rule_of(name):
    """Another reading of a rule for densities; of one that was added its own."""
    return RULES.get(name, lambda layers, p: DENSITIES[name]([layer.spec for layer in layers], p))


def law_count(k, edges):
    """n_l = max(1, floor(k |S_ER,l| + 1/2)), in decimal arithmetic; none of none."""
    return max(1, int(Decimal(repr(float(k))) * edges + Decimal("0.5"))) if edges else 0


def best_of(keys, count):
    """The places of the `count` highest keys, ties to the lower place: a stable sort (test_select.py sorts in Python)."""
    return torch.sort(-keys, stable=True).indices[:count].sort().values


def law_selection(net):
    """For each layer the places among its edges that must be kept."""
    search = search_of(net)
    keys = [search.method.keys(*pair).tensor().long() for pair in search.pairs()]
    counts = [law_count(k, len(layer)) for k, layer in zip(law_shares(net), keys, strict=True)]
    if search.settings.scope == "layer":
        return [best_of(layer, count) for layer, count in zip(keys, counts, strict=True)]
    for layer in keys:
        layer[best_of(layer, 1)] += 2**40  # each layer's best comes before all others
    chosen, starts = best_of(torch.cat(keys), sum(counts)), torch.tensor([0, *map(len, keys)]).cumsum(0)
    return [chosen[(chosen >= first) & (chosen < last)] - first for first, last in pairwise(starts)]


def draws_of(layer, codes):
    """Each edge's weight of the draw that its code names, from the streams."""
    values = torch.zeros(len(codes))
    for code in codes.unique().tolist():
        fresh = draw_values(layer.recipe, layer.spec, layer.p_l, layer.flat_edges().numpy(), f"redraw {code - 1}") if code > 1 \
            else draw_layer(layer.recipe, layer.spec, layer.p_l).values
        values[codes == code] = torch.from_numpy(fresh)[codes == code]
    return values


def scored(layer, own):
    """The weights that a layer's scores stand for: each edge's `own`, its last draw, or all draws that it has, one after the
    other."""
    if layer.book.name != "draws":
        return own
    turns = [layer.turns] if layer.book.held == 1 else [torch.full((layer.count,), turn) for turn in range(layer.book.held)]
    return torch.cat([draws_of(layer, turn + 1) for turn in turns])


READINGS = {  # of the code books: (layer, first weights [edges], codes [edges], the kept ones) -> what the codes mean there
    "plain": lambda layer, weights, codes, kept: weights[kept], "signed": lambda layer, weights, codes, kept: torch.where(
        codes[kept] == 1, weights[kept], -weights[kept]),
    "binary": lambda layer, weights, codes, kept: weights[kept].sign() * weights[kept].double().abs().mean().float(),
    "draws": lambda layer, weights, codes, kept: draws_of(layer, codes)[kept]}


def meant(layer, dense, edges, codes):
    """The effective weights of all entries of a layer with its `codes`, by the reading of its book."""
    kept, weight = codes.nonzero().flatten(), torch.zeros(layer.spec.entries)
    reading = READINGS.get(layer.book.name, lambda layer, weights, codes, kept: layer.book.values(layer, codes)[kept])
    return weight.index_copy(0, edges[kept], reading(layer, dense[edges], codes.long(), kept)) if len(kept) else weight


def assert_forward_laws(net, seen, source):
    """Laws 2 and 3 in one forward pass without gradients, bit for bit: exactly the right edges, each with what its code means."""
    seen.clear()
    with torch.no_grad():
        net(batch(net)[0])
    search = search_of(net)
    for layer, codes, (_, edges, dense), kept in zip(search.layers, search.codes(), source, law_selection(net), strict=True):
        assert torch.equal(codes.nonzero().flatten(), kept), "a code for each selected edge, and for no other"
        weight = seen[layer.spec.name].flatten()
        assert torch.equal(weight, meant(layer, dense, edges, codes)), layer.spec.name
        assert int(weight.count_nonzero()) == len(kept)
    assert seen.keys() == {layer.spec.name for layer in search.layers}


def gates_used(net, forward):
    """The gates of the training pass that `forward` is, and what it gives."""
    found = {}
    hooks = [layer.register_forward_hook(lambda layer, inputs, output: found.update({layer.spec.name: layer.search.gate(layer)}))
             for layer in search_of(net).layers]
    output = forward()
    for hook in hooks:
        hook.remove()
    return output, [found[layer.spec.name] for layer in search_of(net).layers]


def assert_gradient_law(net, seen, source, same=torch.equal):
    """Laws 2 and 4 in a training pass: gates that keep the contract, the weights that they mean, and the scores' gradient from
    that of the weights of a plain network with the very weights that the pass used, the `same` as it is."""
    plain, (inputs, labels), search = merge(net), batch(net), search_of(net)
    logits, gates = gates_used(net, lambda: net.train()(inputs))
    loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten())
    assert gate_faults(search, gates) == {}
    for name, weight in seen.items():
        plain.get_parameter(name).requires_grad_().data.copy_(weight)
    loss.backward()
    F.cross_entropy(plain.train()(inputs).flatten(0, -2), labels.flatten()).backward()
    for layer, gate, (_, edges, dense), score in zip(search.layers, gates, source, scores(net), strict=True):
        weight, gradient = seen[layer.spec.name].flatten(), plain.get_parameter(layer.spec.name).grad.flatten()
        factor = torch.zeros(layer.spec.entries).index_fill(0, edges, 1.0).index_copy(0, edges, gate.factor) if isinstance(
            gate.factor, torch.Tensor) else gate.factor
        assert torch.equal(weight, meant(layer, dense, edges, gate.codes) * factor)
        slope = search.method.slope(layer, score.detach(), gate)
        assert same(score.grad, gradient[edges].repeat(layer.book.held) * scored(layer, dense[edges]) * slope), layer.spec.name


def frozen_of(net):
    """Every tensor that no step may change: all parameters but the scores, and each layer's source, which is no buffer."""
    learned = {id(score) for score in scores(net)}
    tensors = {name: parameter for name, parameter in net.named_parameters() if id(parameter) not in learned}
    layers = search_of(net).layers
    sources = {f"{layer.spec.name}/{name}": getattr(layer, name) for layer in layers for name in ("gaps", "values")}
    assert len(sources) == 2 * len(scores(net)) > 0
    return tensors | sources


def assert_density_rows(net, seen, source):
    """Law 7: what is reported is what the forward pass used."""
    rows = densities(net)
    for row, (layer, edges, _) in zip(rows, source, strict=True):
        kept = int(seen[layer.name].count_nonzero())
        assert (row.name, row.entries, row.edges, row.kept) == (layer.name, layer.entries, len(edges), kept)
        assert row.density == kept / layer.entries and 0 < row.p_l <= 1


def assert_laws(net, steps=1, same=torch.equal):
    """All of them on a network that was just attached, before and after `steps` of a search; gradients are the `same`."""
    frozen, seen, source = frozen_of(net), weights_seen(net), source_of(net)
    before = {name: tensor.clone() for name, tensor in frozen.items()}
    assert_forward_laws(net, seen, source)
    optimiser = torch.optim.SGD(scores(net), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(steps):
        optimiser.zero_grad()
        assert_gradient_law(net, seen, source, same)
        optimiser.step()
        advance(net, (step + 1) / max(2, steps))
        assert_forward_laws(net, seen, source)
    assert_density_rows(net, seen, source)
    assert frozen_of(net).keys() == before.keys()
    for name, tensor in frozen_of(net).items():
        assert tensor is frozen[name] and torch.equal(tensor, before[name]), name
        assert not tensor.requires_grad and tensor.grad is None, name
