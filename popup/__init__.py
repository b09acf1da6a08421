"""popup finds strong lottery tickets inside Erdos-Renyi networks: frozen random weights, a fixed random mask, learned scores."""

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.training import Outcome, fit
from popup.search import attach, densities, detach, merge, scores
from popup.ticket import Ticket, TicketError, extract, load, overlap, verify

__all__ = ["Config", "Outcome", "Ticket", "TicketError", "UsageError", "attach", "densities", "detach", "extract",
           "fit", "load", "merge", "overlap", "scores", "verify"]
__version__ = "0.1.0"
