"""What the files of a run's directory hold, by type and bound: a field that some version did not write yet has a default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from popup.lab.runs.schema import Bits, Count, Loss, Percent, Positive, Seconds, Share


def absent() -> Any:
    """The default of an object that a file may lack, and that is never null."""
    return None


@dataclass(frozen=True)
class LayerRecord:
    """A layer in result.json: its entries, the p_l asked for, and what was realised; its k, where it has one of its own."""

    name: str
    entries: Positive
    p_l: Share
    edges: Count
    kept: Count
    density: Share
    k: Share | None = None


@dataclass(frozen=True)
class ProofRecord:
    """The proof in a ticket's result.json (popup/ticket/proof.py)."""

    frozen: Count
    changed: list[str]
    outside: list[str]
    miscounted: list[str]
    differing: Count
    predictions: Count
    holds: bool
    redraws: Count = 0
    redrawn: Count = 0
    trained: list[str] = field(default_factory=list)
    misused: list[str] = field(default_factory=list)
    anew: bool = False


@dataclass(frozen=True)
class MaskRecord:
    """What one mask looks like, by layer (popup/lab/training/diagnostics.py)."""

    dead: list[Count]
    effective: list[Count] | None


@dataclass(frozen=True)
class DiagnosticsRecord:
    """Those of S_ER and of S_P, and whether layers follow one another; a control has none."""

    er: MaskRecord = field(default_factory=absent)
    ticket: MaskRecord = field(default_factory=absent)
    series: bool | None = None  # runs of before do not say


@dataclass(frozen=True)
class VersionsRecord:
    """What a result was computed with."""

    popup: str = ""
    python: str = ""
    torch: str = ""
    numpy: str = ""


@dataclass(frozen=True)
class ResultRecord:
    """result.json."""

    hash: str
    epochs: Count
    entries: Positive
    edges: Count
    kept: Count
    edge_density: Share
    final_density: Share
    seconds: Seconds
    layers: list[LayerRecord]
    dense: Count = 0
    role: str = ""
    test_accuracy: Percent | None = None  # one of the two, as the task measures
    test_bits: Bits | None = None
    test_loss: Loss | None = None
    train_loss: Loss | None = None
    realised_precision: str = ""
    realised_compute: str = ""
    diagnostics: DiagnosticsRecord | None = None
    proof: ProofRecord | None = None
    data: str = ""
    data_fingerprint: str = ""
    network_fingerprint: str = ""
    evaluated_on: str = ""
    images: list[Count] = field(default_factory=list)
    classes: Count = 0
    peak_memory: Count | None = None
    ticket_bytes: Count | None = None
    threads: Count = 0
    ranks: Count = 0
    hardware: str = ""
    versions: VersionsRecord = field(default_factory=absent)


@dataclass(frozen=True)
class MetricsRecord:
    """A line of metrics.jsonl; of a search with churn and never_selected."""

    epoch: Count
    test_accuracy: Percent | None = None  # one of the two, as the task measures
    test_bits: Bits | None = None
    test_loss: Loss | None = None
    train_loss: Loss | None = None
    lr: Loss | None = None
    temperature: Loss | None = None  # what logits are multiplied by, where that is learned
    churn: Share | None = None
    never_selected: Share | None = None


@dataclass(frozen=True)
class FailureRecord:
    """failure.json."""

    reason: str
    hash: str = ""
    traceback: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DeathsRecord:
    """.begun, the note of a process that does a cell."""

    times: Count
    progress: int  # ns
