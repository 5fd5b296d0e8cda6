"""The processes of the GPU side as one group: who this is, and how the processes exchange values.

`accelerate launch` starts them, one for each GPU. The first one, the lead, does the job's stages
and writes its records. The others follow it (`nlijob.gpu.following`). A group of one exchanges
nothing.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")

LIMIT_S = 600.0
"""Longest time that a process waits for the others in an exchange of tensors. In each, all have the
same amount of work, so they arrive within seconds of each other."""
IDLE = datetime.timedelta(days=30)
"""Longest time that a process waits for its next piece of work. It may be long; a process that has
died is noticed at once, and one that hangs by `nlijob.gpu.heartbeat`."""


class Group:
    """A group of one process: its exchanges return what they are given."""

    rank = 0
    """Number of this process, from 0; 0 is the lead."""
    size = 1
    """Number of processes."""
    local_rank = 0
    """Number of this process on its host, which is the number of its GPU."""
    device = torch.device("cpu")
    """Where tensors that are exchanged must be; a group of one accepts any."""
    in_step = False
    """Whether all processes must make the same forward passes at the same time, because the
    model's weights are divided between them (see `nlijob.gpu.sharded`)."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    @property
    def is_lead(self) -> bool:
        """Whether this process does the stages and writes the records."""
        return self.rank == 0

    @property
    def is_shared(self) -> bool:
        """Whether there are other processes."""
        return self.size > 1

    def share(self, value: T) -> T:
        """The lead's value, which is an object that can be pickled, in every process."""
        return value

    def gather(self, value: T) -> list[T]:
        """Every process's value by rank, in every process."""
        return [value]

    def collect(self, value: T) -> list[T]:
        """Every process's value by rank in the lead, and nothing in the others."""
        return [value]

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor on the group's device by the sum over all processes; may be captured."""

    def send(self, tensor: Tensor) -> None:
        """Replace a tensor on the group's device by the lead's."""

    def count(self, name: str) -> int:
        """How often any process has asked for this count before: each gets a number of its own."""
        counts = self._counts
        counts[name] = counts.get(name, -1) + 1
        return counts[name]


class ProcessGroup(Group):
    """A group of several processes, joined by torch.distributed: gloo, and NCCL between GPUs."""

    def __init__(self, device: str, environment: Mapping[str, str] = os.environ) -> None:
        """Join the group that the launcher's variables describe. `device`: "cpu" or "cuda"."""
        super().__init__()
        self.rank = int(environment["RANK"])
        self.size = int(environment["WORLD_SIZE"])
        self.local_rank = int(environment["LOCAL_RANK"])
        self.host = socket.gethostname()
        limit = datetime.timedelta(seconds=LIMIT_S)
        if device == "cuda":
            self.device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(self.device)
            backend = "cpu:gloo,cuda:nccl"
            distributed.init_process_group(backend, timeout=limit, device_id=self.device)
        else:
            distributed.init_process_group("gloo", timeout=limit)
        self._objects = distributed.new_group(backend="gloo", timeout=IDLE)
        self.store = distributed.distributed_c10d._get_default_store()
        """Keys and values that all processes see, kept by the launcher of the first host."""

    def share(self, value: T) -> T:
        """See `Group`."""
        values: list[Any] = [value]
        distributed.broadcast_object_list(values, src=0, group=self._objects)
        shared: T = values[0]
        return shared

    def gather(self, value: T) -> list[T]:
        """See `Group`."""
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self._objects)
        return values

    def collect(self, value: T) -> list[T]:
        """See `Group`."""
        values: list[Any] | None = [None] * self.size if self.is_lead else None
        distributed.gather_object(value, values, dst=0, group=self._objects)
        return values or []

    def sum(self, tensor: Tensor) -> None:
        """See `Group`."""
        distributed.all_reduce(tensor)

    def send(self, tensor: Tensor) -> None:
        """See `Group`."""
        distributed.broadcast(tensor, src=0)

    def count(self, name: str) -> int:
        """See `Group`."""
        return int(self.store.add(f"count/{name}", 1)) - 1


ALONE = Group()
"""A process that works by itself."""


def join(device: str, environment: Mapping[str, str] = os.environ) -> Group:
    """The group that the launcher has started this process in."""
    return ProcessGroup(device, environment) if is_started_together(environment) else Group()


def is_started_together(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher has started other processes with this one."""
    return int(environment.get("WORLD_SIZE", "1")) > 1
