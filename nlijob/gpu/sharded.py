"""Models that do not fit one GPU: the base model's weights are divided between the processes.

torch's FSDP (`fully_shard`; Zhao et al., 2023, PyTorch FSDP) keeps a part of each weight in each
process. It gathers the whole of a layer, still in 4 bits, when the layer is computed, and frees it
afterwards. accelerate's configuration says that and how it is used. The adapter, its gradient and
the optimizer's averages are small, and whole in every process: checkpoints are those of one
process, and gradients are summed as in any group.

Each forward pass is an exchange, so all processes must compute equally many, at the same time
(`Group.in_step`). None may fall back to something leaner alone when its memory runs out.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin as Sharding
from bitsandbytes.nn import Linear4bit
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from nlijob.config import JobConfig, TrainConfig
from nlijob.errors import ConfigurationError, HardwareError
from nlijob.gpu.drawing import DrawnForRows
from nlijob.gpu.engine import Engine, Forward
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.recompute import repeated_layers
from nlijob.gpu.shares import Share
from nlijob.gpu.training import PlainTrainer, Trainer, TrainingSchedule
from nlijob.records.job import Plan

USED = "ACCELERATE_USE_FSDP"
"""The variable by which `accelerate launch` tells its programs to use FSDP."""
BYTES = torch.float32
"""Type as which the bytes of 4-bit weights are divided: before version 2.13, torch's FSDP divides
no integers. A 16-bit type would change some of them: on GPUs, FSDP copies such numbers by way of
float32, and all that are no number become the same one."""
REASON = "the weights are divided between the processes, by accelerate's configuration"


def sharding(environment: Mapping[str, str] = os.environ) -> Sharding | None:
    """The settings that accelerate's configuration has for FSDP; None where it does not ask for it.

    `accelerate launch` passes them on as variables, which its own class reads.
    """
    return Sharding() if environment.get(USED) == "true" else None


def check_sharding(group: Group) -> None:
    """Raise HardwareError for a single process."""
    if not group.is_shared:
        raise HardwareError(
            "weights can only be divided between several processes, and there is one",
            "take more GPUs (--gpus), or leave --accelerate-config out",
        )


def shard(loaded: LoadedModel, group: Group, settings: Sharding) -> LoadedModel:
    """The model with the weights of its layers divided between the processes; all call this.

    The model may be on the CPU: layers are moved to the group's device one at a time, and of each
    only this process's part stays there. What is trained, what is outside of layers and embeddings,
    and embeddings that are tied to the output are whole in every process. Raises ConfigurationError
    for a model without repeated layers.
    """
    model, device = loaded.model, group.device
    keep_constants(model)
    whole = {weight for weight in model.parameters() if weight.requires_grad}
    mesh = init_device_mesh(device.type, (group.size,))
    options: dict[str, Any] = {"mesh": mesh, "ignored_params": whole}
    for unit in _units(model, settings):
        fully_shard(unit, reshard_after_forward=settings.reshard_after_forward, **options)
    for weight in model.parameters():
        if not isinstance(weight, DTensor):
            weight.data = weight.data.to(device)
            whole.add(weight)
    fully_shard(model, **options)  # gathers nothing itself; lets layers be gathered ahead
    return dataclasses.replace(loaded, device=device)


def keep_constants(model: nn.Module) -> None:
    """Have the modules of 4-bit weights keep what the divided weights lose.

    The bytes of the weights are held as `BYTES`.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            weight = module.weight
            if weight.data.dtype is torch.uint8 and weight.numel() % BYTES.itemsize == 0:
                weight.data = weight.data.reshape(-1).view(BYTES).reshape(-1, 1)
                weight.quant_storage = BYTES
            module.quant_state = weight.quant_state
            module.quant_storage = weight.quant_storage


def _units(model: Any, settings: Sharding) -> Iterator[nn.Module]:
    """The modules whose weights are gathered together: layers, embedding, output."""
    named = settings.transformer_cls_names_to_wrap
    layers = [m for m in model.modules() if type(m).__name__ in named] if named else None
    layers = repeated_layers(model) if layers is None else layers
    if not layers:
        raise ConfigurationError(
            f"--accelerate-config: the model has no layers {' or '.join(named or ())} to divide",
            "fsdp_transformer_layer_cls_to_wrap names the class of the model's layers",
        )
    yield from layers
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    # not the weights themselves: what still refers to one would keep the whole of it
    weights = [id(weight) for end in ends if end is not None for weight in end.parameters()]
    if len(weights) == len(set(weights)):
        yield from (end for end in ends if end is not None)


class ShardedEngine(Engine):
    """Scores and trains a model whose weights are divided, in the plain loop of all processes."""

    def __init__(
        self,
        loaded: LoadedModel,
        head: Head,
        config: JobConfig,
        rows: Sequence[Encoded],
        settings: Sharding,
    ) -> None:
        """As `Engine`; all processes call this. `loaded`: by `shard`.

        Raises ConfigurationError also where a row's answer depends on padding or on other rows.
        """
        recomputes = settings.activation_checkpointing or config.train.gradient_checkpointing
        train = dataclasses.replace(
            config.train, speed="plain", gradient_checkpointing=bool(recomputes)
        )
        super().__init__(loaded, head, dataclasses.replace(config, train=train), rows)
        if self._plain_mixes_rows:
            raise ConfigurationError(
                "--accelerate-config: padding or other rows influence a row's answer in this "
                "model, so that each row must be computed alone, which is not supported with "
                "divided weights",
                "leave --accelerate-config out, or take another model",
            )

    def plan(self) -> Plan:
        """See `Engine`."""
        return dataclasses.replace(super().plan(), way="sharded", reason=REASON)

    def forward(self, head: Head | None = None) -> Forward:
        """See `Engine`. Each call is one forward pass, whatever the number of rows."""
        return functools.partial(self._plain_logits, head or self._head)

    def agree(self, group: Group) -> None:
        """See `Engine`; there is one mode only."""

    def worth_sharing(self, trainer: Trainer, group: Group) -> tuple[Any, str]:
        """See `Engine`."""
        return "steps", REASON

    def trainer(self, config: TrainConfig | None = None, group: Group = ALONE) -> Trainer:
        """See `Engine`."""
        schedule = TrainingSchedule(config or self._config.train, self._rows)
        return ShardedTrainer(self._loaded, self._head, schedule, self._budget, group)


class ShardedTrainer(PlainTrainer):
    """The plain loop of a group, in which every process makes the same passes in every step."""

    def _own_gradient(self, rows: Sequence[Encoded]) -> tuple[float, str]:
        """See `PlainTrainer`. Raises HardwareError where memory runs out."""
        loss, lack = super()._own_gradient(rows)
        if lack:
            raise HardwareError(
                f"out of memory with divided weights: {lack}",
                "take more GPUs, a smaller train.micro_batch_size, or "
                "train.gradient_checkpointing=true",
            )
        return loss, ""

    def _backward(self, share: Share, of: int) -> float:
        """See `PlainTrainer`. Without rows of its own, a process computes one for nothing."""
        if share.places:
            return super()._backward(share, of)
        stand_in = Share(share.rows, [0])
        self._budget.drawing = DrawnForRows(stand_in, self._loaded.device)
        with self._budget.drawing:
            logits = self._head.logits(self._loaded.model, self._batch(stand_in))
        logits.backward(torch.zeros_like(logits))  # type: ignore[no-untyped-call]
        return 0.0
