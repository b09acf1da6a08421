"""What tells a network from another of its name: what it is made of, without the weights that a seed draws anyhow.

Not seen are what a `forward` computes by itself, without a module or an attribute that says so, and attributes whose names begin
with an underscore.
"""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.lab.parts import Attribute, attributes, is_numbers
from popup.lab.randomness import GENERATORS, has_own_draws, state_of
from popup.lab.said import words
from popup.source.frozen import is_norm
from popup.ticket.hashes import hash_tensor

HOLDS, DRAWN = "holds", "drawn"  # behind the name of a buffer or an attribute, and of a parameter
MOST = 5    # words that a line names
CHUNKS = 8  # of a tensor, each with sums of its own
SEED = "@"  # before the seed, behind what differs by it
WORDS = 3   # how attributes are said: other words are not compared with these


def described(net: nn.Module) -> dict[str, str]:
    """By name each module's class, its children's names, its attributes in words (said.py); the shapes and types of the state,
    and which parameters are one."""
    found = {"parameters tied": repr(_tied(net))}
    for path, module in net.named_modules():
        found[f"{path} class".strip()] = type(module).__qualname__
        found[f"{path} children".strip()] = repr(list(module._modules))
    found |= {f"{each.path} {each.name}".strip(): words(each.ends()) for each in _public(net)
              if not (isinstance(each.value, (torch.Tensor, *GENERATORS)) or is_numbers(each.value))}
    return found | {f"{name} shape": f"{list(value.shape)} {value.dtype}" for name, value in net.state_dict().items()
                    if isinstance(value, torch.Tensor)}


def _tied(net: nn.Module) -> list[list[str]]:
    """The names of the parameters that have several."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in net.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [each for each in names.values() if len(each) > 1]


def held(net: nn.Module) -> dict[str, str]:
    """What the buffers hold, by name, but for the statistics of norms: of numbers with a point, whose last bits are the
    machine's, some digits of sums."""
    norms = {f"{path}." for path, module in net.named_modules() if is_norm(module)}
    return {f"{name} {HOLDS}": sums for name, buffer in net.named_buffers()
            if f"{name.rpartition('.')[0]}." not in norms and (sums := holds(buffer))}


def kept(net: nn.Module) -> dict[str, str]:
    """What modules hold in attributes beside, whatever it stands inside of: tensors, arrays, and generators with the state that
    they are in."""
    found = {f"{each.path} {each.name} {HOLDS}": [f"{way} {sums}" for way, end in each.ends() if (sums := holds(end))]
             for each in _public(net)}
    return {name: " ".join(rows) for name, rows in found.items() if rows}


def holds(end: Any) -> str:
    """What tells a tensor's or an array's numbers, or a generator's state, from others, and those in a set; empty of what is
    neither, and of tensors whose numbers are not there."""
    if isinstance(end, (set, frozenset)):
        return " ".join(sorted(filter(None, map(holds, end))))
    if isinstance(end, torch.Tensor):
        return " ".join(map(summed, _dense_parts(end)))
    if is_numbers(end):
        with warnings.catch_warnings():  # torch warns of arrays that may not be written to
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return summed(torch.from_numpy(_as_torch_has_it(end)))
    return hashlib.sha256(repr(state_of(end)).encode()).hexdigest() if has_own_draws(end) else ""


