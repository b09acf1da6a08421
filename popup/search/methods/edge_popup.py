"""Ramanujan et al., *What's Hidden in a Randomly Weighted Neural Network?*, CVPR 2020, arXiv 1911.13299, section 3."""

from popup.search.methods.method import Method


class EdgePopup(Method):
    """The edges with the largest |s| of each layer are kept, and the gradient passes the selection straight through:

        ds = (dL/dW_eff * W) * sign(s)

    Differences: exactly n_l edges are kept (published code keeps ties or is off by one through float error); with
    rank='value' the largest s are kept, as in the paper's text, and ds has no sign(s); k may be annealed (`anneal`), and while
    more than the ticket's edges are kept W, and so ds, is multiplied by sqrt(k / k_now).
    """

    edgewise = True
