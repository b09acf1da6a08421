"""The search methods, one a file: how scores become the codes of a ticket. A new one is a file here and a line below."""

from collections import ChainMap
from collections.abc import Mapping

from popup.search.methods.averaged import Averaged
from popup.search.methods.biprop import Biprop
from popup.search.methods.coats import Coats
from popup.search.methods.draws import SlotMachine
from popup.search.methods.edge_popup import EdgePopup
from popup.search.methods.frozen import Frozen
from popup.search.methods.gates import Gates
from popup.search.methods.gem_miner import GemMiner
from popup.search.methods.iterand import Iterand
from popup.search.methods.method import Method
from popup.search.methods.random import Random
from popup.search.methods.sampled import Sampled
from popup.search.methods.signed import Signed

METHODS: dict[str, type[Method]] = {
    "edge_popup": EdgePopup, "averaged": Averaged, "frozen": Frozen, "biprop": Biprop, "iterand": Iterand,
    "gem_miner": GemMiner, "sampled": Sampled, "gates": Gates, "signed": Signed, "coats": Coats,
    "draws": SlotMachine, "random": Random}

BUILT = "built"  # no search: the ticket's mask was chosen by other means (popup/theory), and there are no scores
TICKET_METHODS: Mapping[str, type[Method]] = ChainMap({BUILT: Method}, METHODS)  # what is added to METHODS is in it too
