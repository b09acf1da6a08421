"""Everything that changes while a network is trained: what a checkpoint holds, and is restored from bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from popup.lab.precision import Precision
from popup.lab.randomness import generator_states, numbers_state, set_generator_states, set_numbers_state
from popup.lab.training.beside import draws_kept_if_it_fails, generator_records, set_generators
from popup.lab.training.churn import Churn
from popup.lab.training.compiled import compiled
from popup.lab.training.ranks import Ranks
from popup.lab.training.temperature import Temperature
from popup.search.network import computing, is_attached, search_of
from popup.search.states import is_search_state
from popup.ticket.hashes import hash_tensor
from popup.ticket.sealed import Tensors

Metrics = dict[str, Any]


class TrainingState:
    """The parameters that learn, their optimiser, the network's buffers, where in which epoch, and the metrics so far.

    `steps`: of an epoch. `frozen`: hashes of what does not change and is drawn again, to be compared on resuming. `hold`: what is
    to be done to a step's gradients before the optimiser sees them.
    The order of the data and their augmentation need no place here: each epoch draws them from its own stream.
    """

    def __init__(self, net: nn.Module, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int,
                 precision: Precision, churn: Churn | None = None, frozen: dict[str, str] | None = None,
                 ranks: Ranks | None = None, hold: Callable[[], None] | None = None,
                 temperature: Temperature | None = None) -> None:
        self.net, self.parameters, self.optimizer = net, parameters, optimizer
        self.ranks, self.hold, self.temperature = ranks or Ranks(), hold, temperature
        self.forward: Callable[[torch.Tensor], torch.Tensor] = self.ranks.wrap(net)  # what a step of training calls
        self.precision, self.churn, self.frozen = precision, churn, frozen or {}
        self.search = search_of(net) if is_attached(net) else None
        self.device = parameters[0].device
        self.epoch, self.step = 0, 0
        self.losses = torch.zeros(steps, device=self.device)  # of this epoch's steps; 0 for those to come
        self.history: list[Metrics] = []
        self.moving = False  # within a step, where parameters and optimiser may be of different moments

    def compile(self) -> None:
        """Let the steps go through torch.compile."""
        self.ranks.check_alone("--compile")
        self.forward = compiled(self.net)

    @property
    def done(self) -> int:
        """Steps of the whole run so far."""
        return self.epoch * len(self.losses) + self.step

    def finish_epoch(self, metrics: Metrics) -> None:
        """Keep the epoch's metrics and go on to the next one."""
        self.history.append(metrics)
        self.epoch, self.step = self.epoch + 1, 0
        self.losses = torch.zeros_like(self.losses)

    def settle(self) -> None:
        """Bring the ranks' losses together: what rank 0 then holds is the state of all."""
        self.losses = self.ranks.mean(self.losses)

    def fingerprint(self) -> str:
        """A hash of the codes, or of the parameters where there is no search: the same on every rank."""
        found = self.churn.search.codes() if self.churn else [parameter.flatten() for parameter in self.parameters]
        return hash_tensor(torch.cat(found))

    def finite(self) -> bool:
        """Whether this epoch's losses and all parameters are finite."""
        learned = [self.temperature.log] if self.temperature else []
        return all(bool(tensor.isfinite().all()) for tensor in (self.losses, *self.parameters, *learned))

    @property
    def compute(self) -> str:
        """How the layers compute, in words."""
        return computing(self.net) if self.search else "dense"

    def record(self) -> dict[str, Any]:
        """What of it is no tensor; metrics as lists of pairs, whose order JSON with sorted keys keeps."""
        return {"epoch": self.epoch, "step": self.step, "history": [list(row.items()) for row in self.history],
                "frozen": self.frozen, "precision": self.precision.name, "compute": self.compute, "numbers": numbers_state(),
                "generators": generator_records(self.net)}

    def tensors(self) -> Tensors:
        """What of it is a tensor, by name, on the CPU."""
        optimiser = {f"optimiser/{place}/{name}": value for place, parameter in enumerate(self.parameters)
                     for name, value in self.optimizer.state.get(parameter, {}).items() if torch.is_tensor(value)}
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in (self._fixed() | optimiser).items()}

    def _fixed(self) -> Tensors:
        """The tensors that are there from the first step on."""
        learned = {name for name, _ in self.net.named_parameters(remove_duplicate=False)}
        found: Tensors = {f"parameter/{place}": parameter for place, parameter in enumerate(self.parameters)}
        found |= {f"buffer/{name}": tensor for name, tensor in self.net.state_dict().items()
                  if isinstance(tensor, torch.Tensor) and name not in learned and not is_search_state(name)}
        found |= {f"churn/{name}": tensor for name, tensor in (self.churn.tensors() if self.churn else {}).items()}
        found |= {f"memory/{name}": tensor for name, tensor in (self.search.memories() if self.search else {}).items()}
        found |= {f"random/{name}": tensor for name, tensor in generator_states(self.device).items()}
        found |= {"temperature": self.temperature.log} if self.temperature else {}
        return found | {"losses": self.losses}

    def restore(self, record: dict[str, Any], tensors: Tensors) -> None:
        """Be the state whose `record()` and `tensors()` these are. Raises ValueError, before anything is changed, if they
        are those of another run."""
        fixed = self._fixed()
        optimiser = {name: tensor for name, tensor in tensors.items() if name.startswith("optimiser/")}
        self._check(record, {name: tensors[name] for name in tensors.keys() - optimiser.keys()}, fixed)
        states = self._optimiser_states(optimiser)
        with draws_kept_if_it_fails(self.net):
            if "numbers" in record:  # files of before have none
                set_numbers_state(record["numbers"])
            if "generators" in record:
                set_generators(self.net, record["generators"])
        with torch.no_grad():
            for name in fixed:
                if name.startswith(("parameter/", "buffer/", "memory/", "losses", "temperature")):
                    fixed[name].copy_(tensors[name])
        for parameter, state in zip(self.parameters, states, strict=True):
            self.optimizer.state[parameter] = state
        if self.churn:
            self.churn.restore({name.removeprefix("churn/"): tensors[name].to(self.device) for name in fixed
                                if name.startswith("churn/")})
        set_generator_states({name: tensors[f"random/{name}"] for name in generator_states(self.device)}, self.device)
        self.epoch, self.step, self.history = record["epoch"], record["step"], [dict(row) for row in record["history"]]

    def _check(self, record: dict[str, Any], found: Tensors, wanted: Tensors) -> None:
        for name in sorted(found.keys() ^ wanted.keys()):
            raise ValueError(f"it {'has' if name in found else 'lacks'} the tensor {name!r}")
        for name, tensor in wanted.items():
            if found[name].shape != tensor.shape or found[name].dtype is not tensor.dtype:
                raise ValueError(f"{name!r} is {found[name].dtype} {list(found[name].shape)}, "
                                 f"not {tensor.dtype} {list(tensor.shape)}")
        counts = [record.get(name) for name in ("epoch", "step")]
        if not all(type(count) is int and count >= 0 for count in counts) or record["step"] > len(self.losses):
            raise ValueError(f"its epoch and step are {counts!r:.80}")
        history = record.get("history")
        rows = isinstance(history, list) and all(dict(row).get("epoch") == place + 1 for place, row in enumerate(history))
        if not rows or not isinstance(history, list) or len(history) != record["epoch"]:
            raise ValueError(f"its metrics are not those of {record['epoch']} epochs")
        if record.get("precision") != self.precision.name:
            raise ValueError(f"it was computed in {record.get('precision')!r:.20}, and --precision auto of this version of popup "
                             f"on this machine would go on in {self.precision.name!r}, to another result: finish it with the "
                             "version and on the machine that began it")
        if record.get("compute", "dense") != self.compute:  # the kernels' name is in it: numba's round otherwise than torch's
            raise ValueError(f"its layers computed {record.get('compute')!r:.60}, and here they would compute {self.compute!r}, "
                             "to another result: finish it with the popup and the packages that it was begun with")
        if record.get("frozen") != self.frozen:
            raise ValueError("the seed gives another source than the one it was written in")

    def _optimiser_states(self, tensors: Tensors) -> list[Tensors]:
        """The optimiser's tensors for each parameter."""
        states: list[Tensors] = [{} for _ in self.parameters]
        for name, tensor in tensors.items():
            _, place, key = name.split("/", 2)
            parameter = self.parameters[int(place)]
            if tensor.shape not in (parameter.shape, ()):
                raise ValueError(f"{name!r} has shape {list(tensor.shape)}, its parameter {list(parameter.shape)}")
            states[int(place)][key] = tensor.to(self.device)
        return states
