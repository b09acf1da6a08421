"""ticket.safetensors, formats 1 and 2: how a ticket lies in a file.

A sealed safetensors file (popup/ticket/sealed.py, to the byte) of kind "ticket" with the tensors

    mask/NAME        uint8 [ceil(edges / 8)]: S_P over the edges of layer NAME, one bit an edge, in ascending order of
                     the flat index, the lowest bit of a byte first; the bits after the last edge are 0
    gaps/NAME        in place of mask/NAME where a layer has "coded": true: uint8, a zlib stream of the gaps between
                     kept edges, the edges left out before each; a gap is gap // 255 bytes of 255 and one byte gap % 255
    edges/NAME       uint8 [ceil(entries / 8)], where `mask` of the recipe is given, snip or synflow: S_ER over the layer's
                     entries, its bits as those of mask/NAME
    weights/NAME     float32 [edges], in embed_weights=True files and where `weights` of the recipe is given: the frozen weights
                     of the edges, W before any code; of iterand, a kept edge's is that of its redraw
    codes/NAME       in format 2 alone: uint8 [ceil(kept * bits / 8)], the code of each kept edge less 1, in the order of
                     mask/NAME, each in `bits` bits, the lowest first, one behind the other as the bits of mask/NAME are; a
                     book of c codes needs as many bits as the number c - 2 has (signed: c is 3, 1 bit)
    digits/NAME      in place of codes/NAME where that is larger, in compressed files: uint8, a zlib stream of bytes of d codes
                     each, in the same order, as the digits, each a code less 1, of a number to the base c - 1, the first the
                     lowest; d is the largest with (c - 1)^d <= 256 and at most 8, and missing codes at the end are digits 0
    words/NAME       in place of mask/NAME and codes/NAME where that is smaller (more than half of the edges are kept): uint8,
                     little-endian numbers of 64 bits, each of d codes of edges, dropped ones too, in ascending order of the flat
                     index, as digits to the base c, the first the lowest; d is the largest with c^d <= 2^64 and at most 64, and
                     missing codes at the end are digits 0
    whole/NAME       in place of all these where it is smaller, in compressed files: the same codes as in digits/NAME, of all
                     edges, dropped ones too, each a digit to the base c (c is 2 in format 1), so that d is the largest with
                     c^d <= 256 and at most 8
    redraws/NAME     of the method iterand: uint8, a zlib stream of a number for each kept edge, in the order of mask/NAME:
                     which redraw of the layer, counted from 1, gave its weight; 0: none, it has its first. They are
                     little-endian, of 2 bytes each, or of 4 where one of the layer's is above 65535
    statistics/NAME  buffers that a state_dict of the network has (running mean and variance of norms)
    given/NAME       frozen parameters that are no layer and not among the constants (a class token, a gain of a block)

and these metadata, an object with sorted keys:

    kind, format     "ticket", 1 or 2; and `digest`, which seals the file and is all that seals the codes of kept edges
    book             in format 2 alone: the code book, an object with its name, its number of `codes` with 0 among them, and
                     what it says of them (`factors`: the weight of code c is factors[c] times the edge's own). It must be the
                     book of the method in `settings`; popup/source/books.py
    recipe           the fields of popup.source.Recipe: seed, er_p, k, density, redistribute, mask, bias, weights, scale,
                     gain
    settings         the fields of popup.search.SearchSettings: method, scope, score_scale and what single methods use
                     (fields that came after the first files, as bias and those, may be missing: their defaults hold)
    layers           a list, in the network's order, of objects: name, shape, p_l, edges, kept, coded, k (where `ticket_density`
                     of the recipe is a rule: the layer's own k, which its weights are scaled for), and as SHA-256 of
                     little-endian bytes edges_hash (flat indices, int64), weights_hash (float32, what weights/NAME holds or
                     would hold), mask_hash (what mask/NAME holds or would hold);
                     where `bias` of the recipe is search, each weight is followed by its module's bias, of shape [out]
    constants        an object: parameter name -> [value, shape], of biases that are 0 and norm affines that are 1 and 0
    about            an object of what was recorded, any JSON. Of a run, and so that `eval` can repeat its accuracy:
                         task          the fields of popup.lab.config.TaskSettings: model, dataset, widths, ...
                         data          the data set's title
                         data_fingerprint  tells its images and labels from others (missing in files of before; may be empty)
                         network_fingerprint  of a user's own function: tells its network from others (else missing)
                         image         [channels, height, width] of an image, or whatever shape it has
                         classes       their number
                         normalise     {"mean": [..], "deviation": [..]}, numbers by channel: an input is (pixel - mean) /
                                       deviation, pixels being 0 to 255; null: images are used as they are
                         precision     fp32 or bf16: in which the accuracy was measured
                         test_accuracy in percent, of the last epoch,
                         evaluated_on  on test data ("test") or on a held-out part of the training data ("validation")

In format 1 the method says what a kept edge has: its own weight ("plain"); of iterand that of a redraw ("draws"); of biprop the
layer's mean |W| over the kept edges, summed in float64 and rounded to float32, with its own weight's sign ("binary").

The edges of a layer that the file does not hold are drawn again from (seed, "edges", NAME), their weights from (seed,
"weights", NAME), and those of the redraw t from (seed, "redraw t", NAME): popup/source/streams.py, masks.py and weights.py
say how.
tests/ticket/read_mask.py reads a mask and its codes, and draws its edges, with numpy alone.
"""

from __future__ import annotations

from pathlib import Path

from popup.files import write_atomically
from popup.source.books import MANY, Book
from popup.ticket.sealed import Metadata, SealedError, Tensors, digest, seal, unseal

__all__ = ["FORMATS", "KIND", "TicketError", "digest", "format_of", "read", "write"]

KIND, FORMATS = "ticket", (1, 2)


class TicketError(SealedError):
    """The ticket is damaged, of another kind, or of another network: nothing was changed."""


def format_of(book: Book) -> int:
    """The format of tickets of a book: 2 where a mask, and redraws, do not say which code an edge has."""
    return 2 if 2 < book.codes < MANY else 1


def write(path: Path, metadata: Metadata, tensors: Tensors, version: int) -> None:
    """Write one ticket file; it appears whole or not at all."""
    write_atomically(path, seal(KIND, version, metadata, tensors))


def read(path: Path) -> tuple[Metadata, Tensors]:
    """Metadata and tensors of a ticket file. Raises TicketError if it is none, OSError for what the system refuses."""
    try:
        return unseal(path, KIND, FORMATS)
    except SealedError as error:
        raise TicketError(str(error)) from None
