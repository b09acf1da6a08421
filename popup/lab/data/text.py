"""Texts: bytes as tokens, cut into windows whose labels are the bytes that come next."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import torch

from popup.errors import UsageError
from popup.files import IrregularFile, read_regular
from popup.lab.data.dataset import DataRequest, Dataset, fingerprint
from popup.lab.machine import expanded

CONTEXT = 64               # bytes of a window that nobody asks to be of another length
TOKENS = 256               # a token is a byte
LARGEST_TEXT = 1 << 28     # bytes; a token takes eight of memory
HELD_BACK = 10             # the last tenth is test data
EMBEDDED = "pydoc_data.topics"


def load_text(path: str, request: DataRequest) -> Dataset:
    """The text of the UTF-8 file `path`, or without one the embedded text, in windows of `request.side` bytes (0: CONTEXT).

    The last tenth of the windows is test data: no sentence of it was trained on. Raises UsageError for a file that is no text,
    or too short.
    """
    content, title = (_read(expanded(path)), Path(path).name) if path else _embedded()
    context = request.side or CONTEXT
    tokens = torch.from_numpy(np.frombuffer(content, dtype=np.uint8).astype(np.int64))
    windows = (len(tokens) - 1) // context
    if windows < HELD_BACK:
        raise UsageError(f"the text {title} has {len(tokens):,} bytes, which are {max(0, windows)} windows of {context}: give a "
                         f"text of {HELD_BACK * context + 1:,} bytes or more, or a smaller --image-size")
    cut = windows - windows // HELD_BACK
    train, test = _windows(tokens[:cut * context + 1], context), _windows(tokens[cut * context:], context)
    return Dataset(title, TOKENS, train, test, fingerprint=fingerprint(*train, *test))


def _windows(tokens: torch.Tensor, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows [n, context] one behind the other, and for each place the token that comes next; both lie in `tokens`."""
    count = (len(tokens) - 1) // context
    windows, following = (tokens[first:first + count * context].view(count, context) for first in (0, 1))
    return windows, following


def _embedded() -> tuple[bytes, str]:
    """What Python's `help("topics")` knows: half a million letters of English about the language, in the order of their names.
    Versions of Python have different ones."""
    topics = importlib.import_module(EMBEDDED).topics
    return "\n".join(topics[name] for name in sorted(topics)).encode(), "the help of Python {}.{}".format(*sys.version_info[:2])


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise UsageError(f"text {str(path)!r} has {path.stat().st_size:,} bytes: give at most {LARGEST_TEXT:,}")
        content = read_regular(path, LARGEST_TEXT)
    except IrregularFile:  # a folder, a pipe: not opened at all
        raise UsageError(f"cannot read the text {str(path)!r} (it is no regular file): name a file, or text: alone for the "
                         "embedded text") from None
    except OSError as error:
        raise UsageError(f"cannot read the text {str(path)!r} ({error.strerror}): name a file, or text: alone for the embedded "
                         "text") from None
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{str(path)!r} is no UTF-8 text (byte {error.start:,} is {content[error.start]:#x}): convert it, "
                         "as in iconv -t utf-8") from None
    return content
