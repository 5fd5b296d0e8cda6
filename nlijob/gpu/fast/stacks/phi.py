"""Phi's layers computed by `parallel`, and how they replace the library's own.

Adapters that differ between layers, other options and generation with a cache use the library's
layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.phi.modeling_phi import PhiModel

from nlijob.gpu.fast import kernels, low_rank
from nlijob.gpu.fast.adapter import LoRAGroup
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.fused_attention import PackLayout
from nlijob.gpu.fast.layers import ADAPTER, LayerPatches, base_weight, dropout_of, is_adapted
from nlijob.gpu.fast.packing import PackView
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks import function, parallel
from nlijob.gpu.fast.stacks.parallel import HEADS, PARTS, LayerDims, Weights, Workspace

ON_EVERY_DEVICE = (HEADS, (*HEADS, "out"))
"""Adapted parts with which layers are fused on a CPU too."""


def fuses(parts: tuple[str, ...], device: torch.device) -> bool:
    """Whether layers with adapters on these parts are fused on a device.

    On a CPU there are no kernels that this would save, and results of earlier versions stay.
    """
    return device.type == "cuda" or parts in ON_EVERY_DEVICE


def _linears(layer: Any) -> dict[str, Any]:
    """The linear layers of a decoder layer by the names of PARTS, in their order."""
    attention, mlp = layer.self_attn, layer.mlp
    heads = (attention.q_proj, attention.k_proj, attention.v_proj)
    return dict(zip(PARTS, (*heads, attention.dense, mlp.fc1, mlp.fc2), strict=True))


def _adapted_parts(layers: Any) -> tuple[str, ...]:
    """The parts that are adapted in some layer, in the order of PARTS."""
    linears = [_linears(layer) for layer in layers]
    return tuple(part for part in PARTS if any(is_adapted(of[part]) for of in linears))


def _check_adapters(layers: Any, parts: tuple[str, ...]) -> None:
    """Raise Unsupported where `parallel` cannot compute the adapters on these parts."""
    linears = [_linears(layer)[part] for layer in layers for part in parts]
    if not all(map(is_adapted, linears)):
        raise Unsupported("layers have adapters on different modules")
    ranks = {linear.r[ADAPTER] for linear in linears}
    if len(ranks) > 1:
        raise Unsupported(f"adapters have different ranks: {', '.join(map(str, sorted(ranks)))}")
    if any(rank % kernels.VECTOR for rank in ranks):
        raise Unsupported(f"the adapters' rank is no multiple of {kernels.VECTOR}: {ranks.pop()}")
    if len(set(map(dropout_of, linears))) > 1:
        raise Unsupported("adapters have different dropout")


def _is_plain(model: Any, dtype: torch.dtype) -> bool:
    """Whether `parallel` supports the model's dimensions and options."""
    config, attention = model.config, model.layers[0].self_attn
    dims = (config.hidden_size, config.intermediate_size, attention.head_dim)
    return (
        len(model.layers) > 1
        and all(layer.input_layernorm.weight.dtype == dtype for layer in model.layers)
        and not attention.qk_layernorm
        and attention.num_key_value_groups == 1
        and not (config.attention_dropout or config.resid_pdrop or config.embd_pdrop)
        and isinstance(model.layers[0].mlp.activation_fn, NewGELUActivation)
        and not any(size % kernels.VECTOR for size in (*dims, attention.rotary_ndims // 2))
        and config.hidden_size <= kernels.MAX_WIDTH
    )


class FastPhiModel(nn.Module):
    """Phi on a pack; without a pack's bounds, the library's own forward."""

    fast_stack: PhiStack

    def forward(self, input_ids: Tensor | None = None, **options: Any) -> Any:
        """Last hidden states [1, rows, width] of input_ids [1, tokens] at `rows_to_keep`."""
        model: Any = self
        if options.get("cu_seq_lens_q") is None:
            return super().forward(input_ids=input_ids, **options)
        x = model.embed_tokens(input_ids)
        pack = function.layout_of(model, x, options)
        hidden = self.fast_stack(x[0], pack, self.training)
        return BaseModelOutputWithPast(last_hidden_state=model.final_layernorm(hidden[None]))


class PhiStack:
    """All decoder layers of a Phi model with their dequantised weights; see `FusedStack`."""

    def __init__(
        self,
        model: nn.Module,
        adapters: Sequence[LoRAGroup],
        dtype: torch.dtype,
        row_masks: RowMasks | None = None,
    ) -> None:
        """`adapters`: the adapters of `groups`. Raises torch.OutOfMemoryError."""
        self._row_masks = row_masks
        self._model = next(module for module in model.modules() if isinstance(module, PhiModel))
        device = self._model.embed_tokens.weight.device
        self._switch = adapters[0][0][0]
        self._dropout = dropout_of(self._switch)
        self._leaves = [leaf for _, a, b in adapters for leaf in (a, b)]
        layers: Any = self._model.layers
        dims = LayerDims(
            layers=len(layers),
            width=self._model.config.hidden_size,
            wide=self._model.config.intermediate_size,
            rank=self._switch.r[ADAPTER],
            parts=_adapted_parts(layers),
        )
        self._calls = parallel.calls_of(dims, device)
        self._norms = [layer.input_layernorm for layer in layers]
        self._weights = Weights(dims, device, dtype)
        self.dense: dict[int, Tensor] = {}
        """Weight [out, in] of each linear layer by its id; views of this stack's own weights."""
        for number, layer in enumerate(layers):
            self._take(number, layer, dtype)

    @staticmethod
    def groups(model: nn.Module, device: torch.device, dtype: torch.dtype) -> list[list[Any]]:
        """Adapted queries, keys and values as one group; then each other adapted part.

        Empty where the model is no Phi, or has other options. Raises Unsupported where its adapters
        are of another kind, or the kernels cannot be compiled.
        """
        models = [module for module in model.modules() if isinstance(module, PhiModel)]
        if len(models) != 1 or not _is_plain(models[0], dtype):
            return []
        layers: Any = models[0].layers
        parts = _adapted_parts(layers)
        if not parts or not fuses(parts, device):
            return []
        _check_adapters(layers, parts)
        if device.type == "cuda":
            kernels.SOURCE.compile(device, dtype)
            adapted = _linears(layers[0])[parts[0]]
            if dropout_of(adapted):
                low_rank.compile_kernel(device, dtype, adapted.r[ADAPTER])
        heads = [part for part in HEADS if part in parts]
        together = [heads] * bool(heads) + [[part] for part in parts if part not in HEADS]
        linears = [_linears(layer) for layer in layers]
        return [[of[part] for of in linears for part in group] for group in together]

    def inputs(self, packed: PackView, prefix: int) -> dict[str, Any]:
        """See `FusedStack`."""
        return function.inputs(packed, prefix)

    def install(self, patches: LayerPatches) -> None:
        """See `FusedStack`."""
        patches.apply(self._model, FastPhiModel, fast_stack=self)

    def __call__(self, x: Tensor, pack: PackLayout, training: bool) -> Tensor:
        """Output of the last layer, before the final norm: [tokens, width] -> [rows, width]."""
        adapted = not self._switch.disable_adapters
        dropout = self._dropout if training and adapted else 0.0
        if adapted and torch.is_grad_enabled():
            return function.apply(self, x, pack, dropout, self._leaves)
        return self.forward(x, pack, self._workspace(x, False, dropout), adapted)

    def cost(self, tokens: int) -> float:
        """Measured time of a pack on the GPU; more tokens may take less time."""
        return parallel.product_seconds(self._weights, tokens)

    def forward(self, x: Tensor, pack: PackLayout, workspace: Workspace, adapted: bool) -> Tensor:
        """Run `parallel.forward` with the current adapter."""
        if adapted:
            self._weights.place([leaf.detach() for leaf in self._leaves])
        return parallel.forward(self._weights, self._norms, x, pack, workspace, adapted)

    def workspace(self, x: Tensor, pack: PackLayout, dropout: float) -> Workspace:
        """A workspace for a forward pass that a backward pass follows."""
        return self._workspace(x, True, dropout)

    def _workspace(self, x: Tensor, keep: bool, dropout: float) -> Workspace:
        return Workspace(self._weights.dims, x, keep, dropout, self._row_masks, self._calls)

    def backward(self, grad: Tensor, pack: PackLayout, workspace: Workspace) -> list[Tensor]:
        """Gradients of the adapter's leaves."""
        return parallel.backward(self._weights, self._norms, grad, pack, workspace)

    def _take(self, number: int, layer: Any, dtype: torch.dtype) -> None:
        """Copy a layer's weights into this stack's."""
        s, w = self._weights.dims, self._weights
        attention, mlp = layer.self_attn, layer.mlp
        heads = zip(
            (attention.q_proj, attention.k_proj, attention.v_proj),
            w.first[number, s.heads].chunk(3),
            w.heads_bias[number].chunk(3),
            strict=True,
        )
        parts = [
            *heads,
            (mlp.fc1, w.first[number, s.up], w.up_bias[number]),
            (attention.dense, w.out[number, : s.width], w.residual_bias[number]),
            (mlp.fc2, w.down[number, :, : s.wide], w.residual_bias[number]),
        ]
        for module, weight, bias in parts:
            base = module.get_base_layer() if is_adapted(module) else module
            weight.copy_(base_weight(base, dtype))
            bias.add_(base.bias.detach())
            self.dense[id(base)] = weight
