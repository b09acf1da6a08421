"""Two ranks whose networks have weights of their own, attached as they are: each writes down what it is told.

Run by test_distributed.py with a DIRECTORY: first both ranks have the same weights, then others.
"""

import sys
from pathlib import Path

import torch
import torch.distributed
from torch import nn

import popup


def search(rank: int, same: bool) -> None:
    torch.manual_seed(0 if same else rank)
    net = popup.attach(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), er_p=0.8, weights="given")
    wrapped = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(popup.scores(net), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(torch.randn(5, 6)).square().sum().backward()
        optimizer.step()


def told(rank: int, directory: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    for same in (True, False):
        try:
            search(rank, same)
            words = "done"
        except popup.UsageError as error:
            words = str(error)
        Path(directory, f"{'same' if same else 'other'}{rank}").write_text(words)


if __name__ == "__main__":
    torch.multiprocessing.start_processes(told, (sys.argv[1],), nprocs=2, start_method="fork")  # imports once
