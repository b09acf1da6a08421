"""Learning S_P inside S_ER: exact selection, the parametrization, attaching it to any network."""

from popup.search.attach import attach, attach_recipe, detach, merge
from popup.search.network import LayerDensity, advance, densities, penalty, scores
from popup.search.settings import SearchSettings

__all__ = ["LayerDensity", "SearchSettings", "advance", "attach", "attach_recipe", "densities", "detach", "merge", "penalty",
           "scores"]