def _dense_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold the numbers of one, and where they are, if it is sparse."""
    tensor = tensor.detach()
    if tensor.is_nested or tensor.is_meta or tensor.is_quantized:
        return []
    if tensor.layout is torch.sparse_coo:
        return [tensor.coalesce().indices(), tensor.coalesce().values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor] if tensor.layout is torch.strided else []


def _as_torch_has_it(array: np.ndarray) -> np.ndarray:
    """Numbers of a type that torch knows: in the order of bytes of this machine, and of at most 64 bits."""
    wide = {np.dtype(np.longdouble): np.float64, np.dtype(np.clongdouble): np.complex128}
    native = array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, dtype=wide.get(native, native))


def _public(net: nn.Module) -> Iterator[Attribute]:
    """The attributes that count."""
    return (each for each in attributes(net) if not each.name.startswith("_"))


def summed(tensor: torch.Tensor) -> str:
    """What tells a tensor's numbers from others, though another machine computes their last bits otherwise: where it is 0 or not
    finite, and of its parts three digits of two sums. Of whole numbers all."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return hash_tensor(tensor)
    numbers = (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).detach().cpu().double().flatten()
    kinds = (numbers == 0) + 2 * numbers.isposinf() + 3 * numbers.isneginf() + 4 * numbers.isnan()
    sizes = numbers.nan_to_num(0.0, 0.0, 0.0).asinh()  # so that none hides all others
    sums = [f"{float(part.abs() @ _places(part)):.3g} {float(part @ _places(part)):.3g}" for part in sizes.chunk(CHUNKS)]
    return f"{list(tensor.shape)} {hash_tensor(kinds.to(torch.uint8))} {' '.join(sums)}"


def _places(part: torch.Tensor) -> torch.Tensor:
    return torch.arange(1, len(part) + 1, dtype=torch.float64) / max(len(part), 1)


def fingerprint(found: Mapping[str, str], without: Collection[str] = (), by_seed: Collection[str] = (), seed: int = 0) -> str:
    """What was found, but for some names, in short: for each last word of the names a hash. `by_seed`: the names of what is
    another for another `seed`. Before it stands where it is to be compared, as modules have other attributes in other versions of
    torch, and functions other code in those of Python."""
    rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, value in sorted(found.items()):
        if name not in without:
            rows[f"{_last(name)}{SEED}{seed}" if name in by_seed else _last(name)].append((name, value))
    where = f"torch {torch.__version__.partition('+')[0]}, python {sys.version_info.major}.{sys.version_info.minor}"
    return f"{where}, words {WORDS}: " + " ".join(f"{word}={_hash(each)}" for word, each in rows.items())


def _last(name: str) -> str:
    """The last word of a name of what was found: of an attribute, a buffer or a parameter its own."""
    return re.sub(r"\W", "?", name.removesuffix(f" {HOLDS}").removesuffix(f" {DRAWN}").rpartition(" ")[2].rpartition(".")[2])


def _hash(rows: list[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:12]


def place_of(known: str) -> str:
    """Where a fingerprint was taken: only two of one place can be compared. Of popups of before, and of data, empty."""
    return known.rpartition(": ")[0]


def whatever_the_seed(known: str) -> str:
    """What of a fingerprint is the same for each seed."""
    return " ".join(part for part in known.split(" ") if SEED not in part)


def differing(first: str, second: str) -> list[str]:
    """The words by which two fingerprints are of two networks; none if they are not, or of other places. Data sets have none."""
    if not first or not second or place_of(first) != place_of(second) or first == second:
        return []
    one, other = map(_words, (first, second))
    if not one and not other:
        return ["data"]
    common = {word.partition(SEED)[2] for word in one} & {word.partition(SEED)[2] for word in other}
    return sorted({word.partition(SEED)[0] for word in one.keys() | other.keys()
                   if one.get(word) != other.get(word) and word.partition(SEED)[2] in common | {""}})


def listed(words: Sequence[str]) -> str:
    """Words by which networks differ, at most five of them."""
    return ", ".join(words[:MOST]) + (f" and {len(words) - MOST} more" if len(words) > MOST else "")


def _words(known: str) -> dict[str, str]:
    """The hash of each word of a fingerprint."""
    return dict(part.split("=", 1) for part in known.rpartition(": ")[2].split(" ") if "=" in part)


def differ(first: str, second: str) -> bool:
    """Whether two fingerprints are of two networks, or of two data sets; not if one is empty, or of another place."""
    return bool(differing(first, second))
