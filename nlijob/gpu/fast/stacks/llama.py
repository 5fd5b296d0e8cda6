"""Llama's layers and those of its relatives, computed by `gated`.

Adapters on other layers, other options and generation with a cache use the library's layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from nlijob.gpu.fast import fused_attention, gated_kernels, kernels, low_rank
from nlijob.gpu.fast.adapter import LoRAGroup
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.fused_attention import PackLayout
from nlijob.gpu.fast.gated_kernels import Activation, HeadNorms, Heads
from nlijob.gpu.fast.host import check_copy_fits
from nlijob.gpu.fast.layers import ADAPTER, LayerPatches, base_weight, dropout_of, is_adapted
from nlijob.gpu.fast.packing import PackView
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks import function, gated
from nlijob.gpu.fast.stacks.gated import GatedLayers, Workspace
from nlijob.gpu.fast.stacks.norms import Norm, Norms
from nlijob.gpu.fast.stacks.projection import Projection

FAMILIES = (
    "Llama",
    "Mistral",
    "Qwen2",
    "Qwen3",
    "SmolLM3",
    "Phi3",
    "Olmo2",
    "Olmo3",
    "Gemma",
    "Gemma2",
    "Gemma3Text",
)
"""Names of the families, which the names of their models in transformers begin with."""


class FastLlamaModel(nn.Module):
    """The model on a pack; without a pack's bounds, the library's own forward."""

    fast_stack: LlamaStack

    def forward(self, input_ids: Tensor | None = None, **options: Any) -> Any:
        """Last hidden states [1, rows, width] of input_ids [1, tokens] at `rows_to_keep`.

        Raises Unsupported where a row is longer than the model's window of attention.
        """
        model: Any = self
        if options.get("cu_seq_lens_q") is None:
            return super().forward(input_ids=input_ids, **options)
        longest, window = options["max_length_q"], self.fast_stack.window
        if window is not None and window < longest:
            raise Unsupported(f"the model attends to a window of {window} tokens")
        x = options.get("inputs_embeds")
        x = model.embed_tokens(input_ids) if x is None else x
        hidden = self.fast_stack(x[0], _layouts(model, x, options), self.training)
        return BaseModelOutputWithPast(last_hidden_state=model.norm(hidden[None]))


class LlamaStack:
    """All decoder layers of such a model with their dequantised weights; see `FusedStack`."""

    def __init__(
        self,
        model: nn.Module,
        adapters: Sequence[LoRAGroup],
        dtype: torch.dtype,
        row_masks: RowMasks | None = None,
    ) -> None:
        """`adapters`: the adapters of `groups`. Raises torch.OutOfMemoryError."""
        self._row_masks = row_masks
        models: list[Any] = [module for module in model.modules() if is_of_family(module)]
        self._model = models[0]
        self._switch = adapters[0][0][0]
        self._dropout = dropout_of(self._switch)
        self._pairs = [(a, b) for _, a, b in adapters]
        self.window = _window(self._model)
        self.dense: dict[int, Tensor] = {}
        """Weight [out, in] of each linear layer by its id; views of this stack's own weights."""
        like = torch.empty(0, device=self._model.embed_tokens.weight.device, dtype=dtype)
        layers: Any = self._model.layers
        first = layers[0]
        qkv, o, gate_up, down = (
            self._projection([parts(layer) for layer in layers], like)
            for parts in (_qkv, _output, _gate_up, _down)
        )
        biases = [_bias(_qkv(layer), dtype) for layer in layers]
        output_biases = [_bias(_output(layer), dtype) for layer in layers]
        self._layers = GatedLayers(
            _heads(first.self_attn),
            qkv,
            o,
            gate_up,
            down,
            _norms(layers),
            _activation(self._model),
            qkv_bias=[bias for bias in biases if bias is not None] or None,
            o_bias=[bias for bias in output_biases if bias is not None] or None,
        )

    @staticmethod
    def groups(model: nn.Module, device: torch.device, dtype: torch.dtype) -> list[list[Any]]:
        """A group for each kind of linear layer that is adapted, with those of all layers.

        Empty where the model is of another family, or has parts of another kind. Raises
        Unsupported where it has an option or an adapter that is not supported, and where the
        kernels cannot be compiled.
        """
        models: list[Any] = [module for module in model.modules() if is_of_family(module)]
        if len(models) != 1 or not _has_own_parts(models[0]):
            return []
        layers = models[0].layers
        _check_model(models[0], dtype)
        groups = [list(kind) for kind in zip(*map(_linears, layers), strict=True)]
        if any(len(set(map(is_adapted, kind))) > 1 for kind in groups):
            raise Unsupported("adapters on some of the decoder layers only")
        adapted = [kind for kind in groups if is_adapted(kind[0])]
        _check_adapters(model, [layer for kind in adapted for layer in kind])
        linears = [_base(linear) for layer in layers for linear in _linears(layer)]
        check_copy_fits(linears, device, dtype)
        if device.type == "cuda":
            gated_kernels.SOURCE.compile(device, dtype)
            _activation(models[0]).compile(device, dtype)
            norms = _norms(layers)
            if norms.attention_output or norms.mlp_output or norms.all_heads:
                gated_kernels.NORMS_SOURCE.compile(device, dtype)
            heads, rotated = _heads(layers[0].self_attn), 2 * _half(models[0])
            rank = adapted[0][0].r[ADAPTER]
            fused_attention.compile_final(device, dtype, heads, rotated, rank)
            if dropout_of(adapted[0][0]):
                low_rank.compile_kernel(device, dtype, rank)
        return adapted

    def inputs(self, packed: PackView, prefix: int) -> dict[str, Any]:
        """See `FusedStack`."""
        return function.inputs(packed, prefix)

    def install(self, patches: LayerPatches) -> None:
        """See `FusedStack`."""
        patches.apply(self._model, FastLlamaModel, fast_stack=self)

    def __call__(self, x: Tensor, packs: Sequence[PackLayout], training: bool) -> Tensor:
        """Output of the last layer, before the final norm: [tokens, width] -> [rows, width].

        `packs`: the pack's layout, for each layer.
        """
        adapted = not self._switch.disable_adapters
        dropout = self._dropout if training and adapted else 0.0
        if adapted and torch.is_grad_enabled():
            leaves = [leaf for pair in self._pairs for leaf in pair]
            return function.apply(self, x, packs, dropout, leaves)
        return self.forward(x, packs, self._workspace(x, packs, False, dropout), adapted)

    def cost(self, tokens: int) -> float:
        """Measured time of a pack on the GPU; more tokens may take less time."""
        return gated.product_seconds(self._layers, tokens)

    def forward(
        self, x: Tensor, pack: Sequence[PackLayout], workspace: Workspace, adapted: bool
    ) -> Tensor:
        """Run `gated.forward` with the current adapter."""
        if adapted:
            self._layers.place([(a.detach(), b.detach()) for a, b in self._pairs])
        return gated.forward(self._layers, x, pack, workspace, adapted)

    def workspace(self, x: Tensor, pack: Sequence[PackLayout], dropout: float) -> Workspace:
        """A workspace for a forward pass that a backward pass follows."""
        return self._workspace(x, pack, True, dropout)

    def backward(
        self, grad: Tensor, pack: Sequence[PackLayout], workspace: Workspace
    ) -> list[Tensor]:
        """Gradients of the adapter's leaves."""
        return gated.backward(self._layers, grad, pack, workspace)

    def _workspace(
        self, x: Tensor, pack: Sequence[PackLayout], keep: bool, dropout: float
    ) -> Workspace:
        return Workspace(self._layers, x, pack[0].last, keep, dropout, self._row_masks)

    def _projection(self, linears: Sequence[Sequence[Any]], like: Tensor) -> Projection:
        """The projection of the same linear layers, with one input, in each decoder layer."""
        adapted, outputs, rank = [], 0, 0
        for linear in linears[0]:
            columns = slice(outputs, outputs + linear.out_features)
            outputs = columns.stop
            if is_adapted(linear):
                adapted.append(columns)
                rank = linear.r[ADAPTER]
        inputs = linears[0][0].in_features
        projection = Projection(len(linears), inputs, outputs, adapted, rank, like)
        for weight, of_layer in zip(projection.base, linears, strict=True):
            parts = weight.split([linear.out_features for linear in of_layer])
            for part, linear in zip(parts, of_layer, strict=True):
                base = _base(linear)
                part.copy_(base_weight(base, like.dtype))
                self.dense[id(base)] = part
        return projection


