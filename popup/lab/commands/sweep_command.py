"""The commands of a comparison: run a grid and report it; report what is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from popup.errors import UsageError
from popup.lab.cluster import Cluster
from popup.lab.commands.arguments import parse_as
from popup.lab.commands.cluster_command import MOST_JOBS, check_submitit, submit
from popup.lab.config import Config
from popup.lab.networks import Models
from popup.lab.program import program
from popup.lab.report.report import report_text, write_report, written
from popup.lab.report.results import read_directory, read_runs
from popup.lab.report.summary import damaged_lines
from popup.lab.runs import forks
from popup.lab.runs.attached import attach_plain
from popup.lab.runs.cell import Cell
from popup.lab.runs.checks import check, check_finished, check_place
from popup.lab.runs.controls import TICKET
from popup.lab.runs.directory import check_writable
from popup.lab.runs.grid import another_version, counted, find_cells, plan, write_plan
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import make_plain
from popup.lab.runs.sweep import default_workers, run_sweep
from popup.lab.trust import code_in

DONE, FAILED = 0, 1


def run_grid(laboratory: Laboratory, configs: Sequence[Config], roles: Sequence[str], workers: int) -> int:
    """Run the grid with its controls, and report it. Returns the exit code: 1 if a cell failed or broke a law. The plan is
    written first: what an interrupt leaves undone is counted by `report`, and done by `worker` as well."""
    cells = _plan(laboratory, configs, roles)
    workers = 1 if laboratory.ranks.count > 1 else workers or default_workers(laboratory, cells)
    if workers > 1:
        forks.begin()
    _check(laboratory, configs, cells)
    if laboratory.ranks.first:
        write_plan(laboratory.out, cells)
    print(*laboratory.data(cells[0]).described(), sep="\n")
    print(f"{_counts(cells, configs)}, by {counted(workers, 'worker')}, into {laboratory.place}/")
    done = run_sweep(laboratory, cells, workers)
    if not laboratory.ranks.first:
        return DONE
    found = read_runs(cell.path for cell in done)
    runs = found.runs
    print("\n" + write_report(laboratory.out, runs, damaged=found.damaged))
    if found.damaged:
        print(damaged_lines(found.damaged.values()))
    print(f"\n{written(laboratory.out)}")
    print(_ends(done))
    broken = [run for run in runs if run.result and run.result["proof"] and not run.result["proof"]["holds"]]
    return FAILED if broken or found.damaged or any(cell.failure() for cell in done) else DONE


def plan_grid(laboratory: Laboratory, configs: Sequence[Config], roles: Sequence[str]) -> int:
    """Write the grid with its controls into the directory of results, for workers to do."""
    cells = _checked_plan(laboratory, configs, roles)
    left = write_plan(laboratory.out, cells)
    print(*laboratory.data(cells[0]).described(), sep="\n")
    print(f"{_counts(cells, configs)}, planned into {laboratory.place}/, {left} of them to be done: start\n"
          f"    {program()} worker {laboratory.place}{_named_code(cells)}\n"
          f"as often and on as many machines that share this directory as you like; {program()} report {laboratory.place} "
          "says at any time how far they are")
    return DONE


def submit_grid(laboratory: Laboratory, configs: Sequence[Config], roles: Sequence[str], cluster: Cluster,
                workers: int) -> int:
    """Plan the grid and submit jobs that do it, which go on after this has ended."""
    check_submitit(cluster)
    cells = _checked_plan(laboratory, configs, roles)
    left = write_plan(laboratory.out, cells)
    if not left:
        print(f"{_counts(cells, configs)}, all finished before: {program()} report {laboratory.place}")
        return DONE
    most = default_workers(laboratory, cells) if cluster.cluster == "local" else MOST_JOBS
    names = submit(laboratory, cluster, workers or min(left, most), cells)
    print(f"{_counts(cells, configs)}, {left} of them to be done, submitted into {laboratory.place}/ as "
          f"{counted(len(names), 'job')}: {' '.join(names)}\n"
          f"their output is in {laboratory.place}/jobs/; {program()} report {laboratory.place} says at any time how far they are")
    return DONE


def _checked_plan(laboratory: Laboratory, configs: Sequence[Config], roles: Sequence[str]) -> list[Config]:
    """The runs of the grid, all of them checked."""
    cells = _plan(laboratory, configs, roles)
    _check(laboratory, configs, cells)
    return cells


def _plan(laboratory: Laboratory, configs: Sequence[Config], roles: Sequence[str]) -> list[Config]:
    """The runs of the grid. A UsageError if there are none, or what they need is not here."""
    if not configs:
        raise UsageError("every cell of the grid is impossible: give a final density of at most p")
    cells = plan(configs, roles, laboratory.out)
    check_place(laboratory, cells[0])
    return cells


def _check(laboratory: Laboratory, configs: Sequence[Config], cells: Sequence[Config]) -> None:
    """A wrong model or source is refused before any run begins."""
    for config in cells:
        check(laboratory, config)
    attach_plain(laboratory, make_plain(laboratory, configs[0]))
    check_finished(laboratory, cells)


def _named_code(cells: Sequence[Config]) -> str:
    """The option by which a worker is told that it may run the functions that these runs name."""
    names = sorted({name for config in cells for name in code_in(config.task.model, config.task.dataset)})
    return f" --code {' '.join(names)}" if names else ""


def _ends(cells: Sequence[Cell]) -> str:
    """How the cells of a sweep ended."""
    finished, over = sum(cell.finished() for cell in cells), sum(cell.over() for cell in cells)
    again = "; the same command does what failed again" if over > finished else ""
    return f"{counted(len(cells), 'run')}: {finished} finished, {over - finished} failed, {len(cells) - over} open{again}"


def _counts(cells: Sequence[Config], configs: Sequence[Config]) -> str:
    """How many runs there are, and how many of the tickets that were asked for are others of them by another name."""
    tickets = sum(config.task.role == TICKET for config in cells)
    again = len({config.hash() for config in configs} - {config.hash() for config in cells})
    others = f" ({again} more would be the same: with p = 1 there is nothing to spread)" if again else ""
    return f"{counted(len(cells), 'run')}: {counted(tickets, 'ticket')}{others} and {counted(len(cells) - tickets, 'control')}"


@dataclass(frozen=True)
class ReportOptions:
    """Rebuild tables, CSV, pictures and the HTML page from the runs under a directory."""

    directory: str = field(metadata={"help": "the --out directory of runs or sweeps", "positional": True})
    diagnostics: bool = field(default=False, metadata={
        "help": "also draw mask churn, edges never selected, dead neurons and effective density"})


def report(arguments: Sequence[str], models: Models) -> int:
    """python run.py report DIR"""
    options = parse_as(ReportOptions, arguments, "report")
    out = Path(options.directory)
    planned = find_cells(out)
    left = sum(not cell.over() for cell in planned.cells)
    found = read_directory(out, empty=left > 0)
    runs = found.runs
    if not runs:
        print(f"none of {left} planned runs is over yet: ask again later")
        return DONE
    try:
        check_writable(out)
    except UsageError as error:
        print(report_text(out, runs, found.damaged, whole=True))
        ending = f"neither CSV nor pictures nor page: {error}"
    else:
        print(write_report(out, runs, options.diagnostics, found.damaged, whole=True))
        ending = written(out)
    if left:
        print(f"\n{left} of {len(runs) + left} runs are not over yet")
    if planned.strange:
        print(f"\n{another_version(planned.strange)}")
    if found.damaged:
        print(f"\n{damaged_lines(found.damaged.values())}")
    print(f"\n{ending}")
    return FAILED if found.damaged else DONE
