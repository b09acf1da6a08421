"""The generators that others draw from, seeded for a block: torch's, which dropout and the initialisation of unmasked parameters
use, numpy's and Python's, which a user's functions may. The search itself draws from streams of its own."""

from __future__ import annotations

import base64
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from popup.source.streams import Stream

GENERATORS = (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState,
              random.Random)  # that somebody has made


def has_own_draws(value: Any) -> bool:
    """Whether it is a generator with a state that is its own: none of the system's, and none that all draw from."""
    return isinstance(value, GENERATORS) and not isinstance(value, random.SystemRandom) and not any(
        value is each for each in _everybodys())


def _everybodys() -> list[Any]:
    numpys = np.random.mtrand._rand
    return [vars(random)["_inst"], numpys, numpys._bit_generator, torch.default_generator, *torch.cuda.default_generators]


@contextlib.contextmanager
def seeded(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """Within the block torch (on the CPU and `device`), numpy and Python draw from (seed, purpose); the caller's generators go on
    after it."""
    arrays, numbers = np.random.get_state(), random.getstate()
    word = int(Stream(seed, "numbers", purpose).words64(1)[0])
    np.random.seed(word % (1 << 32))
    random.seed(word)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            _seed(int(Stream(seed, "torch", purpose).words64(1)[0]), device)
            yield
    finally:
        np.random.set_state(arrays)
        random.setstate(numbers)


@contextlib.contextmanager
def undrawn(device: torch.device) -> Iterator[None]:
    """What the block draws from torch's generators, numpy's and Python's is given back."""
    generators, arrays, numbers = generator_states(device), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        set_generator_states(generators, device)
        np.random.set_state(arrays)
        random.setstate(numbers)


@contextlib.contextmanager
def building(seed: int) -> Iterator[None]:
    """Within the block a network is built: what of it is no layer's weight (a class token, a fixed projection, what a user's
    function draws otherwise) is drawn from the seed."""
    with seeded(seed, "network", torch.device("cpu")):
        yield


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Within the block a user's module is imported, or a function makes data: what it draws is the same in each process."""
    with seeded(0, "data", torch.device("cpu")), torch.enable_grad():  # which a module may switch off for itself
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


def numbers_state() -> dict[str, Any]:
    """The state of numpy's and Python's generators, as JSON holds it: words of 32 bits in base 64."""
    kind, words, *rest = np.random.get_state()
    version, state, gauss = random.getstate()
    return {"numpy": [kind, _text(words), *rest], "python": [version, _text(state), gauss]}


def set_numbers_state(states: dict[str, Any]) -> None:
    """Let these generators go on from `states`. If they are none, a ValueError, TypeError or KeyError, and nothing is changed."""
    (version, state, gauss), (kind, words, place, *rest) = states["python"], states["numpy"]
    keys = _words(words)
    if type(place) is not int or not 0 <= place <= len(keys):  # numpy would read there
        raise ValueError(f"a state of numpy's generator has {len(keys)} words, and no place {place!r:.20}")
    python, arrays = (version, tuple(_words(state).tolist()), gauss), (kind, keys, place, *rest)
    random.Random().setstate(python)  # tried first
    np.random.RandomState(0).set_state(arrays)
    random.setstate(python)
    np.random.set_state(arrays)


def state_of(generator: Any) -> Any:
    """The state of one of the GENERATORS, as JSON holds it."""
    if isinstance(generator, torch.Generator):
        return base64.b64encode(generator.get_state().numpy().tobytes()).decode()
    if isinstance(generator, np.random.Generator):
        return _plain(generator.bit_generator.state)
    if isinstance(generator, np.random.BitGenerator):
        return _plain(generator.state)
    if isinstance(generator, np.random.RandomState):
        usual = isinstance(generator._bit_generator, np.random.MT19937)
        return _plain(generator.get_state() if usual else generator.get_state(legacy=False))
    return _plain(generator.getstate())


def _plain(state: Any) -> Any:
    """A state with lists in the place of arrays and tuples."""
    if isinstance(state, dict):
        return {name: _plain(part) for name, part in state.items()}
    if isinstance(state, np.ndarray):
        return state.tolist()
    return [_plain(part) for part in state] if isinstance(state, tuple) else state


def words_of(text: str, kind: str = "<u4") -> np.ndarray:
    """The whole numbers of a type that stand in a text of base 64; a ValueError if it is none."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).copy()


def _text(words: Any) -> str:
    return base64.b64encode(np.asarray(words, dtype="<u4").tobytes()).decode()


def _words(text: str) -> np.ndarray:
    return words_of(text).astype(np.uint32)
