"""python run.py prove: build the ticket that theory promises for a target, inside one fixed ER source, and measure it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path

from popup.errors import UsageError, check_count, check_name, check_number
from popup.files import write_atomically
from popup.lab.commands.arguments import parse_as
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.networks import Models, find_builder
from popup.lab.report.existence_figures import draw_gaps
from popup.lab.report.tables import table
from popup.lab.runs.directory import check_writable
from popup.lab.runs.existence import (
    WEIGHTS,
    Built,
    Found,
    Trained,
    build_ticket,
    check_tickets,
    load_target,
    plan_for,
    search_ticket,
    source_recipe,
    target_file,
    train_target,
)
from popup.lab.runs.laboratory import Laboratory
from popup.theory.plan import Plan

DONE, FAILED = 0, 1
OWN_WIDTHS = {"mlp": (16, 16)}


@dataclass(frozen=True)
class ProveOptions:
    """Build, inside one fixed ER source of one seed, the ticket whose function is within epsilon of a given target network.

    The target is trained here, or read from a file. No weight of the source is redrawn or written: the ticket is bits."""

    er_p: tuple[float, ...] = field(default=(0.9, 0.5, 0.3), metadata={"help": "densities p of the sources"})
    epsilon: float = field(default=0.01, metadata={"help": "largest error of an output over the inputs' domain"})
    tolerance: float = field(default=0.0, metadata={
        "help": "error that the parameters are built to, in place of the budget that is planned from epsilon; then nothing but "
                "what is certain is promised of the output; 0: the budget"})
    copies: int = field(default=0, metadata={
        "help": "width factor q: copies of each neuron, in all layers; 0: as many as the measured law asks for"})
    weights: str = field(default="uniform", metadata={
        "help": "the source's weights: uniform in [-1, 1], or normal with deviation sqrt(2 / (fan_in p)); such a ticket "
                "computes a known multiple of the target", "choices": tuple(WEIGHTS)})
    seed: int = field(default=0, metadata={"help": "seed of the target, and of the first source"})
    seeds: int = field(default=1, metadata={"help": "sources at each p, of seeds counted up from --seed"})
    model: str = field(default="mlp", metadata={
        "help": "target network: linear and convolutional layers with ReLU between and pooling, by name, MODULE:FUNCTION, or "
                "chain:WORDS such as chain:conv3p1-relu-max2-flatten-linear (with --widths 8)"})
    widths: tuple[int, ...] = field(default=(), metadata={
        "help": "hidden widths or channels of the target; none: the network's own (mlp: 16 16)"})
    dataset: str = field(default="digits", metadata={"help": "data set of the target"})
    target: str = field(default="", metadata={
        "help": "safetensors file with the target's state_dict, for images normalised as runs do; none: it is trained here"})
    epochs: int = field(default=30, metadata={"help": "epochs of the target's training"})
    weight_decay: float = field(default=0.01, metadata={
        "help": "weight decay of the target's training: weights that are too large cannot be built"})
    compare: int = field(default=5, metadata={
        "help": "epochs in which edge-popup searches the first source of each p, for comparison; 0: no comparison"})
    most_weights: int = field(default=200_000_000, metadata={
        "help": "most weights of a source that is built (some 20 bytes each)"})
    device: str = field(default="cpu", metadata={"help": "where networks are trained and evaluated"})
    threads: int = field(default=0, metadata={
        "help": "CPU threads; 0: as many as a run on the data has, two for the subset sums"})
    data_dir: str = field(default=Machine.data_dir, metadata={"help": "directory of data sets"})
    out: str = field(default="existence", metadata={"help": "directory of the tickets and of existence.json"})

    def __post_init__(self) -> None:
        if not self.er_p:
            raise UsageError("--er-p has no value: give one or more")
        for p in self.er_p:
            check_number("er_p", p, 0.0, 1.0, open_low=True)
        check_number("epsilon", self.epsilon, 0.0, inf, open_low=True)
        check_number("tolerance", self.tolerance, 0.0, 1.0)
        check_name("weights", self.weights, WEIGHTS)
        for name, low in (("copies", 0), ("seed", 0), ("seeds", 1), ("epochs", 1), ("compare", 0), ("most_weights", 1),
                          ("threads", 0)):
            check_count(name, getattr(self, name), low)


def prove(arguments: Sequence[str], models: Models) -> int:
    """Build and measure a ticket for each p and seed; exit code 1 if one misses epsilon, which is then not written."""
    options = parse_as(ProveOptions, arguments, "prove")
    find_builder(models, options.model)
    out = check_writable(Path(options.out))
    laboratory = Laboratory(models, Machine(options.device, options.threads, options.data_dir), out)
    config = Config.from_flat({
        "model": options.model, "widths": options.widths or OWN_WIDTHS.get(options.model, ()), "dataset": options.dataset,
        "seed": options.seed, "epochs": options.epochs, "weight_decay": options.weight_decay, "role": "dense_trained",
        "er_p": 1.0, "k": 1.0})
    path = Path(options.target)
    trained = load_target(laboratory, config, path) if options.target else train_target(laboratory, config)
    plans = {p: plan_for(trained, p, options.epsilon, options.tolerance, options.copies, options.most_weights, options.weights)
             for p in options.er_p}  # what cannot be is told before anything is built
    check_tickets(out, trained)
    _describe(laboratory, config, trained)
    write_atomically(out / "target.safetensors", target_file(trained))  # with it the tickets can be compared at any time
    rows = [_prove_at(laboratory, config, options, trained, p, plan) for p, plan in plans.items()]
    record = {"options": asdict(options), "sources": rows, "target": {
        "widths": trained.target.widths, "parameters": trained.target.parameters, "test_accuracy": trained.accuracy,
        "seconds": trained.seconds}}
    write_atomically(out / "existence.json", (json.dumps(record, indent=1) + "\n").encode())
    missed = [f"p = {row['er_p']:g}: {row['failures']} of {options.seeds}" for row in rows if row["failures"]]
    write_atomically(out / "existence.png", draw_gaps(rows, None if options.tolerance else options.epsilon))
    print(f"written to {out}/: existence.json existence.png target.safetensors and the tickets")
    if missed:
        print(f"missed {_promise(options)}, so that no ticket was written: {', '.join(missed)}")
    return FAILED if missed else DONE


def _describe(laboratory: Laboratory, config: Config, trained: Trained) -> None:
    target, data = trained.target, laboratory.data(config)
    branches = "both branches of each are" if len(target.branches) == 2 else "of one sign, so one branch of each is"
    print(f"target: {config.task.model} {'-'.join(map(str, target.widths))} on {data.title}, {target.parameters:,} "
          f"parameters, {data.evaluated_on} accuracy {trained.accuracy:.2f}%\n"
          f"inputs in [{target.low:.3g}, {target.high:.3g}] ({branches} copied)\n", flush=True)


def _prove_at(laboratory: Laboratory, config: Config, options: ProveOptions, trained: Trained, p: float,
              plan: Plan) -> dict[str, object]:
    """Build at one p with each seed, compare with edge-popup in the first source, print; returns the record."""
    target = trained.target
    factors = ", ".join(f"{width / neurons:.0f}" for width, neurons in zip(plan.widths, target.widths, strict=False))
    print(f"p = {p:g}: source {target.widths[0] + 1}-{'-'.join(map(str, plan.widths))}-{target.widths[-1]}, "
          f"width factors {factors}", flush=True)
    builts = []
    for seed in range(options.seed, options.seed + options.seeds):
        recipe = source_recipe(options.weights, p, seed)
        built = build_ticket(laboratory, config, trained, plan, recipe, options.threads or 2)
        holds = built.sound and (bool(options.tolerance) or built.largest_gap <= options.epsilon)
        path = laboratory.out / f"ticket-p{p:g}-seed{seed}.safetensors"
        if holds:
            built.ticket.save(path)
        else:
            path.unlink(missing_ok=True)
        builts.append((seed, built, holds))
        print(_gap_line(seed, built, holds, options), flush=True)
    failures = sum(not holds for _, _, holds in builts)
    first = builts[0][1]
    found = search_ticket(laboratory, config, trained, first, options.compare) if options.compare else None
    print(f"misses of {_promise(options)}: {failures} of {options.seeds} sources\n\n{_fit_table(first)}\n\n"
          f"{_comparison(trained, first, found, options)}\n", flush=True)
    return {"er_p": p, "failures": failures, "plan": {**asdict(plan), "widths": plan.widths},
            "tickets": [_record(seed, built, holds) for seed, built, holds in builts],
            "edge_popup": found and {"test_accuracy": found.accuracy, "seconds": found.seconds, "kept": _kept(found)}}


def _promise(options: ProveOptions) -> str:
    """What gaps are held against; whatever it is, none may be above what is certain."""
    return "what is certain" if options.tolerance else f"epsilon {options.epsilon:g}"


def _gap_line(seed: int, built: Built, holds: bool, options: ProveOptions) -> str:
    gaps = "; ".join(f"{name} {gap.largest:.2g} ({gap.mean:.1g})" for name, gap in built.gaps.items())
    said = f"within {_promise(options)}" if holds else f"MISSED {_promise(options)}"
    if not built.sound:
        said = "BROKEN: a gap is above what is certain"
    return (f"seed {seed}: {'ok, ' if holds else ''}{said}, accuracy {built.accuracy:.2f}%\n"
            f"  |f_T - f_P|, largest (mean): {gaps}; certain for the whole domain: {built.construction.guaranteed:.2g}")


def _fit_table(built: Built) -> str:
    """How well the parameters of each layer are met, over all their copies."""
    rows = [[str(place + 1), f"{fit.parameters:,}", f"{fit.candidates:.1f}", f"{fit.edges:.1f}", f"{fit.tolerance:.1e}",
             f"{100 * fit.met:.1f}", f"{fit.largest:.1e}"] for place, fit in enumerate(built.construction.fits)]
    return table(["layer", "parameters", "candidates", "edges", "tolerance", "met %", "largest error"], rows)


def _comparison(trained: Trained, built: Built, found: Found | None, options: ProveOptions) -> str:
    """The target, the built ticket and the one that edge-popup found in the same source, side by side."""
    layers = built.ticket.layers
    entries, edges = sum(layer.spec.entries for layer in layers), sum(len(layer.codes) for layer in layers)
    kept, parameters = sum(layer.kept for layer in layers), f"{trained.target.parameters:,}"
    rows = [["target, trained", f"{trained.accuracy:.2f}", parameters, "", parameters, "1.0000", f"{trained.seconds:.0f}"],
            ["ticket, built", f"{built.accuracy:.2f}", f"{entries:,}", f"{edges:,}", f"{kept:,}", f"{kept / entries:.4f}",
             f"{built.seconds:.0f}"]]
    if found:
        name = f"edge-popup, {options.compare} epoch{'s' * (options.compare > 1)}"
        rows.append([name, f"{found.accuracy:.2f}", f"{entries:,}", f"{edges:,}",
                     f"{_kept(found):,}", f"{_kept(found) / entries:.4f}", f"{found.seconds:.0f}"])
    return table(["", "accuracy %", "weights", "edges", "kept", "density", "CPU s"], rows)


def _kept(found: Found) -> int:
    return sum(layer.kept for layer in found.ticket.layers)


def _record(seed: int, built: Built, holds: bool) -> dict[str, object]:
    construction = built.construction
    return {"seed": seed, "holds": holds, "test_accuracy": built.accuracy, "seconds": built.seconds,
            "gaps": {name: asdict(gap) for name, gap in built.gaps.items()}, "multiple": construction.multiple,
            "guaranteed": construction.guaranteed, "fits": [asdict(fit) for fit in construction.fits],
            "layers": [asdict(row) for row in built.ticket.densities()]}
