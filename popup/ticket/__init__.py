"""The result: extract, save, load, apply, prove."""

from popup.ticket.file import TicketError
from popup.ticket.overlap import Overlap, compare
from popup.ticket.proof import Proof, prove
from popup.ticket.sparse import left_dense, load_sparse, sparse_layers
from popup.ticket.sparse_linear import SparseLinear
from popup.ticket.ticket import Ticket, extract, load
from popup.ticket.trainable import release
from popup.ticket.verification import Verification, verify

__all__ = ["Overlap", "Proof", "SparseLinear", "Ticket", "TicketError", "Verification", "compare", "extract", "left_dense",
           "load", "load_sparse", "prove", "release", "sparse_layers", "verify"]
