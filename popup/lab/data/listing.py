"""What images a folder holds, and of which class: names, sizes and times only, nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from popup.errors import UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TESTS = ("test", "val", "validation")  # the first of these that has labels is the test split
ANNOTATIONS = "val_annotations.txt"    # Tiny-ImageNet's labels: file name and class, separated by tabs


class Picture(NamedTuple):
    """One image file: its path under the root, its class, and what tells a changed file from the same."""

    name: str
    label: int
    bytes: int
    time: int     # of its content's last change, ns, which whoever copies a file may set
    changed: int  # of any change of it, ns, which nobody can set


@dataclass(frozen=True)
class Listing:
    """The image files of a data set, in the order of classes and names; classes are numbered in the order of their names."""

    root: Path
    classes: tuple[str, ...]
    train: list[Picture]
    test: list[Picture]


def list_folder(root: Path) -> Listing:
    """The images under root/train/CLASS/ and root/test/CLASS/ (or val/, validation/), at any depth below their class.

    Of several such folders the first with labels is taken: `test`, then `val`, then `validation`. Raises UsageError where
    there are none, a class has no image, or the test split has a class that training lacks.
    """
    if not root.is_dir():
        raise UsageError(f"no folder {str(root)!r}: name one with train/CLASS/ and test/CLASS/ (or val/CLASS/) subfolders")
    classes = {name: number for number, name in enumerate(_subfolders(root / "train"))}
    train = _labelled(root, root / "train", classes)
    for name in classes:
        if not any(picture.label == classes[name] for picture in train):
            raise UsageError(f"{root / 'train' / name} holds no image ({' '.join(EXTENSIONS)}): fill or remove it")
    test = next(filter(None, (_labelled(root, root / name, classes) for name in TESTS)), None)
    if not classes or not test:
        missing = "no train/CLASS/" if not classes else "no labelled image in test/CLASS/, val/CLASS/ or validation/CLASS/"
        raise UsageError(f"{str(root)!r} has {missing}: a folder data set is train/CLASS/*.jpg and test/CLASS/*.jpg")
    return Listing(root, tuple(classes), train, test)


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _entries(folder: Path) -> list[os.DirEntry]:
    """What lies in the folder, in the order of names. A UsageError for a link that leads nowhere (or to itself): whole classes
    may be missing."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise UsageError(f"{entry.path} is a link that leads nowhere: remove it, or bring back what it names")
    return entries


def _labelled(root: Path, folder: Path, classes: Mapping[str, int]) -> list[Picture]:
    """The images of a split; none where the split is absent or has no labels."""
    annotations = folder / ANNOTATIONS
    if annotations.is_file():
        return _annotated(root, folder, annotations, classes)
    names = _subfolders(folder)
    if not set(names) & set(classes):
        return []
    for name in names:
        if name not in classes:
            raise UsageError(f"{folder / name} is a class that {root / 'train'} lacks: classes are the subfolders of train")
    return [_picture(root, entry, classes[name]) for name in names for entry in _images(folder / name)]


def _annotated(root: Path, folder: Path, annotations: Path, classes: Mapping[str, int]) -> list[Picture]:
    rows = [line.split("\t") for line in annotations.read_text(encoding="utf-8").splitlines()]
    wanted = {row[0]: row[1] for row in rows if len(row) > 1}
    for name in wanted.values():
        if name not in classes:
            raise UsageError(f"{annotations} names a class {name!r} that {root / 'train'} lacks")
    return [_picture(root, entry, classes[wanted[entry.name]]) for entry in _images(folder) if entry.name in wanted]


def _picture(root: Path, entry: os.DirEntry, label: int) -> Picture:
    status = entry.stat()
    return Picture(os.path.relpath(entry.path, root), label, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _images(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[os.DirEntry]:
    """The image files below `folder`, which lies in the folders `above` (device, inode), in the order of their names."""
    status = os.stat(folder)
    place = (status.st_dev, status.st_ino)
    if place in above:
        raise UsageError(f"{folder} is a link to a folder that it lies in: remove it")
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _images(Path(entry.path), above | {place})
        elif entry.name.lower().endswith(EXTENSIONS):
            if not entry.is_file():
                raise UsageError(f"{entry.path} is no file but a pipe, a socket or a device: remove it")
            yield entry
