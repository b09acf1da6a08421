"""Where a layer's edges are, in the order in which products walk them: by outputs and by inputs, in blocks that fit a cache.

The edges of one output and one block of inputs are a *segment*: they lie side by side in the order of `edges`, so the walk by
outputs needs no permutation, only where segments begin. Inside a block an edge's input is a number of 16 bits. The walk by
inputs has segments of one input and one block of outputs; its lists are filled anew for each set of values, so of it too only
the beginnings are held. Nothing here is larger than the number of edges plus that of inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEGMENT = 24  # edges that a segment has on average: fewer, and what is summed is loaded and stored too often
LEAST, MOST = 96, 1 << 16  # a block of 96 rows of 512 bytes fits the cache next to the processor; 2**16 is what 16 bits hold


@dataclass(frozen=True)
class Blocks:
    """A line of `length` inputs (or outputs), cut into `count` blocks of `size`, the last one as long as what is left."""

    length: int
    size: int

    @property
    def count(self) -> int:
        """How many blocks there are: one at the least, so that every segment of an empty line has its place."""
        return max(1, -(-self.length // self.size))

    @classmethod
    def of(cls, length: int, density: float) -> Blocks:
        """Blocks in which a line of that density has about SEGMENT edges."""
        wanted = SEGMENT / density if density else MOST
        return cls(length, int(min(max(LEAST, wanted), max(length, 1), MOST)))


@dataclass(frozen=True, eq=False)
class Structure:
    """The edges of a weight [out, in]. Segment s of output o and block b is s = o * blocks + b, and likewise by inputs."""

    shape: tuple[int, int]
    input_blocks: Blocks
    output_blocks: Blocks
    inputs: np.ndarray  # uint16 [edges]: the edge's input, counted from the beginning of its block
    by_output: np.ndarray  # int64 [out * input_blocks + 1]: the edge with which a segment begins
    by_input: np.ndarray  # int64 [in * output_blocks + 1]: the place with which a segment of the other walk begins

    @property
    def edges(self) -> int:
        """How many edges the layer has."""
        return len(self.inputs)

    @classmethod
    def of(cls, edges: np.ndarray, shape: tuple[int, int]) -> Structure:
        """The structure of edges given as ascending flat indices into a weight of that shape."""
        outs, ins = shape
        density = len(edges) / max(1, outs * ins)
        input_blocks, output_blocks = Blocks.of(ins, density), Blocks.of(outs, density)
        outputs, inputs = np.divmod(edges, max(1, ins))
        by_output = _beginnings(outputs * input_blocks.count + inputs // input_blocks.size, outs * input_blocks.count)
        by_input = _beginnings(inputs * output_blocks.count + outputs // output_blocks.size, ins * output_blocks.count)
        local = (inputs % input_blocks.size).astype(np.uint16)
        return cls((outs, ins), input_blocks, output_blocks, local, by_output, by_input)

    def input_numbers(self) -> np.ndarray:
        """The input of each edge, int64 [edges], made anew."""
        blocks = np.tile(np.arange(self.input_blocks.count) * self.input_blocks.size, self.shape[0])
        return np.repeat(blocks, np.diff(self.by_output)) + self.inputs


def _beginnings(segments: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` segments begins, and at last where they end, if each edge is in the segment that is named."""
    beginnings = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(segments, minlength=count), out=beginnings[1:])
    return beginnings
