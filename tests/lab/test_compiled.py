"""--compile: one graph, the same gradients, and one line where it cannot be."""

from functools import partial

import pytest
import torch
from torch import nn

from models import MODELS
from popup import Config, UsageError, attach, scores
from popup.lab.machine import Machine
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.compiled import compiled


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    """torch.compile up to its kernels, whose making takes a minute: the graph, and its own backward pass, run as they are."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def net_of(**options):
    return attach(MODELS["small_conv"]((3, 8, 8), 4, widths=(4, 8)), er_p=0.5, k=0.5, **options).train()


@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_a_compiled_pass_has_the_same_output_gradients_and_statistics():
    nets = [net_of(), net_of()]
    forward = compiled(nets[1])
    for step in range(3):
        inputs = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        one, other = nets[0](inputs), forward(inputs)
        assert torch.allclose(one, other, atol=1e-5)
        for net, output in zip(nets, (one, other), strict=True):
            net.zero_grad()
            output.square().sum().backward()
        for score, same in zip(scores(nets[0]), scores(nets[1]), strict=True):
            assert torch.allclose(score.grad, same.grad, rtol=1e-3, atol=1e-4 * float(score.grad.abs().max()))
            with torch.no_grad():
                score -= 0.01 * score.grad
                same.copy_(score)
    for one, other in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"model": "small_conv", "widths": (4, 4), "method": "gates"},
                                     {"role": "er_trained", "k": 1.0}])
def test_a_compiled_run_finds_as_good_a_ticket(changes, tmp_path):
    found = {}
    for compile in (False, True):
        wanted = Config.from_flat({"epochs": 2, "widths": (16,), "compile": compile, **changes})
        found[compile] = run(Laboratory(MODELS, Machine("cpu"), tmp_path), wanted)
    assert found[True]["hash"] != found[False]["hash"]
    assert found[True]["train_loss"] == pytest.approx(found[False]["train_loss"], rel=0.02)


class Asks(nn.Module):
    """A network whose way depends on its data: no single graph."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else -self.linear(x)


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_is_no_single_graph_is_told_in_one_line():
    net = attach(Asks(), er_p=1.0).train()
    with pytest.raises(UsageError, match="--compile does not work for Asks") as told:
        compiled(net)(torch.ones(2, 4))
    assert "\n" not in str(told.value)
