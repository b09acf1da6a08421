"""The answer that a report begins with: how good tickets are, where, and what trained weights reach."""

from __future__ import annotations

from collections.abc import Sequence

from popup.lab.report.captions import seeds_of
from popup.lab.report.comparison import Setting, measured_on
from popup.lab.report.references import dense_level
from popup.lab.report.statistics import Mean


def answer(found: Sequence[Setting]) -> list[str]:
    """Sentences: the highest mean, the sparsest tickets, the dense network with trained weights."""
    if not found:
        return []
    best = max(found, key=lambda setting: setting.accuracy.value)
    sparse = min(found, key=lambda setting: (setting.final_density, -setting.accuracy.value))
    measured = measured_on(found)
    one = "Tickets reach" if best.accuracy.count > 1 else "The ticket reaches"
    who = f"The highest mean of {len(found)} settings is" if found[1:] else one
    sentences = [f"{who} {_percent(best.accuracy)} {measured} accuracy, with {_share(best)}{_where(best)}."]
    if found[1:] and sparse is not best:
        sentences.append(f"The sparsest tickets, with {_share(sparse)}{_where(sparse)}, reach {_percent(sparse.accuracy)}.")
    if level := dense_level(found):
        sentences.append(f"The dense network with trained weights reaches {_percent(level)}.")
    if max(setting.accuracy.count for setting in found) == 1:
        return [*sentences, "There is one seed, so no interval and no test."]
    return [*sentences, f"Behind ± is half of the 95% t interval over {seeds_of(found)}."]


def _percent(mean: Mean) -> str:
    return f"{mean.text()}%"


def _share(setting: Setting) -> str:
    return f"{100 * setting.final_density:.3g}% of the weights"


def _where(setting: Setting) -> str:
    label = setting.label().replace("er_p", "p")
    return f" ({label})" if label else ""
