"""A forward that takes parameters by name or by order, which attach makes others, is refused before it is searched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import Config, SearchSettings, UsageError, attach, fit, scores

SPLIT = torch.randn(8, 6), torch.arange(8) % 3


class ByName(nn.Module):
    def __init__(self, take):
        super().__init__()
        self.a, self.b, self.take = nn.Linear(6, 6), nn.Linear(6, 3), take

    def forward(self, x):
        return self.b(F.linear(x, self.take(self)))


TAKEN = {"named_parameters": lambda net: dict(net.named_parameters())["a.weight"],
         "parameters": lambda net: next(net.parameters()), "state_dict": lambda net: net.state_dict()["a.weight"],
         "_parameters": lambda net: net.a._parameters["weight"]}


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
def test_it_is_refused_with_one_line(take):
    with pytest.raises(UsageError, match="in training mode no more once popup is attached") as error:
        fit(ByName(take), SPLIT, SPLIT, Config().replace(epochs=1))
    assert "\n" not in str(error.value)


def test_a_forward_that_writes_in_training_alone_is_refused_before_it_is_searched():
    def renormalised(net):
        if net.training:
            net.a.weight.data.div_(net.a.weight.data.norm())
        return net.a.weight

    with pytest.raises(UsageError, match=r"^a\.weight was written to"):
        fit(ByName(renormalised), SPLIT, SPLIT, Config().replace(epochs=1), lambda metrics: pytest.fail("it was searched"))


def test_it_is_refused_before_first_scores_are_ordered_by_a_gradient():
    net = attach(ByName(TAKEN["_parameters"]), er_p=0.5, search=SearchSettings(first_scores="gradient"))
    before = [one.clone() for one in scores(net)]
    with pytest.raises(UsageError, match="in training mode no more once popup is attached"):
        fit(net, SPLIT, SPLIT, Config().replace(epochs=1))
    assert all(map(torch.equal, before, scores(net)))
