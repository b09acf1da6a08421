"""How a ticket is searched for inside a given source."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import numpy as np

from popup.errors import check_name, check_number
from popup.search.methods import METHODS
from popup.search.select import SCOPES
from popup.source.layers import Layer
from popup.source.streams import Stream


@dataclass(frozen=True)
class SearchSettings:
    """The method, the scope of its selection and the first scores."""

    method: str = field(default="edge_popup", metadata={"axis": True, "help": "how scores are learned", "choices": tuple(METHODS)})
    scope: str = field(default="layer", metadata={
        "axis": True, "help": "keep the fraction k of each layer's edges, or of the whole network's", "choices": tuple(SCOPES)})
    score_scale: float = field(default=1.0, metadata={
        "help": "first scores are uniform in +-score_scale/sqrt(fan_in)"})

    def __post_init__(self) -> None:
        check_name("method", self.method, METHODS)
        check_name("scope", self.scope, SCOPES)
        check_number("score_scale", self.score_scale, 0.0, inf, open_low=True)


def first_scores(settings: SearchSettings, seed: int, layer: Layer, count: int) -> np.ndarray:
    """One float32 score an edge, uniform in +-score_scale / sqrt(fan_in), from the layer's own stream.

    At score_scale 1 this is the distribution of published edge-popup (kaiming_uniform_ with a = sqrt(5)).
    """
    bound = settings.score_scale / np.sqrt(layer.fan_in)
    words = Stream(seed, "scores", layer.name).words32(count)
    return ((words.astype(np.float64) + 0.5) * (2.0**-31 * bound) - bound).astype(np.float32)
