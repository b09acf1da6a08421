"""Any folder of images: train/CLASS/*.jpg and test/CLASS/*.jpg (or val/), ImageNet and Tiny-ImageNet among them.

Images are read as RGB, as torchvision's ImageFolder does. The whole set is decoded into memory-mapped arrays; a loader that
streams from the files, for sets larger than a disk (ImageNet at 224 pixels takes 200 GB decoded), would stand beside
`load_folder` and share `list_folder` and `decode_image`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from popup.errors import UsageError
from popup.lab.data.cache import cached, check_space, key_of
from popup.lab.data.dataset import DataRequest, Dataset
from popup.lab.data.listing import Listing, Picture, list_folder

CHUNK = 1024  # images decoded between two writes


def load_folder(path: str, request: DataRequest, title: str = "") -> Dataset:
    """The data set in the folder `path`; its title is the first line of title.txt in it, else the folder's name."""
    root = Path(path).expanduser()
    listing = list_folder(root)
    key = key_of(((picture.name, picture.bytes, picture.time, picture.label) for picture in (*listing.train, *listing.test)),
                 request.side)
    train, test, fingerprint = cached(request.directory, root.resolve().name, key,
                                      lambda folder: _decode(listing, request.side, folder))
    return Dataset(title or _title(root), len(listing.classes), train, test, fingerprint=fingerprint)


def _title(root: Path) -> str:
    try:
        return (root / "title.txt").read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return root.resolve().name


def _decode(listing: Listing, side: int, folder: Path) -> None:
    """Write the four arrays of the cache, images as uint8 [n, 3, height, width]."""
    first = listing.root / listing.train[0].name
    shape = decode_image(first, side).shape
    check_space(folder, (len(listing.train) + len(listing.test)) * int(np.prod(shape)))
    for part, pictures in (("train", listing.train), ("test", listing.test)):
        np.save(folder / f"{part}_labels.npy", np.array([picture.label for picture in pictures], dtype=np.int64))
        images = np.lib.format.open_memmap(folder / f"{part}_images.npy", "w+", np.uint8, (len(pictures), *shape))
        _decode_all(listing.root, pictures, side, first, images)


def _decode_all(root: Path, pictures: Sequence[Picture], side: int, first: Path, images: np.ndarray) -> None:
    """Decode `pictures` into `images` [n, 3, h, w], on every core: the decoder runs without Python's lock."""
    bar = tqdm(total=len(pictures), desc=f"decoding {root.name} once", unit=" images", disable=None, leave=False)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for start in range(0, len(pictures), CHUNK):
            paths = [root / picture.name for picture in pictures[start:start + CHUNK]]
            for place, pixels in enumerate(pool.map(partial(decode_image, side=side), paths), start):
                if pixels.shape != images.shape[1:]:
                    raise UsageError(f"{paths[place - start]} is {_size(pixels)} and {first} is {_size(images[0])}: "
                                     "give --image-size to resize and crop all to one size")
                images[place] = pixels
            bar.update(len(paths))


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]} pixels"


def decode_image(path: Path, side: int = 0) -> np.ndarray:
    """One image as uint8 [3, height, width]; with `side` its shorter side is resized to that and the middle cut out."""
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        raise UsageError(f"{path} is not an image that can be read ({' '.join(str(error).split())}): remove it") from None
    if side and pixels.size != (side, side):
        pixels = ImageOps.fit(pixels, (side, side), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


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
