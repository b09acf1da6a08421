"""The odds that a parameter misses its tolerance: the measured tail of the best subset sum's error, mixed over an ER source.

Lueker's theorem says how many candidates are enough up to a constant. What is planned with is measured: of sums of n weights
the share that is farther than `tolerance` from a goal is 5% at n = N(tolerance, |goal|), and a tenth of that for each further
D(|goal|) candidates, with

    N = (R**c + P**c)**(1/c),   R = r0 + r1 |goal|,   P = a + s log2(1 / tolerance),   D = d0 + d1 |goal|,

R candidates to reach the goal and P to be fine enough. Fitted by least squares of n over |goal| from 0.25 to 2, tolerances
from 0.3 to 1e-5 and shares from 20% to 0.1%, of 200,000 sums up to 14 candidates and 15,000 up to 20 (docs/existence.md);
`residual` is the fit's deviation, of which two are added. `python run.py law` measures shares anew and shows them beside.

In an ER source a parameter with q copies has Binomial(q, p) candidates. Of n > MOST_CANDIDATES = m the most exact m are tried,
then the largest, then the last. The share that misses goes on to fall as the fit has it where reach is what is short (measured
up to 32), but no further than to the power n / m of what m miss, as if n / m searches shared nothing. Where tolerances are
fine that is derived: the sums of all subsets of candidates w are near to normal with mean M = sum w / 2 and variance
V = sum w**2 / 4, so some Poisson number of them is within the tolerance t of the goal g, of mean

    u = 2**m * 2 t * exp(-(g - M)**2 / (2 V)) / sqrt(2 pi V),

and what misses are sets whose weights have too much of one sign: a share E[exp(-u)] with one set, E[exp(-u1 - u2 - u3)] with
three that overlap. First and last share 2 m - n of m, so their M are normal with the correlation r = 2 - n / m, and by
hypercontractivity the share is at most that of m to the power 2 / (1 + r). That is n / m where they are one or share nothing,
and less between, where the third set makes up for it: computed, n / m holds to a factor of 2 for n up to 48, t from 1e-5 to
3e-7 and goals from 0.25 to 1 of either kind, and the fitted share of m is on the safe side (tests/theory/test_odds.py).

Goals beyond 2 were not fitted, and there the line is far on the safe side: 13% miss a goal of 4 by it where 3% do. Of m weights
that share is derived instead: u is small where M is farther from g than r = sqrt(2 V ln(2**m * 2 t / sqrt(2 pi V))), V is m / 12
of the unit squared, so that Phi((g - r) / sqrt(V)) miss, times SAFE.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from scipy.special import ndtr

from popup.source.streams import Stream
from popup.theory.subset_sum import MOST_CANDIDATES

SHARE = 0.05  # of sums that miss at N candidates
PRODUCT = 1 / sqrt(3)  # the deviation of a product of two weights, as the first sums have, over that of one
TRIED = 2 * MOST_CANDIDATES  # candidates beyond which more are of no use
FARTHEST = 2.0  # the largest goal, in units, that was fitted
SAFE = 1.5  # times what is derived for goals beyond it
LEVELS = 48   # sizes of parameters that are told apart
DRAWN, ERRORS = 4000, 32  # copies, and errors on a grid, from which the share of good copies is taken


@dataclass(frozen=True)
class Odds:
    """Of sums of one kind of candidates. Goals are in `unit`s of a uniform weight in [-1, 1], tolerances in that weight."""

    reach: tuple[float, float]
    line: tuple[float, float]
    power: float
    decade: tuple[float, float]
    residual: float
    unit: float = 1.0

    def candidates(self, tolerance: np.ndarray | float, goals: np.ndarray) -> np.ndarray:
        """N: with so many, a share SHARE misses."""
        size, fine = np.abs(goals) / self.unit, np.log2(1 / np.maximum(tolerance, 2.0**-1000))
        reach, line = self.reach[0] + self.reach[1] * size, np.maximum(self.line[0] + self.line[1] * fine, 0)
        return (reach**self.power + line**self.power) ** (1 / self.power) + 2 * self.residual

    def missed(self, counts: np.ndarray, tolerance: np.ndarray | float, goals: np.ndarray) -> np.ndarray:
        """The share that misses with `counts` candidates, all broadcast together."""
        counts = np.minimum(counts, TRIED)
        found, again = self._tail(counts, tolerance, goals), np.maximum(counts / MOST_CANDIDATES, 1)
        found = np.maximum(found, np.where(again > 1, self._of_most(tolerance, goals)**again, 0))
        return np.where(np.abs(goals) <= tolerance, 0.0, found)

    def _of_most(self, tolerance: np.ndarray | float, goals: np.ndarray) -> np.ndarray:
        """The share that misses with MOST_CANDIDATES: as fitted, or beyond FARTHEST as derived above."""
        variance, fitted = MOST_CANDIDATES * self.unit**2 / 12, self._tail(MOST_CANDIDATES, tolerance, goals)
        within = np.maximum(2.0**MOST_CANDIDATES * 2 * np.asarray(tolerance) / sqrt(2 * pi * variance), 1)  # sums, at M = g
        derived = SAFE * ndtr((np.abs(goals) - np.sqrt(2 * variance * np.log(within))) / sqrt(variance))
        return np.where(np.abs(goals) > FARTHEST * self.unit, np.minimum(fitted, derived), fitted)

    def _tail(self, counts: np.ndarray | int, tolerance: np.ndarray | float, goals: np.ndarray) -> np.ndarray:
        decade = self.decade[0] + self.decade[1] * np.abs(goals) / self.unit
        decades = (counts - self.candidates(tolerance, goals)) / decade
        return np.where(np.equal(counts, 0), 1.0, np.minimum(1.0, SHARE * 10.0 ** -np.maximum(decades, -2)))


ODDS: dict[tuple[str, bool], Odds] = {  # by weights, and whether sums are of products of two
    ("uniform", False): Odds((1.27, 6.31), (2.43, 1.058), 1.884, (2.50, 2.04), 0.26),
    ("uniform", True): Odds((1.73, 7.48), (2.32, 0.957), 1.750, (2.50, 3.17), 0.61, PRODUCT),
    ("kaiming_normal", False): Odds((2.23, 7.00), (1.89, 1.074), 1.956, (2.43, 2.76), 0.39),
    ("kaiming_normal", True): Odds((1.65, 9.62), (3.12, 0.857), 1.607, (2.55, 4.27), 0.84, PRODUCT),
}


@dataclass(frozen=True)
class Goals:
    """Parameters of one tolerance, by size: `sizes` [levels], each at least as large as the `counts` [levels] it stands for."""

    sizes: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, parameters: np.ndarray) -> Goals:
        """`parameters` of any shape; their absolute values, rounded up to one of LEVELS sizes."""
        values = np.abs(parameters).reshape(-1)
        largest = float(values.max(initial=0)) or 1.0
        level = np.ceil(values / largest * LEVELS).astype(int)
        counts = np.bincount(level, minlength=LEVELS + 1)
        there = np.flatnonzero(counts)
        return cls(there * largest / LEVELS, counts[there])


def missed_with(odds: Odds, copies: int, p: float, tolerance: np.ndarray | float, goals: np.ndarray) -> np.ndarray:
    """The share of parameters `goals` that miss `tolerance` with so many copies in an ER source of density p."""
    from scipy.stats import binom  # more than a second of import, which only a plan needs

    counts = np.arange(min(copies, TRIED) + 1)
    chances = binom.pmf(counts, copies, p)
    chances[-1] = binom.sf(counts[-1] - 1, copies, p)  # more than TRIED are of no use
    return np.tensordot(chances, odds.missed(counts.reshape(-1, *[1] * np.ndim(goals)), tolerance, goals), 1)


def copies_for(odds: Odds, p: float, tolerance: float, goals: Goals, delta: float, least: int) -> int | None:
    """The fewest copies, from `least` on, with which any of the parameters misses with probability at most `delta` (a union
    bound); None if no number will do, as of the candidates at most TRIED are of use."""
    most = least
    while _any_missed(odds, most, p, tolerance, goals) > delta:
        if most * p > 2 * TRIED:
            return None
        most = most + max(1, most // 4)
    low = max(least, int(most / 1.25) - 1)
    return next(copies for copies in range(low, most + 1) if _any_missed(odds, copies, p, tolerance, goals) <= delta)


def _any_missed(odds: Odds, copies: int, p: float, tolerance: float, goals: Goals) -> float:
    return float(missed_with(odds, copies, p, tolerance, goals.sizes) @ goals.counts)


def share_near(odds: Odds, copies: int, p: float, tolerance: float, rows: np.ndarray, bounds: np.ndarray) -> float:
    """The share of a neuron's copies whose parameters, each times its input's bound, are together off by no more than
    `tolerance` of each would be; of the neuron among `rows` [neurons, parameters] of the largest, whose inputs have `bounds`.

    DRAWN copies are drawn: a parameter is off evenly within the tolerance, and beyond it as the odds have it.
    """
    goals = np.abs(rows[np.argmax(np.abs(rows) @ bounds)])
    sizes = Goals.of(goals).sizes
    errors = np.geomspace(tolerance, max(float(goals.max()), 1.01 * tolerance), ERRORS)
    beyond = missed_with(odds, copies, p, errors[:, None], sizes[None, :])  # [errors, sizes], falling
    stream, off = Stream(0, "odds"), np.zeros(DRAWN)
    for goal, bound in zip(goals, bounds, strict=True):
        chance, within = stream.uniform(DRAWN), tolerance * stream.uniform(DRAWN)
        tail = beyond[:, min(int(np.searchsorted(sizes, goal * (1 - 1e-12))), len(sizes) - 1)]
        off += bound * np.minimum(goal, np.where(chance >= tail[0], within, np.interp(-chance, -tail, errors)))
    return float((off <= tolerance * bounds.sum()).mean())
