"""A loaded model, computing the fast way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlijob.gpu.fast.adapter import FlatAdapter
from nlijob.gpu.fast.attention import packed_attention
from nlijob.gpu.fast.compiled import CompiledLayers
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.layers import Installed, adapted_layers, serve
from nlijob.gpu.fast.packing import (
    PackShape,
    PackView,
    pack,
    packed_tokens,
    rounded,
    shared_prefix,
    view,
)
from nlijob.gpu.fast.prefix import prefix_of
from nlijob.gpu.fast.recompute import Recomputed
from nlijob.gpu.fast.served import FusedStack, choose
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel

SERVED_FEATURES = {"input_ids", "attention_mask"}


class FastModel:
    """Gives the logits of packed rows; `close` brings the model back to what it was."""

    def __init__(
        self, loaded: LoadedModel, head: Head, dense: bool, recomputes: bool = False
    ) -> None:
        """`dense`: keep the 4-bit weights dequantised as well.

        `recomputes`: in training, compute each layer again for its gradient, which keeps less.
        Raises NotServed, or torch.OutOfMemoryError; the model is then as before.
        """
        self._loaded = loaded
        self._head = head
        layers = adapted_layers(loaded.model)
        own = {id(p) for layer in layers for p in layer.parameters()}
        others = [p for p in loaded.model.parameters() if p.requires_grad and id(p) not in own]
        stack, together, self.refused = (
            choose(loaded.model, loaded.device, loaded.compute_dtype)
            if dense and not recomputes
            else (None, [], "")
        )
        self.kind = ", ".join(
            [
                stack.__name__ if stack else "the library's layers",
                "dequantized" if dense else "as loaded",
                "recomputed" if recomputes else "kept",
            ]
        )
        """How layers are computed, in words; what packs of a size take depends on it."""
        done = {id(layer) for group in together for layer in group}
        groups = [*together, *((layer,) for layer in layers if id(layer) not in done)]
        self.adapter = FlatAdapter(groups, others, loaded.compute_dtype)
        self._stack: FusedStack | None = None
        self._installed = Installed()
        self._recomputed: Recomputed | None = None
        self.compilable: CompiledLayers | None = None
        """Layers that torch's compiler may make faster for training."""
        there: Mapping[int, Tensor] = {}
        try:
            if stack:
                fused = self.adapter.groups[: len(together)]
                self._stack = stack(loaded.model, fused, loaded.compute_dtype)
                self._stack.install(self._installed)
                there = self._stack.dense
            serve(self._installed, loaded.model, _single(self.adapter), dense, there)
            if recomputes:
                base: Any = loaded.model.get_base_model()
                self._recomputed = Recomputed(
                    base, loaded.device, lambda: packed_attention(base.config)
                )
            elif dense and not stack:  # 4-bit weights would be kept dequantised by the compiler
                self.compilable = CompiledLayers(loaded.model)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Have the model compute as its libraries do. The adapter's weights stay as they are."""
        self._installed.undo()
        if self._recomputed:
            self._recomputed.undo()
        if self.compilable:
            self.compilable.undo()

    def seed(self, seed: int) -> None:
        """Have dropout drawn anew from a seed."""
        torch.manual_seed(seed)
        if self._recomputed:
            self._recomputed.seed()

    @property
    def generators(self) -> list[torch.Generator]:
        """What training draws from beside the default generator."""
        return self._recomputed.generators if self._recomputed else []

    def logits(self, packed: PackView, shape: PackShape) -> Tensor:
        """[rows, classes] in float32, of a pack on the device."""
        base: Any = self._loaded.model.get_base_model()
        inputs: dict[str, Any] = {
            "input_ids": packed.ids.unsqueeze(0),
            "position_ids": packed.positions.unsqueeze(0),
            "cu_seq_lens_q": packed.bounds,
            "cu_seq_lens_k": packed.bounds,
            "max_length_q": shape.longest,
            "max_length_k": shape.longest,
            "use_cache": False,
        }
        last = packed.last.long()
        if self._stack:
            inputs |= self._stack.inputs(last, shape.prefix)
            last = torch.arange(len(last), device=last.device)  # no other token leaves the stack
        elif shape.prefix:
            inputs["shared_prefix"] = prefix_of(shape.prefix, packed.bounds, shape.tokens)
        with packed_attention(base.config):
            return self._head.packed_logits(base, inputs, last).float()

    def cost(self, tokens: int) -> float:
        """What a pack of this size takes on a GPU, in no unit."""
        return self._stack.cost(tokens) if self._stack else float(tokens)

    def score_rows(self, rows: Sequence[Encoded]) -> Tensor:
        """[rows, classes] of rows, no gradient kept."""
        shape = shape_of(rows)
        with torch.no_grad():
            return self.logits(view(self.to_device(rows, shape, len(rows)), shape), shape)

    def to_device(self, rows: Sequence[Encoded], shape: PackShape, of: int) -> Tensor:
        """The rows' pack on the device; on its way there when this returns."""
        ids = [ids_of(row) for row in rows]
        targets = [self._head.target_class(row.example.label) for row in rows]
        vector = torch.tensor(pack(ids, targets, shape, of), dtype=torch.int32)
        if self._loaded.device.type != "cuda":
            return vector
        return vector.pin_memory().to(self._loaded.device, non_blocking=True)


def shape_of(rows: Sequence[Encoded]) -> PackShape:
    """The pack that holds these rows."""
    lengths = [row.length for row in rows]
    prefix = shared_prefix([ids_of(row) for row in rows], len(rows))
    tokens = rounded(packed_tokens(lengths, prefix))
    return PackShape(tokens, len(rows), max(lengths), prefix)


def ids_of(row: Encoded) -> list[int]:
    """The row's tokens."""
    return row.features["input_ids"]


def _single(adapter: FlatAdapter) -> list[tuple[Any, Tensor, Tensor]]:
    """Each LoRA layer with its own A [r, in] and B [out, r]; in a group, without gradient."""
    single: list[tuple[Any, Tensor, Tensor]] = []
    for group, a, b in adapter.groups:
        if len(group) == 1:
            single.append((group[0], a, b))
        else:
            single += zip(group, a.detach(), b.detach(), strict=True)
    return single


def check_features(rows: Sequence[Encoded]) -> None:
    """Raise NotServed where the model needs more of a row than its tokens."""
    more = set().union(*(row.features for row in rows)) - SERVED_FEATURES
    if more:
        raise NotServed(f"the model reads {', '.join(sorted(more))} beside the tokens")
