"""Where a run is done: device, threads, place of the data, and what of the machine its record names.

None of it is part of a config."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy
import torch

from popup.errors import UsageError, check_count, check_name, check_number
from popup.version import VERSION

STREAMING = ("auto", "always", "never")
LOGS = ("tensorboard", "wandb")
MOST_THREADS = 1024
SMALL_DATA = 1 << 26  # bytes; a data set below this gains nothing from a second thread
MALLOC_TRIM, MALLOC_MAP = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


@dataclass(frozen=True)
class Machine:
    """Device, threads and the directory of the data sets."""

    device: str = field(default="auto", metadata={"help": "auto (a GPU if there is one), cpu, cuda, cuda:1, mps ..."})
    threads: int = field(default=0, metadata={
        "help": "CPU threads a run; 0: one where the training images take less than 64 MiB, else every core. "
                "The order of float sums, and so the ticket, can depend on it"})
    data_dir: str = field(default="~/.cache/popup", metadata={
        "help": "directory of data sets, and of what is decoded from them once"})
    download: bool = field(default=False, metadata={"help": "fetch a published data set that is not in --data-dir"})
    checkpoint_seconds: float = field(default=30.0, metadata={
        "help": "least time between two checkpoints of a run, which never take more than 2% of it; 0: after every step"})

    streaming: str = field(default="auto", metadata={
        "help": "folder data sets: decode images when they are needed (always), or once and for all (never); auto: when "
                "they need more than half of the memory. The ticket is the same", "choices": STREAMING})
    decoders: int = field(default=0, metadata={"help": "processes a run that decode streamed images; 0: one a core"})
    log: tuple[str, ...] = field(default=(), metadata={
        "help": "where metrics are told beside metrics.jsonl: tensorboard, wandb (offline unless you are logged in)"})

    def __post_init__(self) -> None:
        for name in ("threads", "decoders"):
            if check_count(name, getattr(self, name), 0) > MOST_THREADS:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at most {MOST_THREADS}")
        check_name("streaming", self.streaming, STREAMING)
        for name in self.log:
            check_name("log", name, LOGS)
        check_number("checkpoint_seconds", self.checkpoint_seconds, 0.0, inf)

    def torch_device(self) -> torch.device:
        """The device, or a UsageError if this machine does not have it."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError, ImportError):
            raise UsageError(f"device {self.device!r} is not there: this machine has {', '.join(_devices())}") from None
        if device.type == "meta":
            raise UsageError(f"device 'meta' cannot compute: this machine has {', '.join(_devices())}")
        return device

    @property
    def data_directory(self) -> Path:
        """--data-dir, with a leading ~ made the home directory."""
        return expanded(self.data_dir)

    def threads_for(self, data_bytes: int) -> int:
        """CPU threads for a run on so many bytes of images: decided by the data, never by how many runs go beside it."""
        return self.threads or (1 if data_bytes < SMALL_DATA else self.cores)

    @property
    def cores(self) -> int:
        """The cores of one process: the ranks of a run share the machine's, unless SLURM has bound each task to its own."""
        there, ranks = usable_cores(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        tasks = re.match(r"\d+", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))  # torchrun is one task with all ranks
        bound = tasks is not None and int(tasks[0]) == ranks and os.environ.get("SLURM_CPUS_PER_TASK") == str(there)
        return there if bound else max(1, there // ranks)

    def data_memory(self, device: torch.device) -> float:
        """Bytes that a decoded data set may have: half of the device's memory, infinity where it is not known."""
        if device.type == "cuda":
            return torch.cuda.get_device_properties(device).total_memory / 2
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
        except (ValueError, AttributeError, OSError):
            return inf


def expanded(path: str) -> Path:
    """The path, with a leading ~ or ~USER made a home directory. A UsageError for a user that is not known here."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path!r} begins with a home directory that is not known on this machine: write the whole "
                         "path") from None


def usable_cores() -> int:
    """The cores that this process may use: a scheduler may have given it some of the machine's only."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Have the process keep what it frees for its next use, as torch does on a GPU.

    By itself glibc gives each activation of a training step back to the system, which hands out the same pages anew, zeroed,
    in the next step. Only where there is glibc; no number that is computed depends on it.
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        allocator.mallopt(MALLOC_MAP, 1 << 30) or allocator.mallopt(MALLOC_MAP, 1 << 25)  # older ones take 32 MiB at most
        allocator.mallopt(MALLOC_TRIM, -1)


def return_freed_memory() -> None:
    """Have the process give what it frees back to the system at once, so that its peak is of what was in use. By itself glibc
    keeps pieces as large as any that were freed before. Only where there is glibc."""
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        allocator.mallopt(MALLOC_MAP, 1 << 17)
        allocator.mallopt(MALLOC_TRIM, 1 << 17)


def _devices() -> list[str]:
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def hardware(device: torch.device) -> str:
    """The processor or GPU that did the run, in a few words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    """The processor's name as Linux tells it, else what platform knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"popup": VERSION, "python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}


class PeakMemory:
    """The highest memory in use since it was made: the device's on a GPU, else the process's resident set."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_resident_peak()

    def peak(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            with open("/proc/self/status", encoding="ascii") as file:
                return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return None


def _reset_resident_peak() -> None:
    """Linux forgets the peak so far when 5 is written here; elsewhere the peak is the process's whole life's."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
