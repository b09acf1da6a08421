"""One run's directory: DIR/<hash of the config>/ with config.json, metrics.jsonl, result.json, ticket and picture.

result.json is written last: where it is, the run is finished.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popup.errors import UsageError
from popup.files import remove_parts, write_atomically
from popup.lab.config import Config
from popup.lab.measure import measured
from popup.lab.runs.controls import TICKET

NUMBER = (int, float)
RESULT = {"hash": str, "epochs": int, "entries": int, "edges": int, "kept": int,  # as all have
          "edge_density": NUMBER, "final_density": NUMBER, "seconds": NUMBER, "layers": list}
LAYER = {"name": str, "entries": int, "p_l": NUMBER, "edges": int, "kept": int, "density": NUMBER}
PROOF = {"frozen": int, "changed": list, "outside": list, "miscounted": list, "differing": int, "predictions": int,
         "holds": bool}
METRICS = {"epoch": int, "train_loss": NUMBER, "test_loss": NUMBER}


class RunDirectory:
    """The directory of one config under `out`. Unless it `writes` (of several ranks the first does), nothing is changed."""

    def __init__(self, out: Path, config: Config, writes: bool = True) -> None:
        self.path = out / config.hash()
        self.config, self.writes = config, writes

    @property
    def ticket(self) -> Path:
        return self.path / "ticket.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def picture(self) -> Path:
        return self.path / "training.png"

    def start(self) -> None:
        """Make the directory, with the config and an empty list of metrics (a checkpoint holds those of its epochs)."""
        if self.writes:
            self.write_config()
            remove_parts(self.path)
            write_atomically(self.path / "metrics.jsonl", b"", durable=False)  # `finish` syncs what has come into it

    def write_config(self) -> None:
        """Make the directory with the config alone, if it is not there yet: a run that is planned."""
        self.path.mkdir(parents=True, exist_ok=True)
        path, content = self.path / "config.json", _as_json(self.config.record())
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)

    def add_metrics(self, metrics: dict[str, Any]) -> None:
        """Append one epoch's line."""
        if not self.writes:
            return
        path = self.path / "metrics.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:  # a full disk does not say which file
            raise OSError(error.errno, error.strerror, str(path)) from None

    def metrics(self) -> list[dict[str, Any]]:
        """All epochs' metrics of a finished run; a UsageError if that is not what the file holds."""
        found = read_metrics(self.path)
        if not found or not all(_fits(row, METRICS) and _is_measured(row) for row in found):
            raise UsageError(f"{self.path / 'metrics.jsonl'} is damaged (it lacks an epoch's numbers): remove that run's "
                             "directory and run it again")
        return found

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result: from now on the run is finished."""
        if self.writes:
            with open(self.path / "metrics.jsonl", "ab") as file:  # on the disk before the result that vouches for it
                os.fsync(file.fileno())
            write_atomically(self.path / "result.json", _as_json(result))
            (self.path / "failure.json").unlink(missing_ok=True)  # of an attempt before

    def result(self) -> dict[str, Any] | None:
        """The recorded result, None if the run is not finished. A UsageError if the file holds something else."""
        path = self.path / "result.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UsageError(f"{path} is not JSON ({error}): remove it to run again") from None
        if not self._is_result(found):
            raise UsageError(f"{path} is no result of this run: remove it to run again")
        return found

    def _is_result(self, found: Any) -> bool:
        """Whether it has what is read of one run's result, with this run's hash."""
        proven = self.config.task.role != TICKET or (_fits(found, {"proof": dict}) and _fits(found["proof"], PROOF))
        return (proven and _fits(found, RESULT) and _is_measured(found) and found["hash"] == self.config.hash()
                and all(_fits(row, LAYER) for row in found["layers"]))


def _as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _fits(value: Any, kinds: Mapping[str, Any]) -> bool:
    """Whether `value` is an object with the fields of `kinds`, each of its type."""
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in kinds.items())


def _is_measured(record: Mapping[str, Any]) -> bool:
    """Whether it has the number that its task measures."""
    measure = measured(record)
    return measure is not None and isinstance(record[measure.column], NUMBER)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All epochs' metrics of the run in the directory `path`."""
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise UsageError(f"{path / 'metrics.jsonl'} is damaged ({error}): remove that run's directory and run it again") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file of a run holds, None if it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}): remove that run's directory") from None


def read_config(path: Path) -> Config:
    """The config in a run's config.json."""
    try:
        return Config.from_record(read_json(path))
    except (TypeError, AttributeError, KeyError, UsageError) as error:
        raise UsageError(f"{path} is not a config of this popup ({error}): move that run away") from None


def check_writable(out: Path) -> Path:
    """Make `out` if need be; a UsageError if nothing can be written there. Returns `out`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"cannot write to --out {str(out)!r} ({error.strerror}): name a directory you can write to") from None
    return out
