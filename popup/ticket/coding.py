"""Codes in a file: S_P as one bit an edge, or for a small k as the gaps between the kept edges, Huffman-coded by zlib; and where
a book has more than two codes, those of the kept edges in as few bits as tell them apart."""

from __future__ import annotations

import zlib

import numpy as np

ESCAPE = 255            # a gap byte that adds 255 and goes on
MOST_CODES = 257        # of a book, 0 among them, that a byte tells apart where edges are kept
MOST_EDGES = 1024       # edges a stored byte may stand for (k near 1 / 1500) beyond FREE_EDGES: a forged file's limit
FREE_EDGES = 1 << 20
COUNTS = "<u2", "<u4"    # how counts are stored: narrow, and wide where one is above MOST_NARROW
MOST_NARROW = (1 << 16) - 1


def pack(selected: np.ndarray) -> np.ndarray:
    """uint8 [ceil(edges / 8)]: edge 0 is the lowest bit of byte 0; the bits after the last edge are 0."""
    return np.packbits(selected, bitorder="little")


def at(places: np.ndarray, size: int) -> np.ndarray:
    """bool [size], true at `places`."""
    mask = np.zeros(size, dtype=bool)
    mask[places] = True
    return mask


def unpack(packed: np.ndarray, edges: int) -> np.ndarray:
    """bool [edges]. Raises ValueError for a wrong length or a bit after the last one."""
    if packed.shape != ((edges + 7) // 8,):
        raise ValueError(f"{edges} bits need {(edges + 7) // 8} bytes, not {list(packed.shape)}")
    if edges % 8 and packed[-1] >> (edges % 8):
        raise ValueError("there are bits after the last one")
    return np.unpackbits(packed, count=edges, bitorder="little").view(bool)


def pack_codes(codes: np.ndarray, count: int) -> np.ndarray:
    """uint8: the `codes` [kept] of a book of `count`, each less 1, in `bits_of(count)` bits, the lowest first."""
    width = bits_of(count)
    spread = (codes.astype(np.uint32)[:, None] - 1) >> np.arange(width, dtype=np.uint32) & 1  # [kept, width]
    return np.packbits(spread.astype(bool).reshape(-1), bitorder="little")


def unpack_codes(packed: np.ndarray, kept: int, count: int) -> np.ndarray:
    """uint8 or int32 [kept]. Raises ValueError for a wrong length, a bit after the last one, or a code that is none."""
    width = bits_of(count)
    spread = unpack(packed, kept * width).reshape(kept, width)
    codes = (spread.astype(np.int64) << np.arange(width)).sum(1) + 1
    if (codes >= count).any():
        raise ValueError(f"a code is {int(codes.max())}, and the book has {count}")
    return codes.astype(code_type(count))


def compress_codes(codes: np.ndarray, count: int) -> np.ndarray | None:
    """uint8: the `codes` [kept] of a book of `count` as bytes in one zlib stream; None where `pack_codes` is as small or the form
    is not allowed.

    A byte holds `digits_of(count)` codes, each less 1, as digits to the base count - 1, the first the lowest; a Huffman code of
    the bytes comes near the entropy where codes are not equally frequent, as those of coats, or no power of two.
    """
    if count > MOST_CODES:
        return None
    digits = np.zeros(-(-len(codes) // digits_of(count)) * digits_of(count), dtype=np.int64)
    digits[:len(codes)] = codes.astype(np.int64) - 1
    content = (digits.reshape(-1, digits_of(count)) @ _places(count)).astype(np.uint8).tobytes()
    coded = _huffman(content)
    small = len(coded) < -(-len(codes) * bits_of(count) // 8) and len(codes) <= most_edges(len(coded))
    return np.frombuffer(bytearray(coded), dtype=np.uint8) if small else None


def decompress_codes(coded: np.ndarray, kept: int, count: int) -> np.ndarray:
    """uint8 [kept]. Raises ValueError unless the stream is whole, and says just that many."""
    size = -(-kept // digits_of(count))
    if kept > most_edges(len(coded)):
        raise ValueError(f"{kept} codes are too many for {len(coded)} coded bytes")
    decoder = zlib.decompressobj()
    try:
        content = np.frombuffer(decoder.decompress(coded.tobytes(), size + 1), dtype=np.uint8).astype(np.int64)
    except zlib.error as error:
        raise ValueError(f"its code is broken ({error})") from None
    if not decoder.eof or decoder.unused_data or len(content) != size:
        raise ValueError(f"its code does not hold {kept} codes")
    digits = (content[:, None] // _places(count) % (count - 1)).reshape(-1)
    whole = content < (count - 1) ** digits_of(count)
    if not whole.all() or digits[kept:].any():
        raise ValueError("there are codes after the last one")
    return (digits[:kept] + 1).astype(code_type(count))


def pack_words(codes: np.ndarray, count: int) -> np.ndarray:
    """uint8: the `codes` [edges] of a book of `count`, 0 among them, as little-endian numbers of 64 bits, each of as many digits
    to the base `count` as it has room for, the first the lowest: within 5% of log2(count) bits an edge."""
    digits = digits_of_word(count)
    padded = np.zeros(-(-len(codes) // digits) * digits, dtype=np.uint64)
    padded[:len(codes)] = codes
    words = np.zeros(len(padded) // digits, dtype=np.uint64)
    for column in padded.reshape(-1, digits).T[::-1]:
        words = words * np.uint64(count) + column
    return words.astype("<u8").view(np.uint8)


def unpack_words(packed: np.ndarray, edges: int, count: int) -> np.ndarray:
    """uint8 or int32 [edges]. Raises ValueError for a wrong length, a number that is too large, or a code after the last one."""
    if len(packed) != words_size(edges, count):
        raise ValueError(f"{edges} codes need {words_size(edges, count)} bytes, not {len(packed)}")
    words, digits = np.frombuffer(packed.tobytes(), dtype="<u8").astype(np.uint64), digits_of_word(count)
    codes: np.ndarray = np.zeros((len(words), digits), dtype=code_type(count))
    for place in range(digits):
        words, codes[:, place] = np.divmod(words, np.uint64(count))
    found = codes.reshape(-1)
    if words.any() or found[edges:].any():
        raise ValueError("there are codes after the last one")
    return found[:edges]


def words_size(edges: int, count: int) -> int:
    """The bytes of `pack_words`."""
    return -(-edges // digits_of_word(count)) * 8


def digits_of_word(count: int) -> int:
    """How many codes of a book of `count`, 0 among them, a number of 64 bits has room for."""
    return next(digits for digits in range(64, 0, -1) if count**digits <= 1 << 64)


def digits_of(count: int) -> int:
    """How many codes of kept edges, of a book of `count`, a byte has room for."""
    return next(digits for digits in range(8, 0, -1) if (count - 1) ** digits <= 256)


def _places(count: int) -> np.ndarray:
    """The value of each digit of a byte."""
    return (count - 1) ** np.arange(digits_of(count), dtype=np.int64)


def _huffman(content: bytes) -> bytes:
    """One zlib stream that codes bytes by how often they come. Matching repeats, as zlib and lzma do, only costs where there is
    no structure."""
    coder = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(content) + coder.flush()


def bits_of(count: int) -> int:
    """How many bits tell the codes of kept edges apart in a book of `count` codes."""
    return (count - 2).bit_length()


def code_type(count: int) -> type:
    """The type of the codes of a book of `count` codes: bool for two."""
    return np.bool_ if count == 2 else np.uint8 if count <= 256 else np.int32


def compress(selected: np.ndarray) -> np.ndarray | None:
    """uint8: the gaps as bytes in one zlib stream; None where plain bits are as small or the form is not allowed.

    A gap is the number of edges left out before a kept one: gap // 255 bytes of 255, then a byte gap % 255. The gaps
    of a mask without structure are geometric and independent, so a Huffman code of them comes to within 1% of the
    entropy at k = 0.05 (0.289 bits an edge, of 0.286); matching repeats, as zlib and lzma do, only costs.
    """
    gaps = np.diff(np.flatnonzero(selected), prepend=-1) - 1
    escapes, rest = np.divmod(gaps, ESCAPE)
    ends = np.cumsum(escapes + 1)
    content = np.full(ends[-1] if len(ends) else 0, ESCAPE, dtype=np.uint8)
    content[ends - 1] = rest
    coded = _huffman(content.tobytes())
    small = len(coded) < (len(selected) + 7) // 8 and len(selected) <= most_edges(len(coded))
    return np.frombuffer(bytearray(coded), dtype=np.uint8) if small else None


def decompress(coded: np.ndarray, edges: int, kept: int) -> np.ndarray:
    """bool [edges] with `kept` ones. Raises ValueError unless the stream is whole and says just that many."""
    if edges > most_edges(len(coded)):
        raise ValueError(f"{edges} edges are too many for {len(coded)} coded bytes")
    decoder, limit = zlib.decompressobj(), kept + edges // ESCAPE + 1
    try:
        content = np.frombuffer(decoder.decompress(coded.tobytes(), limit), dtype=np.uint8)
    except zlib.error as error:
        raise ValueError(f"its code is broken ({error})") from None
    open_end = len(content) > 0 and content[-1] == ESCAPE
    if not decoder.eof or decoder.unused_data or open_end or np.count_nonzero(content < ESCAPE) != kept:
        raise ValueError(f"its code does not hold {kept} kept edges")
    places = np.cumsum(content.astype(np.int64) + (content < ESCAPE))[content < ESCAPE] - 1
    if kept and places[-1] >= edges:
        raise ValueError("its code goes past the last edge")
    return at(places, edges)


def compress_counts(counts: np.ndarray) -> np.ndarray:
    """uint8: counts as little-endian 16-bit numbers in one zlib stream, or as 32-bit ones where some is above 65535."""
    content = counts.astype(COUNTS[0] if counts.max(initial=0) <= MOST_NARROW else COUNTS[1]).tobytes()
    return np.frombuffer(bytearray(zlib.compress(content, 9)), dtype=np.uint8)


def decompress_counts(coded: np.ndarray, size: int) -> np.ndarray:
    """int32 [size]. Raises ValueError unless the stream is whole and holds just that many, no wider than they need."""
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(coded.tobytes(), 4 * size + 1)
    except zlib.error as error:
        raise ValueError(f"its code is broken ({error})") from None
    if not decoder.eof or decoder.unused_data or len(content) not in (2 * size, 4 * size):
        raise ValueError(f"its code does not hold {size} numbers")
    narrow = len(content) == 2 * size
    counts = np.frombuffer(content, dtype=COUNTS[0 if narrow else 1])
    if not narrow and not MOST_NARROW < counts.max() <= np.iinfo(np.int32).max:
        raise ValueError(f"its code is of 32-bit numbers, and the largest is {counts.max()}")
    return counts.astype(np.int32)


def most_edges(stored: int) -> int:
    """How many edges `stored` coded bytes may stand for."""
    return FREE_EDGES + MOST_EDGES * stored
