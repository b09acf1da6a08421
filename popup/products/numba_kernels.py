"""The products by numba: only edges that are kept are multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType

import numpy as np
import torch
from torch.nn import functional

from popup.errors import UsageError
from popup.products.structure import BYTES, Structure
from popup.products.threads import share, worth


@dataclass(frozen=True, eq=False)
class Kept:
    """The edges that count, side by side: those of segment s from begins[s] to before ends[s]."""

    values: np.ndarray  # [edges], of which the last are unused
    inputs: np.ndarray  # uint16 [edges]
    begins: np.ndarray  # int64 [segments]
    ends: np.ndarray  # int64 [segments]

    def lists(self) -> tuple[np.ndarray, ...]:
        """As the kernels take them."""
        return self.values, self.inputs, self.begins, self.ends


@cache
def _compiled() -> ModuleType:
    """The kernels, imported when they are first used: importing numba takes half a second. A UsageError where it is installed and
    does not work."""
    try:
        from numba import config

        from popup.products import compiled
    except Exception as error:  # whatever an odd installation or environment may raise
        raise UsageError(f"numba does not work here ({type(error).__name__}: {' '.join(str(error).split())}): mend that, or let "
                         "compute be 'dense'") from None
    if config.DISABLE_JIT:
        raise UsageError("numba compiles nothing while NUMBA_DISABLE_JIT is set: unset it, or let compute be 'dense'")
    return compiled


class NumbaKernels:
    """Kernels of numba, for float32 and float64 on the CPU."""

    name = "numba"

    def structure(self, edges: np.ndarray, shape: tuple[int, int]) -> Structure:
        """The structure that the other functions want."""
        return Structure.of(edges, shape)

    def keep(self, structure: Structure, values: torch.Tensor, selected: torch.Tensor | None = None) -> Kept:
        """Put the values that count side by side: one pass over the edges."""
        given, segments = values.numpy(), len(structure.begins) - 1
        chosen = None if selected is None else _numbers(selected)
        kept = Kept(np.empty_like(given), np.empty_like(structure.inputs), *np.empty((2, segments), np.int64))
        arguments = (given, chosen, structure.inputs, structure.begins, *kept.lists(), structure.blocks)
        share(partial(_compiled().keep, *arguments), structure.shape[0], worth(structure.edges))
        return kept

    def forward(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The outputs' rows [out, n] of the inputs' rows [in, n]."""
        source = _whole(rows)
        result = rows.new_empty(structure.shape[0], source.shape[1])
        gather(structure, kept, source, source.shape[1], result)
        return result[:, :rows.shape[1]].contiguous()

    def input_gradient(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The inputs' rows [in, n] of the gradient, of the outputs' rows [out, n] of it."""
        source = _whole(rows)
        result = rows.new_empty(structure.shape[1], source.shape[1])
        result.numpy().fill(0)  # by this thread: torch would share even this little out, and wait for the slowest
        scatter(structure, kept, source, source.shape[1], result)
        return result[:, :rows.shape[1]].contiguous()

    def edge_gradient(self, structure: Structure, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The gradient of each edge, of the outputs' rows of the gradient and the inputs' rows."""
        others, source = _whole(outputs), _whole(inputs)
        return dots(structure, others, source, source.shape[1])


LONG, PART = 1 << 14, 1 << 10  # numbers in a row that several threads share, as parts of so many and more
Starts = int | np.ndarray  # how long the rows of the inputs are, or int64 [in]: where each of them begins


def gather(structure: Structure, kept: Kept, source: torch.Tensor, starts: Starts, result: torch.Tensor) -> None:
    """Make result[o] the sum of the inputs' rows in `source`, each times the value of its edge."""
    length, threads = result.shape[1], worth(_work(structure, result))
    arguments = _flat(result), _flat(source), starts, *kept.lists(), structure.blocks, structure.size, length
    work, outs = partial(_compiled().gather, *arguments), structure.shape[0]
    if length < LONG:
        share(lambda first, last: work(first, last, 0, length), outs, threads)
    else:
        parts = length // PART  # of which the last has the rest too, since one of less than a vector would write to that before
        share(lambda first, last: work(0, outs, first * PART, length if last == parts else last * PART), parts, threads)


def scatter(structure: Structure, kept: Kept, source: torch.Tensor, starts: Starts, result: torch.Tensor) -> None:
    """Add the outputs' rows source[o], each times the value of its edge, to the inputs' rows in `result`.

    Threads take blocks of inputs. Two that write to parts of the same rows would take 5 times as long as one (AMD EPYC, 2 parts
    of 256 bytes): each core fetches the lines beside its own, which the other is writing to. Of long rows they take parts, of
    which taps reach into the next one: so first every other part, and then those between.
    """
    length, threads = source.shape[1], worth(_work(structure, source))
    arguments = _flat(result), _flat(source), starts, *kept.lists(), structure.blocks, structure.size, length
    work = partial(_compiled().scatter, *arguments)
    if length < LONG or isinstance(starts, int):
        share(lambda first, last: work(first, last, 0, length), structure.blocks, threads)
        return
    part = max(PART, result.shape[-1] - length)  # no tap reaches further than that

    def every_other(odd: int) -> None:
        def of_parts(first: int, last: int) -> None:
            for left in range((2 * first + odd) * part, min(2 * last * part, length), 2 * part):
                work(0, structure.blocks, left, min(left + part, length))

        share(of_parts, -(-(length - odd * part) // (2 * part)), threads)

    every_other(0)
    every_other(1)


def dots(structure: Structure, outputs: torch.Tensor, source: torch.Tensor, starts: Starts) -> torch.Tensor:
    """The product of each edge's row outputs[o] and its input's row in `source`. Of long rows those of some parts are added up,
    the same ones whatever the number of threads."""
    length, threads = outputs.shape[1], worth(_work(structure, outputs))
    parts = -(-length // LONG)
    result = outputs.new_empty(parts, structure.edges).numpy()
    given = _flat(outputs), _flat(source), starts, structure.inputs, structure.begins, structure.blocks, structure.size, length
    work = _compiled().dots
    if parts == 1:
        share(lambda first, last: work(result[0], *given, first, last, 0, length), structure.shape[0], threads)
        return torch.from_numpy(result[0])

    def of_parts(first: int, last: int) -> None:
        for part in range(first, last):
            work(result[part], *given, 0, structure.shape[0], part * LONG, min((part + 1) * LONG, length))

    share(of_parts, parts, threads)
    return torch.from_numpy(np.add.reduce(result))


def lay(result: torch.Tensor, images: torch.Tensor) -> None:
    """Make `result`, whose columns lie side by side, the images [n, channels, height, width].

    Where channels do in these, each row is a matrix to be transposed: in a fifth of the time that torch takes for it.
    """
    if images.stride(1) != 1:
        result.copy_(images)
        return
    work = partial(_compiled().lay, result.numpy(), images.numpy())
    share(work, len(images), worth(images.numel()))  # a number takes about as long as a vector that is at hand


def _work(structure: Structure, rows: torch.Tensor) -> int:
    """How many vectors are multiplied, if all edges are."""
    return structure.edges * rows.shape[1] * rows.itemsize // BYTES


def _whole(rows: torch.Tensor) -> torch.Tensor:
    """The rows, as long as the kernels want them: a vector at the least."""
    short = BYTES // rows.itemsize - rows.shape[1]
    return functional.pad(rows, (0, short)) if short > 0 else rows


def _numbers(selected: torch.Tensor) -> np.ndarray:
    """What says which edges are selected, as numbers that are 0 or not: bools are bytes, without a copy."""
    selected = selected.contiguous()
    return (selected.view(torch.uint8) if selected.dtype is torch.bool else selected).numpy()


def _flat(rows: torch.Tensor) -> np.ndarray:
    return rows.numpy().reshape(-1)