# ---------------------------------------------------------------- the library's modules


def is_of_family(module: nn.Module) -> bool:
    """Whether a module is a model of one of the families, without its head."""
    kind = type(module)
    is_librarys = kind.__module__.startswith("transformers.")
    return is_librarys and kind.__name__ in [f"{family}Model" for family in FAMILIES]


def _has_own_parts(model: Any) -> bool:
    """Whether the family's own classes compute the layers, and their linear layers are known."""
    for layer in model.layers:
        norms = [part for name, part in layer.named_children() if name.endswith("layernorm")]
        parts = (layer, layer.self_attn, layer.mlp, *norms)
        if any(type(part).__module__ != type(model).__module__ for part in parts):
            return False
        if not all(_is_readable(_base(linear)) for linear in _linears(layer)):
            return False
    return True


def _is_readable(linear: Any) -> bool:
    """Whether a linear layer's weight is held as numbers, or in 4 bits."""
    if not isinstance(linear, nn.Linear):
        return False
    return linear.weight.is_floating_point() or hasattr(linear.weight, "quant_state")


def _base(linear: Any) -> Any:
    return linear.get_base_layer() if is_adapted(linear) else linear


def _qkv(layer: Any) -> list[Any]:
    attention = layer.self_attn
    if hasattr(attention, "qkv_proj"):
        return [attention.qkv_proj]
    return [attention.q_proj, attention.k_proj, attention.v_proj]


