"""The law's two forms fitted to what was measured, with intervals and residuals; and the law for all parameters at once.

Either form has copies q grow by so much for each decade of epsilon and of delta:

    q p = a + b log10(1/epsilon) + c log10(1/delta)         (candidates, and what the binomial fluctuation costs)
    q ln(1/(1-p)) = the same                                (theory's shape)

Coefficients are of weighted least squares, each point weighed by 1/q, so that residuals are shares of q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log, log10

import numpy as np
from scipy.stats import t

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


def fit_form(found: Sequence[Requirement], form: str) -> FormFit | None:
    """The fit over the finite requirements below p = 1; None if there are too few of them, or they do not tell the
    coefficients apart."""
    used = [row for row in found if row.p < 1 and 0 < row.copies < inf]
    if not used:
        return None
    columns = np.array([[1.0, log10(1 / row.epsilon), log10(1 / row.delta)] for row in used])
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
    spread = deviation * np.sqrt(np.diag(np.linalg.inv(weighed.T @ weighed))) * t.ppf(0.975, freedom)
    coefficients, intervals = np.zeros(3), np.zeros(3)
    coefficients[apart], intervals[apart] = solution, spread
    return FormFit(form, tuple(coefficients.tolist()), tuple(intervals.tolist()), len(used), deviation,
                   float(np.abs(residual).max()))


def candidates_for_all(epsilon: float, delta: float, draws: int, seed: int, most: int = 18) -> float:
    """The least number of candidates, uniform in [-1, 1], with which in all but a share `delta` of `draws` every z in [-1, 1]
    is within `epsilon` of a sum: Lueker's statement, where a plan needs only its own parameters. Infinite if more than `most`
    are needed."""
    values = 2 * Stream(seed, "all at once").uniform(draws * most).reshape(draws, most) - 1
    for count in range(1, most + 1):
        missed = sum(_widest(subset_sums(row[None, :count])[0]) > 2 * epsilon for row in values)
        if missed <= delta * draws:
            return count
    return inf


def _widest(sums: np.ndarray) -> float:
    """Twice the largest distance of a z in [-1, 1] from the nearest of `sums`."""
    inside = np.sort(sums[np.abs(sums) <= 1])
    below, above = sums[sums < -1].max(initial=-inf), sums[sums > 1].min(initial=inf)
    ends = [2 * min(inside[0] + 1, inf) if below == -inf else 0, 2 * (1 - inside[-1]) if above == inf else 0]
    gaps = np.diff(np.concatenate([[below] if below > -inf else [], inside, [above] if above < inf else []]))
    return float(max(*ends, gaps.max(initial=0)))
