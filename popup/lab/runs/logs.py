"""Metrics where people look: TensorBoard and Weights & Biases, beside the JSON lines. Each is imported where it is used."""

from __future__ import annotations

import contextlib
import importlib.util
import netrc
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from popup.errors import UsageError
from popup.files import own_folder
from popup.lab.runs.directory import RunDirectory
from popup.lab.training.state import Metrics

Log = Callable[[Metrics], None]


def check_packages(names: Sequence[str]) -> None:
    """A UsageError if the package of a log of `names` is not there."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UsageError(_missing(name))


@contextlib.contextmanager
def opened(names: Sequence[str], directory: RunDirectory) -> Iterator[Log]:
    """Within the block, what is called with an epoch's metrics and tells them to every log of `names` (keys of MAKERS).

    A run that goes on tells the metrics of its first epochs again; each log keeps them once. A UsageError if a package is
    missing.
    """
    with contextlib.ExitStack() as stack:
        if names and directory.writes:
            own_folder(directory.path)
        logs = [stack.enter_context(MAKERS[name](directory)) for name in names] if directory.writes else []
        yield partial(_tell, logs)


def _tell(logs: Sequence[Log], metrics: Metrics) -> None:
    for log in logs:
        log(metrics)


@contextlib.contextmanager
def tensorboard(directory: RunDirectory) -> Iterator[Log]:
    """DIR/<hash>/tensorboard/: a scalar a metric, the epochs as steps. What the run wrote before it was interrupted goes."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(_missing("tensorboard")) from None
    place = directory.path / "tensorboard"
    shutil.rmtree(place, ignore_errors=True)
    own_folder(place)
    with SummaryWriter(str(place)) as writer:
        def log(metrics: Metrics) -> None:
            for name, value in _numbers(metrics).items():
                writer.add_scalar(name, value, metrics["epoch"])
            writer.flush()

        yield log


@contextlib.contextmanager
def wandb(directory: RunDirectory) -> Iterator[Log]:
    """One run of the project popup (or WANDB_PROJECT), named by its hash, with the config. Without a key that is known to
    wandb it is written to DIR/<hash>/wandb/ only, for `wandb sync`."""
    try:
        import wandb as service
    except ImportError:
        raise UsageError(_missing("wandb")) from None
    own_folder(directory.path / "wandb")
    mode: Any = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    name = directory.config.hash()
    try:
        run = service.init(project=os.environ.get("WANDB_PROJECT", "popup"), id=name, name=name, resume="allow", mode=mode,
                           dir=str(directory.path), config=directory.config.flat(), settings=service.Settings(silent=True))
    except (service.Error, ValueError) as error:  # no network, a key that is none, a mode it does not know
        raise UsageError(f"--log wandb cannot begin a run ({' '.join(str(error).split()):.200}): set WANDB_MODE=offline, and "
                         "`wandb sync` it later") from None
    first = run.step

    def log(metrics: Metrics) -> None:
        if metrics["epoch"] >= first:
            run.log(_numbers(metrics), step=metrics["epoch"])

    try:
        yield log
    finally:
        run.finish()


def _has_key() -> bool:
    """Whether a login is known to wandb: in the environment, or in the netrc file where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


MAKERS: dict[str, Callable[[RunDirectory], contextlib.AbstractContextManager[Log]]] = {
    "tensorboard": tensorboard, "wandb": wandb}


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "epoch" and isinstance(value, (int, float))}


def _missing(package: str) -> str:
    return f"--log {package} needs a package that is not there: python -m pip install {package}"
