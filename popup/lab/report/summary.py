"""A comparison in words and tables that fit a terminal of 100 columns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby

from popup.lab.report.comparison import (
    COMPARED,
    Contrast,
    Setting,
    best_contrasts,
    change_contrasts,
    measured_on,
    pooled,
    show,
    source_contrasts,
)
from popup.lab.report.results import Run
from popup.lab.report.statistics import Difference, Mean
from popup.lab.report.tables import WIDTH, table
from popup.lab.runs.controls import CONTROLS

SHORT = {"er_p": "p", "random": "random", "shuffled": "shuffled", "redrawn": "redrawn", "source": "source",
         "random_trained": "random, trained", "er_trained": "ER, trained", "dense_trained": "dense, trained"}
CLEAR = 0.05  # Holm's p value below which a difference is called clear
Table = tuple[str, list[str], list[list[str]]]  # title, header, rows


def summarise(runs: Sequence[Run], found: Sequence[Setting]) -> str:
    """The whole report as text."""
    parts = [_fit(*part) for part in tables(found)]
    parts += failure_lines(runs)
    return "\n\n".join(parts)


def tables(found: Sequence[Setting]) -> list[Table]:
    """All tables: tickets, controls, contrasts; empty ones left out."""
    if not found:
        return []
    made = [ticket_table(found), control_table(found), change_table(found),
            *(contrast_table(f"{title.capitalize()}: the best mean against the others (paired over seeds; Holm over all pairs)",
                             best_contrasts(found, factor), (factor,)) for factor, title in COMPARED.items()),
            contrast_table("Starting sparse: ER source against dense source at equal final density (paired over seeds)",
                           source_contrasts(found), ("er_p", "k", "density"))]
    return [part for part in made if part[2]]


def ticket_table(found: Sequence[Setting]) -> Table:
    """Tickets, and what trained weights reach in the same edges, with intervals."""
    roles = [role for role, control in CONTROLS.items()
             if control.trained and any(setting.controls[role] for setting in found)]
    header = [*_names(found), "density", "ticket %", *(SHORT[role] for role in roles), "seeds"]
    rows = [[*_values(setting), f"{setting.final_density:.4f}", setting.accuracy.text(),
             *(_text(setting.control(role)) for role in roles), str(setting.accuracy.count)] for setting in found]
    counts = [setting.accuracy.count for setting in found]
    note = "one seed, so no interval" if max(counts) == 1 else "mean ±half of the 95% t interval over seeds"
    measured = measured_on(found).capitalize()
    return f"{measured} accuracy in % at the last epoch ({note}); density: kept / all weights, realised", header, rows


def control_table(found: Sequence[Setting]) -> Table:
    """Frozen-weight controls beside the ticket."""
    roles = [role for role, control in CONTROLS.items()
             if not control.trained and any(setting.controls[role] for setting in found)]
    header = [*_names(found), "ticket %", *(SHORT[role] for role in roles)]
    rows = [[*_values(setting), setting.accuracy.text(), *(_text(setting.control(role)) for role in roles)]
            for setting in found] if roles else []
    return "Controls with frozen weights, same counts in each layer (source: all edges)", header, rows


def change_table(found: Sequence[Setting]) -> Table:
    """One row a change: its accuracy, the usual setting's, the difference with its interval and p values."""
    header = [*_names(found), "ticket %", "usual %", "difference", "p", "p (Holm)", "seeds"]
    rows = []
    for changed, group in groupby(change_contrasts(found), key=lambda contrast: contrast.first.changed):
        mine = list(group)
        rows += [[*_values(contrast.first), contrast.first.accuracy.text(), contrast.second.accuracy.text(),
                  *_difference(contrast.difference, contrast.adjusted)] for contrast in mine]
        if len(mine) > 1 and (over_all := pooled(mine)):
            rows.append([changed, *["all"] * (len(_names(found)) - 1), "", "", *_difference(over_all, None)])
    return "What a change does to the usual setting (paired over seeds; all: the mean of the rows above)", header, rows


def _difference(difference: Difference, adjusted: float | None) -> list[str]:
    return [Mean(difference.value, difference.half, difference.count).text(2), _p(difference.p_value), _p(adjusted),
            str(difference.count)]


