"""Decoded images on disk: written once, mapped into memory at every later start.

A data set is a folder DIRECTORY/decoded/NAME-KEY with four .npy files and fingerprint.txt. The key is made of names,
sizes and times of the files it was decoded from (of a folder of images also of where it lies), so changed files are decoded
anew. Folders may be removed at any time.

What lies there is not believed: the files' SHA-256 is computed at every start (0.9 s a GB), and where it is not the one that was
written, or is of another key, the folder is made anew. fingerprint.txt has two lines: the fingerprint, and the SHA-256 of the
key, the fingerprint and the files' SHA-256.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from popup.errors import UsageError
from popup.files import IrregularFile, create, open_lock, open_regular, own_folder, read_regular, scratch_folder
from popup.lab.data.dataset import Split
from popup.lab.text import printable

VERSION = 1  # of the layout: another one is another key
ARRAYS = {"train_images": (np.uint8, 4), "train_labels": (np.int64, 1), "test_images": (np.uint8, 4),
          "test_labels": (np.int64, 1)}  # what each is of, and in how many dimensions
SCRATCH = ".decoding-"  # how the names begin of folders that are being filled
FINGERPRINT = "fingerprint.txt"
SMALL = 1 << 10  # bytes
LONGEST_NAME = 100  # letters of a data set's name in its folder's
Decode = Callable[[Path], None]  # writes the four arrays, images uint8 [n, c, h, w] and labels int64 [n], into a folder


def key_of(files: Iterable[tuple[str | int, ...]], *options: object) -> str:
    """16 hex digits that change when a file's name, bytes, times or whatever else it is told by does, or an option."""
    digest = hashlib.sha256(repr((VERSION, options)).encode())
    for entry in files:
        digest.update(repr(entry).encode())
    return digest.hexdigest()[:16]


def cached(directory: Path, name: str, key: str, decode: Decode) -> tuple[Split, Split, str]:
    """Training split, test split and fingerprint of a data set, decoded now if they are not in the cache yet."""
    def write(folder: Path) -> str:
        decode(folder)
        return _digest(folder, ARRAYS)

    arrays, fingerprint = stored(directory, name, key, ARRAYS, write)
    images, labels, tests, answers = arrays
    return (images, labels), (tests, answers), fingerprint


def stored(directory: Path, name: str, key: str, parts: Mapping[str, tuple[type, int]],
           write: Callable[[Path], str]) -> tuple[list[torch.Tensor], str]:
    """The arrays `parts` and the fingerprint of a data set's folder, which `write` fills now (and returns the fingerprint) if it
    is not in the cache, or not as it was written."""
    decoded = directory / "decoded"
    final = decoded / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:LONGEST_NAME]}-{key}"
    try:
        return _load(final, key, parts)
    except FileNotFoundError as error:
        if final.exists():
            _tell(final, error)
    except (OSError, ValueError, EOFError) as error:
        _tell(final, error)
    with writing(decoded) as scratch:
        try:  # another process may have been first
            return _load(final, key, parts)
        except (OSError, ValueError, EOFError):
            _remove(final)
        _seal(scratch, key, parts, write(scratch))
        scratch.chmod(0o755)  # others may share the data directory
        scratch.rename(final)
    try:
        return _load(final, key, parts)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"the decoded images in {str(final)!r} cannot be read ({_reason(error)}) though they were written just "
                         "now: name another directory with --data-dir") from None


def _load(final: Path, key: str, parts: Mapping[str, tuple[type, int]]) -> tuple[list[torch.Tensor], str]:
    """The arrays and the fingerprint, if all are as they were written for this key; else a ValueError or OSError."""
    if final.is_symlink():
        raise IrregularFile("it is a link")
    lines = read_regular(final / FINGERPRINT, SMALL).decode("ascii").splitlines()
    if len(lines) == 1:
        raise ValueError("an earlier popup wrote them")
    digest = _digest(final, parts)
    if len(lines) != 2 or lines[1] != _seal_of(key, lines[0], digest) or (parts is ARRAYS and lines[0] != digest):
        raise ValueError("its files are not what was written there")
    arrays = [np.load(final / f"{part}.npy", mmap_mode="c") for part in parts]
    for (part, (kind, dimensions)), array in zip(parts.items(), arrays, strict=True):
        if array.dtype != kind or array.ndim != dimensions or not array.flags.c_contiguous:
            raise ValueError(f"{part} is {array.dtype} of {array.ndim} dimensions")
    return [torch.from_numpy(array) for array in arrays], lines[0]


def _seal(folder: Path, key: str, parts: Mapping[str, tuple[type, int]], fingerprint: str) -> None:
    with create(folder / FINGERPRINT) as file:
        file.write(f"{fingerprint}\n{_seal_of(key, fingerprint, _digest(folder, parts))}\n".encode("ascii"))


def _seal_of(key: str, fingerprint: str, digest: str) -> str:
    return hashlib.sha256(f"{key} {fingerprint} {digest}".encode()).hexdigest()


def save(path: Path, array: np.ndarray) -> None:
    """A new .npy file."""
    with create(path) as file:
        np.save(file, array)


def fill(path: Path, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    """A new .npy file, mapped into memory to be filled."""
    with create(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False,
                                                    "shape": shape})
        return np.memmap(file, kind, "r+", file.tell(), shape)


def _tell(final: Path, error: Exception) -> None:
    print(printable(f"popup: the decoded images in {final} are not as they were written ({_reason(error)}): they are made anew"),
          file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    return printable(" ".join((getattr(error, "strerror", None) or str(error)).split()), 200)


def _remove(final: Path) -> None:
    """Remove what is in the place of a folder, without following a link."""
    if final.is_dir() and not final.is_symlink():
        shutil.rmtree(final)
    else:
        final.unlink(missing_ok=True)


@contextmanager
def writing(decoded: Path) -> Iterator[Path]:
    """A scratch folder beside the final ones; only one process at a time has one. What is left in it is removed."""
    try:
        lock = open_lock(own_folder(decoded) / ".lock")
    except OSError as error:
        raise UsageError(f"cannot write to {str(decoded)!r} ({error.strerror}): name another directory with "
                         "--data-dir") from None
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise OSError(error.errno, f"this file system cannot lock ({error.strerror}): name another --data-dir, or mount it "
                          "with locks", str(decoded)) from None
        for left in decoded.glob(f"{SCRATCH}*"):  # by a process that was killed: nobody else is writing
            _remove(left)
        with scratch_folder(decoded, SCRATCH) as scratch:
            yield scratch


def _digest(folder: Path, parts: Iterable[str]) -> str:
    """SHA-256, as hex, of the files one after the other: of the four of a data set it is what the images are, wherever they came
    from."""
    digest = hashlib.sha256()
    for part in parts:
        with open_regular(folder / f"{part}.npy") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def check_space(directory: Path, needed: int) -> None:
    """A UsageError if `needed` bytes do not fit beside what is there."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UsageError(f"the decoded images take {size_in_words(needed)} and {str(directory)!r} has {size_in_words(free)} "
                         "free: give a smaller --image-size, another --data-dir or --streaming always")


def size_in_words(count: float) -> str:
    """Bytes in the unit in which they are a number above 1."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
