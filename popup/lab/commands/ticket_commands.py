"""The commands about tickets: eval, show, verify, export, diff. Each takes its arguments and returns the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from popup.errors import UsageError
from popup.files import write_atomically
from popup.lab.commands.arguments import parse_as
from popup.lab.commands.rebuild import (
    check_images,
    rebuild,
    recorded_accuracy,
    recorded_config,
    recorded_image,
    recorded_normalise,
    recorded_part,
)
from popup.lab.config import Config
from popup.lab.data.streamed import first_images
from popup.lab.machine import Machine
from popup.lab.networks import Models
from popup.lab.precision import Precision
from popup.lab.report.tables import check_lines, layer_table, table
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.training import EVALUATION_BATCH, evaluate
from popup.source.recipe import GIVEN
from popup.ticket.export import differing, onnx_file, plain_file, program_file
from popup.ticket.overlap import compare
from popup.ticket.ticket import Ticket, load
from popup.ticket.verification import verify

DONE, FAILED = 0, 1
ANOTHER_SCALE = "another k, gain or distribution"
NOT_REPEATED = "NOT repeated (another device or number of threads than the run's may round otherwise)"


def _load(path: str) -> Ticket:
    """The ticket at `path`; a path that names nothing is wrong input."""
    if Path(path).is_dir():
        inside = next(iter(sorted(Path(path).glob("**/ticket.safetensors"))), Path("ticket.safetensors"))
        raise UsageError(f"{path!r} is a directory: name a ticket file, such as {str(inside)!r}")
    try:
        return load(path)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path!r}: name a run's ticket.safetensors") from None


@dataclass(frozen=True)
class ShowOptions:
    """Print what a ticket is: its recipe, its layers, what was recorded about it."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})


@dataclass(frozen=True)
class VerifyOptions:
    """Draw a ticket's source anew and prove the laws on it."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})


@dataclass(frozen=True)
class DiffOptions:
    """Compare two tickets of one source: what they share by layer, against chance, and their accuracy."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})
    other: str = field(metadata={"help": "another one", "positional": True})


@dataclass(frozen=True)
class EvalOptions:
    """Rebuild a ticket's network from the file alone and measure its accuracy."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})
    dataset: str = field(default="", metadata={
        "help": "data set to test on; none: the ticket's own, whose accuracy must repeat"})
    model: str = field(default="", metadata={"help": "network; none: the one that the ticket names"})
    device: str = field(default="auto", metadata={"help": "where to compute; another than the run's may round otherwise"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0: as many as a run on the data has"})
    data_dir: str = field(default=Machine.data_dir, metadata={"help": "directory of data sets"})
    test: bool = field(default=False, metadata={
        "help": "measure on the test images, also where the run held out validation images and recorded their accuracy"})


@dataclass(frozen=True)
class ExportOptions:
    """Write a ticket's network for other programs: OUT.safetensors (a plain state_dict), OUT.pt2 (a torch.export program)
    or OUT.onnx, the last two checked to make the same predictions."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})
    out: str = field(metadata={"help": "the file to write; its ending says which form", "positional": True})
    csr: bool = field(default=False, metadata={"help": "safetensors: weights of Linear layers as compressed sparse rows"})
    model: str = field(default="", metadata={"help": "network; none: the one that the ticket names"})
    dataset: str = field(default="", metadata={"help": "data set of the check's images; none: the ticket's own"})
    data_dir: str = field(default=Machine.data_dir, metadata={"help": "directory of data sets"})


def show(arguments: Sequence[str], models: Models) -> int:
    """python run.py show TICKET"""
    options = parse_as(ShowOptions, arguments, "show")
    ticket = _load(options.ticket)
    size = Path(options.ticket).stat().st_size
    edges = sum(len(layer.selected) for layer in ticket.layers)
    recipe = ", ".join(f"{name} {value}" for name, value in ticket.recipe.record().items())
    settings = ", ".join(f"{name} {value}" for name, value in asdict(ticket.settings).items())
    print(f"{options.ticket}: {size:,} bytes for {edges:,} edges ({8 * size / max(1, edges):.2f} bits an edge)")
    print(f"source: {recipe}\nsearch: {settings}")
    for name, value in ticket.about.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
        said = f"{recorded_part(ticket)}_accuracy" if name == "test_accuracy" else name
        print(_clean(f"{said}: {text}"))
    print(f"also holds {len(ticket.statistics)} statistics and {len(ticket.given)} given parameters\n")
    print(layer_table(_summary(ticket)))
    return DONE


def _clean(text: str) -> str:
    """What a file says, without what a terminal would obey, at most 1,000 characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:1000])


def _summary(ticket: Ticket) -> dict[str, object]:
    """The densities as a run's result has them."""
    rows = [asdict(row) for row in ticket.densities()]
    entries, edges, kept = (sum(row[column] for row in rows) for column in ("entries", "edges", "kept"))
    return {"layers": rows, "entries": entries, "edges": edges, "kept": kept, "edge_density": edges / entries,
            "final_density": kept / entries}


