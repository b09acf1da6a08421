"""The options of `python run.py prove`."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from popup.errors import UsageError, check_count, check_name, check_number
from popup.lab.machine import Machine
from popup.lab.runs.existence import BYTES, WEIGHTS
from popup.theory.wish import Wish

NORMALISE = ("channels", "none")
DEPTHS = ("L+1", "2L")
WHOLE = "grid"  # weights of exact tickets' sources, which --bits asks for
FEW_IMAGES, SEEN = 10_000, 300_000  # images of a training set up to which 30 epochs are taken, and else images seen


@dataclass(frozen=True)
class ProveOptions:
    """Build, inside one fixed ER source of one seed, the ticket whose function is within epsilon of a given target network.

    The target is trained here, or read from a file. No weight of the source is redrawn or written: the ticket is bits."""

    er_p: tuple[float, ...] = field(default=(0.9, 0.5, 0.3), metadata={"help": "densities p of the sources"})
    epsilon: float = field(default=0.01, metadata={"help": "largest error of an output over the inputs' domain"})
    delta: float = field(default=0.05, metadata={
        "help": "probability over sources that some parameter of an output misses its tolerance, or a hidden neuron has too few "
                "good copies: sources are planned as wide as the measured odds ask for"})
    certain: bool = field(default=False, metadata={
        "help": "plan for the proof, and take nothing less: what is certain from the chosen edges, for the whole domain, has to "
                "be within epsilon"})
    tolerance: float = field(default=0.0, metadata={
        "help": "error that the parameters are built to, in place of the budget that is planned from epsilon; then nothing but "
                "what is certain is promised of the output, and --delta plays no part; 0: the budget"})
    bits: int = field(default=0, metadata={
        "help": "exact ticket: the target's weights are rounded to so many bits (multiples of a power of two), and made of a "
                "source of whole numbers without error; needs --normalise none; 0: no"})
    depth: str = field(default="L+1", metadata={
        "help": "depth of the source for a target of depth L: L+1, with copies of each hidden neuron, or 2L, with one and a "
                "layer of univariate copies before each layer", "choices": DEPTHS})
    copies: int = field(default=0, metadata={
        "help": "width factor q: copies of each neuron, in all layers; 0: as many as are planned"})
    weights: str = field(default="uniform", metadata={
        "help": "the source's weights: uniform in [-1, 1], or normal with deviation sqrt(2 / (fan_in p)); such a ticket "
                "computes a known multiple of the target", "choices": tuple(name for name in WEIGHTS if name != WHOLE)})
    seed: int = field(default=0, metadata={"help": "seed of the target, and of the first source"})
    seeds: int = field(default=1, metadata={"help": "sources at each p, of seeds counted up from --seed"})
    model: str = field(default="mlp", metadata={
        "help": "target network: linear and convolutional layers with ReLU, leaky ReLU, tanh or sigmoid between, pooling, "
                "residual sums and batch norms, by name, MODULE:FUNCTION, or chain:WORDS such as "
                "chain:conv3p1-relu-max2-flatten-linear (with --widths 8)"})
    widths: tuple[int, ...] = field(default=(), metadata={
        "help": "hidden widths or channels of the target; none: the network's own (mlp: 16 16)"})
    dataset: str = field(default="digits", metadata={"help": "data set of the target"})
    normalise: str = field(default="channels", metadata={
        "help": "what is done to images of bytes: mean 0 and deviation 1 in each channel, or nothing", "choices": NORMALISE})
    domain: tuple[float, ...] = field(default=(), metadata={
        "help": "LOW HIGH, the inputs' domain: every value of an input lies between them; none: what the images span"})
    target: str = field(default="", metadata={
        "help": "safetensors file with the target's state_dict, for images normalised as runs do; none: it is trained here"})
    epochs: int = field(default=0, metadata={
        "help": f"epochs of the target's training; 0: 30, or of more than {FEW_IMAGES:,} images as many as see {SEEN:,}"})
    batch_size: int = field(default=0, metadata={
        "help": f"images a step of that; 0: 32, or of more than {FEW_IMAGES:,} images 128"})
    weight_decay: float = field(default=0.01, metadata={
        "help": "weight decay of the target's training: weights that are too large cannot be built"})
    compare: int = field(default=5, metadata={
        "help": "epochs in which edge-popup searches the first source of each p, for comparison; 0: no comparison"})
    most_weights: int = field(default=1_000_000_000, metadata={
        "help": f"most weights of a source that is built (some {BYTES:g} bytes of memory for each of its edges at the peak)"})
    device: str = field(default="cpu", metadata={"help": "where networks are trained and evaluated"})
    threads: int = field(default=0, metadata={
        "help": "CPU threads, of which the target's training takes no more than a run on the data by itself would; 0: as many "
                "as that, two for the subset sums"})
    data_dir: str = field(default=Machine.data_dir, metadata={"help": "directory of data sets"})
    out: str = field(default="existence", metadata={"help": "directory of the tickets and of existence.json"})

    def __post_init__(self) -> None:
        if not self.er_p:
            raise UsageError("--er-p has no value: give one or more")
        for p in self.er_p:
            check_number("er_p", p, 0.0, 1.0, open_low=True)
        check_number("epsilon", self.epsilon, 0.0, inf, open_low=True)
        check_number("delta", self.delta, 1e-9, 0.5)
        check_number("tolerance", self.tolerance, 0.0, 1.0)
        check_name("weights", self.weights, WEIGHTS)
        check_name("depth", self.depth, DEPTHS)
        check_name("normalise", self.normalise, NORMALISE)
        for name, low in (("copies", 0), ("seed", 0), ("seeds", 1), ("epochs", 0), ("compare", 0), ("most_weights", 1),
                          ("threads", 0), ("bits", 0), ("batch_size", 0)):
            check_count(name, getattr(self, name), low)
        if self.domain and (len(self.domain) != 2 or not -inf < self.domain[0] < self.domain[1] < inf):
            raise UsageError(f"domain is {' '.join(f'{value:g}' for value in self.domain)}: give two numbers, the lower first")
        self._check_bits()

    def _check_bits(self) -> None:
        """A UsageError for what makes no exact ticket."""
        if self.bits and not 2 <= self.bits <= 8:
            raise UsageError(f"bits is {self.bits}: give 2 to 8, or 0 for no exact ticket")
        if self.bits and (self.normalise != "none" or self.tolerance or self.weights != "uniform"):
            raise UsageError(f"bits is {self.bits}, and exact sums need --normalise none, no --tolerance and no --weights: the "
                             "source's are whole numbers")
        if self.certain and self.tolerance:
            raise UsageError("certain plans for epsilon, and with --tolerance there is none: leave one of them out")

    @property
    def wish(self) -> Wish:
        """What the construction is asked for."""
        return Wish(self.epsilon, self.tolerance, self.delta, self.copies, self.weights, self.depth == "2L", self.certain)

    @property
    def raw(self) -> bool:
        """Whether images go into networks as they are."""
        return self.normalise == "none"

    @property
    def source_weights(self) -> str:
        return WHOLE if self.bits else self.weights

    def training_for(self, images: int) -> dict[str, int]:
        """Epochs and batch size of the target's training on so many images."""
        few = images <= FEW_IMAGES
        epochs, together = (30, 32) if few else (max(1, SEEN // images), 128)
        return {"epochs": self.epochs or epochs, "batch_size": self.batch_size or together}
