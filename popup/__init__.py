"""Strong lottery tickets inside Erdos-Renyi networks: frozen random weights, a fixed random mask, learned scores."""

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.training.training import Outcome, fit
from popup.search import attach, densities, detach, merge, scores
from popup.ticket import Ticket, TicketError, compare, extract, load, verify

__all__ = ["Config", "Outcome", "Ticket", "TicketError", "UsageError", "attach", "compare", "densities", "detach",
           "extract", "fit", "load", "merge", "scores", "verify"]
__version__ = "0.1.0"
