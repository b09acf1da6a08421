"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

PART = ".part"  # how the temporary files end that a killed process may leave behind


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write through a temporary file beside `path`, synced and renamed: after a crash the old or the new is there, whole. What
    is not `durable` is not synced, which takes as long as the disk does: the system's own crash may leave it empty.

    An OSError (a full disk, a read-only or vanished directory) names `path`, and leaves the old file as it was.
    """
    try:
        _write(path, content, durable)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write(path: Path, content: bytes, durable: bool) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
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
        path.unlink(missing_ok=True)
