"""How n_l is rounded; and with count="drop_floor" a search selects, step by step, the very edges that the code of Ramanujan et
al. (github.com/allenai/hidden-networks) selects from the same weights, scores and batches.

`Theirs` is an independent reading of utils/conv_type.py at dddf2d0: sort |s| ascending, drop the first int((1 - k) n), pass the
gradient straight through the mask. What else differs between a run there and one here, none of it in the selection:
- equal |s|: the order of their sort, which torch promises nothing of, and here ties go to the lower index;
- where weights and scores come from: torch's global generator, layer by layer, in their case (popup takes them with
  weights="given" and by copying the scores); weights are not scaled for k unless scale_fan is asked for, and then by
  1 - prune_rate, where prune_rate is the kept fraction;
- data order, crop and flip from the same generator, one rate an epoch, a warm-up off by default; means and deviations of the data
  as constants in the code; their best test epoch beside the last; norm statistics as training leaves them, here estimated anew.
"""

from fractions import Fraction
from math import ceil, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import SearchSettings, UsageError, attach, densities, extract, load, scores, verify
from popup.search.network import search_of
from popup.source.counts import COUNTS, kept_edges
from popup.source.recipe import Recipe


class Mask(torch.autograd.Function):
    """|s| [..], k -> 1 at all but the lowest int((1 - k) n), 0 there; the gradient goes through."""

    @staticmethod
    def forward(ctx, sizes, k):
        dropped = sizes.flatten().sort()[1][:int((1 - k) * sizes.numel())]
        return torch.ones(sizes.numel()).index_fill(0, dropped, 0).view_as(sizes)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class Theirs(nn.Conv2d):
    """A convolution whose frozen weight is masked anew in each pass."""

    def prepare(self, k, first):
        self.k, self.scores = k, nn.Parameter(first.clone())
        self.weight.requires_grad = False
        return self.scores

    @property
    def mask(self):
        return Mask.apply(self.scores.abs(), self.k)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, None, self.stride, self.padding)


def network(kind):
    torch.manual_seed(5)
    net = nn.Sequential(kind(3, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10, affine=False), nn.ReLU(),
                        kind(10, 11, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(11, affine=False), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), kind(11, 10, 1, bias=False), nn.Flatten())
    for layer in (net[0], net[3], net[7]):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        layer.weight.data = layer.weight.sign() * sqrt(2 / layer.weight[0].numel())  # their signed constant
    return net


@pytest.mark.parametrize("k", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_the_same_weights_scores_and_batches_select_the_same_edges(k):
    theirs, ours = network(Theirs), network(nn.Conv2d)
    first = [nn.init.kaiming_uniform_(torch.empty_like(theirs[place].weight), a=sqrt(5)) for place in (0, 3, 7)]
    learned = [theirs[place].prepare(k, value) for place, value in zip((0, 3, 7), first, strict=True)]
    attach(ours, er_p=1.0, k=k, weights="given", count="drop_floor", compute="dense")
    for score, value in zip(scores(ours), first, strict=True):
        score.data.copy_(value.flatten())
    both = [(theirs, torch.optim.SGD(learned, lr=0.1, momentum=0.9, weight_decay=1e-4)),
            (ours, torch.optim.SGD(scores(ours), lr=0.1, momentum=0.9, weight_decay=1e-4))]
    generator, moved = torch.Generator().manual_seed(0), 0
    before = [theirs[place].mask.detach() for place in (0, 3, 7)]
    for _ in range(12):
        images = torch.randn(16, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 10, (16,), generator=generator)
        for net, optimizer in both:
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
        masks = [theirs[place].mask.detach() for place in (0, 3, 7)]
        for layer, codes, mask in zip(search_of(ours).layers, search_of(ours).codes(), masks, strict=True):
            assert torch.equal(codes, mask.flatten().bool()), layer.spec.name
        moved += sum(int((mask != old).sum()) for mask, old in zip(masks, before, strict=True))
        before = masks
    assert moved > 0, "the selection changes while it is compared"
    assert [row.kept for row in densities(ours)] == [int(mask.sum()) for mask in masks]


def test_without_it_other_edges_are_kept():
    counted = {count: [kept_edges(k, n, count) for k in (0.05, 0.31, 0.7, 0.9) for n in (270, 990, 110, 10)] for count in COUNTS}
    assert counted["drop_floor"] == [n - int((1 - k) * n) for k in (0.05, 0.31, 0.7, 0.9) for n in (270, 990, 110, 10)]
    assert len({tuple(counts) for counts in counted.values()}) == 3
    assert kept_edges(0.9, 10, "drop_floor") == 10 and kept_edges(0.9, 10, "ceil") == 9


@pytest.mark.parametrize("k", ["0.1", "0.29", "0.3", "0.5", "0.7", "0.75", "1.0", "1e-9"])
def test_each_way_of_counting_is_what_its_name_says(k):
    for edges in (0, 1, 2, 3, 10, 50, 999):
        exact = Fraction(k) * edges
        assert kept_edges(float(k), edges, "ceil") == max(min(1, edges), ceil(exact))
        assert kept_edges(float(k), edges) == max(min(1, edges), int(exact + Fraction(1, 2)))
        assert kept_edges(float(k), edges, "drop_floor") == max(min(1, edges), edges - int((1 - float(k)) * edges))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("count", ["ceil", "drop_floor"])
def test_a_ticket_carries_it_and_verify_counts_by_it(count, scope, tmp_path):
    net = nn.Sequential(nn.Linear(7, 9), nn.Linear(9, 5))
    attach(net, er_p=0.9, k=0.35, count=count, search=SearchSettings(scope=scope))
    ticket = load(extract(net).save(tmp_path / "ticket.safetensors"))
    assert ticket.recipe.count == count and verify(ticket).holds
    wanted = sum(kept_edges(0.35, len(layer.codes), count) for layer in ticket.layers)
    assert sum(layer.kept for layer in ticket.layers) == wanted
    assert wanted != sum(kept_edges(0.35, len(layer.codes)) for layer in ticket.layers)


def test_recipes_of_before_are_recorded_as_before_and_a_wrong_name_is_refused():
    assert "count" not in Recipe().record() and Recipe(count="ceil").record()["count"] == "ceil"
    with pytest.raises(UsageError, match="unknown count 'floor': did you mean 'drop_floor'"):
        Recipe(count="floor")
    assert np.isclose(Recipe().gain, sqrt(2))
