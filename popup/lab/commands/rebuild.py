"""The network and the task of a ticket, from what its file records, and nothing of it trusted."""

from __future__ import annotations

import os
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config, TaskSettings
from popup.lab.data.dataset import MOST_TOKENS, Dataset
from popup.lab.data.streamed import Images
from popup.lab.identity import differing, fingerprint, listed
from popup.lab.inputs import Tokens, Window, called
from popup.lab.measure import BITS, Measure, measure_in
from popup.lab.networks import Models, build_network, is_own, outline
from popup.lab.runs.anew import built_anew
from popup.lab.runs.plain import identity
from popup.lab.text import printable
from popup.lab.training.batches import Normalise
from popup.lab.trust import SAFE
from popup.ticket.file import TicketError
from popup.ticket.sealed import finite
from popup.ticket.ticket import Ticket, load

LARGEST_IMAGE, MOST_CLASSES = 1 << 26, 1 << 20
MOST_TIMES = 8  # a network's own widths, of a user's function that is built with its memory at once


def open_ticket(path: str) -> Ticket:
    """The ticket at `path`; a path that names nothing is wrong input."""
    if Path(path).is_dir():
        raise UsageError(f"{path!r} is a directory: name a ticket file, such as {_ticket_inside(path)!r}")
    try:
        return load(path)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path!r}: name a run's ticket.safetensors") from None


def _ticket_inside(directory: str) -> str:
    """The first ticket.safetensors of `directory`, at most two levels down; os.walk passes over what vanishes meanwhile."""
    for folder, folders, files in os.walk(directory or "."):
        if "ticket.safetensors" in files and Path(folder, "ticket.safetensors").is_file():
            return str(Path(folder, "ticket.safetensors"))
        folders[:] = sorted(folders) if len(Path(folder).relative_to(directory or ".").parts) < 2 else ()
    return "ticket.safetensors"


def recorded_config(ticket: Ticket, model: str = "", dataset: str = "", loads: bool = True) -> Config:
    """The config of a ticket's task. `model` and `dataset`, from the user, replace what the file names; `loads`: whether the
    data set will be loaded too.

    Raises TicketError for a ticket that records no task, and for a file that names code of its own to run.
    """
    task = ticket.about.get("task")
    if not isinstance(task, dict):
        raise TicketError("the ticket records no task (it is not of a run): load it in Python and apply it to your network")
    values: dict[str, Any] = {**task, **({"model": model} if model else {}), **({"dataset": dataset} if dataset else {})}
    _check_types(values)
    asked = (("model", model), ("dataset", dataset)) if loads else (("model", model),)
    foreign = [name for name, given in asked if not given and not SAFE[name].fullmatch(values.get(name, ""))]
    if foreign:
        named, options = (" and the ".join(f"{name} {values.get(name)!r:.200}" for name in foreign),
                          " and ".join(f"--{name}" for name in foreign))
        raise TicketError(f"the ticket names the {named}, which would run code: give {options} yourself if you trust it")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Config(source=ticket.recipe, search=ticket.settings, task=TaskSettings(**values))


def _check_types(task: dict[str, Any]) -> None:
    """Every field of the task is known, and of its type."""
    hints, known = get_type_hints(TaskSettings), [part.name for part in fields(TaskSettings)]
    for name, value in task.items():
        if name not in known:
            raise TicketError(f"the ticket's task has the unknown field {name!r}: a later version wrote it?")
        kind = hints[name]
        right = finite(value) if kind is float else type(value) is kind
        if kind == tuple[int, ...]:
            right = isinstance(value, list) and all(type(item) is int for item in value)
        if not right:
            raise TicketError(f"{name} in the ticket's task is {value!r:.80}")


def recorded_image(ticket: Ticket) -> tuple[tuple[int, ...], int]:
    """The shape of an image [channels, height, width], or of what else its data are, and the number of classes."""
    image, classes = ticket.about.get("image"), ticket.about.get("classes")
    sizes = image if isinstance(image, list) and all(type(side) is int and side > 0 for side in image) else []
    if not sizes or prod(sizes) > LARGEST_IMAGE or type(classes) is not int or not 0 < classes <= MOST_CLASSES:
        raise TicketError(f"the ticket records images of shape {image!r:.80} and {classes!r:.20} classes")
    if measure_in(ticket.about) is BITS:
        return Window(sizes), classes
    if (tokens := ticket.about.get("vocabulary")) is None:
        return tuple(sizes), classes
    if type(tokens) is not int or not 0 < tokens <= MOST_TOKENS or len(sizes) != 1:
        raise TicketError(f"the ticket records inputs of shape {image!r:.80} of {tokens!r:.20} tokens")
    return Tokens(sizes, tokens), classes


