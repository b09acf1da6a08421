"""Sealed files: safetensors files with metadata in JSON and a digest over all that they say, so that any change of it is
noticed.

    8 bytes          the header's length, little-endian
    header           JSON: {"__metadata__": {"popup": TEXT}, NAME: {"dtype": .., "shape": .., "data_offsets": [..]}, ...}
    data             the tensors' bytes, little-endian

TEXT is JSON again: an object with sorted keys, among them `kind`, `format` and `digest`, the SHA-256, as 64 hexadecimal
digits, of: the object without `digest` as Python's json.dumps(.., sort_keys=True) writes it, then for each tensor, in
the order of the names, "NAME DTYPE SHAPE HASH" (torch's DTYPE, SHAPE like [2, 3], HASH the SHA-256 of its bytes).
There is one entry, and its keys are sorted, so that equal contents have equal bytes. No further entry is read, and no object in
which a key stands twice; spaces between the JSON's parts, or after it, mean nothing and are not noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from popup.errors import UsageError
from popup.files import IrregularFile, open_regular
from popup.ticket.hashes import hash_tensor

LONGEST_HEADER = 1 << 26  # bytes; a network of 10,000 layers needs a tenth of it

Metadata = dict[str, Any]
Tensors = dict[str, torch.Tensor]


class SealedError(UsageError):
    """The file is damaged, of another kind, or of a later version."""


def digest(metadata: Metadata, tensors: Tensors) -> str:
    """SHA-256, as hex, of the metadata (JSON, sorted keys, no digest), then of "NAME DTYPE SHAPE SHA-256" of each tensor."""
    whole = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)} {hash_tensor(tensor)}".encode())
    return whole.hexdigest()


def apart(state: Mapping[str, torch.Tensor]) -> Tensors:
    """The tensors on the CPU, each with memory of its own, as a file wants them: of what is tied each name has its copy."""
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def seal(kind: str, version: int, metadata: Metadata, tensors: Tensors) -> bytes:
    """The bytes of a sealed file; a UsageError for metadata that JSON cannot hold."""
    try:  # as it will be read: text for keys, lists for tuples
        metadata = json.loads(json.dumps({**metadata, "kind": kind, "format": version}))
    except (TypeError, ValueError) as error:
        raise UsageError(f"what is recorded with a {kind} must be JSON values ({one_line(error)})") from None
    text = json.dumps({**metadata, "digest": digest(metadata, tensors)}, sort_keys=True)
    return safetensors.torch.save(tensors, {"popup": text})


def unseal(path: Path, kind: str, versions: tuple[int, ...]) -> tuple[Metadata, Tensors]:
    """Metadata and tensors of a sealed file of this kind, in one of the formats `versions`.

    Raises SealedError for anything but a whole one, OSError for what the system refuses. Takes no more memory than a few
    times the file's size.
    """
    content = _read(path, kind)
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(_text(content[8:8 + length]), object_pairs_hook=_once)
        tensors = safetensors.torch.load(content)
        _check_kind(path, metadata, kind, versions)
        found = metadata.pop("digest", None)
        whole = found == digest(metadata, tensors)
    except SealedError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        raise SealedError(f"{path} is no popup {kind} ({type(error).__name__}: {one_line(error)})") from None
    if not whole:
        raise SealedError(f"{path} is damaged: its contents are not what was saved")
    return metadata, tensors


def _text(header: bytes) -> str:
    """The one entry of the header's metadata."""
    found = json.loads(header, object_pairs_hook=_once)["__metadata__"]
    if list(found) != ["popup"]:
        raise ValueError(f"its __metadata__ has the entries {list(found)!r:.80}, and not just 'popup'")
    return found["popup"]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a ValueError if a key stands twice in it, of which one would be read and the other shown."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in an object of its JSON")
    return found


def _read(path: Path, kind: str) -> bytes:
    """The file's bytes, once its size is what its header says."""
    try:
        file = open_regular(path)
    except IrregularFile as error:
        raise SealedError(f"{path} is no popup {kind}: {error}") from None
    with file:
        status = os.fstat(file.fileno())
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if not 0 < length <= min(status.st_size - 8, LONGEST_HEADER):
            raise SealedError(f"{path} is no popup {kind}, or only a part of one: it has {status.st_size} bytes, "
                              f"of a header of {length}")
        header = file.read(length)
        size = 8 + length + _data_size(path, kind, header)
        if size != status.st_size:
            raise SealedError(f"{path} is damaged: it has {status.st_size} bytes, and its header describes {size}")
        return head + header + file.read()


def _data_size(path: Path, kind: str, header: bytes) -> int:
    """Bytes of tensors after the header."""
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        return int(max(ends, default=0))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise SealedError(f"{path} is no popup {kind}: its header cannot be read ({type(error).__name__})") from None


def _check_kind(path: Path, metadata: Any, kind: str, versions: tuple[int, ...]) -> None:
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        raise SealedError(f"{path} is no popup {kind}")
    found = metadata.get("format")
    if type(found) is not int or found not in versions:
        known = " and ".join(map(str, versions))
        raise SealedError(f"{path} has format {found!r:.20}; this popup reads format {known} of a {kind}: "
                          "use the popup that wrote it, or update popup")


def finite(value: Any) -> bool:
    """Whether `value` is a finite number (an integer that a float can hold), and no bool."""
    return isfinite(value) if type(value) is float else type(value) is int and abs(value) < 1 << 1000


def one_line(error: BaseException) -> str:
    """The first line of an exception's words."""
    return (str(error).splitlines() or [""])[0][:200]
