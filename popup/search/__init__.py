"""Learning codes inside S_ER: exact selection, methods, the parametrization, attaching it to a network, the watch."""

from popup.search.attach import attach, attach_recipe, detach, merge
from popup.search.network import LayerDensity, advance, densities, penalty, scores
from popup.search.settings import SearchSettings

__all__ = ["LayerDensity", "SearchSettings", "advance", "attach", "attach_recipe", "densities", "detach", "merge", "penalty",
           "scores"]
