"""The result: extract, save, load, apply, prove."""

from popup.ticket.file import TicketError
from popup.ticket.proof import Proof, prove
from popup.ticket.ticket import Ticket, extract, load

__all__ = ["Proof", "Ticket", "TicketError", "extract", "load", "prove"]
