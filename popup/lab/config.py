"""The configuration of one run: frozen dataclasses that are the command line's options, the record, and its hash."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from math import inf
from typing import Any, get_origin, get_type_hints

from popup.errors import UsageError, check_count, check_flag, check_name, check_number
from popup.lab.precision import PRECISIONS
from popup.search.compute import COMPUTES
from popup.search.settings import SearchSettings
from popup.source.recipe import LATER, Recipe, as_before

LONGEST_NAME = 1 << 14  # letters of a data set or a model, which may be a chain of words
LARGEST_SIDE = 4096  # of an image, pixels: one then takes 50 MB, and a batch of 32 in float 6 GB
OPTIMIZERS = ("sgd", "adam", "sign")
FIXED, LEARNED = "fixed", "learned"
AUGMENTATIONS = ("crop", "flip", "resized_crop", "cutout")


@dataclass(frozen=True)
class TaskSettings:
    """What is learned by which network."""

    dataset: str = field(default="digits", metadata={
        "help": "data set, one of those below, folder:PATH for any folder with train/CLASS/ and test/CLASS/ (or val/CLASS/) "
                "images, text:FILE for the bytes of a UTF-8 text (text: alone: one that is embedded), or "
                "my_package.my_module:load for a function that returns tensors; known are"})
    image_size: int = field(default=0, metadata={
        "help": "folder data sets: resize the shorter side of each image to this and cut out the middle; 0: as they are, "
                "which must be of one size; texts: bytes of context, 0: 64"})
    validation: float = field(default=0.0, metadata={
        "help": "fraction of each class's training images to hold out: accuracy is then measured on these and the test data "
                "are not used, as whatever selects something must do; of a text its end"})
    model: str = field(default="mlp", metadata={
        "help": "network, one of those below, torchvision:NAME, timm:NAME, chain:WORDS for layers one by one (as in "
                "conv3p1-relu-max2-flatten-linear, with --widths), or my_package.my_module:build for a function of (image "
                "[channels, height, width], classes); known are", "axis": True})
    widths: tuple[int, ...] = field(default=(), metadata={
        "help": "hidden widths or channels of the network; none: the network's own (mlp: 256 256)"})
    width: float = field(default=1.0, metadata={
        "help": "factor on all hidden widths and channels, rounded to whole ones; wide_resnet28: its widening factor"})

    role: str = field(default="ticket", metadata={
        "hidden": True, "help": "ticket, or the control that this run is (popup/lab/runs/controls.py)"})

    @property
    def evaluated_on(self) -> str:
        """What accuracies are of: the test data, or the part of the training data that is held out."""
        return "validation" if self.validation else "test"

    def __post_init__(self) -> None:
        for name in ("dataset", "model"):
            if len(getattr(self, name)) > LONGEST_NAME:
                raise UsageError(f"{name} has {len(getattr(self, name)):,} letters: at most {LONGEST_NAME:,} are allowed")
        for width in self.widths:
            check_count("a width", width)
        check_number("width", self.width, 0.0, 1000.0, open_low=True)
        if check_count("image_size", self.image_size, 0) > LARGEST_SIDE:
            raise UsageError(f"image_size is {self.image_size}: it must be at most {LARGEST_SIDE}")
        check_number("validation", self.validation, 0.0, 0.9)


@dataclass(frozen=True)
class TrainingSettings:
    """How the scores are learned: by an optimiser with momentum, a linear warm-up, then a cosine down to 0."""

    epochs: int = field(default=30, metadata={"help": "passes over the training data"})
    batch_size: int = field(default=32, metadata={"help": "images a step; what is left over in an epoch is not used"})
    lr: float = field(default=0.1, metadata={
        "help": "highest learning rate of the scores; gem_miner: times 10, gates: 100, sampled: 1000, their scores being "
                "larger"})
    weight_lr: float = field(default=0.05, metadata={
        "help": "highest learning rate of the weights in controls that train them"})
    finetune_epochs: int = field(default=0, metadata={
        "help": "epochs of fine-tuning in controls that prune the trained dense network, by the same course of the rate; 0: as "
                "many as --epochs", LATER: 0})
    optimizer: str = field(default="sgd", metadata={
        "help": "what moves the scores; adam (its weight decay decoupled) and sign (of the momentum) want another --lr, some "
                "0.001 to 0.003; controls train weights by sgd in any case", "choices": OPTIMIZERS, LATER: "sgd"})
    momentum: float = field(default=0.9, metadata={
        "help": "momentum of the optimiser (of adam its first beta), in [0, 1), and of controls that train weights"})
    weight_decay: float = field(default=0.0, metadata={
        "help": "weight decay of the scores, and of the weights in controls that train them"})
    warmup: float = field(default=0.0, metadata={"help": "epochs of linear warm-up from 0; may be fractional"})
    precision: str = field(default="auto", metadata={
        "help": "auto: bf16 for networks of a million multiply-adds and more where it is known to be faster (GPUs from compute "
                "capability 8.0, processors with AMX, AMD with AVX512-BF16), else fp32; `bench` measures both",
        "choices": PRECISIONS})
    compute: str = field(default="auto", metadata={
        "help": "how a search's layers compute on the CPU: sparse, on the edges alone without a dense weight (linear layers, and "
                "with numba convolutions), dense, or auto: sparse where that is faster, by a rule of shape, density and "
                "precision (docs/speed.md). Other float noise, so other tickets", "choices": COMPUTES, LATER: "dense"})
    temperature: str = field(default=FIXED, metadata={LATER: FIXED, "choices": (FIXED, LEARNED), "help": (
        "fixed, or learned: one float, which the loss multiplies logits by, learns beside the scores and is recorded with the "
        "ticket; it changes no prediction")})
    accumulate: int = field(default=1, metadata={
        "help": "do each batch in so many parts and add up their gradients: less memory, the same step (but each part has "
                "its own batch norm statistics and its own draws, where a method draws)"})
    sync_norm: bool = field(default=True, metadata={
        "help": "under torchrun, batch norms take the statistics of the whole batch; without, each rank those of its part"})
    compile: bool = field(default=False, metadata={
        "help": "steps through torch.compile, as one graph: a minute or more to begin with, and other float noise"})
    label_smoothing: float = field(default=0.1, metadata={"help": "label smoothing of the cross-entropy, in [0, 1)"})
    augment: tuple[str, ...] = field(default=(), metadata={
        "help": "augmentations, any of (in another order the same training under another name): "
                "crop (shift by up to an eighth of each side), flip (left-right), "
                "resized_crop (8% to 100% of the area, resized to the whole side, as is usual for ImageNet), "
                "cutout (a square of half the shorter side at a random place becomes the mean)"})

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("finetune_epochs", self.finetune_epochs, 0)
        check_name("precision", self.precision, PRECISIONS)
        check_name("compute", self.compute, COMPUTES)
        check_name("optimizer", self.optimizer, OPTIMIZERS)
        check_name("temperature", self.temperature, (FIXED, LEARNED))
        check_count("batch_size", self.batch_size, 2)
        if self.compile and self.compute == "sparse":
            raise UsageError("compute is 'sparse' with compile, which takes dense weights: leave one of them out")
        check_count("accumulate", self.accumulate)
        check_number("lr", self.lr, 0.0, inf, open_low=True)
        check_number("weight_lr", self.weight_lr, 0.0, inf, open_low=True)
        check_number("momentum", self.momentum, 0.0, 0.999999)
        check_number("weight_decay", self.weight_decay, 0.0, inf)
        check_number("warmup", self.warmup, 0.0, float(self.epochs))
        check_number("label_smoothing", self.label_smoothing, 0.0, 0.999999)
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise UsageError(f"unknown augmentation {name!r}: allowed are {', '.join(AUGMENTATIONS)}")


@dataclass(frozen=True)
class Config:
    """One run. Two equal configs find the same ticket, bit for bit, on the same machine."""

    source: Recipe = field(default_factory=Recipe)
    search: SearchSettings = field(default_factory=SearchSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def record(self) -> dict[str, Any]:
        """The config as nested plain values."""
        return asdict(self)

    def hash(self) -> str:
        """The name of the run's directory: 12 hex digits of the SHA-256 of the record, without the fields that came later
        and are what runs did before them, so that these keep their names."""
        later = self.search.as_before().union(*map(as_before, vars(self).values()))
        named = {group: {name: value for name, value in values.items() if name not in later}
                 for group, values in self.record().items()}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """The type of each field of the groups, by name."""
        return {name: hint for group in fields(cls) for name, hint in get_type_hints(group.default_factory).items()}

    def flat(self) -> dict[str, Any]:
        """The fields of all groups by name."""
        return {part.name: getattr(group, part.name) for group in vars(self).values() for part in fields(group)}

    def asked(self) -> dict[str, Any]:
        """`flat`, in the words that ask for least, as a comparison names its settings."""
        return self.flat() | self.search.asked()

    def replace(self, **changes: Any) -> Config:
        """The config with some fields, of whichever groups, changed."""
        return Config.from_flat({**self.flat(), **changes})

    @classmethod
    def from_flat(cls, values: dict[str, Any]) -> Config:
        """The config whose fields, of whichever group, have `values`; the others keep their defaults. A UsageError for a name
        that is no field's, and where a tuple, or True or False, is wanted and something else given."""
        groups, left = dict[str, Any](), {name: _as_wanted(name, value) for name, value in values.items()}
        for group in fields(cls):
            kind: Any = group.default_factory
            groups[group.name] = kind(**{part.name: left.pop(part.name) for part in fields(kind) if part.name in left})
        for name in left:
            check_name("field of a config", name, _hints())
        return cls(**groups)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Config:
        """The config of a `record()`, lists read from JSON made tuples again. A UsageError for a field that is not known."""
        flat = {name: tuple(value) if isinstance(value, list) else value
                for group in record.values() for name, value in group.items()}
        for name in flat.keys() - cls().flat().keys():
            raise UsageError(f"the config has the field {name!r}, which this popup does not know: a later version wrote it?")
        before = {part.name: part.metadata[LATER] for group in vars(cls()).values() for part in fields(group)
                  if LATER in part.metadata}
        return cls.from_flat(before | flat)


@functools.cache
def _hints() -> dict[str, Any]:
    return Config.hints()


def _as_wanted(name: str, value: Any) -> Any:
    """The value of a field, a list as a tuple."""
    wanted = _hints().get(name)
    if wanted is bool:
        check_flag(name, value)
    if get_origin(wanted) is tuple and not isinstance(value, tuple):
        if not isinstance(value, list):
            raise UsageError(f"{name} is {value!r:.80}: give a tuple, as {name}=({value!r:.80},)")
        return tuple(value)
    return value
