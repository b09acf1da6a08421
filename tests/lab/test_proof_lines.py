"""The printed proof says what is true: of redraws, of what is in use, and of records from before."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

import popup
from popup import extract
from popup.lab.config import Config
from popup.lab.report.tables import proof_lines
from popup.search.network import search_of
from popup.ticket.proof import Proof
from tests.laws import CLASSES, IMAGE, tiny


def run(**options):
    """A whole run, and its network."""
    images, labels = torch.randn(24, *IMAGE), torch.arange(24) % CLASSES
    config = Config().replace(er_p=0.6, k=0.5, weights="kaiming_normal", epochs=4, batch_size=8, lr=1.0, **options)
    net = tiny()
    return net, popup.fit(net, (images, labels), (images, labels), config)


def test_of_iterand_it_says_how_many_kept_edges_the_seed_drew_anew():
    net, outcome = run(method="iterand", redraw_every=2, redraw_rate=0.5)
    redrawn = sum(int(np.count_nonzero(layer.codes > 1)) for layer in extract(net).layers)
    first = proof_lines(asdict(outcome.proof))[0]
    assert outcome.proof.redrawn == redrawn > 0 and outcome.proof.holds
    redraws = sum(int((layer.turns > 0).sum()) for layer in search_of(net).layers)
    assert outcome.proof.redraws == redraws > redrawn
    assert first == (f"  ok     weights changed by the seed's redraws alone, each of edges not selected then ({redraws} edges "
                     f"have such a weight, {redrawn} of them kept): the hashes of all {outcome.proof.frozen} frozen tensors "
                     "are those of before")


@pytest.mark.parametrize("options", [{}, {"method": "signed"}, {"method": "iterand", "redraw_every": 10**6}])
def test_without_redraws_no_weight_has_changed(options):
    _, outcome = run(**options)
    first, *others = proof_lines(asdict(outcome.proof))
    assert first == f"  ok     no weight changed: the hashes of all {outcome.proof.frozen} frozen tensors are those of before"
    assert len(others) == 4 and all(line.startswith("  ok ") for line in others) and "built anew" in others[2]


def test_what_is_broken_is_named():
    proof = Proof(3, ("a/weights",), 0, 0, ("b",), ("c",), ("d: codes",), ("e gets others",), True, 5, 9)
    lines = proof_lines(asdict(proof))
    assert all(line.startswith("  BROKEN ") for line in lines) and not proof.holds
    for line, end in zip(lines, ["a/weights", "b", "c", "e gets others", "5 differ", "d: codes"], strict=True):
        assert line.endswith(f": {end}")


def test_a_record_of_before_has_the_lines_of_before():
    record = {"frozen": 3, "changed": [], "outside": [], "miscounted": [], "differing": 0, "predictions": 7, "holds": True}
    lines = proof_lines(record)
    assert len(lines) == 4 and all(line.startswith("  ok ") for line in lines)
    assert lines[0].endswith("all 3 frozen tensors are those of before") and "same 7 predictions" in lines[3]
