"""Code books against readings of their own in numpy: what the codes mean, at all edges and at a few, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popup.source.books import BINARY, DRAWS, PLAIN, SIGNED, Drawn, Factors, Sample
from popup.source.layer_source import draw_layer, draw_values
from popup.source.layers import Layer
from popup.source.recipe import Recipe

COATS = Factors("coats3", 4, factors=(0.0, 1.0, 2.0, 3.0))
HALVES = Factors("halves", 5, factors=(0.0, 0.5, -0.5, 0.1, 3.0))
BOOKS = [PLAIN, SIGNED, BINARY, DRAWS, COATS, HALVES]
MOST = {"draws": 4}  # codes that are tried of a book that has very many


def drawn(outputs=9, inputs=7, seed=0):
    recipe, layer = Recipe(er_p=0.6, weights="kaiming_normal", seed=seed), Layer("a.weight", (outputs, inputs))
    return Drawn(recipe, draw_layer(recipe, layer, 0.6))


def codes_of(book, count, chance):
    """Random codes of a book, in the type that the book's codes have."""
    codes = chance.integers(0, MOST.get(book.name, book.codes), count)
    return codes.astype(bool if book.codes == 2 else np.int32 if book.codes > 256 else np.uint8)


def reading(book, weights, codes):
    """What the codes mean, one edge after the other."""
    values, found = weights.source.values, np.zeros(len(codes), np.float32)
    kept = np.abs(values[codes != 0].astype(np.float64))
    for place, code in enumerate(codes.astype(int)):
        if not code:
            continue
        if book.name == "binary":
            found[place] = np.sign(values[place]) * np.float32(kept.sum() / len(kept))
        elif book.name == "draws" and code > 1:
            source = weights.source
            fresh = draw_values(weights.recipe, source.spec, source.p_l, source.edges, f"redraw {code - 1}")
            found[place] = fresh[place]
        elif book.name in ("plain", "draws"):
            found[place] = values[place]
        else:
            found[place] = values[place] * np.float32(book.factors[code])
    return found


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(1, 12))
def test_values_are_the_readings_and_some_are_the_same_bit_for_bit(book, seed, outputs):
    weights, chance = drawn(outputs, seed=seed), np.random.default_rng(seed)
    codes = codes_of(book, len(weights.source.values), chance)
    values = book.values(weights, torch.from_numpy(codes))
    assert values.dtype is torch.float32 and values.shape == codes.shape
    assert np.array_equal(values.numpy(), reading(book, weights, codes))
    assert not values.numpy()[codes == 0].view(np.int32).any(), "no -0 where an edge is dropped"
    assert torch.equal(values, book.values(weights, torch.from_numpy(codes)))
    places = np.flatnonzero(chance.random(len(codes)) < 0.4)
    few = book.some(weights, codes, places)
    assert few.dtype == np.float32 and few.tobytes() == values.numpy()[places].tobytes()


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_a_layer_without_edges_and_one_that_keeps_none(book):
    weights = drawn()
    none = codes_of(book, 0, np.random.default_rng(0))
    empty = Drawn(weights.recipe, draw_layer(weights.recipe, weights.source.spec, 0.6, edges=np.zeros(0, np.int64)))
    assert book.values(empty, torch.from_numpy(none)).shape == (0,) and book.holds(torch.from_numpy(none))
    assert len(book.some(empty, none, np.zeros(0, np.int64))) == 0
    dropped = np.zeros(len(weights.source.values), none.dtype)
    assert not book.values(weights, torch.from_numpy(dropped)).any()


@pytest.mark.parametrize("book", [book for book in BOOKS if book.one_by_one], ids=lambda book: book.name)
def test_an_edges_value_depends_on_its_own_code_alone(book):
    weights, chance = drawn(), np.random.default_rng(0)
    one, other = (codes_of(book, len(weights.source.values), chance) for _ in range(2))
    other[:9] = one[:9]
    values = [book.values(weights, torch.from_numpy(codes)) for codes in (one, other)]
    assert torch.equal(values[0][:9], values[1][:9])


