"""How the codes of a layer's edges lie in a file: a mask with the codes of what it keeps, or, where that is smaller, all of them
in one array, dropped edges too. The second takes some log2(codes) bits an edge, however many are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from popup.source.books import MANY, Book
from popup.ticket import coding
from popup.ticket.hashes import hash_array
from popup.ticket.sealed import Tensors


def pack(codes: np.ndarray, book: Book, compress: bool) -> dict[str, np.ndarray]:
    """The arrays that say the `codes` [edges], by the first parts of their names: of the forms that are allowed the smallest, or
    the first of them."""
    forms = [_apart(codes, book, compress)]
    whole = coding.compress_codes(codes.astype(np.int64) + 1, book.codes + 1) if compress and book.codes < MANY else None
    forms += [] if whole is None else [{"whole": whole}]
    if 2 < book.codes < MANY and coding.words_size(len(codes), book.codes) < min(map(_size, forms)):
        forms.append({"words": coding.pack_words(codes, book.codes)})
    return min(forms, key=_size)


def _size(form: dict[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in form.values())


def _apart(codes: np.ndarray, book: Book, compress: bool) -> dict[str, np.ndarray]:
    """The mask, and the codes of what it keeps."""
    selected = codes != 0
    gaps, kept = coding.compress(selected) if compress else None, codes[selected]
    form = {"mask": coding.pack(selected)} if gaps is None else {"gaps": gaps}
    if book.codes == MANY:
        return form | {"redraws": coding.compress_counts(kept - 1)}
    if book.codes == 2:
        return form
    digits = coding.compress_codes(kept, book.codes) if compress else None
    return form | ({"codes": coding.pack_codes(kept, book.codes)} if digits is None else {"digits": digits})


def unpack(record: dict[str, Any], tensors: Tensors, book: Book) -> np.ndarray:
    """The codes [edges] of a layer's `record`, as many of them not 0 as it says, taken out of `tensors`; a ValueError if they are
    not what was saved."""
    name, edges = record["name"], record["edges"]
    if f"whole/{name}" in tensors and book.codes < coding.MOST_CODES:
        codes = coding.decompress_codes(stored(f"whole/{name}", tensors), edges, book.codes + 1) - 1
        codes = codes.astype(coding.code_type(book.codes))
    elif f"words/{name}" in tensors and 2 < book.codes < MANY:
        codes = coding.unpack_words(stored(f"words/{name}", tensors), edges, book.codes)
    else:
        selected = _mask(record, tensors)
        codes = selected if book.codes == 2 else np.zeros(edges, dtype=coding.code_type(book.codes))
        if book.codes > 2:
            codes[selected] = _kept(record, tensors, book)
    if np.count_nonzero(codes) != record["kept"] or hash_array(coding.pack(codes != 0)) != record["mask_hash"]:
        raise ValueError("its count or its hash is another")
    return codes


def _mask(record: dict[str, Any], tensors: Tensors) -> np.ndarray:
    """Which edges are kept, bool [edges]."""
    found = stored(f"{'gaps' if record['coded'] else 'mask'}/{record['name']}", tensors)
    if record["coded"]:
        return coding.decompress(found, record["edges"], record["kept"])
    selected = coding.unpack(found, record["edges"])
    if np.count_nonzero(selected) != record["kept"]:
        raise ValueError("its count or its hash is another")
    return selected


def _kept(record: dict[str, Any], tensors: Tensors, book: Book) -> np.ndarray:
    """The codes of the kept edges, [kept], of a book of more than two."""
    name, kept = record["name"], record["kept"]
    if book.codes == MANY:
        return np.minimum(coding.decompress_counts(stored(f"redraws/{name}", tensors), kept), book.codes - 2) + 1
    if f"digits/{name}" in tensors and book.codes <= coding.MOST_CODES:
        return coding.decompress_codes(stored(f"digits/{name}", tensors), kept, book.codes)
    return coding.unpack_codes(stored(f"codes/{name}", tensors), kept, book.codes)


def stored(name: str, tensors: Tensors) -> np.ndarray:
    """The tensor of that name, taken out; a ValueError unless it is uint8 of one dimension."""
    found = tensors.pop(name, None)
    if found is None or found.dtype is not torch.uint8 or found.dim() != 1:
        raise ValueError(f"the file has no {name} of dtype uint8")
    return found.numpy()
