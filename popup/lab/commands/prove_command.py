"""python run.py prove: build the ticket that theory promises for a target, inside one fixed ER source, and measure it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from popup.errors import UsageError
from popup.files import write_atomically
from popup.lab.commands.arguments import parse_as
from popup.lab.commands.prove_options import ProveOptions
from popup.lab.config import Config
from popup.lab.inputs import is_embedded
from popup.lab.machine import Machine
from popup.lab.networks import Models, find_builder
from popup.lab.report.existence_figures import draw_gaps
from popup.lab.report.existence_text import comparison, fit_table, promise, summary_line, verdict_line
from popup.lab.runs.directory import check_writable
from popup.lab.runs.existence import PROVED, TESTED, Built, build_ticket, measure_ticket, plan_for, source_recipe
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.rival import search_ticket
from popup.lab.runs.targets import (
    Trained,
    as_they_are,
    check_tickets,
    load_target,
    quantised,
    target_file,
    train_target,
)
from popup.lab.text import printable
from popup.theory.plan import Plan

DONE, FAILED = 0, 1
OWN_WIDTHS = {"mlp": (16, 16)}


def prove(arguments: Sequence[str], models: Models) -> int:
    """Build and measure a ticket for each p and seed; exit code 1 if one misses epsilon, which is then not written."""
    options = parse_as(ProveOptions, arguments, "prove")
    find_builder(models, options.model)
    out = check_writable(Path(options.out))
    laboratory = Laboratory(models, Machine(options.device, options.threads, options.data_dir), out)
    config, trained = _target(laboratory, options)
    plans = {p: plan_for(trained, p, options.wish, options.most_weights)
             for p in options.er_p}  # what cannot be is told before anything is built
    check_tickets(out, trained)
    _describe(laboratory, config, trained)
    write_atomically(out / "target.safetensors", target_file(trained))  # with it the tickets can be compared at any time
    rows = [_prove_at(laboratory, config, options, trained, p, plan) for p, plan in plans.items()]
    record = {"options": asdict(options), "sources": rows, "target": {
        "widths": trained.target.widths, "parameters": trained.target.parameters, "test_accuracy": trained.accuracy,
        "domain": [trained.target.low, trained.target.high], "seconds": trained.seconds}}
    write_atomically(out / "existence.json", (json.dumps(record, indent=1) + "\n").encode())
    missed = [f"p = {row['er_p']:g}: {row['failures']} of {options.seeds}" for row in rows if row["failures"]]
    write_atomically(out / "existence.png", draw_gaps(rows, options.epsilon if options.wish.promised else None))
    print(f"written to {printable(out)}/: existence.json existence.png target.safetensors and the tickets")
    if missed:
        print(f"missed {promise(options.wish)}, so that no ticket was written: {', '.join(missed)}")
    return FAILED if missed else DONE


def _target(laboratory: Laboratory, options: ProveOptions) -> tuple[Config, Trained]:
    """The target and the config of its training."""
    config = Config.from_flat({
        "model": options.model, "widths": options.widths or OWN_WIDTHS.get(options.model, ()), "dataset": options.dataset,
        "seed": options.seed, "weight_decay": options.weight_decay, "role": "dense_trained", "er_p": 1.0, "k": 1.0})
    data = laboratory.data(config)
    if is_embedded(data.image):
        raise UsageError(f"{data.title} has tokens, and theory builds tickets of networks that name images: give a data set of "
                         "images")
    config = config.replace(**options.training_for(len(data.train[1])))
    if options.target:
        if options.raw:
            as_they_are(laboratory, config)
        trained = load_target(laboratory, config, Path(options.target), options.domain)
    else:
        trained = train_target(laboratory, config, options.domain, options.raw)
    return config, quantised(laboratory, config, trained, options.bits) if options.bits else trained


def _describe(laboratory: Laboratory, config: Config, trained: Trained) -> None:
    target, data = trained.target, laboratory.data(config)
    copied = "both branches of each are copied" if len(target.branches) == 2 else "of one sign, so one branch of each is copied"
    copied = copied if target.activation.homogeneous else f"copied so small that {target.activation.kind} is nearly linear"
    model, title = map(printable, (config.task.model, data.title))
    print(f"target: {model} {'-'.join(map(str, target.widths))} on {title}, {target.parameters:,} "
          f"parameters, {data.evaluated_on} accuracy {trained.accuracy:.2f}%\n"
          f"inputs in [{target.low:.3g}, {target.high:.3g}] ({copied})\n", flush=True)


def _prove_at(laboratory: Laboratory, config: Config, options: ProveOptions, trained: Trained, p: float,
              plan: Plan) -> dict[str, object]:
    """Build at one p with each seed, compare with edge-popup in the first source, print; returns the record."""
    target = trained.target
    factors = ", ".join(map(str, plan.copies))
    print(f"p = {p:g}: source {target.widths[0] + 1}-{'-'.join(map(str, plan.widths))}-{target.widths[-1]}, "
          f"copies {factors}", flush=True)
    built, rows = list[Built](), []
    for seed in range(options.seed, options.seed + options.seeds):
        new, verdict = _one(laboratory, config, options, trained, plan, p, seed)
        built = built or [new]
        rows.append(_record(seed, new, verdict))
        print(verdict_line(seed, new, verdict, options.wish), flush=True)
    verdicts = [str(row["verdict"]) for row in rows]
    first = built[0]
    found = search_ticket(laboratory, config, trained, first, options.compare) if options.compare else None
    print(f"{summary_line(verdicts, options.wish)}\n\n{fit_table(first)}\n\n"
          f"{comparison(trained, first, found, options.compare)}\n", flush=True)
    return {"er_p": p, "failures": sum(not row["holds"] for row in rows), "plan": {**asdict(plan), "widths": plan.widths},
            "tickets": rows, "edge_popup": found and {
                "test_accuracy": found.accuracy, "seconds": found.seconds,
                "kept": sum(layer.kept for layer in found.ticket.layers)}}


def _one(laboratory: Laboratory, config: Config, options: ProveOptions, trained: Trained, plan: Plan, p: float,
         seed: int) -> tuple[Built, str]:
    """One source's ticket and what it is. It is written before it is measured, as that may take long and much memory; and
    stays only if it holds."""
    path = laboratory.out / f"ticket-p{p:g}-seed{seed}.safetensors"
    recipe = source_recipe(options.source_weights, p, seed)
    built = build_ticket(laboratory, config, trained, plan, recipe, options.threads or 2)
    built.ticket.save(path)
    built = measure_ticket(laboratory, config, trained, built)
    verdict = built.verdict(options.wish)
    if verdict in (PROVED, TESTED):
        built.ticket.save(path)
    else:
        path.unlink(missing_ok=True)
    return built, verdict


def _record(seed: int, built: Built, verdict: str) -> dict[str, object]:
    construction = built.construction
    return {"seed": seed, "holds": verdict in (PROVED, TESTED), "verdict": verdict, "test_accuracy": built.accuracy,
            "seconds": built.seconds, "gaps": {name: asdict(gap) for name, gap in built.gaps.items()},
            "multiple": construction.multiple, "guaranteed": construction.guaranteed,
            "fits": [asdict(fit) for fit in construction.fits], "layers": [row.record() for row in built.ticket.densities()]}
