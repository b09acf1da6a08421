"""The commands about tickets: show, diff, export. Each takes its arguments and returns the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from popup.errors import UsageError
from popup.files import write_atomically
from popup.lab.commands.arguments import parse_as
from popup.lab.commands.ending import LONGEST_LINE
from popup.lab.commands.rebuild import (
    check_images,
    open_ticket,
    rebuild,
    recorded_config,
    recorded_image,
    recorded_normalise,
    recorded_part,
    recorded_value,
)
from popup.lab.config import Config
from popup.lab.data.streamed import first_images
from popup.lab.foreign import FAULTS, told
from popup.lab.inputs import blank, called, noise
from popup.lab.machine import Machine
from popup.lab.measure import ACCURACY, MEASURES
from popup.lab.networks import Models
from popup.lab.report.tables import layer_table, table
from popup.lab.runs.about import recorded_temperature
from popup.lab.runs.laboratory import Laboratory
from popup.lab.text import printable
from popup.lab.training.training import evaluation_parts
from popup.ticket.export import differing, onnx_file, plain_file, program_file, state_file
from popup.ticket.overlap import compare
from popup.ticket.sparse import sparse_layers
from popup.ticket.ticket import Ticket

DONE, FAILED = 0, 1
ANOTHER_SCALE = "another k, gain or distribution"


@dataclass(frozen=True)
class ShowOptions:
    """Print what a ticket is: its recipe, its layers, what was recorded about it."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})


@dataclass(frozen=True)
class DiffOptions:
    """Compare two tickets of one source: what they share by layer, against chance, and their accuracy."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})
    other: str = field(metadata={"help": "another one", "positional": True})


@dataclass(frozen=True)
class ExportOptions:
    """Write a ticket's network for other programs: OUT.safetensors (a plain state_dict), OUT.pt2 (a torch.export program)
    or OUT.onnx, the last two checked to make the same predictions."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})
    out: str = field(metadata={"help": "the file to write; its ending says which form", "positional": True})
    csr: bool = field(default=False, metadata={"help": "safetensors: weights of Linear layers as compressed sparse rows"})
    sparse: bool = field(default=False, metadata={
        "help": "safetensors (for popup.ticket.load_sparse) and pt2: the network whose linear layers are their kept edges alone"})
    model: str = field(default="", metadata={"help": "network; none: the one that the ticket names"})
    dataset: str = field(default="", metadata={"help": "data set of the check's images; none: the ticket's own"})
    data_dir: str = field(default=Machine.data_dir, metadata={"help": "directory of data sets"})


def show(arguments: Sequence[str], models: Models) -> int:
    """python run.py show TICKET"""
    options = parse_as(ShowOptions, arguments, "show")
    ticket = open_ticket(options.ticket)
    size = Path(options.ticket).stat().st_size
    edges = sum(len(layer.codes) for layer in ticket.layers)
    recipe = ", ".join(f"{name} {' '.join(value) if isinstance(value, tuple) else value}"
                       for name, value in ticket.recipe.record().items())
    used = ticket.settings.used()
    settings = ", ".join(f"{name} {value}" for name, value in asdict(ticket.settings).items() if name in used)
    print(f"{printable(options.ticket)}: {size:,} bytes for {edges:,} edges ({8 * size / max(1, edges):.2f} bits an edge)")
    print(f"{printable(f'source: {recipe}', LONGEST_LINE)}\nsearch: {settings}")
    for name, value in ticket.about.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
        said = name.replace("test", recorded_part(ticket)) if name in (measure.column for measure in MEASURES) else name
        print(printable(f"{said}: {text}"))
    dense = sum(tensor.numel() for tensor in ticket.given.values())
    print(f"also holds {len(ticket.statistics)} statistics and {len(ticket.given)} given parameters, {dense:,} dense weights\n")
    print(layer_table(_summary(ticket)))
    return DONE


def _summary(ticket: Ticket) -> dict[str, object]:
    """The densities as a run's result has them."""
    rows = [row.record() for row in ticket.densities()]
    entries, edges, kept = (sum(row[column] for row in rows) for column in ("entries", "edges", "kept"))
    return {"layers": rows, "entries": entries, "edges": edges, "kept": kept, "edge_density": edges / entries,
            "final_density": kept / entries}


def diff(arguments: Sequence[str], models: Models) -> int:
    """python run.py diff TICKET OTHER"""
    options = parse_as(DiffOptions, arguments, "diff")
    one, other = open_ticket(options.ticket), open_ticket(options.other)
    overlaps = compare(one, other)
    rows = [[row.name[-34:], f"{row.edges:,}", f"{row.first:,}", f"{row.second:,}", f"{row.both:,}",
             f"{row.jaccard:.4f}", f"{row.chance:.4f}"] for row in overlaps]
    print(table(["layer", "edges", "kept by A", "kept by B", "by both", "Jaccard", "by chance"], rows))
    if one.book.codes > 2 or other.book.codes > 2:
        books = one.book.name, other.book.name
        said = "the same code" if one.book == other.book else f"codes that mean the same, in books {' and '.join(books)}"
        print(f"of the {overlaps[-1].both:,} edges kept by both {overlaps[-1].alike:,} have {said}")
    for name, path, ticket in (("A", options.ticket, one), ("B", options.other, other)):
        measure, value = recorded_value(ticket) or (ACCURACY, None)
        told = "not recorded" if value is None else measure.text(value)
        print(f"{name}: {printable(path)}: {recorded_part(ticket)} {measure.name} {told}")
    if [layer.weights_hash for layer in one.layers] != [layer.weights_hash for layer in other.layers]:
        redrawn = one.recipe == other.recipe and not (one.book.keeps_weights and other.book.keeps_weights)
        print(f"the edges are the same, their weights are not ({'redrawn otherwise' if redrawn else ANOTHER_SCALE})")
    return DONE


