"""python run.py eval: a ticket's accuracy, and whether it is the one that its run recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from popup.lab.commands.arguments import parse_as
from popup.lab.commands.rebuild import (
    another_network,
    check_images,
    open_ticket,
    rebuild,
    recorded_config,
    recorded_fingerprint,
    recorded_normalise,
    recorded_part,
    recorded_precision,
    recorded_value,
)
from popup.lab.commands.sparse_lines import compare_sparse
from popup.lab.commands.verify_command import PROBE, USED, point_of_use
from popup.lab.data.dataset import Dataset
from popup.lab.data.streamed import first_images
from popup.lab.machine import Machine
from popup.lab.measure import measure_of
from popup.lab.networks import Models
from popup.lab.precision import Precision
from popup.lab.report.tables import check_lines
from popup.lab.runs.about import recorded_temperature
from popup.lab.runs.laboratory import Laboratory
from popup.lab.text import printable
from popup.lab.training.training import evaluate
from popup.ticket.ticket import Ticket

DONE, FAILED = 0, 1
REPEATED = "repeated exactly"
NOT_REPEATED = "NOT repeated (another device or number of threads than the run's may round otherwise)"


@dataclass(frozen=True)
class EvalOptions:
    """Rebuild a ticket's network from the file alone and measure its accuracy."""

    ticket: str = field(metadata={"help": "a ticket file", "positional": True})
    dataset: str = field(default="", metadata={
        "help": "data set to test on; none: the ticket's own. Where it is what the run saw, by its fingerprint, the recorded "
                "accuracy must repeat"})
    model: str = field(default="", metadata={"help": "network; none: the one that the ticket names"})
    device: str = field(default="auto", metadata={"help": "where to compute; another than the run's may round otherwise"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0: as many as a run on the data has"})
    data_dir: str = field(default=Machine.data_dir, metadata={"help": "directory of data sets"})
    test: bool = field(default=False, metadata={
        "help": "measure on the test images, also where the run held out validation images and recorded their accuracy"})
    sparse: bool = field(default=False, metadata={
        "help": "measure the network whose linear layers compute on their kept edges alone, and compare it with the dense one"})


def evaluate_ticket(arguments: Sequence[str], models: Models) -> int:
    """python run.py eval TICKET"""
    options = parse_as(EvalOptions, arguments, "eval")
    ticket = open_ticket(options.ticket)
    machine = Machine(options.device, options.threads, options.data_dir)
    laboratory = Laboratory(models, machine, Path())
    config = recorded_config(ticket, options.model, options.dataset)
    if options.test:
        config = config.replace(validation=0.0)
    net = rebuild(ticket, models, config).to(laboratory.device)
    data = laboratory.data(config)
    check_images(ticket, data)
    another = another_network(ticket, models, config)
    images, labels = data.test[0].to(laboratory.device), data.test[1].to(laboratory.device)
    precision = Precision.of(net, recorded_precision(ticket))
    normalise = recorded_normalise(ticket, images)
    tried = rebuild(ticket, models, config, sparse=True).to(laboratory.device) if options.sparse else net
    measure = measure_of(labels)
    factor = recorded_temperature(ticket)
    value = evaluate(tried, images, labels, normalise, precision, temperature=factor)[measure.column]
    own = evaluate(net, images, labels, normalise, precision, temperature=factor)[measure.column] if options.sparse else value
    print(printable(f"{config.task.model} on {data.title}: {data.evaluated_on} {measure.name} {measure.text(value)} of "
                    f"{len(labels):,} {measure.inputs}"))
    probe = normalise(first_images(images, PROBE))
    faults = point_of_use(ticket, net, probe, precision)
    print(*check_lines([(USED.format(config.task.model), faults)]), sep="\n")
    if options.sparse:
        lines, further = compare_sparse(ticket, net, tried, images, normalise, precision)
        print(*lines, sep="\n")
        faults = (*faults, *further)
    if (recorded := recorded_value(ticket)) is None or recorded[0] is not measure:
        return FAILED if faults else DONE
    said, code = _compare(ticket, data, own == recorded[1], bool(options.dataset))
    if another:
        said, code = f"not compared: {another}", FAILED
    dense = "" if own == value else f" by the dense network, whose {measure.name} is {measure.text(own)}"
    print(f"recorded: {measure.text(recorded[1])}, {said}{dense}")
    return FAILED if faults else code


def _compare(ticket: Ticket, data: Dataset, equal: bool, named: bool) -> tuple[str, int]:
    """What to say of an accuracy on `data` that is, or is not, `equal` to the recorded one; and the exit code. `named`: the user
    has named the data; else they are to be the run's own."""
    part, fingerprint = recorded_part(ticket), recorded_fingerprint(ticket)
    if data.evaluated_on != part:
        name = measure_of(data.test[1]).name
        return f"not compared: that is {part} {name}, and this is {data.evaluated_on} {name}", DONE
    if named and not fingerprint:
        return "not compared: the ticket records no fingerprint of its data, so these may be others", DONE
    if fingerprint and fingerprint != data.identity():
        return "not compared: the data are others than the run's (their fingerprints differ)", DONE if named else FAILED
    return (REPEATED, DONE) if equal else (NOT_REPEATED, FAILED)
