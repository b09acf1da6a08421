"""Learning codes inside S_ER: exact selection, methods, the parametrization, attaching it to a network, the watch."""

from popup.search.attach import attach, attach_recipe
from popup.search.density import Densities, LayerDensity
from popup.search.network import advance, densities, penalty, scores
from popup.search.ordering import order_scores
from popup.search.plain import detach, merge
from popup.search.settings import SearchSettings
from popup.search.summary import Summary, summary

__all__ = ["Densities", "LayerDensity", "SearchSettings", "Summary", "advance", "attach", "attach_recipe", "densities", "detach",
           "merge", "order_scores", "penalty", "scores", "summary"]