def contrast_table(title: str, contrasts: Sequence[Contrast], names: Sequence[str]) -> Table:
    """One row a contrast: both sides, the difference with its interval, p value, Holm's p value."""
    header = ["first", "second", "elsewhere equal", "difference", "p", "p (Holm)", "seeds"]
    rows = []
    for contrast in contrasts:
        sides = [", ".join(show(value) if name in COMPARED else f"{SHORT.get(name, name)} {show(value)}"
                           for name in names for value in [setting.config.flat()[name]])
                 for setting in (contrast.first, contrast.second)]
        elsewhere = contrast.first.label(names).replace("er_p", "p")
        rows.append([*sides, elsewhere or "-", *_difference(contrast.difference, contrast.adjusted)])
    return title, header, rows


def verdicts(found: Sequence[Setting]) -> list[str]:
    """What the contrasts say, a sentence each."""
    sentences = [f"Usual, where no change is told: {_usual(found)}."] if found and found[0].usual else []
    sentences += [sentence for factor in COMPARED for sentence in _best_verdicts(best_contrasts(found, factor), factor)]
    costs = [contrast for contrast in source_contrasts(found) if contrast.adjusted is not None]
    worse = sum(contrast.adjusted < CLEAR and contrast.difference.value < 0 for contrast in costs)
    if costs:
        sentences.append(f"Starting inside an ER network is clearly worse than starting dense in {worse} of "
                         f"{len(costs)} comparisons at equal final density (Holm p < {CLEAR:g}).")
    return sentences


def _best_verdicts(contrasts: Sequence[Contrast], factor: str) -> list[str]:
    """Which value of the factor wins where, and which others it cannot be told from."""
    sentences, unclear = [], 0
    for _, group in groupby(contrasts, key=lambda contrast: id(contrast.first)):
        mine = list(group)
        best, values = mine[0].first, [contrast.second.factors[factor] for contrast in mine]
        clear = [value for value, contrast in zip(values, mine, strict=True)
                 if contrast.adjusted is not None and contrast.adjusted < CLEAR and contrast.difference.value > 0]
        rest = [value for value in values if value not in clear]
        if not clear:
            unclear += 1
            continue
        where = best.label((factor,)).replace("er_p", "p") or "here"
        close = f", not to be told from {', '.join(rest)}" if rest else ""
        sentences.append(f"At {where} {best.factors[factor]} is best: clearly above {', '.join(clear)} "
                         f"(Holm p < {CLEAR:g}){close}.")
    if unclear:
        total = unclear + len(sentences)
        sentences.append(f"In {unclear} of {total} settings no {COMPARED[factor]} is clearly below the best.")
    return sentences


def failure_lines(runs: Sequence[Run]) -> list[str]:
    """The failed runs with their reasons."""
    failed = [run for run in runs if run.failure]
    return [f"{len(failed)} failed:\n" + "\n".join(f"  {run.config.hash()}: {run.failure}"[:WIDTH] for run in failed)] \
        if failed else []


def mixed_lines(runs: Sequence[Run]) -> list[str]:
    """A warning for each data set whose runs saw different images under one name."""
    seen: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for run in runs:
        if fingerprint := (run.result or {}).get("data_fingerprint"):
            seen[run.config.task.dataset, run.config.task.image_size][fingerprint] += 1
    return [f"WARNING, not of the same images: runs on {name} saw {len(counts)} different versions of it "
            f"({' and '.join(map(str, counts.values()))} runs)." for (name, _), counts in seen.items() if len(counts) > 1]


def _usual(found: Sequence[Setting]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in found[0].usual.items())


def _names(found: Sequence[Setting]) -> list[str]:
    return [SHORT.get(name, name) for name in found[0].columns]


def _values(setting: Setting) -> list[str]:
    return list(setting.columns.values())


def _text(value: Mean | None) -> str:
    return "-" if value is None else value.text()


def _p(value: float | None) -> str:
    return "-" if value is None else ("<0.001" if value < 0.001 else f"{value:.3f}")


def _fit(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as text, its widest text columns cut until it fits the width."""
    limit = WIDTH
    text = table(header, rows)
    while max(len(line) for line in text.splitlines()) > WIDTH and limit > 8:
        limit -= 4
        text = table([_cut(cell, limit) for cell in header], [[_cut(cell, limit) for cell in row] for row in rows])
    return f"{title}\n{text}"


def _cut(cell: str, limit: int) -> str:
    return cell if len(cell) <= limit or "±" in cell else cell[:limit - 2] + ".."
