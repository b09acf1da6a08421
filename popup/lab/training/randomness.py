"""torch's own generator, which dropout and the initialisation of unmasked parameters draw from, seeded for a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from popup.source.streams import Stream


@contextlib.contextmanager
def seeded(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """Within the block torch draws from (seed, purpose), on the CPU and `device`; the caller's generators go on after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _seed(int(Stream(seed, "torch", purpose).words64(1)[0]), device)
        yield


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
