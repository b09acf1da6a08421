"""--cluster: the grid as jobs of SLURM, or of this machine, through submitit. A job is `run.py worker DIR` with its signals.

Because every job is a worker, jobs that are cancelled, preempted, requeued or submitted twice lose nothing and do nothing
twice; and a control needs no job of its own that waits for its ticket's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popup.errors import UsageError
from popup.files import own_folder
from popup.lab.cluster import Cluster
from popup.lab.commands.ending import ENDINGS, say
from popup.lab.commands.worker_command import join
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.networks import Models
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.ranks import joined
from popup.lab.training.stop import Stop, Stopped
from popup.lab.trust import Trust, code_in

MOST_JOBS = 64          # of SLURM, without --workers
MOST_REQUEUES = 10_000  # submitit's own limit is 3
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class WorkerJob:
    """What a job does. submitit pickles it, calls it on the cluster, and asks for its `checkpoint` before a requeue."""

    models: Models
    machine: Machine
    out: Path
    code: frozenset[str] = frozenset()  # functions that the submitted grid names, by the user's own command line

    def __call__(self) -> int:
        """Be a worker; requeue the job where the cluster has announced its end (submitit's signal, USR2).

        SIGTERM alone does not end it: SLURM sends it before it preempts or cancels, and a job that ends of itself then would
        not be requeued.
        """
        stop, announced = Stop(), _announcement()
        requeue = signal.getsignal(announced)
        try:
            with stop.listening({signal.SIGINT: stop.ask, announced: stop.ask, signal.SIGTERM: stop.ask_checkpoint}):
                return self._work(stop)
        except Stopped as stopped:
            if stopped.number == announced and callable(requeue):
                requeue(announced, None)  # which ends the process
            return say(stopped)
        except ENDINGS as error:
            return say(error)

    def _work(self, stop: Stop) -> int:
        _export_ranks()
        with joined(self.machine) as (ranks, device):
            return join(Laboratory(self.models, self.machine, self.out, stop, ranks, device), Trust(self.code))

    def checkpoint(self) -> Any:
        """What the requeued job does: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def check_submitit(cluster: Cluster) -> None:
    """A UsageError without submitit."""
    if importlib.util.find_spec("submitit") is None:
        raise UsageError(f"--cluster {cluster.cluster} needs a package that is not there: python -m pip install submitit")


def submit(laboratory: Laboratory, cluster: Cluster, jobs: int, cells: Sequence[Config]) -> list[str]:
    """Submit `jobs` workers on the laboratory's directory, which do `cells`; returns the jobs' names.

    A UsageError without SLURM.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    out = laboratory.out.resolve()
    code = frozenset(name for config in cells for name in code_in(config.task.model, config.task.dataset))
    try:
        executor = submitit.AutoExecutor(own_folder(out / "jobs"), cluster=cluster.cluster, slurm_max_num_timeout=MOST_REQUEUES,
                                         local_max_num_timeout=MOST_REQUEUES)
        executor.update_parameters(**cluster.parameters(jobs))
        with _importable(), executor.batch():
            job = WorkerJob(laboratory.models, laboratory.machine, out, code)
            submitted = [executor.submit(job) for _ in range(jobs)]
    except (RuntimeError, ValueError, FailedJobError) as error:
        raise UsageError(f"--cluster {cluster.cluster} cannot submit: {' '.join(str(error).split())}") from None
    return [job.job_id for job in submitted]


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Jobs take over the environment of now, and must find popup in it wherever they start."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.getcwd(), before]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _announcement() -> int:
    """The signal by which submitit tells a job that its time is over."""
    from submitit import JobEnvironment

    return JobEnvironment._usr_sig()


def _export_ranks() -> None:
    """The tasks of one job are the ranks of its runs, in torchrun's words."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
