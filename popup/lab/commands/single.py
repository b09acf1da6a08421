"""The main job: one search, with its table of layers, its progress, its proof and its picture."""

from __future__ import annotations

from contextlib import nullcontext
from textwrap import fill

from tqdm import tqdm

from popup.errors import UsageError
from popup.files import remove_own
from popup.lab.config import Config
from popup.lab.measure import measured
from popup.lab.report.cuts import cut_line
from popup.lab.report.plots import plot_training
from popup.lab.report.shares import shares_line
from popup.lab.report.tables import WIDTH, layer_table, proof_lines
from popup.lab.runs.cell import Cell
from popup.lab.runs.checks import check_finished
from popup.lab.runs.directory import RunDirectory
from popup.lab.runs.flow import perform
from popup.lab.runs.found import Result
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.prepared import prepare
from popup.lab.text import printable
from popup.lab.training.state import Metrics
from popup.lab.training.stop import RunFailed
from popup.source.recipe import SOURCE

LINE = "{desc} {percentage:3.0f}% |{bar:20}| {remaining} left{postfix}"  # the bar is one on a terminal of 100 columns
FILES = ("config.json", "metrics.jsonl", "result.json", "ticket.safetensors", "training.png")


def run_single(laboratory: Laboratory, config: Config) -> Result:
    """Search and print, or print what a finished run has recorded. Raises RunFailed if a law is broken or the
    ticket is gone."""
    directory = laboratory.directory(config)
    result = laboratory.ranks.share(directory.result())
    print(_title(config))
    if result is None:
        result = _run_alone(laboratory, config)
    elif laboratory.ranks.first:
        check_finished(laboratory, [config])
        if not directory.is_link:
            directory.write_config()  # should it be gone, no report would find the run
        remove_own(directory.checkpoint)  # of a process that was killed just as it finished
        print("finished before: this is its record; remove its directory to run it again")
    if not laboratory.ranks.first:
        return result
    if not directory.picture.exists() and not directory.is_link:
        data = laboratory.data(config)
        plot_training(directory.picture, directory.metrics(), config, data.title, data.classes)
    _report(directory, result)
    if not result["proof"]["holds"]:
        raise RunFailed("a law is broken: see BROKEN above")
    if not directory.ticket.exists():
        raise RunFailed(f"the ticket of this finished run is gone, {directory.ticket}: remove its directory to run it again")
    return result


def _run_alone(laboratory: Laboratory, config: Config) -> Result:
    """Do the run, unless another process is doing it."""
    prepared = prepare(laboratory, config)  # what is refused is refused before a directory is made
    with Cell(laboratory.out, config).claim() if laboratory.ranks.first else nullcontext() as mine:
        if not laboratory.ranks.share(mine):
            raise UsageError(f"another process is doing this run in {laboratory.directory(config).path}: wait for it, "
                             "or name another --out")
        if (result := laboratory.directory(config).result() if laboratory.ranks.count == 1 else None) is not None:
            return result  # another process has finished it since this one looked
        print(*prepared.data.described(), sep="\n")
        if laboratory.ranks.first and laboratory.directory(config).checkpoint.exists():
            print("goes on from its checkpoint, whose epochs are told again")
        with Progress(config.training.epochs, config.task.evaluated_on) as progress:
            return perform(laboratory, prepared, progress, progress.steps)


def _title(config: Config) -> str:
    source, task = config.source, config.task
    spread = source.density if source.draws_edges else f"by {source.mask}"
    kept = "" if source.ticket_density == SOURCE else f" ({source.ticket_density})"
    return (f"{printable(task.model)} on {printable(task.dataset)}: ER source p = {source.er_p:g} ({spread}), "
            f"keeping k = {source.k:g} of the edges{kept}, seed {source.seed}"
            + (f"; {task.validation:g} of the training data held out, no test data used" if task.validation else ""))


def _report(directory: RunDirectory, result: Result) -> None:
    print(f"\n{layer_table(result)}\n")
    for line in filter(None, (cut_line(directory.config, result), shares_line(directory.config, result))):
        print(f"{fill(line, WIDTH, break_on_hyphens=False, break_long_words=False)}\n")
    measure = measured(result)
    print(f"{directory.config.task.evaluated_on} {measure.name} {measure.text(result[measure.column])} at the last epoch "
          f"({result['epochs']}), "
          f"final density {result['final_density']:.4f}, {result['seconds']:.1f} s; one seed, so no interval")
    how = printable(result.get("realised_compute", "dense"))  # runs of before have none
    if how != "dense" or directory.config.training.compute == "sparse":
        print(f"layers computed: {how}")
    print("proof, checked on the finished run:", *proof_lines(result["proof"], measure.inputs), sep="\n")
    print(f"written to {printable(directory.path)}/:", *(name for name in FILES if (directory.path / name).exists()))


class Progress:
    """A bar on a terminal, which moves with each step; elsewhere about ten plain lines."""

    def __init__(self, epochs: int, evaluated_on: str) -> None:
        self.epochs, self.evaluated_on = epochs, evaluated_on
        self.bar = tqdm(total=epochs, disable=None, leave=False, dynamic_ncols=True, bar_format=LINE)
        self.steps = None if self.bar.disable else self.step  # what is to be called after each

    def __enter__(self) -> Progress:
        self.bar.set_description_str(f"epoch 1 of {self.epochs}")
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def step(self, epochs: float) -> None:
        """So many epochs are done, and a part of one."""
        self.bar.update(epochs - self.bar.n)

    def __call__(self, metrics: Metrics) -> None:
        measure = measured(metrics)
        epoch = metrics["epoch"]
        line = f"loss {metrics['train_loss']:.4f}, {self.evaluated_on} {measure.name} {measure.text(metrics[measure.column])}"
        self.bar.update(epoch - self.bar.n)
        self.bar.set_description_str(f"epoch {min(epoch + 1, self.epochs)} of {self.epochs}", refresh=False)
        self.bar.set_postfix_str(line)
        if self.bar.disable and (epoch == self.epochs or epoch % max(1, self.epochs // 10) == 0):
            print(f"epoch {epoch:>3} of {self.epochs}: {line}", flush=True)