def export(arguments: Sequence[str], models: Models) -> int:
    """python run.py export TICKET OUT"""
    options = parse_as(ExportOptions, arguments, "export")
    out, ticket = Path(options.out), open_ticket(options.ticket)
    writers = {".pt2": program_file, ".onnx": onnx_file}
    if out.suffix not in (".safetensors", *writers):
        raise UsageError(f"out is {options.out!r}: its ending must be one of .safetensors, {', '.join(writers)}")
    if not out.parent.is_dir():
        raise UsageError(f"out is {options.out!r}, and there is no directory {str(out.parent)!r}: make it, or name another file")
    if out.resolve() == Path(options.ticket).resolve():
        raise UsageError(f"out is {options.out!r}, the ticket itself: name another file")
    _check_form(options, out.suffix)
    if out.suffix == ".safetensors":
        content, said = _state(ticket, models, options)
    else:
        config = recorded_config(ticket, options.model, options.dataset)
        net = rebuild(ticket, models, config, options.sparse)
        inputs, kind = _check_inputs(ticket, models, config, options)
        try:
            content, predict = writers[out.suffix](net, blank(recorded_image(ticket)[0], 4))
            others = differing(rebuild(ticket, models, config) if options.sparse else net, predict, inputs)
        except (UsageError, MemoryError):
            raise
        except FAULTS as error:
            raise UsageError(f"torch {torch.__version__} cannot export this network for any number of inputs ({told(error)}): "
                             "name a .safetensors file, or write a forward that hangs neither on numbers nor on their "
                             "count") from None
        said = f"the same predictions on {len(inputs):,} {kind}"
        if others:
            print(f"not written: it makes other predictions than the ticket on {others} of {len(inputs)} {kind}")
            return FAILED
    write_atomically(out, content)
    print(f"{printable(out)}: {len(content):,} bytes, {said}")
    if ticket.about.get("image"):  # of a run's ticket; one that was made in Python says what its maker told it
        scales, kind = ticket.about.get("normalise"), called(recorded_image(ticket)[0])
        print(printable(f"its inputs are {kind} {ticket.about.get('image')}"
                        f"{f', as (pixel - mean) / deviation by channel: {scales}' if scales else ''}"))
    if (factor := recorded_temperature(ticket)) != 1:
        print(f"its loss was of outputs times {factor:.6g} (a learned temperature), which the file leaves out")
    return DONE


def _check_form(options: ExportOptions, ending: str) -> None:
    """A UsageError for options that a file of that ending cannot have."""
    if options.csr and ending != ".safetensors":
        raise UsageError(f"csr is for .safetensors files, and out is {options.out!r}: leave --csr out")
    if options.sparse and options.csr:
        raise UsageError("csr and sparse are two forms of the same: give --csr (for any program) or --sparse (for "
                         "popup.ticket.load_sparse)")
    if options.sparse and ending == ".onnx":
        raise UsageError(f"sparse is for .safetensors and .pt2 files, and out is {options.out!r} (ONNX has no sparse product "
                         "that is not slower than the dense one): leave --sparse out, or name a .pt2 file")


def _state(ticket: Ticket, models: Models, options: ExportOptions) -> tuple[bytes, str]:
    """The content of a .safetensors file, and what it is."""
    if not options.sparse:
        return plain_file(ticket, options.csr), "a plain state_dict"
    net = rebuild(ticket, models, recorded_config(ticket, options.model, loads=False), sparse=True)
    found = len(sparse_layers(net))
    return state_file(net.state_dict()), f"a state_dict with {found} sparse layer{'' if found == 1 else 's'}"


def _check_inputs(ticket: Ticket, models: Models, config: Config, options: ExportOptions) -> tuple[torch.Tensor, str]:
    """The images that accuracies are of, normalised, or noise where the ticket's own data are not on this machine."""
    shape = recorded_image(ticket)
    try:
        data = Laboratory(models, Machine("cpu", 0, options.data_dir), Path()).data(config)
        check_images(ticket, data)
    except UsageError:
        if options.dataset:
            raise
        return noise(*shape, 256), "images of noise (the data are not here)"
    images = first_images(data.test[0], evaluation_parts(data.test[0])[0].stop)
    kind = "test images" if data.evaluated_on == "test" else "held-out training images"
    return recorded_normalise(ticket, images)(images), kind
