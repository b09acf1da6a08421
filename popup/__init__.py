"""Strong lottery tickets inside Erdos-Renyi networks: frozen random weights, a fixed random mask, learned scores."""

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.fit import Outcome, fit
from popup.search import SearchSettings, advance, attach, densities, detach, merge, order_scores, penalty, scores, summary
from popup.source.maskable import register
from popup.source.recipe import Recipe
from popup.ticket import Ticket, TicketError, compare, extract, load, verify
from popup.version import VERSION as __version__

__all__ = ["Checkpoints", "Config", "Outcome", "Recipe", "SearchSettings", "Ticket", "TicketError", "UsageError", "__version__",
           "advance", "attach", "compare", "densities", "detach", "extract", "fit", "load", "merge", "order_scores", "penalty",
           "register", "scores", "summary", "verify"]
