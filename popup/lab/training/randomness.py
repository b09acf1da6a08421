"""torch's own generator, which dropout and the initialisation of unmasked parameters draw from, seeded for a block; and those of
numpy and Python, which a user's function may draw a network from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from popup.source.streams import Stream


@contextlib.contextmanager
def seeded(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """Within the block torch draws from (seed, purpose), on the CPU and `device`; the caller's generators go on after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _seed(int(Stream(seed, "torch", purpose).words64(1)[0]), device)
        yield


@contextlib.contextmanager
def building(seed: int) -> Iterator[None]:
    """Within the block a network is built: torch, numpy and Python draw from the seed what is no layer's weight (a class token, a
    fixed projection, what a user's function draws otherwise); the caller's generators go on after it."""
    arrays, numbers = np.random.get_state(), random.getstate()
    word = int(Stream(seed, "numbers", "network").words64(1)[0])
    np.random.seed(word % (1 << 32))
    random.seed(word)
    try:
        with seeded(seed, "network", torch.device("cpu")):
            yield
    finally:
        np.random.set_state(arrays)
        random.setstate(numbers)


def _seed(word: int, device: torch.device) -> None:
    """Seed the CPU's generator and that of `device`. torch.manual_seed would seed those of all GPUs, which nobody gives back."""
    torch.default_generator.manual_seed(word)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(word)
    elif device.type != "cpu":  # of a kind that fork_rng does not keep either
        torch.manual_seed(word)


def generator_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's generators as bytes."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_generator_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Let the generators go on from `states`."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
