"""Named random streams: every draw of popup has its own, so adding a layer does not shift another's.

A stream is a Philox4x64 counter generator (Salmon et al., SC 2011) whose 128-bit key is the head of
SHA-256("popup/{seed}/{purpose}/{name}"). Only its raw 64-bit words are used: numpy fixes those for all
platforms and versions, which it does not promise of its distributions.
"""

from __future__ import annotations

import hashlib

import numpy as np


class Stream:
    """The raw words of one (seed, purpose, name); each call goes on where the last one ended."""

    def __init__(self, seed: int, purpose: str, name: str = "") -> None:
        digest = hashlib.sha256(f"popup/{seed}/{purpose}/{name}".encode()).digest()
        self._philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def skip(self, count: int) -> Stream:
        """Itself, `count` 64-bit words further on, which are not made."""
        self._philox.advance(count // 4)  # a step of its counter makes four
        self._philox.random_raw(count % 4)
        return self

    def words64(self, count: int) -> np.ndarray:
        """`count` independent 64-bit words, little-endian."""
        return self._philox.random_raw(count).astype("<u8", copy=False)

    def words32(self, count: int) -> np.ndarray:
        """`count` independent 32-bit words: the low half of each 64-bit word first."""
        return self.words64((count + 1) // 2).view("<u4")[:count]

    def bits(self, count: int) -> np.ndarray:
        """`count` independent fair bits, as bool, the lowest bit of each word first."""
        raw = self.words64((count + 63) // 64).view(np.uint8)
        return np.unpackbits(raw, count=count, bitorder="little").view(bool)

    def uniform(self, count: int) -> np.ndarray:
        """`count` float64 in the open interval (0, 1), on the grid of odd multiples of 2**-53."""
        return ((self.words64(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def integers(self, high: int | np.ndarray, count: int) -> np.ndarray:
        """`count` int64 in [0, high), high < 2**31 (one for all, or one each), each value likely to within high / 2**32."""
        return ((self.words32(count).astype(np.uint64) * np.asarray(high, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)

    def permutation(self, count: int) -> np.ndarray:
        """A uniform order of 0..count-1: the places of `count` sorted 64-bit words."""
        return np.argsort(self.words64(count), kind="stable")
