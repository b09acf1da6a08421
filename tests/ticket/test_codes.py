"""Tickets of format 2, whose edges have one code of several: what lies in their files, and what is refused."""

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from popup import SearchSettings, TicketError, UsageError, attach, compare, extract, load, merge, scores, verify
from popup.search.methods import METHODS
from popup.search.methods.signed import Signed
from popup.source.books import Factors
from popup.ticket import coding
from tests.ticket import read_mask

NAME = "codes/0.weight"


def build():
    return nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 5))


def searched(method="signed", **options):
    torch.manual_seed(0)
    net = attach(build(), **{"er_p": 0.6, "k": 0.4, "seed": 3, "method": method, "weights": "kaiming_normal", **options})
    optimizer = torch.optim.SGD(scores(net), 0.5)
    net(torch.randn(8, 30)).square().sum().backward()
    optimizer.step()
    return net.eval()


def metadata_of(path):
    content = path.read_bytes()
    header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["popup"])


@pytest.mark.parametrize("form", [{}, {"compress": True}, {"embed_weights": True}, {"embed_weights": True, "compress": True}])
@pytest.mark.parametrize("options", [{}, {"k": 0.02}, {"weights": "given"}, {"bias": "search"}, {"k": 1.0}])
def test_a_signed_ticket_comes_back_as_it_was(options, form, tmp_path):
    net = searched(**options)
    ticket = extract(net, {"a": 1})
    found = load(ticket.save(tmp_path / "t", **form))
    state = merge(net).state_dict()
    assert found.book.name == "signed" and verify(found).holds and metadata_of(tmp_path / "t")["format"] == 2
    for one, other in zip(ticket.layers, found.layers, strict=True):
        assert np.array_equal(one.codes, other.codes) and one.codes.dtype == other.codes.dtype == np.uint8
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    assert torch.equal(found.apply(build()).eval()(torch.ones(2, 30)), net(torch.ones(2, 30)))


@pytest.mark.parametrize("form", [{}, {"compress": True}, {"embed_weights": True}])
def test_equal_tickets_give_equal_bytes_and_another_sign_gives_others(form, tmp_path):
    one, again, other = searched(), searched(), searched()
    first = scores(other)[0]
    first.data[first.detach().abs().argmax()] *= -1
    files = [extract(net).save(tmp_path / f"t{place}", **form).read_bytes() for place, net in enumerate((one, again, other))]
    assert files[0] == files[1] != files[2]
    assert load(tmp_path / "t0").save(tmp_path / "t3", **form).read_bytes() == files[0]


