"""The grid of a sweep as cells: made of configs and controls, written into a directory, found there by workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.runs.cell import Cell
from popup.lab.runs.controls import CONTROLS, TICKET, control_config, needed
from popup.lab.runs.directory import read_config
from popup.lab.text import printable
from popup.source.recipe import SPREAD, Recipe


def plan(configs: Sequence[Config], controls: Sequence[str], out: Path | None = None) -> list[Config]:
    """The runs of a grid: its tickets, their controls and what these need, each once, in the order they are begun. What was
    planned in `out` before stays."""
    tickets = _each_network_once(configs, lambda config: out is not None and Cell(out, config).planned())
    wanted = [*tickets, *(control_config(config, role) for role in controls for config in tickets)]
    wanted += [other for config in wanted for other in needed(config)]
    return in_order(list({config.hash(): config for config in wanted}.values()))


def _each_network_once(configs: Sequence[Config], known: Callable[[Config], bool]) -> list[Config]:
    """The configs without those whose source has all edges and differs from another's in how it would spread fewer. Those that
    are `known` stay; where none is, the one that spreads them as is usual, or the first by its values, in whatever order they
    were asked for."""
    def place(config: Config) -> tuple[bool, list[str]]:
        return config != _usual(config), [str(getattr(config.source, name)) for name in SPREAD]

    whole = [config for config in configs if config.source.complete]
    there, kept = [config for config in whole if known(config)], dict[str, Config]()
    for config in [*there, *sorted(whole, key=place)]:
        kept.setdefault(_usual(config).hash(), config)
    stay = {config.hash() for config in (*there, *kept.values())}
    return [config for config in configs if not config.source.complete or config.hash() in stay]


def _usual(config: Config) -> Config:
    """The config of a source that has all edges with fewer spread as is usual."""
    return config.replace(**{name: getattr(Recipe(), name) for name in SPREAD})


def in_order(configs: Sequence[Config]) -> list[Config]:
    """Tickets before the controls that need them, those whose weights are trained before those that are evaluated alone (and
    whose weights others begin with before these), and those with many edges first: what takes long is begun early, so that no
    worker has it left when the others are done."""
    def place(config: Config) -> tuple[bool, bool, bool, float]:
        role = config.task.role
        control = None if role == TICKET else CONTROLS[role]
        return control is not None, bool(control and not control.trained), bool(control and control.prunes), -config.source.er_p

    return sorted(configs, key=place)


def write_plan(out: Path, configs: Sequence[Config]) -> int:
    """Make the directory of each run with its config; a run that failed may be tried again. Returns how many are left."""
    cells = [Cell(out, config) for config in configs]
    for cell in cells:
        cell.forget_failure()
        cell.write_config()
    return sum(not cell.finished() for cell in cells)


@dataclass(frozen=True)
class Planned:
    """What was planned or begun in a directory: cells in the order they are begun, the unfinished directories that are named by
    another version's config, which this one cannot do under that name, and a line for each config that cannot be read."""

    cells: list[Cell]
    strange: list[Path]
    damaged: list[str]


def find_cells(out: Path) -> Planned:
    """What was planned or begun under `out`. A UsageError if there is no such directory."""
    if not out.is_dir():
        raise UsageError(f"no directory {str(out)!r}: name the --out directory of a run, a sweep or a plan")
    known, strange, damaged = [], [], []
    for path in sorted(out.glob("*/config.json")):
        try:
            config = read_config(path)
        except (UsageError, OSError) as error:
            damaged.append(str(error))
            continue
        if path.parent.name == config.hash():
            known.append(config)
        elif not any((path.parent / name).exists() for name in ("result.json", "failure.json")):
            strange.append(path.parent)
    return Planned([Cell(out, config) for config in in_order(known)], strange, damaged)


def another_version(paths: Sequence[Path]) -> str:
    """The line on unfinished runs that `find_cells` calls another version's."""
    were = "were" if len(paths) > 1 else "was"
    return (f"{counted(len(paths), 'unfinished run')} {were} planned by another version of popup ({printable(paths[0])}, ...) "
            "and cannot be done by this one: plan the grid again, or use that version")


def counted(number: int, noun: str) -> str:
    """So many of what the noun names."""
    return f"{number} {noun}{'s' * (number != 1)}"
