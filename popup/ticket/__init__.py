"""The result: extract, save, load, apply, prove."""

from popup.ticket.file import TicketError
from popup.ticket.overlap import Overlap, overlap
from popup.ticket.proof import Proof, prove
from popup.ticket.ticket import Ticket, extract, load
from popup.ticket.verify import Verification, verify

__all__ = ["Overlap", "Proof", "Ticket", "TicketError", "Verification", "extract", "load", "overlap", "prove", "verify"]
