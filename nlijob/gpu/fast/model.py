"""A loaded model with fast layers that computes packed rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from nlijob.gpu.fast.adapter import FlatAdapter
from nlijob.gpu.fast.attention import check_attention, is_bidirectional, packed_attention
from nlijob.gpu.fast.compiled import CompiledLayers
from nlijob.gpu.fast.dropout import drops
from nlijob.gpu.fast.encoder import Encoder
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.layers import (
    LayerPatches,
    adapted_layers,
    dropout_of,
    install_fast_layers,
)
from nlijob.gpu.fast.packing import (
    PackShape,
    PackView,
    pack,
    pack_shape,
    prefix_of_all,
    view,
)
from nlijob.gpu.fast.prefix import make_prefix
from nlijob.gpu.fast.recompute import RecomputedLayers
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.served import FusedStack, choose
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.heads.rows import columns_of
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.randomness import random_state, restore_random_state

TYPES = "token_type_ids"
SUPPORTED_FEATURES = {"input_ids", "attention_mask", TYPES}


class FastModel:
    """Computes the logits of packed rows; `close` restores the model."""

    def __init__(
        self, loaded: LoadedModel, head: Head, dense: bool, recomputes: bool = False
    ) -> None:
        """`dense`: keep the 4-bit weights dequantised as well.

        `recomputes`: in training, recompute activations in the backward pass to save memory.
        Raises Unsupported, or torch.OutOfMemoryError; the model is then unchanged.
        """
        self._loaded = loaded
        self._head = head
        base: Any = loaded.model.get_base_model()
        check_attention(base)
        self._encoder = Encoder(base) if is_bidirectional(base) else None
        layers = adapted_layers(loaded.model)
        own = {id(p) for layer in layers for p in layer.parameters()}
        others = [p for p in loaded.model.parameters() if p.requires_grad and id(p) not in own]
        stack, fused, self.refused = (
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
        """How layers are computed, in words; the cost of a pack depends on it."""
        self._drops = any(map(dropout_of, layers))
        self._row_masks = _row_masks(loaded) if self._drops else None
        done = {id(layer) for group in fused for layer in group}
        groups = [*fused, *((layer,) for layer in layers if id(layer) not in done)]
        self.adapter = FlatAdapter(groups, others, loaded.compute_dtype)
        self._stack: FusedStack | None = None
        self._patches = LayerPatches()
        self._recomputed: RecomputedLayers | None = None
        self.drawing: AbstractContextManager[Any] = contextlib.nullcontext()
        """The context that a pack is computed in, and its activations again."""
        self.compilable: CompiledLayers | None = None
        """Layers that torch.compile may make faster in training, or None."""
        existing: Mapping[int, Tensor] = {}
        try:
            if stack:
                groups_of_stack = self.adapter.groups[: len(fused)]
                self._stack = stack(
                    loaded.model, groups_of_stack, loaded.compute_dtype, self._row_masks
                )
                self._stack.install(self._patches)
                existing = self._stack.dense
            single, masks = _single(self.adapter), self._row_masks
            install_fast_layers(self._patches, loaded.model, single, dense, existing, masks)
            if recomputes:
                self._recomputed = RecomputedLayers(base, loaded.device, self._computing)
            elif dense and not stack:  # the compiler would keep 4-bit weights dequantised
                self.compilable = CompiledLayers(loaded.model, self._row_masks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Restore the libraries' own layers. The adapter keeps its weights."""
        self._patches.undo()
        if self._recomputed:
            self._recomputed.undo()
        if self.compilable:
            self.compilable.undo()

    def library_layers(self) -> AbstractContextManager[None]:
        """A context in which the model has the libraries' own layers; the adapter stays here."""
        return self._patches.lifted()

    def seed(self, seed: int) -> None:
        """Seed the generators of dropout, before the first step."""
        torch.manual_seed(seed)
        if self._recomputed:
            self._recomputed.seed()
        self.start_dropout_by_row(seed, 0)

    def start_dropout_by_row(self, seed: int, step: int) -> None:
        """Drop by row what this seed and step give, which needs no state."""
        if self._row_masks:
            self._row_masks.start(seed, step)

    def next_step(self) -> None:
        """Another step begins; may be captured."""
        if self._row_masks:
            self._row_masks.next_step()

    def random_state(self) -> dict[str, Any]:
        """The state of the generators of dropout, between two steps."""
        return random_state(self._loaded.device, self.generators)

    def restore_random_state(self, state: dict[str, Any]) -> None:
        """Continue from a `random_state`, also from that of another trainer."""
        restored = restore_random_state(state, self._loaded.device, self.generators)
        if self._recomputed and not restored:
            self._recomputed.seed()

    @property
    def generators(self) -> list[torch.Generator]:
        """Random generators that training uses besides the default one."""
        return self._recomputed.generators if self._recomputed else []

    def logits(self, packed: PackView, shape: PackShape) -> Tensor:
        """Logits [rows, classes] in float32 of a pack on the device."""
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
        if self._row_masks:
            self._row_masks.place(packed.row_numbers, packed.positions, packed.last)
        if self._encoder:
            inputs |= self._encoder.inputs(packed, shape)
            with self._computing(), self._encoder.one_token_a_row(packed):
                return self._head.encoder_logits(base, inputs).float()
        if shape.has_types:
            inputs[TYPES] = packed.types.unsqueeze(0)
        if self._stack:
            inputs |= self._stack.inputs(packed, shape.prefix)
            last = torch.arange(shape.rows, device=packed.last.device)  # it returns no other tokens
        else:
            last = packed.last.long()
            if shape.prefix:
                inputs["shared_prefix"] = make_prefix(shape.prefix, packed.bounds, shape.tokens)
        with self._computing():
            return self._head.packed_logits(base, inputs, last).float()

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        base: Any = self._loaded.model.get_base_model()
        with packed_attention(base.config), self.drawing:
            yield

    def why_dropout_depends_on_processes(self) -> str:
        """Why values are dropped otherwise with another number of processes, or ""."""
        if self._loaded.device.type == "cpu":  # each draws for all rows
            return ""
        if self._drops and not self._row_masks:
            return "the adapters' dropout differs with the number of processes"
        if self._drops_by_itself():
            return "the model's own dropout differs with the number of processes"
        return ""

    def _drops_by_itself(self) -> bool:
        """Whether the model drops values in training, but for those of adapters."""
        return any(
            drops(module)
            for name, module in self._loaded.model.named_modules()
            if ".lora_dropout." not in name
        )

    @property
    def is_bidirectional(self) -> bool:
        """Whether tokens attend to those behind them."""
        return self._encoder is not None

    @property
    def is_fused(self) -> bool:
        """Whether a fused stack computes the layers; its gradients end at the adapter."""
        return self._stack is not None

    @property
    def embedding(self) -> nn.Module:
        """The module that embeds token ids."""
        embedding: nn.Module = self._loaded.model.get_input_embeddings()
        return embedding

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the model has embeddings for."""
        weight: Tensor = next(self.embedding.parameters())
        return len(weight)

    def cost(self, tokens: int) -> float:
        """Relative time that a pack of this many tokens takes on a GPU."""
        return self._stack.cost(tokens) if self._stack else float(tokens)

    def shape_of(self, rows: Sequence[Encoded]) -> PackShape:
        """Shape of the smallest pack that holds these rows."""
        return shape_of(rows, self.is_bidirectional)

    def score_rows(self, rows: Sequence[Encoded]) -> Tensor:
        """Logits [rows, classes] in float32 of rows, without gradients."""
        shape = self.shape_of(rows)
        with torch.no_grad():
            return self.logits(view(self.to_device(rows, shape, len(rows)), shape), shape)

    def to_device(
        self,
        rows: Sequence[Encoded],
        shape: PackShape,
        batch_rows: int,
        numbers: Sequence[int] | None = None,
    ) -> Tensor:
        """The rows' pack on the device; the copy may still be under way when this returns.

        `numbers`: those of the rows in the effective batch of `batch_rows`; by default, its first.
        """
        ids = [ids_of(row) for row in rows]
        targets = [self._head.target_class(row.example.label) for row in rows]
        types = [row.features[TYPES] for row in rows] if shape.has_types else ()
        packed = pack(ids, targets, shape, batch_rows, numbers, types)
        vector = torch.tensor(packed, dtype=torch.int32)
        if self._loaded.device.type != "cuda":
            return vector
        return vector.pin_memory().to(self._loaded.device, non_blocking=True)


def drops_by_row(device: torch.device) -> bool:
    """Whether dropout of adapters goes by row; on a CPU one number gives more values."""
    return device.type == "cuda"


def _row_masks(loaded: LoadedModel) -> RowMasks | None:
    """What drops adapters' inputs by row, or None where torch's generator draws."""
    if not drops_by_row(loaded.device):
        return None
    with contextlib.suppress(Unsupported):
        return RowMasks(loaded.device, loaded.compute_dtype)
    return None


def shape_of(rows: Sequence[Encoded], is_bidirectional: bool = False) -> PackShape:
    """Shape of the smallest pack that holds these rows.

    `is_bidirectional`: whether tokens attend to those behind them.
    """
    lengths, may_share = [row.length for row in rows], may_share_prefix(rows, is_bidirectional)
    prefix = prefix_of_all(rows, len(rows)) if may_share else 0
    return pack_shape(lengths, prefix, is_bidirectional, has_types(rows))


def may_share_prefix(rows: Sequence[Encoded], is_bidirectional: bool) -> bool:
    """Whether packs may hold what all rows begin with once.

    Where tokens attend to those behind them, the values of what rows begin with depend on each
    row's end. Where tokens have types, rows may differ in these.
    """
    return not is_bidirectional and not has_types(rows)


def has_types(rows: Sequence[Encoded]) -> bool:
    """Whether the tokenizer gives each token a type, such as the number of its text in a pair."""
    return TYPES in columns_of(rows)


def ids_of(row: Encoded) -> list[int]:
    """The token ids of a row."""
    return row.features["input_ids"]


def _single(adapter: FlatAdapter) -> list[tuple[Any, Tensor, Tensor]]:
    """Each LoRA layer with its own A [r, in] and B [out, r]; in a group, these have no gradient."""
    single: list[tuple[Any, Tensor, Tensor]] = []
    for group, a, b in adapter.groups:
        if len(group) == 1:
            single.append((group[0], a, b))
        else:
            single += zip(group, a.detach(), b.detach(), strict=True)
    return single


def check_features(rows: Sequence[Encoded]) -> None:
    """Raise Unsupported where the model reads more of a row than its tokens."""
    more = columns_of(rows) - SUPPORTED_FEATURES
    if more:
        raise Unsupported(f"the model reads {', '.join(sorted(more))} besides the tokens")
