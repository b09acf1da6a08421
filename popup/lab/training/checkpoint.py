"""Checkpoints: the state of an unfinished run in checkpoint.safetensors, from which it goes on bit for bit.

A sealed file (popup/ticket/sealed.py) of kind "checkpoint". It holds no frozen weight: the config that it belongs to
draws them again, and their hashes are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

from popup.errors import UsageError, check_number
from popup.files import remove_own, write_atomically
from popup.lab.config import Config
from popup.lab.identity import differ, differing, listed
from popup.lab.training.beside import beside, changed
from popup.lab.training.ranks import Ranks
from popup.lab.training.state import TrainingState
from popup.lab.training.stop import Stop, Stopped
from popup.ticket.sealed import SealedError, Tensors, finite, seal, unseal

KIND, FORMAT = "checkpoint", 1
SHARE = 0.02  # of a run's time that checkpoints may take


class CheckpointError(SealedError):
    """The checkpoint is damaged, or of another run: nothing was changed."""


def recorded_of(path: Path) -> dict[str, str]:
    """The fingerprints that a checkpoint records, by the names that a result has them under; empty if it cannot be read."""
    try:
        metadata, _ = unseal(path, KIND, (FORMAT,))
    except (SealedError, OSError):
        return {}
    return {f"{name}_fingerprint": str(metadata.get(name, "")) for name in ("data", "network")}


class Checkpoints:
    """Keeps the checkpoint of one search at `path`, and lets it go on from the one that is there, to the same result bit for bit;
    one of another config, network or other images raises a UsageError. Without a path it keeps none, and only `stop` is heard.

    One is written when `seconds` have passed since the last, yet so seldom that it takes at most SHARE of the time
    (`seconds` 0: after every step), and when the search is interrupted. `told` hears after each step how many epochs are done.
    """

    def __init__(self, path: str | Path | None = None, *, stop: Stop | None = None, seconds: float = 30.0,
                 told: Callable[[float], None] | None = None) -> None:
        if not isinstance(path, (str, Path, type(None))):
            raise UsageError(f"the path of Checkpoints is {path!r:.80}: it must be a text or a pathlib.Path, of a file")
        self.path, self.stop, self.told = Path(path) if path is not None else None, stop or Stop(), told
        self.seconds = check_number("seconds", seconds, 0.0, inf)
        self.stays = False  # whether the state of a whole search is written too
        self._looks = False  # for what steps change that no checkpoint keeps, against what was there before
        self._beside: dict[str, str] = {}
        self.config: Any = None  # of the run, as its file has it, and fingerprints of what it is of: once `of` has said
        self.data = self.network = ""
        self.before = 0.0  # seconds that the run took in processes before this one
        self._began = self._last = time.perf_counter()
        self._cost = 0.0

    def of(self, config: Config, data: str = "", network: str = "", stays: bool = False) -> Checkpoints:
        """These, of a run of that config on what has such fingerprints: a checkpoint of something else is refused. `stays`:
        whether one is there after a whole search too."""
        self.stays = stays
        self.config, self.data, self.network = json.loads(json.dumps(config.record())), data, network
        return self

    def _is_of_this_run(self, record: Any) -> bool:
        """Whether a record is this run's config, also as an earlier version wrote it, without the fields that came later."""
        if record == self.config or self.config is None:
            return bool(record == self.config)
        try:
            return Config.from_record(record).hash() == Config.from_record(self.config).hash()
        except (UsageError, AttributeError, TypeError, ValueError):
            return False

    def check_path(self) -> None:
        """A UsageError if there is no folder that the checkpoint can be written into."""
        if self.path is not None and not (self.path.parent.is_dir() and os.access(self.path.parent, os.W_OK)):
            raise UsageError(f"the checkpoint {self.path} cannot be written: {self.path.parent} is no folder that can be written "
                             "to; make it, or name another path")

    def there(self, ranks: Ranks) -> bool:
        """Whether a checkpoint was written that a run can go on from; rank 0 says so for all `ranks`."""
        return bool(ranks.share(self.path is not None and self.path.exists()))

    def resume(self, state: TrainingState) -> None:
        """Let `state` be the one that was written, if any was. Raises CheckpointError if it is not of this run."""
        if self.there(state.ranks):
            with state.ranks.together():
                self._resume(state)

    def _resume(self, state: TrainingState) -> None:
        try:
            found = state.ranks.share(self._read() if state.ranks.first else None)  # a fault too, or the others would wait
            if isinstance(found, Exception):
                raise found
            metadata, tensors = found
            if not self._is_of_this_run(metadata.get("config")):
                raise SealedError(f"{self.path} is of a run with another config")
            if differ(str(metadata.get("data", "")), self.data):
                raise SealedError(f"{self.path} is of a run on other images than there are now")
            if words := differing(str(metadata.get("network", "")), self.network):
                raise SealedError(f"{self.path} is of a run of another network than there is now, by its {listed(words)} "
                                  "(attributes that begin with _ do not count)")
            seconds = metadata.get("seconds")
            if not (finite(seconds) and seconds >= 0):
                raise ValueError(f"its seconds are {seconds!r:.80}")
            state.restore(metadata, tensors)
        except SealedError as error:
            raise CheckpointError(f"{error}; remove it to begin the run anew") from None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{self.path} is no checkpoint of this run: {reason}; remove it to begin anew") from None
        self.before = float(seconds)

    def _read(self) -> tuple[dict[str, Any], Tensors] | Exception:
        """What the file holds, or why it cannot be read."""
        try:
            return unseal(self.path, KIND, (FORMAT,)) if self.path else SealedError("there is no checkpoint")
        except (SealedError, OSError) as error:
            return error

    def after_step(self, state: TrainingState) -> None:
        """Write if it is time to; raise Stopped if the run is to end. The ranks agree on both, and write before they end."""
        if self.told:
            self.told(state.done / len(state.losses))
        self._tell_what_is_lost(state)
        if state.ranks.count > 1:
            self.agree(state)
            return
        if self.path is not None and self._due() and self.stop.number is None:
            self.write(state)
        self.stop.check()

    def agree(self, state: TrainingState) -> None:
        """What `after_step` does of several ranks, at any place that all of them come to with a state that is whole. A rank that
        is asked to end while it waits for the others is heard at the next place."""
        if state.ranks.count > 1:
            mine = state.ranks.first and self.path is not None  # rank 0 writes, so that its clock and what it takes count
            number, due = state.ranks.highest(self.stop.number or 0, self._due(mine))
            if due or number:
                state.settle()
                self.write(state)
            if number:
                raise Stopped(number)

    def _due(self, clock: bool = True) -> bool:
        """Whether it is time to write: because it was asked for, or by the `clock`."""
        if self.stop.save:
            self.stop.save = False
            return True
        wait = max(self.seconds, self._cost / SHARE) if self.seconds else 0.0
        return clock and time.perf_counter() - self._last >= wait

    def write(self, state: TrainingState) -> None:
        """Replace the checkpoint by the state of now; one that is not finite is not worth keeping."""
        if self.path is None or not state.ranks.first or not state.finite():
            return
        began = time.perf_counter()
        metadata = {**state.record(), "config": self.config, "data": self.data, "network": self.network,
                    "seconds": self.before + began - self._began}
        write_atomically(self.path, seal(KIND, FORMAT, metadata, state.tensors()))
        self._last = time.perf_counter()
        self._cost = self._last - began

    def begin_epoch(self, state: TrainingState) -> None:
        """The next steps are an epoch's, before which a loop may have set something. The network is in training."""
        if self._looks:
            self._beside = beside(state.net)

    def _tell_what_is_lost(self, state: TrainingState) -> None:
        """A warning of what an epoch's steps have changed that no checkpoint holds; looked for after 1, 2, 4, 8, ... of all."""
        if self._looks and not state.done & (state.done - 1) and (names := changed(self._beside, state.net)):
            warnings.warn(f"{listed(names)} of the network changes in a step, which no checkpoint keeps: where forward reads it, "
                          "a search that is broken off ends otherwise than one that is not; a buffer of the state is kept, and a "
                          "generator in an attribute", stacklevel=2)
            self._looks = False

    def finish(self, state: TrainingState) -> None:
        """The search is whole: where the checkpoint stays, the same call gives the same ticket again."""
        if self.stays:
            self.write(state)

    @contextlib.contextmanager
    def guard(self, state: TrainingState) -> Iterator[None]:
        """If the block is stopped, write the state before it ends. Several ranks are stopped where they `agree` only, or one
        would be gone while the others wait for it."""
        self._looks = self.path is not None
        try:
            with self.stop.held() if state.ranks.count > 1 else contextlib.nullcontext():
                yield
        except KeyboardInterrupt:
            if not state.moving and state.ranks.count == 1:
                self.write(state)
            raise

    def remove(self) -> None:
        """The run is finished."""
        if self.path is not None:
            remove_own(self.path)
