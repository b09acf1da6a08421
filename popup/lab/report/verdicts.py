"""What the contrasts say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from popup.lab.report.comparison import ANY, COMPARED, SPREAD, Setting, show
from popup.lab.report.contrasts import EQUAL, Advantage, Contrast, advantages, best_contrasts, source_contrasts
from popup.lab.runs.controls import CONTROLS

CLEAR = 0.05  # Holm's p value below which a difference is called clear


def verdicts(found: Sequence[Setting]) -> list[str]:
    """What the contrasts say, a sentence each."""
    sentences = [f"Usual, where no change is told: {_usual(found)}."] if found and found[0].usual else []
    if any(setting.factors.get(name) == ANY for setting in found for name in SPREAD):
        sentences.append(f"With p = 1 every layerwise density is the same network: such runs are one setting, density {ANY}.")
    sentences += _control_verdicts(advantages(found, trained=False))
    sentences += [sentence for factor in COMPARED for sentence in _best_verdicts(best_contrasts(found, factor), factor)]
    return sentences + _source_verdicts(source_contrasts(found))


def _usual(found: Sequence[Setting]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in found[0].usual.items())


def _control_verdicts(cases: Sequence[Advantage]) -> list[str]:
    """Whether the tickets are more than their frozen weights could do by chance."""
    tested = [one for one in cases if one.adjusted is not None]
    if not tested:
        return []
    clear = sum(one.adjusted < CLEAR and one.difference.value > 0 for one in tested)
    least = min(tested, key=lambda one: one.difference.value)
    where = least.setting.label().replace("er_p", "p")
    return [f"Tickets are clearly above their controls with frozen weights in {clear} of {len(tested)} comparisons (Holm p < "
            f"{CLEAR:g}); the least difference is {least.difference.value:.1f} points ({CONTROLS[least.role].title}"
            f"{f', at {where}' if where else ''})."]


def _best_verdicts(contrasts: Sequence[Contrast], factor: str) -> list[str]:
    """Which value of the factor wins where, and which others it cannot be told from."""
    sentences, unclear, untested = [], 0, 0
    for _, group in groupby(contrasts, key=lambda contrast: id(contrast.first)):
        mine = list(group)
        if all(contrast.difference.count == 1 for contrast in mine):
            untested += 1
        elif any(map(_clearly_above, mine)):
            sentences.append(_winner(mine, factor))
        else:
            unclear += 1
    total = unclear + untested + len(sentences)
    if unclear:
        sentences.append(f"In {unclear} of {total} settings no {COMPARED[factor]} is clearly below the best.")
    if untested:
        sentences.append(f"In {untested} of {total} settings there is one seed, which is no test of which {COMPARED[factor]} is "
                         "best.")
    return sentences


def _clearly_above(contrast: Contrast) -> bool:
    return contrast.adjusted is not None and contrast.adjusted < CLEAR and contrast.difference.value > 0


def _winner(contrasts: Sequence[Contrast], factor: str) -> str:
    """The sentence on the best of a group, which is clearly above some of the others."""
    best = contrasts[0].first

    def names(chosen: Sequence[Contrast]) -> str:
        return ", ".join(show(contrast.second.factors[factor]) for contrast in chosen)

    clear = [contrast for contrast in contrasts if _clearly_above(contrast)]
    alone = [contrast for contrast in contrasts if contrast.difference.count == 1]
    rest = [contrast for contrast in contrasts if contrast not in clear and contrast not in alone]
    where = best.label((factor,)).replace("er_p", "p")
    return (f"{f'At {where} ' if where else ''}{show(best.factors[factor])} is best: clearly above {names(clear)} "
            f"(Holm p < {CLEAR:g}){f', not to be told from {names(rest)}' if rest else ''}"
            f"{f', with one seed and so no test against {names(alone)}' if alone else ''}.")


def _source_verdicts(contrasts: Sequence[Contrast]) -> list[str]:
    """What starting inside an ER source costs, and where the densities that are compared are not equal."""
    tested = [contrast for contrast in contrasts if contrast.adjusted is not None]
    worse = sum(contrast.adjusted < CLEAR and contrast.difference.value < 0 for contrast in tested)
    sentences = [f"Starting inside an ER network is clearly worse than starting dense in {worse} of {len(tested)} comparisons "
                 f"at equal p k (Holm p < {CLEAR:g})."] if tested else []
    if contrasts and not tested:
        sentences = ["Of starting inside an ER network or dense there is one seed, which is no test."]
    uneven = [contrast.apart for contrast in contrasts if contrast.apart > EQUAL]
    if uneven:
        sentences.append(f"In {len(uneven)} of {len(contrasts)} of these comparisons the final densities as realised differ, by "
                         f"up to {100 * max(uneven):.2g}%.")
    return sentences
