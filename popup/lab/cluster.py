"""What a cluster is asked for. None of it is part of a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from popup.errors import UsageError, check_count, check_name, check_number

CLUSTERS = ("none", "slurm", "local")
MOST = 1024  # GPUs, nodes, cores of a job
SHORTEST, LONGEST = 0.05, 24.0 * 366  # hours of a job, which is told of its end 90 seconds before


@dataclass(frozen=True)
class Cluster:
    """Submit the grid as jobs, each of them a worker on --out."""

    cluster: str = field(default="none", metadata={
        "help": "through submitit: slurm (a job array), or local (the same as processes of this machine); none: do it here",
        "choices": CLUSTERS})
    partition: str = field(default="", metadata={"help": "SLURM partition; none: the cluster's default"})
    hours: float = field(default=4.0, metadata={
        "help": "time limit of a job; one that reaches it is requeued and goes on from its checkpoint"})
    gpus: int = field(default=0, metadata={"help": "GPUs a job and node; with more than one a run is spread over them"})
    nodes: int = field(default=1, metadata={"help": "nodes a job; with more than one a run is spread over them"})
    cpus: int = field(default=1, metadata={"help": "CPU cores a job, or a GPU of it"})
    memory: float = field(default=0.0, metadata={"help": "GB of memory a job and node; 0: the cluster's default"})
    sbatch: tuple[str, ...] = field(default=(), metadata={
        "help": "further options of sbatch as NAME=VALUE, e.g. account=lab qos=low constraint=a100"})

    def __post_init__(self) -> None:
        check_name("cluster", self.cluster, CLUSTERS)
        check_number("hours", self.hours, SHORTEST, LONGEST)
        check_number("memory", self.memory, 0.0, inf)
        for name, low in (("gpus", 0), ("nodes", 1), ("cpus", 1)):
            if check_count(name, getattr(self, name), low) > MOST:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at most {MOST}")
        for option in self.sbatch:
            if "=" not in option:
                raise UsageError(f"sbatch is {option!r}: give NAME=VALUE, e.g. account=lab")

    def parameters(self, jobs: int) -> dict[str, object]:
        """submitit's parameters for an array of `jobs`."""
        found = {"name": "popup", "timeout_min": max(1, round(self.hours * 60)), "nodes": self.nodes,
                 "tasks_per_node": max(1, self.gpus), "gpus_per_node": self.gpus, "cpus_per_task": self.cpus,
                 "slurm_array_parallelism": jobs}
        further = dict(option.split("=", 1) for option in self.sbatch)
        optional = {"mem_gb": self.memory, "slurm_partition": self.partition, "slurm_additional_parameters": further}
        return found | {name: value for name, value in optional.items() if value}
