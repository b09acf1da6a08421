"""The answer that a report begins with: how good tickets are, where, and what trained weights reach."""

from __future__ import annotations

from collections.abc import Sequence

from popup.lab.measure import Measure
from popup.lab.report.captions import seeds_of
from popup.lab.report.comparison import Setting, measured_on, weights_of
from popup.lab.report.references import dense_levels
from popup.lab.report.statistics import Mean


def answer(found: Sequence[Setting]) -> list[str]:
    """Sentences: the highest mean, the sparsest tickets, the dense network with trained weights."""
    if not found:
        return []
    measure = found[0].measure
    best = best_of(found)
    sparse = min(found, key=lambda setting: (setting.final_density, -measure.up * setting.accuracy.value))
    measured = measured_on(found)
    one = "Tickets reach" if best.accuracy.count > 1 else "The ticket reaches"
    who = f"The best mean of {len(found)} settings is" if found[1:] else one
    sentences = [f"{who} {_text(best.accuracy, measure)} {measured} {measure.name}, with {_share(best)}{_where(best)}."]
    if found[1:] and sparse is not best:
        sentences.append(f"The sparsest tickets, with {_share(sparse)}{_where(sparse)}, reach {_text(sparse.accuracy, measure)}.")
    if level := best.control("dense_trained"):
        which = " of the best mean" if dense_levels(found)[1:] else ""
        sentences.append(f"The dense network{which} with trained weights reaches {_text(level, measure)}.")
    if max(setting.accuracy.count for setting in found) == 1:
        return [*sentences, "There is one seed, so no interval and no test."]
    return [*sentences, f"Behind ± is half of the 95% t interval over {seeds_of(found)}."]


def best_of(found: Sequence[Setting]) -> Setting:
    """The setting of the best mean."""
    return max(found, key=lambda setting: setting.measure.up * setting.accuracy.value)


def _text(mean: Mean, measure: Measure) -> str:
    return f"{mean.text(measure.digits)}{measure.unit}"


def _share(setting: Setting) -> str:
    return f"{100 * setting.final_density:.3g}% of the {weights_of([setting])}"


def _where(setting: Setting) -> str:
    label = setting.label().replace("er_p", "p")
    return f" ({label})" if label else ""
