"""A signed run from the command line's parts: proved, verified, evaluated, compared, and its controls at its counts."""

import numpy as np
import pytest

from models import MODELS
from popup import compare, load, verify
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs.controls import control_config
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.search.methods.coats import coat_book
from popup.source.books import BINARY, DRAWS, PLAIN, SIGNED

QUICK = {"epochs": 1, "widths": (8, 8), "model": "small_conv", "method": "signed"}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    return Laboratory(MODELS, Machine("cpu"), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def paths(laboratory):
    """Tickets of one source: two signed ones and a plain one."""
    found = []
    for changes in ({}, {"lr": 1.0}, {"method": "edge_popup"}):
        config = Config.from_flat({**QUICK, **changes})
        assert run(laboratory, config)["proof"]["holds"]
        found.append(laboratory.directory(config).ticket)
    return found


def test_a_signed_ticket_is_verified_and_evaluated(paths, capsys):
    assert verify(load(paths[0])).holds
    for command in ("verify", "eval", "show"):
        assert main([command, str(paths[0])], MODELS) == 0, capsys.readouterr()
    assert {1, 2} <= set(np.concatenate([layer.codes for layer in load(paths[0]).layers]).tolist())


def test_diff_prints_how_many_codes_are_the_same(paths, capsys):
    one, other = map(load, paths[:2])
    both = [(first.selected & second.selected, first.codes == second.codes)
            for first, second in zip(one.layers, other.layers, strict=True)]
    kept, same = sum(int(mask.sum()) for mask, _ in both), sum(int((mask & alike).sum()) for mask, alike in both)
    assert main(["diff", *map(str, paths[:2])], MODELS) == 0
    assert f"of the {kept:,} edges kept by both {same:,} have the same code" in capsys.readouterr().out
    assert 0 < same < kept
    assert main(["diff", str(paths[0]), str(paths[0])], MODELS) == 0
    total = compare(one, one)[-1]
    assert total.alike == total.both
    assert f"of the {total.both:,} edges kept by both {total.both:,} have the same code" in capsys.readouterr().out


def test_diff_of_a_signed_and_a_plain_ticket_counts_the_weights_that_are_the_same(paths):
    signed, plain = load(paths[0]), load(paths[2])
    total = compare(signed, plain)[-1]
    both = sum(int((one.selected & other.selected & (one.codes == 1)).sum())
               for one, other in zip(signed.layers, plain.layers, strict=True))
    assert total.alike == both < total.both


def test_codes_of_a_book_in_which_1_is_no_own_weight_are_like_no_others(laboratory, paths, capsys):
    config = Config.from_flat({**QUICK, "method": "coats", "coats": 3})
    run(laboratory, config)
    coated = laboratory.directory(config).ticket
    assert compare(load(paths[0]), load(coated))[-1].alike == 0 < compare(load(paths[0]), load(coated))[-1].both
    assert main(["diff", str(paths[0]), str(coated)], MODELS) == 0
    assert "have codes that mean the same, in books signed and coats" in capsys.readouterr().out
    assert {book.name for book in (PLAIN, SIGNED, BINARY, DRAWS, coat_book(3, "thirds")) if book.first_is_own} == {
        "plain", "signed", "draws"}


@pytest.mark.parametrize("role", ["random", "shuffled", "redrawn"])
def test_controls_of_a_signed_ticket_have_its_counts(role, laboratory, paths):
    config = Config.from_flat(QUICK)
    found = run(laboratory, control_config(config, role))
    assert [row["kept"] for row in found["layers"]] == [layer.kept for layer in load(paths[0]).layers]


@pytest.mark.parametrize("changes", [{"method": "coats", "coats": 4}, {"method": "draws", "draws": 3},
                                     {"method": "draws", "draws": 3, "draw_choice": "sampled"}], ids=str)
def test_other_books_are_proved_verified_and_have_controls_at_their_counts(changes, laboratory):
    config = Config.from_flat({**QUICK, **changes})
    assert run(laboratory, config)["proof"]["holds"]
    ticket = load(laboratory.directory(config).ticket)
    assert verify(ticket).holds and set(np.concatenate([layer.codes for layer in ticket.layers]).tolist()) == set(
        range(ticket.book.codes))
    for role in ("random", "shuffled", "redrawn"):
        found = run(laboratory, control_config(config, role))
        assert [row["kept"] for row in found["layers"]] == [layer.kept for layer in ticket.layers]
