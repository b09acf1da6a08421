"""Existence, by construction: a ticket that approximates a given target, built inside one fixed ER source."""

from popup.theory.construction import Construction, construct
from popup.theory.plan import Plan, make_plan
from popup.theory.reading import read_target
from popup.theory.subset_sum import best_subsets
from popup.theory.target import Target
from popup.theory.wish import Wish

__all__ = ["Construction", "Plan", "Target", "Wish", "best_subsets", "construct", "make_plan", "read_target"]
