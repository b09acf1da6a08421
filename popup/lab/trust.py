"""Which names run code of a file's choice: that is done only where the user names it too, or says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

SAFE = {"model": re.compile(r"\w+|(torchvision|timm):[\w.]+|chain:[\w.-]+"),  # what imports no module of a file's choice
        "dataset": re.compile(r"\w+|folder:.+|text:.*", re.DOTALL)}


def code_in(model: Any, dataset: Any) -> tuple[str, ...]:
    """Those of the two names which import and run a function."""
    return tuple(str(name) for kind, name in (("model", model), ("dataset", dataset))
                 if not (isinstance(name, str) and SAFE[kind].fullmatch(name)))


@dataclass(frozen=True)
class Trust:
    """The functions MODULE:FUNCTION that files may name, or `all` of them."""

    names: frozenset[str] = frozenset()
    all: bool = False

    def lacks(self, model: str, dataset: str) -> tuple[str, ...]:
        """Those of the two names which are not to be run."""
        return () if self.all else tuple(name for name in code_in(model, dataset) if name not in self.names)
