"""One run's directory: DIR/<hash of the config>/ with config.json, metrics.jsonl, result.json, ticket and picture.

result.json is written last: where it is, the run is finished.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from popup.errors import UsageError, check_name
from popup.files import append, own_folder, read_regular, remove_own, remove_parts, write_atomically
from popup.lab.config import Config
from popup.lab.measure import ACCURACY, measure_in
from popup.lab.runs.controls import CONTROLS, TICKET
from popup.lab.runs.records import FailureRecord, MetricsRecord, ResultRecord
from popup.lab.runs.schema import Damaged, fitted_fields, parsed, read_lines, read_object
from popup.lab.text import printable

SMALL = 1 << 22  # bytes of config.json and failure.json; the longest of them have a hundredth
ANEW = "remove that run's directory and run it again"
TICKET_FILE = "ticket.safetensors"


class RunDirectory:
    """The directory of one config under `out`. Unless it `writes` (of several ranks the first does), nothing is changed; where it
    is a link, nothing at all."""

    def __init__(self, out: Path, config: Config, writes: bool = True) -> None:
        self.path = out / config.hash()
        self.config, self.writes = config, writes

    @property
    def is_link(self) -> bool:
        """Whether what it holds lies elsewhere, and is there to be read only."""
        return self.path.is_symlink()

    @property
    def ticket(self) -> Path:
        return self.path / TICKET_FILE

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        """Of the dense network alone (popup/lab/runs/dense_weights.py)."""
        return self.path / "weights.safetensors"

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
        path, content = own_folder(self.path) / "config.json", _as_json(self.config.record())
        if not path.is_file() or path.is_symlink() or read_regular(path) != content:
            write_atomically(path, content)

    def add_metrics(self, metrics: dict[str, Any]) -> None:
        """Append one epoch's line."""
        if self.writes:
            append(self.path / "metrics.jsonl", (json.dumps(metrics) + "\n").encode())

    def metrics(self) -> list[dict[str, Any]]:
        """All epochs' metrics of a finished search; a UsageError if that is not what the file holds."""
        return searched_metrics(self.path)

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result: from now on the run is finished."""
        if self.writes:
            append(self.path / "metrics.jsonl", b"", durable=True)  # on the disk before the result that vouches for it
            write_atomically(self.path / "result.json", _as_json(result))
            remove_own(self.path / "failure.json")  # of an attempt before

    def result(self) -> dict[str, Any] | None:
        """The recorded result, None if the run is not finished. A UsageError if the file holds something else."""
        return read_result(self.path, self.config, "remove it to run again")


def _as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def read_result(path: Path, config: Config, remedy: str = ANEW) -> dict[str, Any] | None:
    """What result.json of the run in the directory `path` holds, None if it is not there. A Damaged if that is no result of this
    config."""
    place = path / "result.json"
    try:
        found = read_object(place, ResultRecord, remedy)
    except FileNotFoundError:
        return None
    _check_measured(found, place, remedy)
    if found["hash"] not in (config.hash(), path.name):  # another version's run is in a directory of its name
        raise Damaged(f"{place} is the result of another run (its hash is {found['hash']!r:.40}): {remedy}")
    if not found["layers"] or (config.task.role == TICKET and not found.get("proof")):
        raise Damaged(f"{place} is damaged: {'proof' if found['layers'] else 'layers'} is missing: {remedy}")
    return found


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All epochs' metrics of the run in the directory `path`."""
    try:
        rows = read_lines(path / "metrics.jsonl", MetricsRecord, ANEW)
    except FileNotFoundError:
        raise Damaged(f"{path / 'metrics.jsonl'} is gone: {ANEW}") from None
    for place, row in enumerate(rows, 1):
        _check_measured(row, path / "metrics.jsonl", ANEW, f" (line {place})")
    return rows


def _check_measured(record: dict[str, Any], place: Path, remedy: str, where: str = "") -> None:
    """A Damaged unless the record has the number that its task measures."""
    if measure_in(record) is None:
        raise Damaged(f"{place} is damaged{where}: {ACCURACY.column} is missing: {remedy}")


def searched_metrics(path: Path) -> list[dict[str, Any]]:
    """The same of a finished search, which has at least one epoch, each once, in order and with its losses."""
    found = read_metrics(path)
    whole = found and [row["epoch"] for row in found] == list(range(1, len(found) + 1))
    if not whole or any(row.get(name) is None for row in found for name in ("train_loss", "test_loss")):
        raise Damaged(f"{path / 'metrics.jsonl'} is damaged (it lacks an epoch's numbers, or has some twice): {ANEW}")
    return found


def read_failure(path: Path) -> str | None:
    """Why the run in the directory `path` has failed, None if it has not."""
    try:
        return read_object(path / "failure.json", FailureRecord, ANEW, SMALL)["reason"]
    except FileNotFoundError:
        return None


def read_config(path: Path) -> Config:
    """The config in a run's config.json; every value is of its field's type, and within its bounds."""
    try:
        groups = parsed(read_regular(path, SMALL))
        if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
            raise ValueError("its groups are no objects")
        for group in groups.values():
            fitted_fields(Config.hints(), group)
        found = Config.from_record(groups)
        check_name("role", found.task.role, [TICKET, *CONTROLS])
        return found
    except (ValueError, TypeError, OverflowError) as error:
        said = printable(" ".join(str(error).split()), 300)
        raise Damaged(f"{path} is not a config of this popup ({said}): move that run away") from None


def check_writable(out: Path) -> Path:
    """Make `out` if need be; a UsageError if nothing can be written there. Returns `out`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # which has no name
            pass
    except OSError as error:
        reason = "it is a link to what is not there" if out.is_symlink() and not out.exists() else error.strerror
        raise UsageError(f"cannot write to --out {str(out)!r} ({reason}): name a directory you can write to") from None
    return out
