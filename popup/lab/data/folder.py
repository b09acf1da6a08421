"""Any folder of images: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/), ImageNet and Tiny-ImageNet among them.

Images are read as RGB, as torchvision's ImageFolder does; those of more than 8 bits a channel are refused. A set that fits
memory is decoded into memory-mapped arrays once; a larger one (ImageNet at 224 pixels takes 200 GB decoded) is streamed from
its files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import isinf, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from popup.errors import UsageError
from popup.files import read_regular
from popup.lab.data.cache import cached, check_space, fill, key_of, save, stored
from popup.lab.data.dataset import DataRequest, Dataset, Split
from popup.lab.data.decode import decode_as, decode_image, large_untold
from popup.lab.data.listing import Listing, Picture, list_folder
from popup.lab.data.moments import image_sums
from popup.lab.data.streamed import Streamed
from popup.lab.machine import expanded, usable_cores
from popup.lab.text import printable

CHUNK = 1024  # images decoded between two writes
SUMS = {"train_sums": (np.int64, 3), "test_sums": (np.int64, 3)}
MEASURED = 64  # images measured at once


def load_folder(path: str, request: DataRequest, title: str = "") -> Dataset:
    """The data set in the folder `path`; its title is the first line of title.txt in it, else the folder's name."""
    root = expanded(path)
    listing = list_folder(root)
    key = key_of((tuple(picture) for picture in (*listing.train, *listing.test)), request.side, str(root.resolve()))
    name = root.resolve().name
    if _is_streamed(listing, request):
        train, test, fingerprint = _stream(listing, request, name, key)
    else:
        decode = partial(_decode, listing, request.side)
        train, test, fingerprint = cached(request.directory, name, key, decode)
    return Dataset(title or _title(root), len(listing.classes), train, test, fingerprint=fingerprint, names=listing.classes,
                   notes=listing.notes)


def _is_streamed(listing: Listing, request: DataRequest) -> bool:
    if request.streaming != "auto" or isinf(request.memory):
        return request.streaming == "always"
    return prod(_shape(listing, request.side)) * (len(listing.train) + len(listing.test)) > request.memory


def _shape(listing: Listing, side: int) -> tuple[int, ...]:
    """Of every decoded image, [3, height, width]: where there is a `side` no image is needed to tell."""
    return (3, side, side) if side else decode_image(listing.root / listing.train[0].name).shape


def _title(root: Path) -> str:
    try:
        return printable(read_regular(root / "title.txt").decode("utf-8").splitlines()[0].strip())
    except (OSError, IndexError, ValueError):
        return printable(root.resolve().name)


def _decode(listing: Listing, side: int, folder: Path) -> None:
    """Write the four arrays of the cache, images as uint8 [n, 3, height, width]."""
    first, shape = listing.root / listing.train[0].name, _shape(listing, side)
    check_space(folder, (len(listing.train) + len(listing.test)) * prod(shape))
    for part, pictures in (("train", listing.train), ("test", listing.test)):
        save(folder / f"{part}_labels.npy", _labels(pictures))
        images = fill(folder / f"{part}_images.npy", np.uint8, (len(pictures), *shape))
        decode = partial(decode_as, side=side, shape=shape, first=str(first))
        _decode_all([listing.root / picture.name for picture in pictures], decode, images)


def _labels(pictures: Sequence[Picture]) -> np.ndarray:
    return np.array([picture.label for picture in pictures], dtype=np.int64)


def _decode_all(paths: Sequence[Path], decode: Callable[[Path], np.ndarray], images: np.ndarray) -> None:
    """Decode `paths` into `images` [n, 3, h, w], on every core: the decoder runs without Python's lock."""
    bar = tqdm(total=len(paths), desc="decoding once", unit=" images", disable=None, leave=False)
    with large_untold(), ThreadPoolExecutor(usable_cores()) as pool, bar:
        for start in range(0, len(paths), CHUNK):
            some = paths[start:start + CHUNK]
            for place, pixels in enumerate(pool.map(decode, some), start):
                images[place] = pixels
            bar.update(len(some))


def _stream(listing: Listing, request: DataRequest, name: str, key: str) -> tuple[Split, Split, str]:
    """The splits left in their files. Only sums of pixels are made now, once, by reading every image."""
    shape = _shape(listing, request.side)

    def images(pictures: Sequence[Picture], sums: torch.Tensor) -> Streamed:
        return Streamed(listing.root, [picture.name for picture in pictures], shape, request.side, sums, request.decoders)

    def measure(folder: Path) -> str:
        digest = hashlib.sha256()
        for part, pictures in parts.items():
            labels = io.BytesIO()
            np.save(labels, _labels(pictures))
            save(folder / f"{part}_sums.npy", _measure(images(pictures, torch.zeros(len(pictures), 0)), digest))
            digest.update(labels.getvalue())
        return digest.hexdigest()

    parts = {"train": listing.train, "test": listing.test}
    sums, fingerprint = stored(request.directory, f"{name}-streamed", key, SUMS, measure)
    for pictures, found in zip(parts.values(), sums, strict=True):
        if found.shape != (len(pictures), 2, 3):
            raise UsageError(f"the decoded images of {name!r} are of other files: remove {str(request.directory / 'decoded')!r}")
    train, test = ((images(pictures, found), torch.from_numpy(_labels(pictures)))
                   for pictures, found in zip(parts.values(), sums, strict=True))
    return train, test, fingerprint


def _measure(images: Streamed, digest: Any) -> np.ndarray:
    """The sums of every image, int64 [n, 2, 3]; `digest` is fed the bytes that the images' decoded .npy file would have."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": images.shape})
    digest.update(header.getvalue())
    sums = []
    with tqdm(total=len(images), desc="measuring once", unit=" images", disable=None, leave=False) as bar:
        for batch in images.batches([slice(start, start + MEASURED) for start in range(0, len(images), MEASURED)]):
            digest.update(batch.numpy().data)
            sums.append(image_sums(batch))
            bar.update(len(batch))
    return torch.cat(sums).numpy()


def tiny_imagenet(request: DataRequest) -> Dataset:
    """Tiny-ImageNet-200 as it is published: 100,000 and 10,000 images of 64x64 pixels; the test split has no labels."""
    return _known("tiny_imagenet", "tiny-imagenet-200", "Tiny-ImageNet", request,
                  "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip there")


def imagenet(request: DataRequest) -> Dataset:
    """ImageNet (ILSVRC 2012) as train/CLASS/ and val/CLASS/, at --image-size; the published test split has no labels."""
    return _known("imagenet", "imagenet", "ImageNet", request,
                  "get ILSVRC2012 from image-net.org and unpack it to imagenet/train/CLASS/ and imagenet/val/CLASS/")


def _known(name: str, folder: str, title: str, request: DataRequest, remedy: str) -> Dataset:
    path = request.directory / folder
    if not path.is_dir():
        raise UsageError(f"data set {name!r} is not in {str(request.directory)!r}: {folder}/ is missing; {remedy} "
                         "(--download does not fetch it), or name the directory that has it with --data-dir")
    return load_folder(str(path), request, title)
