"""Where a layer's edges are, in the order in which the products walk them: by output, in blocks of inputs that fit a cache.

The edges of one output and one block of inputs are a *segment*. They lie side by side in the order of `edges`, so nothing is
sorted and only where segments begin is held; inside its block an edge's input is a number of 16 bits. All of it takes a little
more than two bytes an edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BYTES = 64  # of a vector: an AVX-512 register, a line of the cache
SEGMENT = 24  # edges that a segment has on average: with fewer, an output's sums are loaded and stored too often
LEAST, MOST = 96, 1 << 16  # 96 rows of 512 bytes fit the cache next to the processor; 2**16 inputs are what 16 bits tell apart
CHUNK = 1 << 20  # edges whose inputs are worked out at a time


@dataclass(frozen=True, eq=False)
class Structure:
    """The edges of a weight [out, in]. Segment s = o * blocks + b is that of output o and block b of the inputs."""

    shape: tuple[int, int]
    size: int  # of a block, the last one may be smaller
    inputs: np.ndarray  # uint16 [edges]: the edge's input, counted from the beginning of its block
    begins: np.ndarray  # int64 [out * blocks + 1]: the edge with which a segment begins, and at last their number

    @property
    def edges(self) -> int:
        """How many edges the layer has."""
        return len(self.inputs)

    @property
    def blocks(self) -> int:
        """In how many blocks the inputs are: one at the least, for it is the first that makes an output 0."""
        return max(1, -(-self.shape[1] // self.size))

    @classmethod
    def of(cls, edges: np.ndarray, shape: tuple[int, int], together: int = 1) -> Structure:
        """The structure of ascending flat indices into a weight of that shape; each `together` inputs stay in one block.

        Raises ValueError where 16 bits do not tell these apart.
        """
        if together > MOST:
            raise ValueError(f"{together:,} inputs stay in one block, and an edge's input has 16 bits: compute densely")
        outs, ins = shape
        size = block_size(ins, len(edges) / max(1, outs * ins), together)
        starts = np.arange(0, max(1, ins), size)
        begins = np.searchsorted(edges, (np.arange(outs)[:, None] * ins + starts).reshape(-1))
        inputs = np.empty(len(edges), dtype=np.uint16)
        for start in range(0, len(edges), CHUNK):
            inputs[start:start + CHUNK] = edges[start:start + CHUNK] % max(1, ins) % size
        return cls((outs, ins), size, inputs, np.append(begins, len(edges)))


def block_size(ins: int, density: float, together: int) -> int:
    """The inputs of a block: so many that at this density a segment has about SEGMENT edges, a multiple of `together`."""
    wanted = SEGMENT / density if density else MOST
    return max(1, int(min(max(LEAST, wanted), MOST, max(1, ins))) // together) * together
