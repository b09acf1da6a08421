"""A cell of a grid: a run's directory, as any number of processes on any number of machines see it.

It is claimed by locking a file in it, which the system unlocks when the process ends, however it ends: a POSIX record
lock, which NFS and the parallel file systems carry from machine to machine. It is finished when result.json is there, failed
when failure.json is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from popup.errors import UsageError
from popup.files import open_lock, own_folder, remove_own, write_atomically
from popup.lab.config import Config
from popup.lab.runs.controls import needed
from popup.lab.runs.directory import RunDirectory, read_config, read_failure
from popup.lab.runs.records import DeathsRecord
from popup.lab.runs.schema import read_object
from popup.lab.text import printable

HELD = (errno.EACCES, errno.EAGAIN)  # what POSIX lets lockf say where another process has the lock
LONGEST_REASON = 4000  # letters
BEGUN = ".begun"  # the note of a process that does a cell
LOCAL_ONLY = ("nolock", "local_lock=all", "local_lock=posix", "localflock")  # mount options of NFS and Lustre


def label(config: Config) -> str:
    """A run in a few words: its role, p, k, seed, and what else is an axis and was asked for otherwise than by default."""
    source, plain, flat = config.source, Config().asked(), config.asked()
    axes = [part.name for group in vars(config).values() for part in fields(group) if part.metadata.get("axis")]
    others = [f" {name} {printable(flat[name])}" for name in axes if name not in ("er_p", "k") and flat[name] != plain[name]]
    return f"{config.task.role} p={source.er_p:g} k={source.k:.3g} seed {source.seed}{''.join(others)}"


class Cell:
    """One run of a grid as the workers see it."""

    def __init__(self, out: Path, config: Config) -> None:
        self.config, self.name = config, config.hash()
        self.path = out / self.name
        self.needs = [Cell(out, other) for other in needed(config)]

    @property
    def label(self) -> str:
        return label(self.config)

    def planned(self) -> bool:
        """Whether there is a directory of it, by which workers find it: with a config that can be read."""
        try:
            return read_config(self.path / "config.json").hash() == self.name
        except (UsageError, OSError):
            return False

    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    def failure(self) -> str | None:
        """Why the cell failed, None if it did not."""
        try:
            return read_failure(self.path)
        except UsageError:  # what says nothing is done again
            return None

    def over(self) -> bool:
        """Whether nothing is left to do for the cell."""
        return self.finished() or self.failure() is not None

    def ready(self) -> bool:
        """Whether what the cell needs is there, or will never be."""
        return all(cell.over() for cell in self.needs)

    def write_config(self) -> None:
        """Make the directory with the config in it, by which workers find the cell."""
        RunDirectory(self.path.parent, self.config).write_config()

    def fail(self, reason: str, trace: str = "") -> None:
        """Record why the cell cannot be done, and where in the code it was found out if that is not known before."""
        self.write_config()
        said = printable(" ".join(reason.split()), LONGEST_REASON)
        record = {"hash": self.name, "reason": said} | ({"traceback": trace.splitlines()} if trace else {})
        write_atomically(self.path / "failure.json", json.dumps(record, indent=1).encode())

    def forget_failure(self) -> None:
        """Let the cell be tried again."""
        for name in ("failure.json", BEGUN):
            remove_own(self.path / name)

    @contextlib.contextmanager
    def counting_deaths(self) -> Iterator[int]:
        """Leave a note in the directory for the block, which stays there only if the process ends without a word (killed,
        often for want of memory). Gives how many such ends there were in a row, with no checkpoint between them."""
        note, checkpoint = self.path / BEGUN, RunDirectory(self.path.parent, self.config).checkpoint
        progress = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        try:
            found = read_object(note, DeathsRecord, "remove it")
            deaths = found["times"] if found["progress"] == progress else 0
        except (FileNotFoundError, UsageError):
            deaths = 0
        write_atomically(note, json.dumps({"times": deaths + 1, "progress": progress}).encode(), durable=False)
        try:
            yield deaths
        finally:
            remove_own(note)

    @contextlib.contextmanager
    def claim(self) -> Iterator[bool]:
        """Hold the cell for the block; False if another process holds it. An OSError where the file system has no locks."""
        with open_lock(own_folder(self.path) / ".lock") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in HELD:
                    raise OSError(error.errno, f"this file system cannot lock ({error.strerror}): name another --out, or "
                                  "mount it with locks", str(self.path)) from None
                yield False
                return
            os.utime(self.path)  # a change of ours: NFS then asks the server what is there, result.json for one
            yield True


def check_locks(out: Path, mounts: Path = Path("/proc/self/mountinfo")) -> Path:
    """A UsageError if locks on `out` are seen by this machine only, by what Linux says of its mount. Returns `out`."""
    try:
        device, lines = out.stat().st_dev, mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return out
    place = f"{os.major(device)}:{os.minor(device)}"
    options = {option for line in lines if line.split()[2] == place for option in line.split()[-1].split(",")}
    for option in LOCAL_ONLY:
        if option in options:
            raise UsageError(f"{str(out)!r} is mounted with {option!r}, so no machine sees another's locks and runs would "
                             "be done twice: mount it without, or name another directory")
    return out
