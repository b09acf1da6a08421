"""python run.py law: measure what existence costs: copies against p and epsilon, exact representation, its lower bound."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from math import ceil, inf
from pathlib import Path
from statistics import median
from typing import Any

from popup.files import write_atomically
from popup.lab.commands.arguments import parse_as
from popup.lab.commands.law_options import LawOptions
from popup.lab.networks import Models
from popup.lab.report.existence_figures import draw_findability, draw_law, draw_representation
from popup.lab.report.tables import table
from popup.lab.runs.directory import check_writable
from popup.lab.runs.findability import HIDDEN, K, Trial, best_found, best_known, least_width, run_trial
from popup.lab.runs.misses import Misses, Planned, measure_misses, plan_target
from popup.lab.text import printable
from popup.theory.attention import DIMENSIONS, FEATURES, head_error
from popup.theory.fits import FORMS, fit_form, met_at_once, require_at_once
from popup.theory.law import LEAST, OFFSET, SLOPE
from popup.theory.locked import MOST, measure_locked
from popup.theory.measurement import (
    Representation,
    Requirement,
    copies_to_represent,
    fit_candidates,
    fit_constant,
    least_copies,
    measure_representation,
    measure_requirements,
)
from popup.theory.subset_sum import MOST_CANDIDATES

WIDTHS = (8, 6, 6, 4)  # of the target that is to be represented exactly
DELTA = 0.05
SECONDS = 5e-7         # of a core, for each weight of a source in which a ticket is built and looked at (an AMD EPYC)
NODES = 64             # of the lower bound: nodes that each need an edge to the hidden layer


def law(arguments: Sequence[str], models: Models) -> int:
    """Measure, print, plot."""
    options = parse_as(LawOptions, arguments, "law")
    out = check_writable(Path(options.out))
    plans = _plans(options)  # what cannot be is told before anything is measured
    measured = {kind: [row for p in options.er_p for row in measure_requirements(p, options.epsilon, options.parameters,
                                                                                options.seed, kind == "products", options.delta)]
                for kind in ("weights", "products")}
    for kind, found in measured.items():
        for delta in options.delta:
            print(f"{_title(kind, delta)}\n{_requirements(found, options, delta)}\n", flush=True)
        print(f"{_forms(found)}\n{_fits(_of(found, options.delta[0]))}\n", flush=True)
    first = _of(measured["weights"], options.delta[0])
    write_atomically(out / "law.png", draw_law(first, fit_constant(first)))
    if options.all_at_once:
        measured["all at once"] = _all_at_once(measured["weights"], options)
    for share in options.locked:
        measured[f"locked {share:g}"] = _with_locked(share, options)
    record: dict[str, Any] = {"options": asdict(options),
                              "requirements": {kind: list(map(asdict, rows)) for kind, rows in measured.items()}}
    keep = partial(_keep, out / "law.json", record)
    keep()
    sparse = any(p < 1 for p in options.er_p)
    if options.sources and sparse:  # at p = 1 every pair is joined
        shown = _representations(options)
        write_atomically(out / "representation.png", draw_representation(shown, WIDTHS, DELTA))
        keep(representation=[asdict(row) for row in shown])
    if options.attention:
        keep(attention=_heads(options))
    if plans:
        _misses(plans, options, models, lambda found: keep(misses=list(map(asdict, found))))
    trials = _trials(options, models) if options.searches else []
    if trials:
        write_atomically(out / "findability.png", draw_findability(trials))
        keep(findability=[asdict(trial) for trial in trials])
    pictures = ["law.png"] + ["representation.png"] * bool(options.sources and sparse) + ["findability.png"] * bool(trials)
    print(f"written to {printable(out)}/: law.json {' '.join(pictures)}")
    return 0


def _keep(path: Path, record: dict[str, Any], **parts: list[Any]) -> None:
    """Write down what has been measured, as it is: what follows may take long."""
    record |= parts
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def _of(found: Sequence[Requirement], delta: float) -> list[Requirement]:
    return [row for row in found if row.delta == delta]


def _forms(found: Sequence[Requirement]) -> str:
    """Both forms of the law, with intervals and residuals."""
    rows = []
    for smaller, name in itertools.product((False, True) if len({row.delta for row in found}) > 1 else (False,), FORMS):
        if fit := fit_form(found, name, smaller):
            terms = [f"{value:.2f} ±{half:.2f}" for value, half in zip(fit.coefficients, fit.intervals, strict=True)]
            terms = [*terms[:2], "(the smaller)"] if smaller else terms
            rows.append([fit.form, *terms, f"{100 * fit.deviation:.1f}", f"{100 * fit.largest:.0f}", str(fit.points)])
    header = ["form", "a", "per decade of 1/eps", "of 1/delta", "residual %", "largest %", "points"]
    if not any(row.edges for row in found):
        return table(header, rows)
    fullest = max(row.p for row in found)
    edges = sorted({(row.epsilon, round(row.edges, 1)) for row in found if row.p == fullest}, reverse=True)
    sizes = ", ".join(f"{count:g} at {epsilon:g}" for epsilon, count in edges)
    return f"{table(header, rows)}\nedges of a parameter: {sizes}" if rows else f"edges of a parameter: {sizes}"


def _all_at_once(alone: Sequence[Requirement], options: LawOptions) -> list[Requirement]:
    """The law for all of [-1, 1] at once, beside that for one parameter, `alone`; prints both."""
    shares = {epsilon: met_at_once(epsilon, options.all_at_once, options.seed) for epsilon in options.epsilon}
    found = [require_at_once(p, epsilon, delta, shares[epsilon]) for p in options.er_p for epsilon in options.epsilon
             for delta in options.delta]
    one = {(row.p, row.epsilon, row.delta): row for row in alone}
    rows = []
    for row in found:
        pair = [one[row.p, row.epsilon, row.delta], row]
        if row.delta == options.delta[0]:
            rows.append([f"{row.p:g}", f"{row.epsilon:g}", *(f"{value:g}" if value < inf else "-" for value in (
                *(each.candidates for each in pair), *(each.copies for each in pair)))])
    header = ["p", "eps", "candidates: one", "all", "copies: one", "all"]
    print(f"one parameter is met, or all of [-1, 1] at once ({options.all_at_once} draws), delta = {options.delta[0]:g}\n"
          f"{table(header, rows)}\n\n{_forms(found)}\n", flush=True)
    return found


def _with_locked(share: float, options: LawOptions) -> list[Requirement]:
    """The law with a share of the edges locked; prints it for the first delta."""
    found = [row for p in options.er_p
             for row in measure_locked(p, share, options.epsilon, options.delta[0], options.parameters, options.seed)]
    print(f"the same from weights of which {100 * share:g}% are locked into the ticket, of up to {MOST} edges a parameter\n"
          f"{_requirements(found, options, options.delta[0])}\n", flush=True)
    return found


def _heads(options: LawOptions) -> list[dict[str, float]]:
    """Attention: the largest error of an entry of query times key, over sources, for each key dimension; prints it."""
    found, rows = list[dict[str, float]](), []
    for p, inner in itertools.product(options.er_p, DIMENSIONS):
        errors = [head_error(p, inner, options.seed + number) for number in range(options.attention)]
        rows.append([f"{p:g}", str(inner), f"{median(errors):.2g}", f"{max(errors):.2g}"])
        found += [{"p": p, "inner": inner, "seed": options.seed + number, "error": error} for number, error in enumerate(errors)]
    print(f"largest error of an entry of query times key, {FEATURES} features, {options.attention} sources of each dimension\n"
          f"{table(['p', 'key dimension', 'middle', 'largest'], rows)}\n", flush=True)
    return found


def _plans(options: LawOptions) -> list[Planned]:
    return [plan_target(widths, p, epsilon, options.delta[0], options.seed, options.most_weights)
            for widths in options.target_widths for epsilon in options.epsilon for p in options.er_p]


def _misses(plans: Sequence[Planned], options: LawOptions, models: Models, keep: Callable[[list[Misses]], None]) -> None:
    """Of each random target, epsilon and p the sources that miss it; keeps each as it is found, and prints all."""
    found, rows = list[Misses](), []
    entries = [planned.entries for planned in plans]
    minutes = max(1, round(SECONDS / 60 * options.sources * sum(entries)))
    print(f"{len(plans)} settings of --targets, {options.sources} sources each, of up to {max(entries):,} weights: "
          f"some {minutes:,} CPU minutes", flush=True)
    for planned in plans:
        row = measure_misses(planned, options.sources, options.seed, models["mlp_constant"])
        low, high = row.interval
        rows.append(["-".join(map(str, row.widths)), f"{row.epsilon:g}", f"{row.p:g}", ", ".join(map(str, row.copies)),
                     f"{row.missed} of {row.sources}", f"{100 * low:.2g}% to {100 * high:.2g}%", f"{row.largest:.2g}",
                     f"{row.seconds:.0f}"])
        found.append(row)
        keep(found)
    header = ["target", "eps", "p", "copies", "missed", "95% interval", "largest gap", "CPU s"]
    print(f"sources whose ticket of a random target was found to be off by more than eps, planned for at most "
          f"{100 * options.delta[0]:g}%\n{table(header, rows)}\n", flush=True)


def _trials(options: LawOptions, models: Models) -> list[Trial]:
    """Existence against findability; prints the least widths, and the middle gaps of each width."""
    trials, rows, gaps = list[Trial](), [], []
    for p in options.er_p:
        mine = [run_trial(p, width, options.seed + number, models["mlp_constant"]) for width in HIDDEN
                for number in range(options.searches)]
        for epsilon in options.epsilon:
            least = [least_width(mine, epsilon, gap) for gap in (best_known, best_found)]
            rows.append([f"{p:g}", f"{epsilon:g}", *(f"{width:g}" if width < inf else f"> {HIDDEN[-1]}" for width in least)])
        for width in HIDDEN:
            middle = [median(gap(trial) for trial in mine if trial.width == width) for gap in (best_known, best_found)]
            gaps.append([f"{p:g}", str(width), *(f"{value:.2g}" for value in middle)])
        trials += mine
    print(f"least width from which on half of {options.searches} sources hold a ticket of a target of two inputs within eps, and "
          f"edge-popup finds one (best of k = {', '.join(map(str, K))})\n{table(['p', 'eps', 'exists', 'found'], rows)}\n\n"
          f"middle of the largest gaps\n{table(['p', 'width', 'exists', 'found'], gaps)}\n", flush=True)
    return trials


def _title(kind: str, delta: float) -> str:
    weights = "weights in [-1, 1]" if kind == "weights" else "products of two weights (the first layer)"
    return f"least copies of a neuron with which {100 * (1 - delta):g}% of the parameters are met, from {weights}"


def _requirements(found: Sequence[Requirement], options: LawOptions, delta: float) -> str:
    by = {(row.p, row.epsilon): row.copies for row in _of(found, delta)}
    rows = [[f"{p:g}", *("-" if by[p, epsilon] == inf else f"{by[p, epsilon]:.0f}" for epsilon in options.epsilon)]
            for p in options.er_p]
    return table(["p", *(f"eps {epsilon:g}" for epsilon in options.epsilon)], rows)


def _fits(found: Sequence[Requirement]) -> str:
    constant, line, (least, more) = fit_constant(found), fit_candidates(found), LEAST["uniform", False]
    each = [fit_constant([row]) or 0 for row in found if row.p < 1 and row.copies < inf]
    fitted = [f"q = {constant:.2f} ln(1/eps) / ln(1/(1-p)) ({min(each):.2g} to {max(each):.2g} over {len(each)} points)"
              ] if constant else []
    fitted += [f"candidates = {line[0]:.2f} + {line[1]:.3f} log2(1/eps)"] if line else []
    lines = [f"fitted: {'; '.join(fitted)}"] if fitted else []
    lines += [] if constant else [f"no constant to fit: no p below 1 has an epsilon that {MOST_CANDIDATES} candidates reach"]
    lines += [] if line else [f"no slope to fit: that takes two values of --epsilon that {MOST_CANDIDATES} candidates reach"]
    return "\n".join([*lines, f"(prove plans with {OFFSET:g} + {SLOPE:g} log2(1/eps) candidates, and at least {least} + "
                      f"{more} |parameter|)"])


def _representations(options: LawOptions) -> list[Representation]:
    """Over q up to the theorem's, at each p below 1; prints the theorem's and the lower bound against what was measured."""
    found, rows = [], []
    for p in (p for p in options.er_p if p < 1):
        enough = ceil(copies_to_represent(WIDTHS, p, DELTA))
        mine = [measure_representation(WIDTHS, p, copies, options.sources)
                for copies in sorted({max(1, round(enough * step / 8)) for step in range(1, 9)})]
        bound = least_copies(NODES, p, DELTA)
        below, above = (measure_representation((1, NODES), p, max(1, copies), 20 * options.sources)
                        for copies in (ceil(bound) - 1, ceil(bound)))
        least = next((row.copies for row in mine if row.represented >= 1 - DELTA), None)
        rows.append([f"{p:g}", str(enough), f"{least or '-'}", f"{mine[-1].represented:.3f}", f"{bound:.1f}",
                     f"{1 - below.represented:.3f}" if ceil(bound) > 1 else "-", f"{1 - above.represented:.3f}"])
        found += mine
    header = ["p", "theorem's q", "enough (tried)", "P at the theorem's", "lower bound", "fails below", "above"]
    print(f"exact copies of a {'-'.join(map(str, WIDTHS))} target (weights free), delta = {DELTA:g}; lower bound for "
          f"{NODES} nodes\n{table(header, rows)}\n", flush=True)
    return found