def test_a_book_that_says_one_by_one_of_binary_would_be_wrong():
    weights = drawn()
    codes = np.ones(len(weights.source.values), bool)
    first = BINARY.values(weights, torch.from_numpy(codes))
    codes[5:] = False
    assert not BINARY.one_by_one and not torch.equal(first[:5], BINARY.values(weights, torch.from_numpy(codes))[:5])


@pytest.mark.parametrize(("book", "good", "bad"), [
    (PLAIN, [0, 1], [2, -1]), (SIGNED, [0, 1, 2], [3, -1]), (BINARY, [0, 1], [2]), (COATS, [3, 0], [4, -2]),
    (DRAWS, [0, 1, 2**31 - 2], [-1, 2**31 - 1])], ids=lambda value: getattr(value, "name", ""))
def test_a_book_holds_its_codes_and_no_others(book, good, bad):
    assert book.holds(torch.tensor(good)) and book.holds(torch.tensor([True, False]))
    assert not any(book.holds(torch.tensor([*good, code])) for code in bad)
    assert not book.holds(torch.tensor([0.0, 1.0])), "codes are whole numbers"


def test_books_say_all_of_themselves_in_their_records():
    for book in BOOKS:
        assert json.loads(json.dumps(book.record())) == book.record() == {"name": book.name, "codes": book.codes, **(
            {"factors": list(book.factors)} if isinstance(book, Factors) else {})}
    assert COATS.record() != Factors("coats3", 4, factors=(0.0, 1.0, 2.0, 4.0)).record()
    assert len({json.dumps(book.record()) for book in BOOKS}) == len(BOOKS)


def test_only_draws_has_weights_of_other_draws():
    codes = np.array([0, 1, 2, 5, 0, 3], np.int32)
    assert DRAWS.redrawn(codes) == 3 and not DRAWS.keeps_weights
    assert all(book.keeps_weights and book.redrawn(codes) == 0 for book in BOOKS if book is not DRAWS)


def test_stored_weights_are_their_own_redraws():
    weights, codes = drawn(), torch.arange(5).repeat(9)[:len(drawn().source.values)].int()
    stored = Drawn(weights.recipe, weights.source, stored=True)
    assert torch.equal(DRAWS.values(stored, codes), torch.where(codes > 0, weights.values, 0))


def test_meanings_tell_books_apart_and_stay():
    meanings = [tuple(book.meaning().tolist()) for book in BOOKS]
    assert len(set(meanings)) == len(BOOKS) and all(tuple(book.meaning().tolist()) == meaning
                                                    for book, meaning in zip(BOOKS, meanings, strict=True))


@pytest.mark.parametrize("book", [PLAIN, SIGNED, BINARY, Factors("double", 2, factors=(0.0, 2.0))], ids=lambda book: book.name)
def test_selected_says_the_same_as_values(book):
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    codes = torch.arange(500) % book.codes
    codes = codes.bool() if book.codes == 2 else codes.int()
    numbers, selected = book.selected(Sample(values), codes)
    assert torch.equal(numbers if selected is None else torch.where(selected, numbers, 0), book.values(Sample(values), codes))


def test_what_is_dropped_is_0_without_a_sign():
    values, codes = torch.tensor([-1.0, 2.0, -3.0, -0.5]), torch.tensor([False, False, True, False])
    found = PLAIN.values(Sample(values), codes)
    assert found.tolist() == [0.0, 0.0, -3.0, 0.0] and found.signbit().tolist() == [False, False, True, False]


def test_a_book_of_another_class_keeps_its_own_meaning():
    class Halved(Factors):
        def values(self, weights, codes):
            return super().values(weights, codes) / 2

    found, selected = Halved("halved", 2).selected(Sample(torch.ones(3)), torch.tensor([True, False, True]))
    assert selected is None and found.tolist() == [0.5, 0.0, 0.5]
