"""What `prove` prints of its tickets."""

from __future__ import annotations

from collections.abc import Sequence

from popup.lab.report.tables import table
from popup.lab.runs.existence import BROKEN, MISSED, PROVED, TESTED, Built
from popup.lab.runs.rival import Found
from popup.lab.runs.targets import Trained
from popup.theory.wish import Wish


def promise(wish: Wish) -> str:
    """What gaps are held against; whatever it is, none may be above what is certain."""
    return f"epsilon {wish.epsilon:g}" if wish.promised else "what is certain"


def verdict_line(seed: int, built: Built, verdict: str, wish: Wish) -> str:
    """One source's: which of the three words, accuracy, gaps with their counts."""
    words = {PROVED: f"proved within {promise(wish)} for the whole domain", TESTED: f"tested within {promise(wish)}",
             MISSED: f"MISSED {'the proof of ' if wish.certain else ''}{promise(wish)}",
             BROKEN: "BROKEN: a gap is above what is certain"}
    gaps = "; ".join(f"{name} {gap.largest:.2g} ({gap.mean:.1g}, {gap.inputs:,})" for name, gap in built.gaps.items())
    return (f"seed {seed}: {words[verdict]}, accuracy {built.accuracy:.2f}%\n"
            f"  |f_T - f_P|, largest (mean, inputs): {gaps}; certain for the whole domain: "
            f"{built.construction.guaranteed:.2g}")


def summary_line(verdicts: Sequence[str], wish: Wish) -> str:
    """How many sources are what, against what was planned."""
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in (PROVED, TESTED, MISSED, BROKEN) if word in verdicts)
    planned = f", planned for at most {100 * wish.delta:g}% of sources" if wish.promised else ""
    lost = sum(word in (MISSED, BROKEN) for word in verdicts)
    return f"misses of {promise(wish)}: {lost} of {len(verdicts)} sources ({counts}){planned}"


def fit_table(built: Built) -> str:
    """How well the parameters of each layer are met, over all their copies."""
    rows = [[str(place + 1), f"{fit.parameters:,}", f"{fit.candidates:.1f}", f"{fit.edges:.1f}", f"{fit.tolerance:.1e}",
             f"{100 * fit.met:.1f}", f"{fit.largest:.1e}"] for place, fit in enumerate(built.construction.fits)]
    return table(["layer", "parameters", "candidates", "edges", "tolerance", "met %", "largest error"], rows)


def comparison(trained: Trained, built: Built, found: Found | None, epochs: int) -> str:
    """The target, the built ticket and the one that edge-popup found in the same source, side by side."""
    layers = built.ticket.layers
    entries, edges = sum(layer.spec.entries for layer in layers), sum(len(layer.codes) for layer in layers)
    kept, parameters = sum(layer.kept for layer in layers), f"{trained.target.parameters:,}"
    rows = [["target, trained", f"{trained.accuracy:.2f}", parameters, "", parameters, "1.0000", f"{trained.seconds:.0f}"],
            ["ticket, built", f"{built.accuracy:.2f}", f"{entries:,}", f"{edges:,}", f"{kept:,}", f"{kept / entries:.4f}",
             f"{built.seconds:.0f}"]]
    if found:
        name = f"edge-popup, {epochs} epoch{'s' * (epochs > 1)}"
        own = sum(layer.kept for layer in found.ticket.layers)
        rows.append([name, f"{found.accuracy:.2f}", f"{entries:,}", f"{edges:,}", f"{own:,}", f"{own / entries:.4f}",
                     f"{found.seconds:.0f}"])
    return table(["", "accuracy %", "weights", "edges", "kept", "density", "CPU s"], rows)
