"""The result: extract, save, load, apply, prove."""

from popup.ticket.file import TicketError
from popup.ticket.overlap import Overlap, compare
from popup.ticket.proof import Proof, prove
from popup.ticket.ticket import Ticket, extract, load
from popup.ticket.verification import Verification, verify

__all__ = ["Overlap", "Proof", "Ticket", "TicketError", "Verification", "compare", "extract", "load", "prove", "verify"]
