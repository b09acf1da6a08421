"""Decoded images on disk: written once, mapped into memory at every later start.

A data set is a folder DIRECTORY/decoded/NAME-KEY with four .npy files and fingerprint.txt. The key is made of names,
sizes and times of the files it was decoded from (of a folder of images also of where it lies), so changed files are decoded
anew. Folders may be removed at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from popup.errors import UsageError
from popup.lab.data.dataset import Split

VERSION = 1  # of the layout: another one is another key
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
Decode = Callable[[Path], None]  # writes the four arrays, images uint8 [n, c, h, w] and labels int64 [n], into a folder


def key_of(files: Iterable[tuple[str | int, ...]], *options: object) -> str:
    """16 hex digits that change when a file's name, bytes, times or whatever else it is told by does, or an option."""
    digest = hashlib.sha256(repr((VERSION, options)).encode())
    for entry in files:
        digest.update(repr(entry).encode())
    return digest.hexdigest()[:16]


def cached(directory: Path, name: str, key: str, decode: Decode) -> tuple[Split, Split, str]:
    """Training split, test split and fingerprint of a data set, decoded now if they are not in the cache yet."""
    def write(folder: Path) -> None:
        decode(folder)
        (folder / "fingerprint.txt").write_text(_fingerprint(folder), encoding="ascii")

    arrays, fingerprint = stored(directory, name, key, ARRAYS, write)
    return tuple(arrays[:2]), tuple(arrays[2:]), fingerprint


def stored(directory: Path, name: str, key: str, parts: Sequence[str], write: Decode) -> tuple[list[torch.Tensor], str]:
    """The arrays `parts` and the fingerprint of a data set's folder, which `write` fills now if it is not in the cache."""
    final = directory / "decoded" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}-{key}"
    if not final.exists():
        with _writing(directory / "decoded") as scratch:
            if not final.exists():  # another process may have been first
                write(scratch)
                scratch.chmod(0o755)  # others may share the data directory
                scratch.rename(final)
    try:
        arrays = [torch.from_numpy(np.load(final / f"{part}.npy", mmap_mode="c")) for part in parts]
        return arrays, (final / "fingerprint.txt").read_text(encoding="ascii")
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"the decoded images in {str(final)!r} cannot be read ({' '.join(str(error).split())}): remove "
                         "that folder, they will be decoded anew") from None


@contextlib.contextmanager
def _writing(decoded: Path) -> Iterator[Path]:
    """A scratch folder beside the final ones; only one process at a time has one. What is left in it is removed."""
    try:
        decoded.mkdir(parents=True, exist_ok=True)
        lock = open(decoded / ".lock", "w", encoding="ascii")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"cannot write to {str(decoded)!r} ({error.strerror}): name another directory with "
                         "--data-dir") from None
    with lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        scratch = Path(tempfile.mkdtemp(dir=decoded, prefix=".decoding-"))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _fingerprint(folder: Path) -> str:
    """SHA-256, as hex, of the four files: what the images are, wherever they came from."""
    digest = hashlib.sha256()
    for part in ARRAYS:
        with open(folder / f"{part}.npy", "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def check_space(directory: Path, needed: int) -> None:
    """A UsageError if `needed` bytes do not fit beside what is there."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UsageError(f"the decoded images take {needed / 1e9:.1f} GB and {str(directory)!r} has {free / 1e9:.1f} GB "
                         "free: give a smaller --image-size, another --data-dir or --streaming always")
