"""The memory that a job needs on a GPU: a sum for each execution mode, and the GPUs that have it.

The factors come from measured peaks; docs/models.md compares the sums with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nlijob.analysis.wording import gib
from nlijob.config import JobConfig
from nlijob.errors import ExitCode
from nlijob.records.planning import (
    CardFit,
    MemoryTerm,
    ModelLook,
    ModeMemory,
    Obstacle,
    PlannedMemory,
)

CARDS_GB = (16, 24, 48, 80, 141)
"""Common sizes of GPUs, in 10^9 bytes; none has less."""
MOST_GPUS = 8
"""GPUs of a host that weights are divided between at most."""
SHOWN_GPUS = (2, 4, 8)
TRAINED_BYTES = 16
"""Of each trained parameter: weight, gradient and AdamW's two averages in float32."""
LIBRARIES_BYTES = 1_000_000_000
"""What the job's processes take on a CPU without a model: 0.87 GB for the demo with 64 rows."""
LEAST_KEPT_ROWS = 8
"""Rows of the smallest micro-batch with dequantised weights (`nlijob.gpu.engine`)."""
RESERVED_BYTES = 2 * 2**30
"""What the job keeps free for activations before it dequantises weights (`nlijob.gpu.engine`)."""
OTHER_VALUES = 6
"""Activations of the hidden size that a layer keeps for each token, besides the outputs of its
linear modules, so that 15 are kept in all for phi-2's shape. That many more are measured there, and
for Llama 3.2 3B's, for each further token."""
GATED_FACTOR = 2
"""Times that fused layers like Llama's keep what adapters on the MLP read: with its gradient, so
that the gradients of all layers' adapters are computed at once."""
PLAIN_FACTOR = 3.5
"""How much more the plain loop keeps: 3.6 times as much for phi-2's shape, 2.8 for the other."""
LOGITS_BYTES = 12
"""Of each logit: itself in 16 bits, a copy in float32, and the gradients of both."""
WORKSPACE_BYTES = 100_000_000
"""What cuBLAS takes for itself, by torch's memory snapshots."""
CONTEXT_BYTES = 1_230_000_000
"""What the driver counts beyond torch's own: its context, loaded kernels, CUDA graphs (1.15 GiB in
the recorded job on an H200). Free memory as `plan` sees it is without most of it."""
NCCL_BYTES = 500_000_000
"""Buffers of NCCL; assumed, not measured."""
GATHERED_LAYERS = 2
"""Layers that are whole at once where weights are sharded: the one computed, and the next one."""


@dataclass(frozen=True)
class _Mode:
    """An execution mode, as far as memory depends on it."""

    name: str
    is_dense: bool = False
    """Whether all weights are kept dequantised besides."""
    recomputes: bool = False
    rows: int | None = None
    """Rows in memory at a time, or None for all of a micro-batch."""
    is_plain: bool = False
    """Whether the libraries' own layers are run."""
    gpus: int = 1


def memory_need(config: JobConfig, look: ModelLook, gpus: int = 2) -> PlannedMemory:
    """Memory of each execution mode, and the common sizes of GPUs that have it.

    `gpus`: how many the weights are divided between, if the configuration asks for that.
    """
    modes = [_sum(config, look, mode) for mode in _modes(config, look)]
    leanest, fastest = modes[0], modes[-1]
    if config.machine.accelerate_config:
        leanest = fastest = _sharded(config, look, max(2, gpus))
    on_gpu = config.model.device != "cpu"
    sharded = [_sharded(config, look, number) for number in range(2, MOST_GPUS + 1) if on_gpu]
    context = CONTEXT_BYTES if on_gpu else 0
    return PlannedMemory(
        least_bytes=leanest.total_bytes - context,
        fastest_bytes=fastest.total_bytes - context,
        free_bytes=look.free_memory_bytes,
        modes=tuple(modes),
        sharded=tuple(one for one in sharded if one.gpus in SHOWN_GPUS),
        cards=tuple(_fit(card * 10**9, modes, sharded) for card in CARDS_GB if on_gpu),
    )


def memory_obstacles(memory: PlannedMemory) -> Iterator[Obstacle]:
    """The lack of memory for the leanest mode."""
    if memory.free_bytes is not None and memory.least_bytes > memory.free_bytes:
        yield Obstacle(
            ExitCode.HARDWARE,
            f"out of memory: even the leanest execution mode needs about "
            f"{gib(memory.least_bytes)}, and {gib(memory.free_bytes)} are free",
            _way_out(memory),
        )


def _way_out(memory: PlannedMemory) -> str:
    """What helps where the leanest mode needs more than is free."""
    out = "end other programs, or use a smaller model or a machine with more memory"
    free = memory.free_bytes or 0
    enough = [one.gpus for one in memory.sharded if one.total_bytes <= free + CONTEXT_BYTES]
    if enough:
        return f"{out}; or divide the weights: --gpus {enough[0]} --accelerate-config fsdp"
    return out