def _output(layer: Any) -> list[Any]:
    return [layer.self_attn.o_proj]


def _gate_up(layer: Any) -> list[Any]:
    mlp = layer.mlp
    return [mlp.gate_up_proj] if hasattr(mlp, "gate_up_proj") else [mlp.gate_proj, mlp.up_proj]


def _down(layer: Any) -> list[Any]:
    return [layer.mlp.down_proj]


def _linears(layer: Any) -> list[Any]:
    """The linear layers of a decoder layer, in the order of their projections."""
    return [*_qkv(layer), *_output(layer), *_gate_up(layer), *_down(layer)]


def _bias(linears: Sequence[Any], dtype: torch.dtype) -> Tensor | None:
    """Biases of linear layers side by side, or None where they have none."""
    biases = [_base(linear).bias for linear in linears]
    if any(bias is None for bias in biases):
        return None
    return torch.cat([bias.detach().to(dtype) for bias in biases])


def _heads(attention: Any) -> Heads:
    config = attention.config
    return Heads(config.num_attention_heads, config.num_key_value_heads, attention.head_dim)


def _norms(layers: Sequence[Any]) -> Norms:
    """The norms of decoder layers.

    `post_attention_layernorm` is the MLP's, unless outputs are normalised.
    """
    mlp_output = _norm(layers, "post_feedforward_layernorm")
    after_attention = _norm(layers, "post_attention_layernorm")
    heads = [_head_norms(layer.self_attn) for layer in layers if hasattr(layer.self_attn, "q_norm")]
    are_wide = bool(heads) and len(heads[0].query) != layers[0].self_attn.head_dim
    return Norms(
        attention=_norm(layers, "input_layernorm"),
        attention_output=after_attention if mlp_output else None,
        mlp=_norm(layers, "pre_feedforward_layernorm") if mlp_output else after_attention,
        mlp_output=mlp_output,
        heads=None if are_wide else heads or None,
        all_heads=heads if are_wide else None,
    )


def _norm(layers: Sequence[Any], name: str) -> Norm | None:
    """The norm of this name in all layers, or None where they have none."""
    if not hasattr(layers[0], name):
        return None
    norms = [getattr(layer, name) for layer in layers]
    return Norm([_weight(norm) for norm in norms], _epsilon(norms[0]))


def _head_norms(attention: Any) -> HeadNorms:
    query, key = attention.q_norm, attention.k_norm
    return HeadNorms(_weight(query), _weight(key), _epsilon(query))


def _weight(norm: Any) -> Tensor:
    """What a norm multiplies with, in the weight's dtype.

    Gemma's norms keep by how much that is more than 1.
    """
    weight: Tensor = norm.weight.detach()
    return weight + 1 if type(norm).__name__.startswith("Gemma") else weight


