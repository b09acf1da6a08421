"""Multicoated supermasks: several nested selections by one score, added up. Okoshi et al., *Multicoated Supermasks Enhance Hidden
Networks*, ICML 2022, PMLR 162; their code: github.com/yasu0001/multicoated-supermasks, src/custom_conv.py.

Differences: each coat keeps an exact number of edges, where theirs are cut at a percentile, ties and all. Their W is scaled for
the first coat alone, which norms make good; here the book's factors leave activations the size that a plain ticket's have, so
that a network without norms can be searched (a --gain as many times larger is theirs). Their published setting (ResNet-50: 30%,
7.88%, 3.15% of the weights, called linear) is a list, whose rule their code does not hold; `thirds` (30%, 10%, 3.3%) is near it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import sqrt

import torch

from popup.search.gate import Gate
from popup.search.keys import Keys
from popup.search.methods.method import Method, Options
from popup.search.select import top
from popup.search.unit import Unit
from popup.source.books import Factors
from popup.source.masks import share

MOST_COATS = 16

# the fraction of the first coat's edges that the coat has which lies on `below` others, of so many
COAT_RULES: dict[str, Callable[[int, int], float]] = {
    "even": lambda below, coats: (coats - below) / coats,
    "halves": lambda below, coats: 1 / 2**below,
    "thirds": lambda below, coats: 1 / 3**below}


def first_rule(coats: int, rule: str) -> str:
    """The first of the rules by which so many coats have the same shares as by `rule`."""
    shares = {name: [one(below, coats) for below in range(coats)] for name, one in COAT_RULES.items()}
    return next(name for name in COAT_RULES if shares[name] == shares[rule])


class Coats(Method):
    """Coat i keeps the n_i edges with the largest |s| (or s), n_1 = n_l > n_2 > ... > n_N as far as there are edges, and

        W_eff = c W sum_i [among the n_i highest],   ds = N c (dL/dW_eff * W) * sign(s)

    straight through each of the N selections, as theirs. c = 1 / sqrt(sum_i (2i - 1) n_i / n_1) gives the weights of a layer the
    mean square that those of a plain ticket have. Outer coats are shares of what a layer has in its first one: under a global
    scope, and while k is annealed, too. With one coat it is edge_popup.
    """

    uses = (*Method.uses, "coats", "coat_rule")

    def __init__(self, settings: Options) -> None:
        super().__init__(settings)
        self.book = coat_book(settings.coats, settings.coat_rule)

    def codes(self, layer: Unit, scores: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        if self.settings.coats == 1:
            return selected
        codes = selected.to(torch.uint8)
        if selected.is_meta:  # where there are shapes alone
            return codes
        places = selected.nonzero().flatten()
        keys = self.keys(layer, scores).tensor()[places]
        for count in coat_counts(self.settings.coats, self.settings.coat_rule, len(places))[1:]:
            inner = top(Keys(keys), count)  # of the coat below
            places, keys = places[inner], keys[inner]
            codes[places] += 1
        return codes

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        book = coat_book(self.settings.coats, self.settings.coat_rule)
        slope, times = super().slope(layer, scores, gate), self.settings.coats * book.factors[1]
        return slope if times == 1 else slope.mul_(times)


def coat_counts(coats: int, rule: str, kept: int) -> list[int]:
    """n_1 = `kept` and the exact number of edges of each further coat: its share, rounded, at least 1 and fewer than below; where
    none are left, 0."""
    counts = [kept]
    for below in range(1, coats):
        wanted = max(1, share(COAT_RULES[rule](below, coats), kept))
        counts.append(max(0, min(wanted, counts[-1] - 1)))
    return counts


@cache
def coat_book(coats: int, rule: str) -> Factors:
    """Code c is c coats: c times W times the one factor that keeps the mean square of a layer's weights."""
    squares = sum((2 * below + 1) * COAT_RULES[rule](below, coats) for below in range(coats))  # c^2 is the sum of 2i - 1, i to c
    return Factors("coats", coats + 1, factors=tuple(code / sqrt(squares) for code in range(coats + 1)))
