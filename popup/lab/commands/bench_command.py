"""python run.py bench: the table of ratios, its JSON, and the plot of the selection's cost against the number of scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from popup.errors import UsageError, check_count, check_name
from popup.files import write_atomically
from popup.lab.bench.bench import Build, Figure, measure, subjects, time_selection
from popup.lab.bench.precisions import compare
from popup.lab.bench.sparse_inference import BATCHES, InferenceCost, time_inference
from popup.lab.bench.subset_sums import SumCost, time_subset_sums
from popup.lab.commands.arguments import parse_as
from popup.lab.commands.bench_rows import CLASSES, PICTURE, builder_of, calls_of_a_step, small_networks, wide_networks
from popup.lab.machine import Machine, hardware, keep_freed_memory, versions
from popup.lab.networks import Models
from popup.lab.report.look import BLUE, ORANGE
from popup.lab.report.pictures import png
from popup.lab.report.tables import table
from popup.lab.runs.directory import check_writable
from popup.lab.text import printable

SIZES = {"mlp": (1, 28, 28)}
SMALLEST = 10_000  # scores from which on a selection is timed
WIDE, WIDTHS = "mlp", (2048, 2048)  # the network of sparse inference


@dataclass(frozen=True)
class BenchOptions:
    """Measure what a step of popup costs beside the dense network's own and published edge-popup: ratios, interleaved."""

    model: tuple[str, ...] = field(default=("mlp", "conv4", "resnet18"), metadata={"help": "networks to measure"})
    precision: tuple[str, ...] = field(default=("fp32", "bf16"), metadata={
        "help": "fp32, bf16 or both, which are then timed beside each other too"})
    batch: int = field(default=128, metadata={"help": "images a step"})
    side: int = field(default=0, metadata={"help": "height and width of the images; 0: 32, for the MLP 28"})
    rounds: int = field(default=7, metadata={"help": "times every subject is timed, in turn"})
    largest: int = field(default=10_000_000, metadata={
        "help": f"most scores in the plot of the selection, {SMALLEST:,} or more; 0: no plot"})
    subset_sums: bool = field(default=True, metadata={"help": "time the subset sums of `prove` too"})
    sparse_inference: bool = field(default=True, metadata={"help": "time sparse inference of a wide MLP too"})
    small_networks: bool = field(default=True, metadata={"help": "time steps of small networks too"})
    wide_networks: bool = field(default=True, metadata={
        "help": "time steps of wide MLPs at falling density too, beside sparselab and SparseProp where they are installed"})
    calls: bool = field(default=True, metadata={"help": "count the calls of a step too"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda ..."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0: every core"})
    out: str = field(default="bench", metadata={"help": "directory of bench.json and selection.png"})

    def __post_init__(self) -> None:
        for name, low in (("batch", 2), ("side", 0), ("rounds", 1), ("largest", 0), ("threads", 0)):
            check_count(name, getattr(self, name), low)
        if self.largest:
            check_count("largest", self.largest, SMALLEST)
        for name in ("model", "precision"):
            if not getattr(self, name):
                raise UsageError(f"--{name} has no value: give one or more")
        for name in self.precision:
            check_name("precision", name, ("fp32", "bf16"))


