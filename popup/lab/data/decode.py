"""One image file to pixels.

As torchvision's ImageFolder has them: alpha is left away, a rotation that EXIF asks for is not done, and of several frames the
first is taken. What Pillow would open otherwise than as one of FORMATS is no image here, whatever it is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from popup.errors import UsageError
from popup.files import open_regular

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")  # others hand the file to programs that nobody asked for
MOST_PIXELS = 1 << 26  # of one image; as RGB they take 200 MB
DEEP = ("I", "F")  # how Pillow's modes of more than 8 bits a channel begin: I;16, I;16B, I, F
DEEP_RAW = (";16B", ";16L", ";16N")  # in what a file holds, where Pillow has RGB of its upper bits


def decode_image(path: Path, side: int = 0) -> np.ndarray:
    """One image as uint8 [3, height, width]; with `side` its shorter side is resized to that and the middle cut out."""
    try:
        with open_regular(path) as file, _opened(file) as image:
            _check_size(path, image.size)
            _check_depth(path, image)
            pixels = image.convert("RGB")
    except UsageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damage leads them to
        raise UsageError(f"{path} is not an image that can be read ({_reason(error)}): remove it") from None
    if side and pixels.size != (side, side):
        pixels = ImageOps.fit(pixels, (side, side), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def _opened(file: BinaryIO) -> Image.Image:
    """The image, of which only the head is read yet."""
    with large_untold():
        return Image.open(file, formats=FORMATS)


def large_untold() -> warnings.catch_warnings[None]:
    """The context in which Pillow does not warn of large images, which `_check_size` refuses in one line. Threads share what they
    ignore: who has several decode is in it all the time, or one that leaves it takes it from the others."""
    return warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_size(path: Path, size: tuple[int, int]) -> None:
    """A UsageError for more pixels than any image of a data set has, which a small file can have."""
    if size[0] * size[1] > MOST_PIXELS:
        raise UsageError(f"{path} has {size[0]:,} x {size[1]:,} pixels, more than {MOST_PIXELS:,}: make it smaller, or remove it")


def _check_depth(path: Path, image: Image.Image) -> None:
    """A UsageError for pixels of which nothing says what is black and white: of grey Pillow would make all above 255 white, of
    colours it would take the upper bits alone."""
    raw = " ".join(str(part) for tile in _tiles(image) for part in _words(tile[-1]))
    if image.mode.startswith(DEEP) or any(word in raw for word in DEEP_RAW) or _ppm_is_deep(image):
        raise UsageError(f"{path} has pixels of more than 8 bits (Pillow's mode {image.mode}{f', of {raw}' * bool(raw)}): save "
                         "it with 8 bits a channel, or load such images by a function of your own, as --dataset MODULE:FUNCTION")


def _tiles(image: Image.Image) -> list[Any]:
    """What an image that was opened from a file says of its parts: which decoder, where, and the decoder's arguments."""
    return image.tile if isinstance(image, ImageFile.ImageFile) else []


def _words(arguments: Any) -> tuple[Any, ...]:
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _ppm_is_deep(image: Image.Image) -> bool:
    """Whether a PPM says that its largest value is above 255: its tile has that number in the place of a raw mode."""
    return image.format == "PPM" and any(type(part) is int and part > 255 for tile in _tiles(image) for part in _words(tile[-1]))


def decode_as(path: Path, side: int, shape: Sequence[int], first: str = "the first") -> np.ndarray:
    """The same, or a UsageError unless it has the `shape` of the `first` one."""
    pixels = decode_image(path, side)
    if pixels.shape != tuple(shape):
        raise UsageError(f"{path} is {_size(pixels.shape)} and {first} is {_size(shape)}: give --image-size to resize and "
                         "crop all to one size")
    return pixels


def _size(shape: Sequence[int]) -> str:
    return f"{shape[2]}x{shape[1]} pixels"
