"""What the contrasts say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from popup.lab.report.comparison import COMPARED, Setting, shared_label, show
from popup.lab.report.contrasts import (
    EQUAL,
    Advantage,
    Contrast,
    advantages,
    best_contrasts,
    change_contrasts,
    source_contrasts,
    weak_advantages,
)
from popup.lab.report.factors import ANY, vague
from popup.lab.report.statistics import intervals_needed
from popup.lab.runs.controls import CONTROLS
from popup.lab.runs.grid import counted
from popup.source.recipe import SPREAD

CLEAR = 0.05   # Holm's p value below which a difference is called clear
HOPELESS = 5   # where a difference must be so many times its interval to be called clear, the number of seeds is too small


def verdicts(found: Sequence[Setting]) -> list[str]:
    """What the contrasts say, a sentence each."""
    sentences = [f"Usual, where no change is told: {_usual(found)}."] if found and found[0].usual else []
    if names := [name for name in SPREAD if any(setting.factors.get(name) == ANY for setting in found)]:
        sentences.append(f"With p = 1 every layerwise density{' and mask' * ('mask' in names)} is the same network: such runs "
                         f"are one setting, {' and '.join(f'{name} {ANY}' for name in names)}.")
    sentences += _control_verdicts(advantages(found, trained=False)) + _weak_verdicts(weak_advantages(found))
    sentences += [sentence for factor in COMPARED for sentence in _best_verdicts(best_contrasts(found, factor), factor)]
    return sentences + _change_verdicts(change_contrasts(found)) + _source_verdicts(source_contrasts(found))


def _usual(found: Sequence[Setting]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in found[0].usual.items())


def _sign(case: Contrast | Advantage) -> int:
    """1 where the first side is clearly better than the other, -1 where it is clearly worse, 0 where that is undecided."""
    clear = case.adjusted is not None and case.adjusted < CLEAR
    return (case.gain > 0) - (case.gain < 0) if clear else 0


def _holm(cases: Sequence[Contrast | Advantage]) -> str:
    """What calls a difference clear, with the number of seeds."""
    seeds = sorted({case.difference.count for case in cases})
    return f"Holm p < {CLEAR:g}, {f'{seeds[0]} to ' if len(seeds) > 1 else ''}{counted(seeds[-1], 'seed')}"


def _decided(cases: Sequence[Contrast | Advantage], above: str, below: str, other: str) -> str:
    """In how many cases the first side is clearly better than the `other`, which is called `above`, clearly worse, `below`, or
    neither; what none of them is goes unsaid."""
    signs = [_sign(case) for case in cases]
    decided = [(word, signs.count(sign)) for word, sign in ((above, 1), (below, -1)) if sign in signs]
    every = f"all {len(cases)} comparisons" if cases[1:] else "the one comparison"
    if not decided:
        said = f"neither clearly {above.removesuffix(' than')} nor {below} {other} in {every.replace('all', 'any of')}"
    elif decided[0][1] == len(cases):
        said = f"clearly {decided[0][0]} {other} in {every}"
    else:
        said = ", ".join([f"clearly {decided[0][0]} {other} in {decided[0][1]}",
                          *(f"clearly {word.removesuffix(' than')} in {count}" for word, count in decided[1:]),
                          *([f"undecided in {signs.count(0)}"] if 0 in signs else [])])
        said += f" of {len(cases)} comparisons"
    return f"{said} ({_holm(cases)})"


def _hopeless(cases: Sequence[Contrast | Advantage]) -> list[str]:
    """The sentence on so many comparisons of so few seeds that none of them is decided, however large the differences."""
    seeds, family = max(case.difference.count for case in cases), sum(case.adjusted is not None for case in cases)
    times = intervals_needed(seeds, family, CLEAR) if family else 0
    return [f"With {seeds} seeds a difference is clear among {family} only where it is {times:.0f} times the ± of its 95% "
            "interval, and none is: it takes more seeds to decide."] if times >= HOPELESS and not any(map(_sign, cases)) else []


def _control_verdicts(cases: Sequence[Advantage]) -> list[str]:
    """Whether the tickets are more than their frozen weights could do by chance."""
    cases = [one for one in cases if one.difference.count > 1]
    if not cases:
        return []
    least = min(cases, key=lambda one: one.gain)
    measure = least.setting.measure
    where, lead = least.setting.label().replace("er_p", "p"), f"{least.difference.value:.{measure.digits}f} {measure.points}"
    return [f"Tickets are {_decided(cases, measure.better, measure.worse, 'their controls with frozen weights')}; "
            f"the least difference is {lead} ({CONTROLS[least.role].title}{f', at {where}' if where else ''}).",
            *_hopeless(cases)]


def _weak_verdicts(cases: Sequence[Advantage]) -> list[str]:
    """Whether the mask and the weights that the search has found are worth something to training too."""
    tested = [one for one in cases if one.difference.count > 1]
    words = {"shuffled_trained": "its mask shuffled", "redrawn_trained": "its mask on other weights"}
    told = []
    for role, other in words.items():
        if mine := [one for one in tested if one.role == role]:
            measure = mine[0].setting.measure
            decided = _decided(mine, measure.better, measure.worse, f"{other}, trained alike,")
            told.append(f"With its own weights trained, a ticket is {decided}.")
    return told + (_hopeless(tested) if tested else [])


def _best_verdicts(contrasts: Sequence[Contrast], factor: str) -> list[str]:
    """Which value of the factor wins where, and which others it cannot be told from."""
    sentences, unclear, untested = [], [], 0
    beaten = {id(contrast.second) for contrast in contrasts}  # the best of some groups may stand behind another in a third
    groups: dict[tuple[int, str], list[Contrast]] = {}
    for contrast in contrasts:
        first = contrast.first
        where = shared_label(first, contrast.second if id(first) in beaten else first, (factor,)).replace("er_p", "p")
        groups.setdefault((id(first), where), []).append(contrast)
    for (_, where), mine in groups.items():
        if all(contrast.difference.count == 1 for contrast in mine):
            untested += 1
        elif any(_sign(contrast) > 0 for contrast in mine):
            sentences.append(_winner(mine, factor, where))
        else:
            unclear.append(mine)
    total = len(unclear) + untested + len(sentences)
    if unclear:
        worse = contrasts[0].first.measure.worse
        sentences.append(f"In {len(unclear)} of {total} settings no {COMPARED[factor]} is clearly {worse} the best "
                         f"({_holm([contrast for mine in unclear for contrast in mine])}).")
    if untested:
        sentences.append(f"In {untested} of {total} settings there is one seed, which is no test of which {COMPARED[factor]} is "
                         "best.")
    return sentences


def _winner(contrasts: Sequence[Contrast], factor: str, where: str) -> str:
    """The sentence on the best of a group, which is clearly above some of the others; `where` that is, in words."""
    best = contrasts[0].first

    def names(chosen: Sequence[Contrast]) -> str:
        return ", ".join(_other(contrast, factor) for contrast in chosen)

    clear = [contrast for contrast in contrasts if _sign(contrast) > 0]
    alone = [contrast for contrast in contrasts if contrast.difference.count == 1]
    rest = [contrast for contrast in contrasts if contrast not in clear and contrast not in alone]
    return (f"{f'At {where} ' if where else ''}{show(best.factors[factor])} is best: clearly {best.measure.better} "
            f"{names(clear)} "
            f"({_holm(clear)}){f', not to be told from {names(rest)}' if rest else ''}"
            f"{f', with one seed and so no test against {names(alone)}' if alone else ''}.")


def _other(contrast: Contrast, factor: str) -> str:
    """The other side of a contrast by its value of the factor, and of those that do not matter to the first side."""
    other = contrast.second.factors
    own = [f"{name} {show(other[name])}" for name, value in contrast.first.factors.items()
           if vague(value) and value != other[name] and name != factor]
    return show(other[factor]) + (f" ({', '.join(own)})" if own else "")


def _change_verdicts(contrasts: Sequence[Contrast]) -> list[str]:
    """How often a change is clearly for the better or the worse, and by which."""
    tested = [contrast for contrast in contrasts if contrast.difference.count > 1]
    if not tested:
        return []
    told = [f"{words}: {', '.join(dict.fromkeys(one.first.changed for one in tested if _sign(one) == sign))}"
            for sign, words in ((1, "better"), (-1, "worse")) if any(_sign(one) == sign for one in tested)]
    which = f" ({'; '.join(told)})" if told else ""
    return [f"A change is {_decided(tested, 'better than', 'worse than', 'the usual setting')}{which}.", *_hopeless(tested)]


def _source_verdicts(contrasts: Sequence[Contrast]) -> list[str]:
    """What starting inside an ER source costs, and where the densities that are compared are not equal."""
    tested = [contrast for contrast in contrasts if contrast.difference.count > 1]
    decided = _decided(tested, "better than", "worse than", "starting dense") if tested else ""
    sentences = [f"At equal p k, starting inside an ER network is {decided}.", *_hopeless(tested)] if tested else []
    if contrasts and not tested:
        sentences = ["Of starting inside an ER network or dense there is one seed, which is no test."]
    uneven = [contrast.apart for contrast in contrasts if contrast.apart > EQUAL]
    if uneven:
        sentences.append(f"In {len(uneven)} of {len(contrasts)} of these comparisons the final densities as realised differ, by "
                         f"up to {100 * max(uneven):.2g}%.")
    return sentences