def _epsilon(norm: Any) -> float:
    return float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)


def _activation(model: Any) -> Activation:
    return gated_kernels.ACTIVATIONS[_activation_name(model.config)]


def _activation_name(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _half(model: Any) -> int:
    """Half of the values of a head that are rotated."""
    rotary = model.rotary_emb
    kinds = [f"{kind}_" for kind in getattr(rotary, "layer_types", ())] or [""]
    return int(getattr(rotary, f"{kinds[0]}inv_freq").numel())


def _layouts(model: Any, x: Tensor, options: Mapping[str, Any]) -> list[PackLayout]:
    """A pack's layout for each layer; see `function.layout_of`."""
    if not hasattr(model.rotary_emb, "layer_types"):
        return [function.layout_of(model, x, options)] * len(model.layers)
    kinds = model.config.layer_types
    of_kind = {kind: function.layout_of(model, x, options, kind) for kind in set(kinds)}
    return [of_kind[kind] for kind in kinds]


def _window(model: Any) -> int | None:
    """Tokens that the narrowest layer attends to, or None where that is not limited."""
    config = model.config
    layers = [layer.self_attn for layer in model.layers]
    by_layer = [getattr(one, "sliding_window", None) for one in layers]
    if not hasattr(layers[0], "sliding_window"):  # one for all layers
        by_layer = [getattr(config, "sliding_window", None)]
    return min((window for window in by_layer if window), default=None)


# ---------------------------------------------------------------- what is not supported


def _check_model(model: Any, dtype: torch.dtype) -> None:
    """Raise Unsupported, which names what `gated` does not compute."""
    for reason in _unsupported(model, dtype):
        raise Unsupported(reason)


def _unsupported(model: Any, dtype: torch.dtype) -> Iterator[str]:
    config, layers = model.config, model.layers
    attention = layers[0].self_attn
    heads = _heads(attention)
    if len(layers) < 2:
        yield "a model of one layer"
    if _activation_name(config) not in gated_kernels.ACTIVATIONS:
        yield f"the activation {_activation_name(config)}"
    if not getattr(attention, "is_causal", True):
        yield "attention in both directions"
    if not all(getattr(layer.self_attn, "use_rope", True) for layer in layers):
        yield "layers without a rotary embedding"
    if any(_base(linear).bias is not None for linear in (*_gate_up(layers[0]), *_down(layers[0]))):
        yield "biases in the MLP"
    for name in ("attention_dropout", "resid_pdrop", "embd_pdrop"):
        if getattr(config, name, 0):
            yield f"the model's own dropout ({name})"
    if any(norm.weight.dtype != dtype for layer in layers for norm in _norms_of(layer)):
        yield f"norms in another dtype than {dtype}"
    half = _half(model)
    if any(size % kernels.VECTOR for size in (config.hidden_size, heads.width, half)):
        yield (
            f"a width of {config.hidden_size}, heads of {heads.width} or {2 * half} rotated values,"
            f" as not all are multiples of {kernels.VECTOR} (rotated: of {2 * kernels.VECTOR})"
        )
    if config.intermediate_size % kernels.VECTOR:
        yield f"an MLP of width {config.intermediate_size}, no multiple of {kernels.VECTOR}"
    width = max(config.hidden_size, heads.query_width if _norms(layers).all_heads else 0)
    if width > kernels.MAX_WIDTH or heads.width > gated_kernels.MAX_HEAD:
        yield f"a width of {width}, or heads of {heads.width}"


def _norms_of(layer: Any) -> list[Any]:
    return [module for module in layer.modules() if type(module).__name__.endswith("RMSNorm")]


def _check_adapters(model: nn.Module, adapted: Sequence[Any]) -> None:
    """Raise Unsupported where `gated` does not compute the adapters of these layers."""
    if not adapted:
        raise Unsupported("adapters outside the decoder layers only")
    ranks = {layer.r[ADAPTER] for layer in adapted}
    if len(ranks) > 1 or ranks.pop() % kernels.VECTOR:
        raise Unsupported(
            f"adapters of several ranks, or of a rank that {kernels.VECTOR} does not divide"
        )
    if len(set(map(dropout_of, adapted))) > 1:
        raise Unsupported("adapters with several dropouts")