def verify_ticket(arguments: Sequence[str], models: Models) -> int:
    """python run.py verify TICKET"""
    options = parse_as(VerifyOptions, arguments, "verify")
    ticket = _load(options.ticket)
    found = verify(ticket)
    who = "the seed gives" if ticket.recipe.draws_edges else f"the file holds (mask {ticket.recipe.mask})"
    weights = "the file their weights (weights given)" if ticket.recipe.weights == GIVEN else "the seed their weights again"
    checks = [("the file is whole: its digest is the one that was saved", ()),
              (f"{who} the {found.edges:,} edges of {found.layers} layers, {weights}", found.foreign),
              ("S_P within S_ER: every weight in use is an edge of that source, with its value", found.outside),
              ("exact counts: each layer keeps just what k asks for (a global scope: the network)", found.miscounted),
              ("nothing else is trained: biases are 0, or layers; gains of norms and blocks are 1", found.trained)]
    print(*check_lines(checks), sep="\n")
    return DONE if found.holds else FAILED


def diff(arguments: Sequence[str], models: Models) -> int:
    """python run.py diff TICKET OTHER"""
    options = parse_as(DiffOptions, arguments, "diff")
    one, other = _load(options.ticket), _load(options.other)
    rows = [[row.name[-34:], f"{row.edges:,}", f"{row.first:,}", f"{row.second:,}", f"{row.both:,}",
             f"{row.jaccard:.4f}", f"{row.chance:.4f}"] for row in compare(one, other)]
    print(table(["layer", "edges", "kept by A", "kept by B", "by both", "Jaccard", "by chance"], rows))
    for name, path, ticket in (("A", options.ticket, one), ("B", options.other, other)):
        accuracy = recorded_accuracy(ticket)
        print(f"{name}: {path}: {recorded_part(ticket)} accuracy {'not recorded' if accuracy is None else f'{accuracy:.2f}%'}")
    if [layer.weights_hash for layer in one.layers] != [layer.weights_hash for layer in other.layers]:
        redrawn = one.recipe == other.recipe and (one.method.redraws or other.method.redraws)
        print(f"the edges are the same, their weights are not ({'redrawn otherwise' if redrawn else ANOTHER_SCALE})")
    return DONE


def evaluate_ticket(arguments: Sequence[str], models: Models) -> int:
    """python run.py eval TICKET"""
    options = parse_as(EvalOptions, arguments, "eval")
    ticket = _load(options.ticket)
    machine = Machine(options.device, options.threads, options.data_dir)
    laboratory = Laboratory(models, machine, Path())
    config = recorded_config(ticket, options.model, options.dataset)
    if options.test:
        config = config.replace(validation=0.0)
    net = rebuild(ticket, models, config).to(laboratory.device)
    data = laboratory.data(config)
    check_images(ticket, data)
    images, labels = (part.to(laboratory.device) for part in data.test)
    precision = Precision.of(net, ticket.about.get("precision", "fp32"))
    accuracy = evaluate(net, images, labels, recorded_normalise(ticket, images), precision)["test_accuracy"]
    print(f"{config.task.model} on {data.title}: {data.evaluated_on} accuracy {accuracy:.2f}% of {len(labels):,} images")
    recorded = recorded_accuracy(ticket)
    if options.dataset or recorded is None or data.evaluated_on != recorded_part(ticket):
        return DONE
    print(f"recorded: {recorded:.2f}%, {'repeated exactly' if accuracy == recorded else NOT_REPEATED}")
    return DONE if accuracy == recorded else FAILED


def export(arguments: Sequence[str], models: Models) -> int:
    """python run.py export TICKET OUT"""
    options = parse_as(ExportOptions, arguments, "export")
    out, ticket = Path(options.out), _load(options.ticket)
    writers = {".safetensors": None, ".pt2": program_file, ".onnx": onnx_file}
    if out.suffix not in writers:
        raise UsageError(f"out is {options.out!r}: its ending must be one of {', '.join(writers)}")
    if out.resolve() == Path(options.ticket).resolve():
        raise UsageError(f"out is {options.out!r}, the ticket itself: name another file")
    if options.csr and out.suffix != ".safetensors":
        raise UsageError(f"csr is for .safetensors files, and out is {options.out!r}: leave --csr out")
    if out.suffix == ".safetensors":
        content, said = plain_file(ticket, options.csr), "a plain state_dict"
    else:
        config = recorded_config(ticket, options.model, options.dataset)
        net = rebuild(ticket, models, config)
        inputs, kind = _check_inputs(ticket, models, config, options)
        content, predict = writers[out.suffix](net, recorded_image(ticket)[0])
        others = differing(net, predict, inputs)
        said = f"the same predictions on {len(inputs):,} {kind}"
        if others:
            print(f"not written: it makes other predictions than the ticket on {others} of {len(inputs)} {kind}")
            return FAILED
    write_atomically(out, content)
    print(f"{out}: {len(content):,} bytes, {said}")
    scales = ticket.about.get("normalise")
    print(_clean(f"its inputs are images {ticket.about.get('image')}"
                 f"{f', as (pixel - mean) / deviation by channel: {scales}' if scales else ''}"))
    return DONE


def _check_inputs(ticket: Ticket, models: Models, config: Config, options: ExportOptions) -> tuple[torch.Tensor, str]:
    """The images that accuracies are of, normalised, or noise where the ticket's own data are not on this machine."""
    image, _ = recorded_image(ticket)
    try:
        data = Laboratory(models, Machine("cpu", 0, options.data_dir), Path()).data(config)
        check_images(ticket, data)
    except UsageError:
        if options.dataset:
            raise
        return torch.randn(256, *image, generator=torch.Generator().manual_seed(0)), "images of noise (the data are not here)"
    images = first_images(data.test[0], EVALUATION_BATCH)
    kind = "test images" if data.evaluated_on == "test" else "held-out training images"
    return recorded_normalise(ticket, images)(images), kind
