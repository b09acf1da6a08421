"""What images a folder holds, and of which class: names, sizes and times only, nothing is opened.

What is counted is what an eye would count. What is hidden (its name begins with a dot) is left out, and so is a file of another
ending; both are told of with their number. What can be counted in two ways is refused.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from popup.errors import UsageError
from popup.files import read_regular
from popup.lab.text import printable

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TESTS = ("test", "val", "validation")  # the first of these that has labels is the test split
ANNOTATIONS = "val_annotations.txt"    # Tiny-ImageNet's labels: file name and class, separated by tabs
TOLD = 5  # endings, classes or files that are told of by name


class Picture(NamedTuple):
    """One image file: its path under the root, its class, and what tells a changed file from the same."""

    name: str
    label: int
    bytes: int
    time: int     # of its content's last change, ns, which whoever copies a file may set
    changed: int  # of any change of it, ns, which nobody can set


@dataclass(frozen=True)
class Listing:
    """The image files of a data set, in the order of classes and names; classes are numbered in the order of their names.
    `notes`: a line on whatever was left out or is not there."""

    root: Path
    classes: tuple[str, ...]
    train: list[Picture]
    test: list[Picture]
    notes: tuple[str, ...] = ()


@dataclass
class Split:
    """What is found in a folder of a split: its images, and how many files were left out, by what they are."""

    folder: Path
    pictures: list[Picture] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def list_folder(root: Path) -> Listing:
    """The images under root/train/CLASS/ and root/test/CLASS/ (or val/, validation/), at any depth below their class.

    Of several such folders the first with labels is taken: `test`, then `val`, then `validation`. Raises UsageError where
    there are none, a class has no image, or the test split has a class that training lacks.
    """
    if not root.is_dir():
        raise UsageError(f"no folder {str(root)!r}: name one with train/CLASS/ and test/CLASS/ (or val/CLASS/) subfolders")
    classes = {name: number for number, name in enumerate(_subfolders(root / "train"))}
    train = _labelled(root, root / "train", classes)
    full = {picture.label for picture in train.pictures}
    for name, number in classes.items():
        if number not in full:
            raise UsageError(f"{root / 'train' / name} holds no image ({' '.join(EXTENSIONS)}): fill or remove it")
    test = next((split for split in (_labelled(root, root / name, classes) for name in TESTS) if split.pictures), None)
    if not classes or test is None:
        missing = "no train/CLASS/" if not classes else "no labelled image in test/CLASS/, val/CLASS/ or validation/CLASS/"
        raise UsageError(f"{str(root)!r} has {missing}: a folder data set is train/CLASS/*.jpg and test/CLASS/*.jpg")
    return Listing(root, tuple(classes), train.pictures, test.pictures,
                   (*_left_out(train), *_left_out(test), *_without_images(test, classes)))


def _left_out(split: Split) -> list[str]:
    """The line on files that are not taken."""
    if not split.left_out:
        return []
    kinds = [f"{count:,} {kind}" for kind, count in split.left_out.most_common(TOLD)]
    return [f"left out of {split.folder}: {', '.join(kinds)}{', ...' * (len(split.left_out) > TOLD)}"]


def _without_images(test: Split, classes: Mapping[str, int]) -> list[str]:
    """The line on classes that the test split lacks: accuracy is over the others."""
    there = {picture.label for picture in test.pictures}
    lacking = [printable(name, 40) for name, number in classes.items() if number not in there]
    some = f"{', '.join(lacking[:TOLD])}{', ...' * (len(lacking) > TOLD)}"
    return [f"WARNING: {test.folder} has no image of {len(lacking):,} of {len(classes):,} classes ({some}), so accuracy is over "
            "the others alone"] if lacking else []


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [entry.name for entry in _entries(folder) if entry.is_dir() and not _hidden(entry)]


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name == "__MACOSX"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in the folder, in the order of names. A UsageError for a link that leads nowhere (or to itself): whole classes
    may be missing."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise UsageError(f"{entry.path} is a link that leads nowhere: remove it, or bring back what it names")
    return entries


def _labelled(root: Path, folder: Path, classes: Mapping[str, int]) -> Split:
    """The images of a split; none where the split is absent or has no labels."""
    split, annotations = Split(folder), folder / ANNOTATIONS
    if annotations.is_file():
        return _annotated(root, split, annotations, classes)
    names = _subfolders(folder)
    if not set(names) & set(classes):
        return split
    for name in names:
        if name not in classes:
            raise UsageError(f"{folder / name} is a class that {root / 'train'} lacks: classes are the subfolders of train")
    for entry in _entries(folder):
        if entry.name not in names:
            split.left_out[_kind(entry, "outside any class")] += 1
        else:
            split.pictures += [_picture(root, found, classes[entry.name]) for found in _images(Path(entry.path), split.left_out)]
    return split


def _annotated(root: Path, split: Split, annotations: Path, classes: Mapping[str, int]) -> Split:
    """The images whose class a list says: each that it lists is there once, wherever below the folder it lies."""
    try:
        rows = [line.split("\t") for line in read_regular(annotations).decode("utf-8").splitlines()]
    except UnicodeDecodeError:
        raise UsageError(f"{annotations} is not text in UTF-8: get it anew") from None
    listed = [(row[0], row[1]) for row in rows if len(row) > 1]
    wanted = dict(listed)
    for name in wanted.values():
        if name not in classes:
            raise UsageError(f"{annotations} names a class {name!r} that {root / 'train'} lacks")
    entries = list(_images(split.folder, split.left_out))
    _check_once(annotations, "lists", Counter(name for name, _ in listed))
    _check_once(split.folder, "holds", Counter(entry.name for entry in entries if entry.name in wanted))
    if lost := sorted(wanted.keys() - {entry.name for entry in entries}):
        raise UsageError(f"{annotations} lists {len(lost):,} of {len(wanted):,} images that are not there ({lost[0]}, ...): "
                         "bring them back, or take them out of the list")
    split.left_out.pop(_ending(ANNOTATIONS), None)
    for entry in entries:
        above = Path(os.path.relpath(entry.path, split.folder)).parts[0]
        if above in classes and above != wanted.get(entry.name, above):
            raise UsageError(f"{entry.path} is of class {wanted[entry.name]!r} by {annotations}: move it, or take out the list")
        if entry.name in wanted:
            split.pictures.append(_picture(root, entry, classes[wanted[entry.name]]))
        else:
            split.left_out[f"not in {ANNOTATIONS}"] += 1
    return split


def _check_once(place: Path, verb: str, names: Counter[str]) -> None:
    if twice := [name for name, count in names.items() if count > 1]:
        raise UsageError(f"{place} {verb} {len(twice):,} images more than once ({twice[0]}, ...): leave one of each")


def _picture(root: Path, entry: os.DirEntry[str], label: int) -> Picture:
    status = entry.stat()
    return Picture(os.path.relpath(entry.path, root), label, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _kind(entry: os.DirEntry[str], otherwise: str = "") -> str:
    """What a file that is left out is, in few words."""
    if _hidden(entry):
        return "hidden"
    return f"{_ending(entry.name)} {otherwise}".rstrip()


def _ending(name: str) -> str:
    return printable(os.path.splitext(name)[1].lower(), 10) or "without an ending"


def _images(folder: Path, left_out: Counter[str], above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[os.DirEntry[str]]:
    """The image files below `folder`, which lies in the folders `above` (device, inode), in the order of their names; the others
    are counted in `left_out`."""
    status = os.stat(folder)
    place = (status.st_dev, status.st_ino)
    if place in above:
        raise UsageError(f"{folder} is a link to a folder that it lies in: remove it")
    for entry in _entries(folder):
        if _hidden(entry):
            left_out["hidden"] += 1
        elif entry.is_dir():
            yield from _images(Path(entry.path), left_out, above | {place})
        elif not entry.name.lower().endswith(EXTENSIONS):
            left_out[_kind(entry)] += 1
        elif not entry.is_file():
            raise UsageError(f"{entry.path} is no file but a pipe, a socket or a device: remove it")
        else:
            yield entry
