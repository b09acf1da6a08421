"""Every file that popup reads of others, and every one that it writes, goes through here.

Read are regular files of sane size alone: a pipe or a device would give no answer, or no end of it. Nothing is opened for writing
through a link, nor emptied; what is replaced appears whole, so that no reader sees half of a file.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from popup.errors import UsageError

PART = ".part"  # how the temporary files end that a killed process may leave behind
LONGEST = 100  # bytes of a name that its temporary file's begins with; 15 come to it, and no system takes less than 143
MOST = 1 << 26  # bytes of a text that is read as a whole; the metrics of 100,000 epochs need half of it
Mode = Literal["rb", "ab", "r+b", "w+b"]
QUIET = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # a pipe would have whoever opens it wait
OURS = QUIET | os.O_NOFOLLOW
KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
         (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


class IrregularFile(UsageError):
    """What is there is no regular file, or too large a one: it was not read, nor written."""


def open_regular(path: Path) -> BinaryIO:
    """The regular file at `path`, or where a link there leads, to be read. An IrregularFile for anything else, which is not even
    opened; an OSError for what the system refuses."""
    _check(path, os.stat(path))
    handle = os.open(path, os.O_RDONLY | QUIET)
    return _checked(path, handle, "rb")


def read_regular(path: Path, most: int = MOST) -> bytes:
    """The bytes of a regular file, which may be `most`."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise IrregularFile(f"{path} is larger than {most:,} bytes, which no such file is: move it away")
    return content


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write through a temporary file beside `path`, synced and renamed: after a crash the old or the new is there, whole. What
    is not `durable` is not synced, which takes as long as the disk does: the system's own crash may leave it empty.

    A link at `path` is replaced, and what it leads to stays as it is. An OSError (a full disk, a read-only or vanished directory)
    names `path`, and leaves the old file as it was.
    """
    try:
        _write(path, content, durable)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write(path: Path, content: bytes, durable: bool) -> None:
    name = path.name
    while len(os.fsencode(name)) > LONGEST:
        name = name[:-1]  # a whole letter, since some systems refuse half of one
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def remove_parts(directory: Path) -> None:
    """Remove what writers that were killed left in `directory`; nobody else may be writing there."""
    for path in directory.glob(f".*{PART}"):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)


def create(path: Path) -> BinaryIO:
    """A new file, to be written and read; an OSError if there is one."""
    return _checked(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | OURS, 0o644), "w+b")


def append(path: Path, content: bytes, durable: bool = False) -> None:
    """Add to the end of a file, which is made if need be, and through no link. An OSError names the file."""
    try:
        with _checked(path, _open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:  # a full disk does not say which file
        raise OSError(error.errno, error.strerror, str(path)) from None


def open_lock(path: Path) -> BinaryIO:
    """The file at `path` to be locked, made if need be; what it holds is left alone."""
    return _checked(path, _open_own(path, os.O_RDWR | os.O_CREAT), "r+b")


def own_folder(path: Path) -> Path:
    """Make the folder if need be; an IrregularFile if it is a link, so that nothing is written elsewhere. Returns `path`."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise IrregularFile(f"{path} is a link, and popup writes into no folder through one: remove it, or name the folder that "
                            "it leads to")
    return path


def remove_own(path: Path) -> None:
    """Remove a file in a folder of popup's own, if it is there. Where that folder is a link, what it leads to stays."""
    if not path.parent.is_symlink():
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(directory: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `directory` for the block; what is left of it then is removed."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _open_own(path: Path, flags: int) -> int:
    """A handle of a file that popup writes; a link or anything else in its place is refused by name."""
    with contextlib.suppress(FileNotFoundError):
        _check(path, os.lstat(path))
    return os.open(path, flags | OURS, 0o644)


def _checked(path: Path, handle: int, mode: Mode) -> BinaryIO:
    """The open file, if it is what was looked at before."""
    try:
        _check(path, os.fstat(handle))
        return os.fdopen(handle, mode)
    except BaseException:
        os.close(handle)
        raise


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in KINDS if test(status.st_mode)), "no file")
        raise IrregularFile(f"{path} is {kind}, where popup has a regular file: remove it")
