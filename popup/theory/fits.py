"""The law's two forms fitted to what was measured, with intervals and residuals; and the law for all parameters at once.

Either form has copies q grow by so much for each decade of epsilon and of delta:

    q p = a + b log10(1/epsilon) + c log10(1/delta)         (candidates, and what the binomial fluctuation costs)
    q ln(1/(1-p)) = the same                                (theory's shape)
    either = a + b log10(1/min(epsilon, delta))             (as the theorem has it: the smaller of the two)

Coefficients are of weighted least squares, each point weighed by 1/q, so that residuals are shares of q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf, log, log10

import numpy as np
from scipy.special import stdtrit

from popup.source.streams import Stream
from popup.theory.measurement import Requirement
from popup.theory.subset_sum import subset_sums

FORMS: dict[str, Callable[[float], float]] = {"q p": lambda p: p, "q ln(1/(1-p))": lambda p: log(1 / (1 - p))}


@dataclass(frozen=True)
class FormFit:
    """One form: coefficients of 1, log10(1/epsilon), log10(1/delta), half of their 95% intervals, over so many `points`; the
    deviation and the largest of the residuals, as shares of q."""

    form: str
    coefficients: tuple[float, ...]
    intervals: tuple[float, ...]
    points: int
    deviation: float
    largest: float


def fit_form(found: Sequence[Requirement], form: str, smaller: bool = False) -> FormFit | None:
    """The fit over the finite requirements below p = 1; None if there are too few of them, or they do not tell the
    coefficients apart. `smaller`: with the smaller of epsilon and delta in the place of epsilon, and no delta."""
    used = [row for row in found if row.p < 1 and 0 < row.copies < inf]
    if not used:
        return None
    columns = np.array([[1.0, log10(1 / min(row.epsilon, row.delta)), 0.0] if smaller else
                        [1.0, log10(1 / row.epsilon), log10(1 / row.delta)] for row in used])
    apart = [place for place in range(3) if place == 0 or len(set(columns[:, place])) > 1]
    size = np.array([row.copies * FORMS[form](row.p) for row in used])
    weighed = columns[:, apart] / size[:, None]
    freedom = len(used) - len(apart)
    if freedom < 1:
        return None
    solution, _, rank, _ = np.linalg.lstsq(weighed, np.ones(len(used)), rcond=None)
    if rank < len(apart):
        return None
    residual = weighed @ solution - 1
    deviation = float(np.sqrt((residual**2).sum() / freedom))
    spread = deviation * np.sqrt(np.diag(np.linalg.inv(weighed.T @ weighed))) * stdtrit(freedom, 0.975)
    coefficients, intervals = np.zeros(3), np.zeros(3)
    coefficients[apart], intervals[apart] = solution, spread
    return FormFit(form, tuple(coefficients.tolist()), tuple(intervals.tolist()), len(used), deviation,
                   float(np.abs(residual).max()))


def met_at_once(epsilon: float, draws: int, seed: int, most: int = 18) -> np.ndarray:
    """The share of `draws` in which the sums of the first 0, 1, .. `most` candidates, uniform in [-1, 1], come within `epsilon`
    of every z in [-1, 1]: Lueker's statement, where a plan needs only its own parameters."""
    values = 2 * Stream(seed, "all at once").uniform(draws * most).reshape(draws, most) - 1
    least = np.full(draws, most + 1)
    for number in range(1, most + 1):
        waiting = np.flatnonzero(least > most)  # more candidates make no gap wider
        met = [row for row in waiting if _widest(subset_sums(values[None, row, :number])[0]) <= 2 * epsilon]
        least[met] = number
    return (least <= np.arange(most + 1)[:, None]).mean(1)


def require_at_once(p: float, epsilon: float, delta: float, met: np.ndarray) -> Requirement:
    """What all parameters at once need, of what `met_at_once` found, with the Binomial(q, p) candidates of an ER source;
    infinite where as many as were drawn are not enough."""
    if met[-1] < 1 - delta or (p < 1 and met[-1] <= 1 - delta):
        return Requirement(p, epsilon, inf, inf, delta)
    from scipy.stats import binom  # more than a second of import, which little else needs

    candidates = int(np.argmax(met >= 1 - delta))
    if p == 1:
        return Requirement(p, epsilon, candidates, candidates, delta)
    numbers, beyond = np.arange(len(met)), len(met) - 1
    copies = next(copies for copies in count(candidates)
                  if binom.pmf(numbers, copies, p) @ met + binom.sf(beyond, copies, p) * met[-1] >= 1 - delta)
    return Requirement(p, epsilon, candidates, copies, delta)


def _widest(sums: np.ndarray) -> float:
    """Twice the largest distance of a z in [-1, 1] from the nearest of `sums`."""
    inside = np.sort(sums[np.abs(sums) <= 1])
    below, above = sums[sums < -1].max(initial=-inf), sums[sums > 1].min(initial=inf)
    first = min(2 * (inside[0] + 1), inside[0] - below)  # the sum beyond -1 or the first within is nearer to all between
    last = min(2 * (1 - inside[-1]), above - inside[-1])
    return float(max(first, last, np.diff(inside).max(initial=0)))
