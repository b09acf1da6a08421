"""The grid of a sweep as cells: made of configs and controls, written into a directory, found there by workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.runs.cell import Cell
from popup.lab.runs.controls import TICKET, control_config
from popup.lab.runs.record import read_config


def plan(configs: Sequence[Config], controls: Sequence[str]) -> list[Config]:
    """The runs of a grid: its tickets and their controls, each once, in the order they are begun."""
    wanted = [*configs, *(control_config(config, role) for role in controls for config in configs)]
    return in_order({config.hash(): config for config in wanted}.values())


def in_order(configs: Sequence[Config]) -> list[Config]:
    """Tickets before the controls that need them, and those with many edges first (they take longest)."""
    return sorted(configs, key=lambda config: (config.task.role != TICKET, -config.source.er_p))


def write_plan(out: Path, configs: Sequence[Config]) -> int:
    """Make the directory of each run with its config; a run that failed may be tried again. Returns how many are left."""
    cells = [Cell(out, config) for config in configs]
    for cell in cells:
        cell.forget_failure()
        cell.write_config()
    return sum(not cell.finished() for cell in cells)


def find_cells(out: Path) -> list[Cell]:
    """The cells that were planned or begun under `out`, in the order they are begun; a UsageError if it cannot be read."""
    if not out.is_dir():
        raise UsageError(f"no directory {str(out)!r}: name the --out directory of a run, a sweep or a plan")
    configs = [read_config(path) for path in sorted(out.glob("*/config.json"))]
    return [Cell(out, config) for config in in_order(configs)]