def check_images(ticket: Ticket, data: Dataset) -> None:
    """A UsageError unless the images of `data`, and their classes, are such as the ticket is for."""
    image, classes = recorded_image(ticket)
    if (data.image, called(data.image), data.classes) != (image, called(image), classes):
        raise UsageError(f"{data.title} has {called(data.image)} {list(data.image)} of {data.classes} classes; the ticket is for "
                         f"{called(image)} {list(image)} and {classes}: test it on such data")
    if isinstance(image, Tokens) and isinstance(data.image, Tokens) and data.image.vocabulary > image.vocabulary:
        raise UsageError(f"{data.title} has {data.image.vocabulary:,} different tokens, and the ticket's network was built for "
                         f"{image.vocabulary:,}: test it on such data")


def recorded_normalise(ticket: Ticket, images: Images) -> Normalise:
    """How images were normalised for the ticket, on the device of `images`."""
    record, channels = ticket.about.get("normalise"), recorded_image(ticket)[0][0]
    if record is None and images.dtype is torch.uint8:
        raise TicketError(f"the ticket records that images are used as they are, and these are {images.dtype}, which runs "
                          "normalise: it is of other data, or damaged")
    if record is not None:
        rows = [record.get(name) for name in ("mean", "deviation")] if isinstance(record, dict) else [None]
        fitting = images.dtype is not torch.int64  # tokens are used as they are
        if not fitting or not all(isinstance(row, list) and len(row) == channels and all(map(_single, row)) for row in rows):
            raise TicketError(f"the ticket records the normalisation {record!r:.80}")
        record = {name: [float(value) for value in record[name]] for name in ("mean", "deviation")}
    return Normalise.from_record(record, images)


def _single(value: Any) -> bool:
    """Whether `value` is a finite number that a float32 can hold."""
    return finite(value) and abs(value) <= torch.finfo(torch.float32).max


def recorded_precision(ticket: Ticket) -> str:
    """The precision in which accuracy was measured; files of before do not say, and are fp32."""
    found = ticket.about.get("precision", "fp32")
    if found not in ("fp32", "bf16"):
        raise TicketError(f"the ticket records the precision {found!r:.40}: this popup knows fp32 and bf16")
    return found


def recorded_part(ticket: Ticket) -> str:
    """Of which images the recorded accuracy is: those of the test data, or of the training data those that were held out."""
    return "validation" if ticket.about.get("evaluated_on") == "validation" else "test"


def recorded_fingerprint(ticket: Ticket, of: str = "data") -> str:
    """What tells the data of the recorded accuracy, or its network, from others; empty where the file does not say."""
    found = ticket.about.get(f"{of}_fingerprint")
    return found if isinstance(found, str) else ""


def recorded_value(ticket: Ticket) -> tuple[Measure, float] | None:
    """What the run's task measures and the number that it recorded (`recorded_part` says of what), None if it did not."""
    measure = measure_in(ticket.about)
    value: Any = ticket.about[measure.column] if measure else None
    return (measure, value) if measure and finite(value) else None


def another_network(ticket: Ticket, models: Models, config: Config) -> str:
    """What to say where the user's function of a ticket's network builds another than the run's now; else empty."""
    recorded, (image, classes) = recorded_fingerprint(ticket, "network"), recorded_image(ticket)
    if not (recorded and is_own(config.task.model)):
        return ""
    known, _ = built_anew(lambda config: build_network(models, config, image, classes), config, image, classes)
    net = build_network(models, config, image, classes)  # that nothing has run
    words = differing(recorded, fingerprint(identity(net, config), known.varying, known.by_seed, config.source.seed))
    return f"{printable(config.task.model)} builds another network now than the run's, by its {listed(words)}" if words else ""


def rebuild(ticket: Ticket, models: Models, config: Config, sparse: bool = False) -> nn.Module:
    """The ticket's network, plain and frozen, built from the file alone; `sparse`: its linear layers on their kept edges alone.

    Where the file says its widths it is built without memory first, so that those which are not the ticket's are refused before
    they are allocated. Then from the run's seed, which what the state leaves out (a fixed projection) may be drawn from.
    """
    image, classes = recorded_image(ticket)
    if not is_own(config.task.model) or _is_wide(ticket, config):  # a function's own widths are no file's
        found = outline(models, config, image, classes)
        if found is not None:
            ticket.check_layers(found)
    return ticket.apply(build_network(models, config, image, classes), sparse).eval()


def _is_wide(ticket: Ticket, config: Config) -> bool:
    """Whether the widths that a file says are more than its layers show, so that a network of theirs may be of any size."""
    largest = max(side for layer in ticket.specs for side in layer.shape)
    return max((*config.task.widths, 0)) > largest or config.task.width > MOST_TIMES
