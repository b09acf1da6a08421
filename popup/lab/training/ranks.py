"""The processes of one run: the ranks that torchrun starts, each with its part of every batch; without torchrun one.

All ranks draw the same source from the seed, hold the same scores and select the same masks: only gradients are exchanged,
by torch's DistributedDataParallel. Rank 0 alone writes and prints.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from popup.errors import UsageError
from popup.lab.machine import Machine
from popup.lab.training.stop import SIGNALS, RunFailed, Stop

TOLD_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LOST = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "timed out", "socket error",
        "connection was likely closed")
UNUSED = "did not receive grad"
WAIT = timedelta(days=30)  # for rank 0 while it waits for other workers' runs; a rank that dies is noticed at once
PATIENCE = timedelta(seconds=3)  # for the store that decides who speaks


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of the run. `control` carries what the host must know, without waiting for a GPU."""

    rank: int = 0
    count: int = 1
    control: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def highest(self, *numbers: int) -> list[int]:
        """Of each number the highest of all ranks."""
        if self.count == 1:
            return list(numbers)
        found = torch.tensor(numbers)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return found.tolist()

    def check_equal(self, what: str, value: str, question: str = "are they of one version of torch and numpy?") -> None:
        """A RunFailed unless every rank has the same value; it ends with the `question` of what may be the cause."""
        if self.count > 1 and len(set(self._all(value))) > 1:
            raise RunFailed(f"{what} differs between the ranks: {question}")

    def _all(self, value: str) -> list[str]:
        """Every rank's value."""
        values: list[str] = [""] * self.count
        dist.all_gather_object(values, value, group=self.control)
        return values

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is refused on one rank within the block is refused on all: one alone would leave the others waiting."""
        refused: Exception | None = None
        try:
            yield
        except (UsageError, RunFailed) as error:
            refused = error
        reasons = self._all("" if refused is None else str(refused) or "refused") if self.count > 1 else []
        if refused is not None:
            raise refused
        if lost := next((rank for rank, reason in enumerate(reasons) if reason), None):
            raise RunFailed(f"rank {lost} cannot take part: {reasons[lost]}")

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks."""
        if self.count > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over all ranks."""
        return self.total(tensor) / self.count if self.count > 1 else tensor

    def share_norms(self, net: nn.Module) -> None:
        """Every rank takes rank 0's running statistics."""
        if self.count > 1:
            for module in net.modules():
                if getattr(module, "running_mean", None) is not None:
                    for name in ("running_mean", "running_var"):
                        dist.broadcast(getattr(module, name), src=0)

    def part(self, size: int) -> slice:
        """This rank's images of a batch of `size`."""
        each = size // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def check_batch(self, size: int, parts: int) -> None:
        """A UsageError unless a batch can be dealt to all ranks in `parts` equal parts each."""
        if size % (self.count * parts):
            each = f" in {parts} equal parts each" if parts > 1 else ""
            ranks = f"{self.count} ranks{each}" if self.count > 1 else f"{parts} equal parts"
            raise UsageError(f"a batch of {size} images (never more than there are) cannot be dealt to {ranks}: give a "
                             f"--batch-size up to it that is a multiple of {self.count * parts}")

    def check_alone(self, option: str) -> None:
        """A UsageError if there are several ranks, which `option` is not for."""
        if self.count > 1:
            raise UsageError(f"{option} is for a run of one process, and torchrun started {self.count}: leave it out")

    def wrap(self, net: nn.Module) -> nn.Module:
        """What training calls in place of `net`: its backward pass leaves the ranks' mean gradient on every rank."""
        if self.count == 1:
            return net
        known = inspect.signature(DistributedDataParallel).parameters  # torch renamed the option in 2.15
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {option: False}
        return DistributedDataParallel(net, gradient_as_bucket_view=True, **options)

    def exchange(self, model: object, now: bool) -> contextlib.AbstractContextManager[None]:
        """Within it the gradients of `wrap(net)` are exchanged, or only added up until later."""
        if now or not isinstance(model, DistributedDataParallel):
            return contextlib.nullcontext()
        return model.no_sync()


def under_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that torchrun (or a scheduler in its way) has started."""
    return all(name in environment for name in TOLD_BY_TORCHRUN) and int(environment["WORLD_SIZE"]) > 1


@contextlib.contextmanager
def joined(machine: Machine) -> Iterator[tuple[Ranks, torch.device]]:
    """This process's ranks and device for the block, in which other ranks than the first print nothing.

    A RunFailed if a rank is lost meanwhile: no rank can go on alone.
    """
    device = machine.torch_device()
    if not under_torchrun():
        yield Ranks(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if device.index is None else device.index)
        torch.cuda.set_device(device)
    ranks = _meet(device)
    try:
        with silent() if not ranks.first else contextlib.nullcontext():
            yield ranks, device
    except RuntimeError as error:
        raise _explained(error, ranks) from None
    dist.destroy_process_group()


def _meet(device: torch.device) -> Ranks:
    """Wait for the other ranks; a RunFailed if they do not come. Signals end the process here at once: the wait is one call of
    torch's, in which no handler of Python's is called."""
    with Stop().listening(dict.fromkeys(SIGNALS, signal.SIG_DFL)):
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            control = dist.new_group(backend="gloo", timeout=WAIT)
        except RuntimeError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunFailed(f"the {os.environ['WORLD_SIZE']} processes (ranks) of this run have not met at "
                            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} ({reason:.200})") from None
    return Ranks(dist.get_rank(), dist.get_world_size(), control if isinstance(control, dist.ProcessGroup) else None)


def _explained(error: RuntimeError, ranks: Ranks) -> Exception:
    """What torch's error means to a user, the error itself if that is not known."""
    text = str(error).lower()
    if any(sign in text for sign in LOST):
        return RunFailed(f"one of the {ranks.count} processes (ranks) of this run has ended, so all end; the same command "
                         "goes on from the last checkpoint")
    if UNUSED in text:
        return RunFailed("a layer takes no part in the network's forward pass, which several ranks cannot train: remove it, "
                         "or use one process")
    return error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing is printed."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere), \
            contextlib.redirect_stderr(nowhere):
        yield


def may_speak() -> bool:
    """Whether this process is the one to tell why the run has ended: of the ranks, the first that asks."""
    if not under_torchrun():
        return True
    try:
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=PATIENCE)
        return store.add(f"popup/spoken/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except (RuntimeError, ValueError):  # whoever kept the store is gone: better told twice than not at all
        return True