def bench(arguments: Sequence[str], models: Models) -> int:
    """Run the bench and print its tables."""
    options = parse_as(BenchOptions, arguments, "bench")
    builders = {name: _builder(models, name, options.side) for name in options.model}
    machine, out = Machine(options.device, options.threads), check_writable(Path(options.out))
    device = machine.torch_device()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{hardware(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {options.batch}; "
          f"ratios to the dense step of the same round, median (quartiles) of {options.rounds} rounds\n")
    measured, compared = {}, {}
    for name, builder in builders.items():
        image = _image(name, options.side)
        inputs = torch.randn(options.batch, *image, generator=torch.Generator().manual_seed(0)).to(device)
        labels = torch.arange(options.batch, device=device) % CLASSES
        for precision in options.precision:
            found = subjects(builder, inputs, labels, precision)
            with tqdm(total=options.rounds + 1, disable=None, leave=False, desc=f"{name} {precision}") as bar:
                figures = measure(found, options.rounds, bar.update)
            measured[f"{name} {precision}"] = [asdict(figure) for figure in figures]
            print(f"{name} at {'x'.join(map(str, image))}, {precision}\n{_table(figures)}\n", flush=True)
        if len(set(options.precision)) > 1:
            with tqdm(total=options.rounds + 1, disable=None, leave=False, desc=f"{name} fp32 and bf16") as bar:
                comparison = compare(builder, inputs, labels, options.rounds, bar.update)
            compared[name] = comparison.record()
            print(f"{name}: {comparison.line()}\n", flush=True)
    selection = _selection(out, options.largest) if options.largest else []
    small = small_networks(models, options.rounds, device) if options.small_networks else []
    wide = wide_networks(models, options.rounds, device) if options.wide_networks else []
    calls = calls_of_a_step(models) if options.calls else None
    inference = _sparse_inference(models, options.rounds, device) if options.sparse_inference else []
    sums = _subset_sums() if options.subset_sums else []
    record = {"options": asdict(options), "hardware": hardware(device), "versions": versions(),
              "threads": torch.get_num_threads(), "measured": measured, "precisions": compared, "selection": selection,
              "small_networks": small, "wide_networks": wide, "calls": calls,
              "sparse_inference": [asdict(row) for row in inference],
              "subset_sums": [asdict(row) for row in sums]}
    write_atomically(out / "bench.json", (json.dumps(record, indent=1) + "\n").encode())
    print(f"written to {printable(out)}/: bench.json{' selection.png' if selection else ''}")
    return 0


def _image(name: str, side: int) -> tuple[int, ...]:
    channels, *sides = SIZES.get(name, PICTURE)
    return channels, side or sides[0], side or sides[1]


def _builder(models: Models, name: str, side: int) -> Build:
    """What builds the network of that name, as a run does; a UsageError unless it can be built for images of that side."""
    build = builder_of(models, _image(name, side), name)
    build()
    return build


def _table(figures: Sequence[Figure]) -> str:
    rows = [[figure.name, f"{figure.ratio:.3f}", f"{figure.low:.3f}-{figure.high:.3f}", f"{figure.seconds * 1e3:.2f}",
             f"{figure.state / 1e6:.2f}" if figure.state else "-"] for figure in figures]
    return table(["", "ratio", "quartiles", "ms", "learned + momentum + index, MB"], rows)


def _selection(out: Path, largest: int) -> list[dict[str, float]]:
    """Time the selection alone from 10^4 scores up, print it and plot it."""
    sizes = [10**power * step for power in range(4, 9) for step in (1, 3) if 10**power * step <= largest]
    rows = time_selection(sizes)
    print("selection in one layer on the CPU, k = 0.5\n" + table(
        ["scores", "ms", "ns a score", "full sort, ms"],
        [[f"{size:,}", f"{ours * 1e3:.3f}", f"{ours / size * 1e9:.2f}", f"{theirs * 1e3:.2f}"] for size, ours, theirs in rows])
        + "\n")
    _plot(out / "selection.png", rows)
    return [{"scores": size, "seconds": ours, "sort_seconds": theirs} for size, ours, theirs in rows]


def _sparse_inference(models: Models, rounds: int, device: torch.device) -> list[InferenceCost]:
    """Time forward passes on kept edges alone, and print them."""
    image = SIZES[WIDE]
    build = builder_of(models, image, WIDE, WIDTHS)
    with tqdm(total=len(BATCHES) * (rounds + 1), disable=None, leave=False, desc="sparse inference") as bar:
        rows = time_inference(build, image, device, rounds, bar.update)
    lines = [[str(row.batch), figure.name, f"{1 / figure.ratio:.2f}", f"{1 / figure.high:.2f}-{1 / figure.low:.2f}",
              f"{figure.seconds * 1e3:.3f}", f"{figure.state / 1e6:.2f}"] for row in rows for figure in row.figures]
    name = f"{WIDE} {'-'.join(map(str, WIDTHS))} at {'x'.join(map(str, image))}"
    print(f"sparse inference, {name}, fp32: images/s over the dense network's\n"
          + table(["batch", "", "times", "quartiles", "ms", "network, MB"], lines) + "\n", flush=True)
    return rows


def _subset_sums() -> list[SumCost]:
    """Time the subset sums and print them."""
    rows = time_subset_sums()
    print("the best of all subset sums, CPU time on one thread\n" + table(
        ["candidates", "us a problem", "us by trying all"],
        [[str(row.candidates), f"{row.meeting:.1f}", f"{row.trying:.1f}" if row.trying else "-"] for row in rows]) + "\n")
    return rows


def _plot(path: Path, rows: Sequence[tuple[int, float, float]]) -> None:
    from matplotlib.figure import Figure as Picture  # half a second of import that only pictures need

    picture = Picture(figsize=(4.6, 3.2), layout="constrained", dpi=150)
    axes = picture.subplots()
    sizes = [row[0] for row in rows]
    axes.loglog(sizes, [row[2] * 1e3 for row in rows], color=ORANGE, marker="s", markersize=4, label="full sort")
    axes.loglog(sizes, [row[1] * 1e3 for row in rows], color=BLUE, marker="o", markersize=4, label="popup, exact top-k")
    axes.loglog(sizes, [rows[0][1] * 1e3 * size / sizes[0] for size in sizes], color="gray", linewidth=0.8, linestyle=":",
                label="linear")
    axes.set(xlabel="scores in the layer", ylabel="time of one selection (ms)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    write_atomically(path, png(picture))
