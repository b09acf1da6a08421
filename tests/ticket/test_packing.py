"""The codes of all edges in one array: where it is smaller, what it takes, what is refused, and that others can read it."""

from math import ceil, log2

import numpy as np
import pytest
import torch
from torch import nn

from popup import SearchSettings, attach, extract, load, scores, verify
from popup.search.methods.coats import coat_book
from popup.source.books import DRAWS, PLAIN, SIGNED, several_draws
from popup.ticket import coding
from popup.ticket.file import TicketError
from popup.ticket.hashes import hash_array
from popup.ticket.packing import pack, unpack
from tests.ticket import read_mask

BOOKS = [PLAIN, SIGNED, coat_book(2, "even"), coat_book(4, "thirds"), several_draws(8), several_draws(255), coat_book(16, "even")]


def codes_of(book, k, edges=40_001):
    """Codes of which a share k is not 0, each of the others as often."""
    draw = np.random.default_rng(book.codes)
    return np.where(draw.random(edges) < k, draw.integers(1, book.codes, edges), 0).astype(coding.code_type(book.codes))


def again(codes, book, compress):
    """The codes as a file gives them back, and how many bytes they take."""
    arrays, selected = pack(codes, book, compress), codes != 0
    record = {"name": "x", "edges": len(codes), "kept": int(selected.sum()), "coded": "gaps" in arrays,
              "mask_hash": hash_array(coding.pack(selected))}
    tensors = {f"{form}/x": torch.from_numpy(array) for form, array in arrays.items()}
    found = unpack(record, tensors, book)
    assert not tensors and found.dtype == codes.dtype
    return found, sum(array.nbytes for array in arrays.values())


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: f"{book.name} {book.codes}")
def test_a_layer_takes_log2_of_the_codes_an_edge_whatever_its_k_is(book, compress):
    for k in (0.0, 0.1, 0.5, 0.6, 0.75, 0.9, 1.0):
        codes = codes_of(book, k)
        found, size = again(codes, book, compress)
        assert np.array_equal(found, codes)
        assert size <= 1.05 * log2(book.codes) * len(codes) / 8 + 16, k


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: f"{book.name} {book.codes}")
def test_compressed_codes_come_near_their_entropy_for_a_large_k_too(book):
    for k in (0.75, 0.9):
        codes = codes_of(book, k)
        share = np.bincount(codes, minlength=book.codes) / len(codes)
        entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
        assert 8 * again(codes, book, True)[1] / len(codes) < 1.05 * entropy + 0.1


@pytest.mark.parametrize("edges", [0, 1, 7, 39, 40, 41, 1000])
def test_every_number_of_edges_comes_back(edges):
    for book in (*BOOKS, DRAWS):
        for k in (0.0, 0.5, 1.0):
            codes = codes_of(book, k, edges) if book is not DRAWS else codes_of(several_draws(3), k, edges).astype(np.int32)
            for compress in (False, True):
                assert np.array_equal(again(codes, book, compress)[0], codes)


def test_words_have_as_many_digits_as_they_have_room_for():
    for count in (3, 4, 5, 9, 17, 256):
        digits = coding.digits_of_word(count)
        assert count**digits <= 2**64 < count ** (digits + 1)
        codes = np.full(3 * digits - 1, count - 1)
        packed = coding.pack_words(codes, count)
        assert len(packed) == coding.words_size(len(codes), count) == 8 * ceil(len(codes) / digits) == 24
        assert np.array_equal(coding.unpack_words(packed, len(codes), count), codes)
        assert packed.view("<u8")[0] == sum((count - 1) * count**place for place in range(digits))


def test_few_kept_edges_are_told_as_ever():
    for book, k, forms in ((PLAIN, 0.9, {"mask"}), (SIGNED, 0.5, {"mask", "codes"}), (SIGNED, 0.7, {"words"}),
                           (several_draws(3), 0.5, {"mask", "codes"}), (several_draws(3), 1.0, {"words"})):
        assert pack(codes_of(book, k), book, False).keys() == forms
    assert pack(codes_of(PLAIN, 0.9), PLAIN, True).keys() == pack(codes_of(SIGNED, 0.9), SIGNED, True).keys() == {"whole"}
    assert pack(codes_of(SIGNED, 0.05), SIGNED, True).keys() == {"gaps", "codes"}


@pytest.mark.parametrize("form", [{}, {"compress": True}], ids=str)
@pytest.mark.parametrize(("settings", "plain", "small"), [
    (SearchSettings(), "mask", "whole"), (SearchSettings("signed"), "words", "whole"),
    (SearchSettings("coats", coats=2), "words", "whole"),
    (SearchSettings("draws", draws=3), "words", "words")], ids=str)  # of draws each is as frequent
def test_a_ticket_that_keeps_most_is_whole_and_read_by_others(settings, plain, small, form, tmp_path):
    net = attach(nn.Sequential(nn.Linear(60, 80)), er_p=0.9, k=0.9, seed=2, search=settings)
    for score in scores(net):
        score.data.copy_(torch.randn(len(score)))
    ticket = extract(net)
    path = ticket.save(tmp_path / "t", **form)
    found, (metadata, tensors) = load(path), read_mask.read(path)
    codes = ticket.layers[0].codes
    assert np.array_equal(found.layers[0].codes, codes) and verify(found).holds
    assert found.save(tmp_path / "again", **form).read_bytes() == path.read_bytes()
    layer = metadata["layers"][0]
    assert np.array_equal(read_mask.selected(metadata, layer, tensors), codes != 0)
    assert np.array_equal(read_mask.codes(metadata, layer, tensors), codes[codes != 0])
    assert {name.split("/")[0] for name in tensors} == {small if form else plain}


WORDS = "words/0.weight"
DAMAGED = {
    "too short": (lambda t: t.update({WORDS: t[WORDS][:-8].clone()}), "codes need"),
    "too long": (lambda t: t.update({WORDS: torch.cat([t[WORDS], t[WORDS][:8]])}), "codes need"),
    "a number that is too large": (lambda t: t[WORDS][7].fill_(255), "after the last one"),
    "another code": (lambda t: t[WORDS][0].bitwise_xor_(1), "its count or its hash is another|other weights"),
    "floats": (lambda t: t.update({WORDS: t[WORDS].float()}), "no words/0.weight of dtype uint8"),
    "none": (lambda t: t.pop(WORDS), "the file has no mask/0.weight"),
    "two forms": (lambda t: t.update({"mask/0.weight": t[WORDS].clone()}), "is none of a ticket's"),
    "nothing whole": (lambda t: t.update({"whole/0.weight": t[WORDS].clone()}), "too many|broken|does not hold")}


@pytest.mark.parametrize("change", DAMAGED)
def test_words_that_are_none_are_refused(change, tmp_path, forge):
    net = attach(nn.Sequential(nn.Linear(60, 80)), er_p=0.9, k=0.9, method="signed")
    path, (spoil, words) = extract(net).save(tmp_path / "t"), DAMAGED[change]
    forge(path, lambda metadata, tensors: spoil(tensors))
    with pytest.raises(TicketError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)
