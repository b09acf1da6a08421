"""Diffenderfer and Kailkhura, *Multi-Prize Lottery Ticket Hypothesis*, ICLR 2021, arXiv 2103.09377, algorithm 1."""

from popup.search.methods.method import Method
from popup.source.books import BINARY


class Biprop(Method):
    """Binary weights: W_eff = alpha_l * sign(W) * S_P with one scale a layer, alpha_l = |W * S_P|_1 / |S_P|_1,

    recomputed from the edges that are kept now. ds = (dL/dW_eff * W) * sign(s), straight through the selection and the
    binarisation, as in the authors' code (github.com/chrundle/biprop, utils/conv_type.py): by each edge's own W, not by
    the alpha_l * sign(W) of the forward pass. With signed_constant weights it is edge_popup. Difference: activations are
    not binarised.
    """

    book = BINARY
