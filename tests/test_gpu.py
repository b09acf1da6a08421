"""What only a GPU can show: the same masks as the CPU for the same scores, and a step in which the host never waits."""

import pytest
import torch

import models
import popup
from popup.lab.commands.command import main
from popup.lab.config import TrainingSettings
from popup.lab.training.optimizers import sgd
from popup.search.network import search_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def attached(scope, p, device):
    return popup.attach(models.MODELS["conv2"]((3, 16, 16), 10), er_p=p, k=0.4, scope=scope, seed=3).to(device)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("p", [0.2, 1.0])
def test_cpu_and_cuda_select_the_same_masks_and_build_the_same_weights(scope, p):
    cpu, gpu = attached(scope, p, "cpu"), attached(scope, p, "cuda")
    for first, second in zip(popup.scores(cpu), popup.scores(gpu), strict=True):
        rounded = (first.detach() * 50).round() / 50  # with many ties
        first.data.copy_(rounded)
        second.data.copy_(rounded)
    masks = [[mask.cpu() for mask in search_of(net).select()] for net in (cpu, gpu)]
    assert all(map(torch.equal, *masks))
    cpu.eval(), gpu.eval()
    plain = [popup.merge(net).cpu().state_dict() for net in (cpu, gpu)]
    assert all(torch.equal(plain[0][name], plain[1][name]) for name in plain[0])


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_step_never_waits_for_the_device(scope):
    net = attached(scope, 0.2, "cuda")
    optimizer = sgd(popup.scores(net), TrainingSettings(), lr=0.1)
    inputs, labels = torch.randn(32, 3, 16, 16, device="cuda"), torch.randint(0, 10, (32,), device="cuda")

    def step():
        loss = torch.nn.functional.cross_entropy(net(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    mine = [(weight != 0).sum() for weight in popup.merge(net).state_dict().values() if weight.dim() > 1]
    assert [int(count) for count in mine] == [row.kept for row in popup.densities(net)]


def test_a_ticket_is_built_and_measured_on_the_device(tmp_path):
    options = ["--widths", "4", "--epochs", "6", "--epsilon", "2", "--er-p", "0.9", "--threads", "1", "--compare", "1"]
    assert main(["prove", *options, "--device", "cuda", "--out", str(tmp_path)], models.MODELS) == 0
