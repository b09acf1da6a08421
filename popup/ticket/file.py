"""ticket.safetensors, format 1: how a ticket lies in a file.

A safetensors file (8 bytes little-endian header length, a JSON header, tensor bytes), with the tensors

    mask/NAME        uint8 [ceil(edges / 8)]: S_P over the edges of layer NAME, one bit an edge, ascending flat index,
                     the lowest bit of a byte first; the bits after the last edge are 0
    statistics/NAME  buffers of the network (running mean and variance of norms)
    given/NAME       frozen parameters that are neither weights, biases nor norm affines (a class token, say)

and one metadata entry "popup": JSON with `format` (1), `recipe`, `settings`, `layers` (name, shape, p_l, edges, kept and
the SHA-256 of edges, weights and mask), `constants`, `about` and `digest`, the SHA-256 of all else in the file. There is
one entry, and its keys are sorted, so that equal tickets have equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from popup.errors import UsageError
from popup.files import write_atomically
from popup.ticket.hashes import hash_tensor

FORMAT = 1


class TicketError(UsageError):
    """The ticket is damaged, of another kind, or of another network: nothing was changed."""


def write(path: Path, metadata: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write one ticket file; it appears whole or not at all."""
    metadata = json.loads(json.dumps({"format": FORMAT, **metadata}))  # as it will be read: text for keys, lists for tuples
    text = json.dumps({**metadata, "digest": digest(metadata, tensors)}, sort_keys=True)
    write_atomically(path, safetensors.torch.save(tensors, {"popup": text}))


def digest(metadata: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256, as hex, of the metadata (JSON, sorted keys, no digest), then of "NAME DTYPE SHAPE SHA-256" of each tensor."""
    whole = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)} {hash_tensor(tensor)}".encode())
    return whole.hexdigest()


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Metadata and tensors of a ticket file. Raises TicketError if it is none, OSError for what the system refuses."""
    with open(path, "rb"):  # safetensors words a missing file its own way
        pass
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["popup"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise TicketError(f"{path} is not a popup ticket ({type(error).__name__}: {error})") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        found = metadata.get("format") if isinstance(metadata, dict) else metadata
        raise TicketError(f"{path} has format {found!r}; this popup reads format {FORMAT}: update popup")
    if metadata.pop("digest", None) != digest(metadata, tensors):
        raise TicketError(f"{path} is damaged: its contents are not what was saved")
    return metadata, tensors
