"""The steps of a control's run: its network gets the subnetwork of a ticket that was found before, and is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from popup.lab.config import Config
from popup.lab.precision import Precision
from popup.lab.runs.about import recorded_temperature
from popup.lab.runs.control_training import run_control
from popup.lab.runs.controls import CONTROLS, DENSE, TICKET, control_config
from popup.lab.runs.dense_weights import read_weights, write_weights
from popup.lab.runs.directory import RunDirectory
from popup.lab.runs.found import Found
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import Plain
from popup.lab.runs.subnetwork import Subnetwork, whole_source_of
from popup.lab.training.attachment import computed_edges
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.state import Metrics
from popup.lab.training.stop import RunFailed
from popup.search.density import density_row
from popup.source.frozen import left_out
from popup.source.layer_source import draw_source
from popup.ticket.ticket import load


@dataclass(frozen=True)
class ControlRun:
    """A control that can begin: its plain network, and the subnetwork that it starts from."""

    laboratory: Laboratory
    plain: Plain
    start: Subnetwork

    def find(self, directory: RunDirectory, tell: Callable[[Metrics], None], checkpoints: Checkpoints) -> Found:
        """Evaluate the control, or train and evaluate it. In its directory nothing but numbers is written, and of the dense
        network the weights that it has in the end."""
        net, data, config = self.plain.net, self.plain.data, self.plain.config
        precision = Precision.of(net, config.training.precision)
        dense = sum(left_out(net, [drawn.source.spec for drawn in self.start.sources]).values())
        history, layers = run_control(net, data, config, self.start, tell, checkpoints, self.laboratory.ranks)
        if config.task.role == DENSE and self.laboratory.ranks.first:
            write_weights(directory.weights, net)
        prunes = CONTROLS[config.task.role].prunes
        rows = [density_row(before.spec, 1.0 if prunes else before.p_l, before.spec.entries if prunes else len(before.edges),
                            len(after.edges))
                for before, after in zip((drawn.source for drawn in self.start.sources), layers, strict=True)]
        return Found(history, rows, precision.name, dense=dense)


def ready_control(laboratory: Laboratory, plain: Plain) -> ControlRun:
    """The run of a control: its source, the codes of its ticket where it needs one (else all edges), and the weights of the
    dense network where it prunes that."""
    control, config = CONTROLS[plain.config.task.role], plain.config
    start = _of_ticket(laboratory, config) if control.needs_ticket else _of_source(plain)
    if control.prunes:
        start = replace(start, dense=read_weights(laboratory.directory(control_config(config, DENSE)).weights, plain.net))
    return ControlRun(laboratory, plain, start)


def _of_source(plain: Plain) -> Subnetwork:
    recipe = plain.config.source
    edges = computed_edges(plain.net, plain.config, plain.data.train)
    sources = draw_source(recipe, recipe.layers(plain.net), edges=edges)
    return whole_source_of(recipe, sources)


def _of_ticket(laboratory: Laboratory, config: Config) -> Subnetwork:
    path = laboratory.directory(config.replace(role=TICKET)).ticket
    if not path.exists():
        raise RunFailed(f"the file of its ticket is gone, {path}: remove that directory, then plan or start the grid again, "
                        "which finds the ticket anew")
    ticket = load(path)
    sources = [layer.drawn(ticket.recipe, ticket.book) for layer in ticket.layers]
    return Subnetwork(sources, [layer.codes for layer in ticket.layers], ticket.book, temperature=recorded_temperature(ticket))