def test_a_sign_costs_one_bit_a_kept_edge(tmp_path):
    ticket = extract(searched())
    tensors = safetensors.torch.load(ticket.save(tmp_path / "t").read_bytes())
    for layer in ticket.layers:
        stored = tensors[f"codes/{layer.spec.name}"].numpy()
        assert len(stored) == (layer.kept + 7) // 8
        bits = [stored[place // 8] >> place % 8 & 1 for place in range(layer.kept)]
        assert bits == (layer.codes[layer.codes != 0] - 1).tolist() and 0 < sum(bits) < layer.kept


@pytest.mark.parametrize("count", [3, 4, 5, 6, 9, 256, 257, 1000])
def test_codes_are_packed_in_the_fewest_bits_and_come_back(count):
    codes = np.random.default_rng(count).integers(1, count, 333)
    packed = coding.pack_codes(codes, count)
    assert len(packed) == -(-333 * int(np.ceil(np.log2(count - 1))) // 8)
    found = coding.unpack_codes(packed, 333, count)
    assert np.array_equal(found, codes) and found.dtype == (np.uint8 if count <= 256 else np.int32)
    assert len(coding.pack_codes(codes[:0], count)) == len(coding.unpack_codes(packed[:0], 0, count)) == 0


@pytest.mark.parametrize("count", [3, 4, 5, 6, 9, 17, 256, 257])
def test_codes_that_are_not_alike_often_take_about_their_entropy_and_come_back(count):
    chance = 0.4 ** np.arange(count - 1) + 1e-3
    chance /= chance.sum()
    codes = np.random.default_rng(count).choice(np.arange(1, count), 40_001, p=chance)
    coded = coding.compress_codes(codes, count)
    entropy = -(chance * np.log2(chance)).sum()
    assert entropy - 0.02 < 8 * len(coded) / len(codes) < 1.04 * entropy + 0.05 < coding.bits_of(count)
    found = coding.decompress_codes(coded, len(codes), count)
    assert np.array_equal(found, codes) and found.dtype == (np.uint8 if count <= 256 else np.int32)


def test_codes_are_coded_where_that_pays_alone():
    chance = np.random.default_rng(0)
    assert coding.compress_codes(chance.integers(1, 3, 5000), 3) is None, "signs, a bit each"
    assert coding.compress_codes(chance.integers(1, 9, 5000), 9) is None, "8 draws, 3 bits each"
    assert coding.compress_codes(np.ones(5000, int), 300) is None, "more codes than a byte tells apart"
    three = coding.compress_codes(chance.integers(1, 4, 5000), 4)
    assert 8 * len(three) / 5000 < 1.65 < coding.bits_of(4), "3 codes, log2(3) bits each in the place of 2"
    few = chance.integers(1, 4, 3)
    assert coding.compress_codes(few, 4) is None and coding.compress_codes(few[:0], 4) is None


@pytest.mark.parametrize(("change", "words"), [
    (lambda coded: coded[:-5], "does not hold 5000 codes"), (lambda coded: coded[:0], "too many|does not hold|broken"),
    (lambda coded: np.r_[coded, coded[:1]], "does not hold"), (lambda coded: np.r_[coded[:2], coded[3:]], "broken|does not hold"),
    (lambda coded: coding.compress_codes(np.ones(4999 + 8, int), 4), "does not hold"),
    (lambda coded: np.frombuffer(zlib.compress(b"\xff" * 1000), np.uint8), "codes after the last one")])
def test_coded_codes_that_are_none_are_refused(change, words):
    coded = coding.compress_codes(np.random.default_rng(0).integers(1, 4, 5000), 4)
    with pytest.raises(ValueError, match=words):
        coding.decompress_codes(change(coded), 5000, 4)


def test_a_compressed_ticket_of_coats_holds_digits_that_others_can_read(tmp_path, forge):
    net = attach(nn.Sequential(nn.Linear(60, 80)), er_p=0.9, k=0.5, search=SearchSettings("coats", coats=3))
    ticket = extract(net)
    plain, small = (ticket.save(tmp_path / name, compress=compress) for name, compress in (("plain", False), ("small", True)))
    found, (metadata, tensors) = load(small), read_mask.read(small)
    assert "digits/0.weight" in tensors and small.stat().st_size < plain.stat().st_size
    assert np.array_equal(found.layers[0].codes, ticket.layers[0].codes) and verify(found).holds
    codes = ticket.layers[0].codes
    assert np.array_equal(read_mask.codes(metadata, metadata["layers"][0], tensors), codes[codes != 0])
    forge(small, lambda m, t: t.update({"codes/0.weight": t["digits/0.weight"].clone()}))
    with pytest.raises(TicketError, match="is none of a ticket's"):
        load(small)


def stray(tensors):
    tensors[NAME][-1] |= 128


REFUSED = {
    "another book": (lambda m, t: m["book"].update(name="signs"), "not of the book 'signed'"),
    "other factors": (lambda m, t: m["book"].update(factors=[0.0, 1.0, -2.0]), "not of the book 'signed'"),
    "more codes": (lambda m, t: m["book"].update(codes=4), "not of the book 'signed'"),
    "a book with more to say": (lambda m, t: m["book"].update(extra=1), "not of the book 'signed'"),
    "no book": (lambda m, t: m.pop("book"), "book"),
    "no codes": (lambda m, t: t.pop(NAME), f"the file has no {NAME}"),
    "codes too short": (lambda m, t: t.update({NAME: t[NAME][:-1].clone()}), "bits need"),
    "codes too long": (lambda m, t: t.update({NAME: torch.cat([t[NAME], t[NAME][:1]])}), "bits need"),
    "stray bits": (lambda m, t: stray(t), "bits after the last one"),
    "codes of floats": (lambda m, t: t.update({NAME: t[NAME].float()}), f"the file has no {NAME} of dtype uint8"),
    "codes of two dimensions": (lambda m, t: t.update({NAME: t[NAME][None]}), f"the file has no {NAME}"),
    "codes of no layer": (lambda m, t: t.update({"codes/9.weight": t[NAME].clone()}), "is none of a ticket's"),
    "redraws": (lambda m, t: t.update({"redraws/0.weight": t[NAME].clone()}), "is none of a ticket's"),
    "format 1": (lambda m, t: m.update(format=1), "not of the book 'signed'"),
    "format 1 without a book": (lambda m, t: (m.update(format=1), m.pop("book")), "not of the book 'signed'"),
    "a plain method": (lambda m, t: m["settings"].update(method="edge_popup"), "not of the book 'plain'"),
    "a method with as many draws": (lambda m, t: m["settings"].update(method="iterand"), "not of the book 'draws'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_signed_ticket_cannot_hold_is_refused(case, tmp_path, forge):
    change, words = REFUSED[case]
    ticket = extract(searched(k=0.41))
    assert ticket.layers[0].kept % 8, "there is room for stray bits"
    path = ticket.save(tmp_path / "t")
    forge(path, change)
    with pytest.raises(TicketError) as error:
        load(path)
    assert words in str(error.value) and "\n" not in str(error.value)


PLAIN = {
    "a signed method": (lambda m, t: m["settings"].update(method="signed"), "not of the book 'signed'"),
    "format 2": (lambda m, t: m.update(format=2), "not of the book 'plain'"),
    "format 2 with its book": (lambda m, t: m.update(format=2, book={"name": "plain", "codes": 2, "factors": [0.0, 1.0]}),
                               "not of the book 'plain'"),
    "codes": (lambda m, t: t.update({NAME: torch.zeros(5, dtype=torch.uint8)}), "is none of a ticket's"),
}


@pytest.mark.parametrize("method", ["edge_popup", "biprop", "iterand"])
@pytest.mark.parametrize("case", PLAIN)
def test_a_ticket_of_format_1_has_no_codes(case, method, tmp_path, forge):
    change, words = PLAIN[case]
    path = extract(searched(method)).save(tmp_path / "t")
    assert metadata_of(path)["format"] == 1 and "book" not in metadata_of(path)
    forge(path, change)
    with pytest.raises(TicketError) as error:
        load(path)
    assert words.replace("plain", METHODS[method].book.name) in str(error.value) and "\n" not in str(error.value)


def test_a_code_beyond_the_book_is_refused(tmp_path, forge, monkeypatch):
    """Where bits are left over: of a book of four codes 1, 2 and 3 take two bits, which have room for a fourth."""
    class Coats(Signed):
        book = Factors("coats3", 4, factors=(0.0, 1.0, 2.0, 3.0))

    monkeypatch.setitem(METHODS, "coats", Coats)
    path = extract(searched("coats")).save(tmp_path / "t")
    forge(path, lambda m, t: t[NAME].view(-1)[:1].fill_(255))
    with pytest.raises(TicketError, match="a code is 4, and the book has 4"):
        load(path)


def test_codes_that_the_book_does_not_have_become_no_ticket(monkeypatch):
    net = searched()
    monkeypatch.setattr(Signed, "codes", lambda self, layer, scores, selected: 3 * selected.to(torch.uint8))
    with pytest.raises(UsageError, match=r"0\.weight has no ticket: its codes are not those of the book 'signed', which has 3"):
        extract(net)


def test_diff_tells_how_many_codes_are_alike():
    ticket = extract(searched())
    codes = ticket.layers[0].codes
    turned = codes.copy()
    turned[np.flatnonzero(codes)[:7]] = 3 - turned[np.flatnonzero(codes)[:7]]
    other = replace(ticket, layers=(replace(ticket.layers[0], codes=turned), *ticket.layers[1:]))
    rows = {row.name: row for row in compare(ticket, other)}
    kept = [layer.kept for layer in ticket.layers]
    assert (rows["0.weight"].both, rows["0.weight"].alike) == (kept[0], kept[0] - 7)
    assert (rows["all"].both, rows["all"].alike) == (sum(kept), sum(kept) - 7) and rows["all"].jaccard == 1


def test_codes_of_different_books_are_alike_where_both_are_the_edges_own_weight():
    """Code 2 is -W of the one and the first redraw of the other."""
    ticket = extract(searched())
    other = replace(ticket, settings=replace(ticket.settings, method="iterand"))
    first = sum(int((layer.codes == 1).sum()) for layer in ticket.layers)
    assert compare(ticket, other)[-1].alike == first < compare(ticket, ticket)[-1].alike