def _modes(config: JobConfig, look: ModelLook) -> Iterator[_Mode]:
    """The modes from the leanest to the fastest."""
    plain = config.train.speed == "plain"
    checkpointing = "gradient checkpointing"
    yield _Mode(f"{checkpointing}, one row at a time", False, True, 1, plain)
    rows = config.train.micro_batch_size or config.train.batch_size
    if rows > 1:
        yield _Mode(f"{checkpointing}, {rows} rows at a time", False, True, None, plain)
    if config.train.gradient_checkpointing:
        return
    held = "4-bit weights" if look.four_bit_bytes else "weights as stored"
    yield _Mode(held, is_plain=plain)
    if look.dequantized_bytes and not plain:
        few = _fewest_kept(rows)
        if few < rows:
            yield _Mode(f"dequantised weights, {few} rows at a time", is_dense=True, rows=few)
        yield _Mode("dequantised weights", is_dense=True)


def _fewest_kept(rows: int) -> int:
    """Rows of the smallest part of a micro-batch that is tried with dequantised weights."""
    while (half := math.ceil(rows / 2)) >= LEAST_KEPT_ROWS:
        rows = half
    return rows


def _sharded(config: JobConfig, look: ModelLook, gpus: int) -> ModeMemory:
    """The leanest mode with the weights divided between GPUs."""
    name = f"weights sharded over {gpus} GPUs, gradient checkpointing, one row at a time"
    return _sum(config, look, _Mode(name, False, True, 1, True, gpus))


def _fit(card_bytes: int, modes: list[ModeMemory], sharded: list[ModeMemory]) -> CardFit:
    """The fastest mode that a GPU of this size has room for, or the fewest GPUs that have."""
    fitting = [mode for mode in (*reversed(modes), *sharded) if mode.total_bytes <= card_bytes]
    if not fitting:
        return CardFit(card_bytes, None, None)
    return CardFit(card_bytes, fitting[0].mode, fitting[0].gpus)


# ---------------------------------------------------------------- the sum


def _sum(config: JobConfig, look: ModelLook, mode: _Mode) -> ModeMemory:
    found = [*_weights(look, mode), *_training(config, look, mode)]
    if config.model.device == "cpu":
        found.append(("the libraries", LIBRARIES_BYTES))
    else:
        found.append(("cuBLAS's workspace", WORKSPACE_BYTES))
        found.append(("CUDA's own", CONTEXT_BYTES))
    if mode.gpus > 1:
        found.append(("NCCL's buffers", NCCL_BYTES))
    terms = tuple(MemoryTerm(name, round(size)) for name, size in found if size)
    return ModeMemory(mode.name, mode.gpus, terms, sum(term.size_bytes for term in terms))


def _weights(look: ModelLook, mode: _Mode) -> Iterator[tuple[str, float]]:
    """Name and bytes of what the base weights take."""
    share = f", 1/{mode.gpus}" if mode.gpus > 1 else ""
    yield f"4-bit weights{share}", math.ceil(look.four_bit_bytes / mode.gpus)
    yield f"weights in {look.compute_dtype}{share}", math.ceil(look.other_weights_bytes / mode.gpus)
    if mode.gpus > 1:
        gathered = GATHERED_LAYERS * look.largest_layer_bytes + look.largest_outside_bytes
        yield "gathered: two layers, the embedding", gathered
    if mode.is_dense:
        yield "dequantised weights", look.dequantized_bytes
    else:
        yield "one dequantised weight", look.largest_dequantized_bytes


def _training(config: JobConfig, look: ModelLook, mode: _Mode) -> Iterator[tuple[str, float]]:
    """Name and bytes of what training takes besides."""
    item = 4 if look.compute_dtype == "float32" else 2
    copy = item if item < 4 else 0  # of the adapter, in the compute dtype
    yield "adapter, gradient, moments", look.trainable_parameters * (TRAINED_BYTES + copy)
    rows = mode.rows or config.train.micro_batch_size or config.train.batch_size
    tokens = rows * (look.tokens["train"].mean if look.tokens else 0)
    layers, hidden = look.layers or 0, look.hidden_size or 0
    kept = _kept_values(config, look, mode, item) * (PLAIN_FACTOR if mode.is_plain else 1)
    if mode.recomputes:  # the inputs of all layers, and what one of them keeps
        kept = layers * hidden + kept / max(1, layers)
    activations = tokens * kept * item
    yield "activations", activations
    yield "logits", rows * look.vocabulary * LOGITS_BYTES
    if mode.is_dense:
        yield "kept free besides", max(0, RESERVED_BYTES - activations)


def _kept_values(config: JobConfig, look: ModelLook, mode: _Mode, item: int) -> float:
    """Numbers that all layers together keep of a token for the backward pass.

    `item`: bytes of a number.
    """
    hidden = look.hidden_size or 0
    of_mlp = look.mlp_adapter_inputs
    if mode.is_dense and look.has_gated_layers:
        of_mlp *= GATED_FACTOR
    kept = look.layer_outputs + hidden * OTHER_VALUES * (look.layers or 0) + of_mlp
    if not config.lora.dropout:
        return kept
    read = look.adapter_inputs or hidden * sum(look.target_modules.values())
    return kept + read * (1 + 1 / item)  # what is left of each, and a byte that says so
