"""One image file to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from popup.errors import UsageError

DEEP = ("I", "F")  # how Pillow's modes of more than 8 bits a channel begin: I;16, I;16B, I, F


def decode_image(path: Path, side: int = 0) -> np.ndarray:
    """One image as uint8 [3, height, width]; with `side` its shorter side is resized to that and the middle cut out."""
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        raise UsageError(f"{path} is not an image that can be read ({' '.join(str(error).split())}): remove it") from None
    _check_depth(path, mode)
    if side and pixels.size != (side, side):
        pixels = ImageOps.fit(pixels, (side, side), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def _check_depth(path: Path, mode: str) -> None:
    """A UsageError for pixels of which nothing says what is black and white: Pillow would make all above 255 white."""
    if mode.startswith(DEEP):
        raise UsageError(f"{path} has pixels of more than 8 bits (Pillow's mode {mode}): save it with 8 bits a channel, or load "
                         "such images by a function of your own, as --dataset MODULE:FUNCTION")


def decode_as(path: Path, side: int, shape: Sequence[int], first: str = "the first") -> np.ndarray:
    """The same, or a UsageError unless it has the `shape` of the `first` one."""
    pixels = decode_image(path, side)
    if pixels.shape != tuple(shape):
        raise UsageError(f"{path} is {_size(pixels.shape)} and {first} is {_size(shape)}: give --image-size to resize and "
                         "crop all to one size")
    return pixels


def _size(shape: Sequence[int]) -> str:
    return f"{shape[2]}x{shape[1]} pixels"
