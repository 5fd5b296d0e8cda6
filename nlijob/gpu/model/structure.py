"""What a model is made of: its linear modules, and the part that each of them has.

It is found on the meta device, without weights, from the modules and from what a forward pass over
text calls. No family of models is known here by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

Part = Literal["attention", "mixer", "mlp", "router", "other"]
"""attention: query, key, value and output. mixer: layers that pass state between tokens in another
way. mlp: layers that compute each token on its own. router: chooses experts. other: outside of the
repeated layers."""

LINEAR = (nn.Linear, Conv1D)
"""The layers that LoRA and 4 bits support. Conv1D is a linear layer with its weight [in, out]."""
ATTENTION = re.compile(r"attn|attention|(?<![a-z])mha(?![a-z])", re.IGNORECASE)
"""A module with such a name or class attends."""
MLP = re.compile(
    r"mlp|ffn|ffw|feed_?forward|(?<![a-z])ff(?![a-z])|expert|moe(?![a-z])|glu(?![a-z])"
    r"|dense_?(relu|act)|intermediate",
    re.IGNORECASE,
)
"""A module with such a name or class computes each token on its own."""
MLP_LAYER = re.compile(
    r"(c_)?fc_?(\d|in|out)?|lin_?\d|linear_?\d|dense_h_to_4h|dense_4h_to_h|wi(_\d)?|ffn\w*",
    re.IGNORECASE,
)
"""The last name of a linear layer of an MLP, wherever it is."""
GATED = re.compile(r"(gate|up|down|gate_up)_proj|w[123]")
"""The same, unless the layer is within attention, where a gate may have this name."""
QUERY_KEY_VALUE = re.compile(
    r"(to_?|w_?)?(q|k|v|query|key|value|qkv|query_key_value)(_?(proj|projection|lin|linear|layer))?"
    r"|(in_proj_|c_)(qkv|attn)",
    re.IGNORECASE,
)
"""The last name of a projection to queries, keys or values, or to all of them together."""
ROUTER = re.compile(r"router|gate|classifier|\w*_gate|gating", re.IGNORECASE)
"""The last name of a linear layer that chooses experts, or weighs them."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys of configurations that give the number of experts."""
PROBE = "nlijob_probe"
PROBE_TOKENS = 4


@dataclass(frozen=True)
class Structure:
    """The linear modules of the part of a model that reads text, without its head."""

    parts: Mapping[str, Part]
    """Linear module -> its part, in the model's order."""
    unused: frozenset[str]
    """Those that the model does not use for text, such as its attention to images."""
    passed_by: frozenset[str]
    """Those whose weight the model reads without calling the module. An adapter has no effect
    there, and a weight in 4 bits cannot be read in this way."""
    elsewhere: tuple[str, ...]
    """Linear modules of parts that do not read text, such as those that see."""


def structure(model: Any, head_modules: Iterable[str] = ()) -> Structure:
    """Look at a model on the meta device. `head_modules`: the modules of its head, by name."""
    heads = tuple(head_modules)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, LINEAR) and not is_within(name, heads)
    ]
    tower, others = _text_tower(model), _other_towers(model)
    own = [name for name in linear if is_within(name, [tower]) and not is_within(name, others)]
    called = _called(model)
    uncalled = [name for name in own if name not in called]
    passed_by = _kinds(name for name in uncalled if _around(name) in called)
    unused = _kinds(name for name in uncalled if _is_within_called(name, called)) - passed_by
    used = _kinds(called)  # some layers of a kind may be called, and others not reached
    return Structure(
        parts=_parts(model, own),
        unused=frozenset(n for n in own if without_numbers(n) in unused - used),
        passed_by=frozenset(n for n in own if without_numbers(n) in passed_by - used),
        elsewhere=tuple(name for name in linear if name not in set(own)),
    )


def in_module(name: str, module: str) -> bool:
    """Whether a name is a module's, or that of something within it; "" is the whole model."""
    return not module or name == module or name.startswith(f"{module}.")


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a name is that of one of some modules, or of something within one."""
    return any(in_module(name, module) for module in modules)


def transformer_of(model: Any) -> str:
    """The child of a model beside which its head stands; "" if its layers lie beside the head.

    The library names it, but of some families wrongly.
    """
    named = {name for name, _ in model.named_children()}
    if model.base_model_prefix in named:
        return str(model.base_model_prefix)
    around, _, inner = _embedding(model).partition(".")
    return around if inner else ""


def is_bidirectional(model: nn.Module) -> bool:
    """Whether a model's attention looks ahead, as its modules say.

    Such modules can also be set up as decoders, and then say so.
    """
    modules = list(model.modules())
    looks_back = any(getattr(module, "is_causal", False) is True for module in modules)
    return not looks_back and any(getattr(m, "is_decoder", None) is False for m in modules)


def layer_of(name: str) -> str:
    """The repeated layer that a module is in: its name up to the first number, or ""."""
    parts = name.split(".")
    numbered = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return "" if numbered is None else ".".join(parts[: numbered + 1])


def without_numbers(name: str) -> str:
    """The name of a module in any layer: "layers.3.q_proj" -> "layers.*.q_proj"."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


# ---------------------------------------------------------------- the part that reads text


def _text_tower(model: Any) -> str:
    """The smallest module that holds the token embedding and layers; "" for the whole model."""
    config = model.config
    if config.get_text_config() is config or getattr(config, "is_encoder_decoder", False):
        return ""
    name = _embedding(model)
    while name:
        name = _around(name)
        inner = model.get_submodule(name).named_modules()
        if any(isinstance(module, LINEAR) and layer_of(path) for path, module in inner):
            return name
    return ""


def _other_towers(model: Any) -> list[str]:
    """The models within the model that read something else than tokens, such as pixels."""
    embedding = _embedding(model)
    return [
        name
        for name, module in model.named_modules()
        if name
        and isinstance(module, PreTrainedModel)
        and module.main_input_name != "input_ids"
        and not is_within(embedding, [name])
    ]


def _embedding(model: Any) -> str:
    with suppress(NotImplementedError, AttributeError):
        embedding = model.get_input_embeddings()
        return next((name for name, module in model.named_modules() if module is embedding), "")
    return ""


# ---------------------------------------------------------------- parts


def _parts(model: Any, names: Iterable[str]) -> dict[str, Part]:
    modules = dict(model.named_modules())
    experts = _most_experts(model)
    parts: dict[str, Part] = {name: _part(name, modules, experts) for name in names}
    if "attention" not in parts.values():
        parts |= _by_projections(parts)
    for name, part in parts.items():
        if part == "other" and layer_of(name):
            parts[name] = "mixer" if _keeps_state(name, modules) else "mlp"
    return parts


def _part(name: str, modules: Mapping[str, nn.Module], experts: int) -> Part:
    """The part of a linear module, by its own name and the innermost module around it that tells.

    It is "other" where neither tells.
    """
    layer, last = layer_of(name), _last(name)
    if not layer:
        return "other"
    if _is_router(name) and outputs(modules[name]) <= experts:
        return "router"
    if MLP_LAYER.fullmatch(last):
        return "mlp"
    around = _around(name)
    while around and around != layer:
        kind = type(modules[around]).__name__
        if MLP.search(_last(around)):
            return "mlp"
        if ATTENTION.search(_last(around)):
            return "attention"
        if MLP.search(kind):
            return "mlp"
        if ATTENTION.search(kind) and not _holds_mlp(around, modules):
            return "attention"
        around = _around(around)
    outside = _last(_around(layer))  # a list of layers, such as "attentions" or "ffns"
    if MLP.search(outside) or GATED.fullmatch(last):
        return "mlp"
    return "attention" if ATTENTION.search(outside) else "other"


def _is_router(name: str) -> bool:
    return any(ROUTER.fullmatch(_last(part)) for part in (name, _around(name)))


def _holds_mlp(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether an MLP is somewhere within a module, which is then more than attention."""
    inner = [_last(other) for other in modules if other.startswith(f"{name}.")]
    return any(MLP.search(last) or MLP_LAYER.fullmatch(last) for last in inner)


def _by_projections(parts: Mapping[str, Part]) -> dict[str, Part]:
    """The attention of a model that calls it otherwise: what is beside query, key and value."""
    beside = {_around(name) for name in parts if QUERY_KEY_VALUE.fullmatch(_last(name))}
    return {
        name: "attention"
        for name, part in parts.items()
        if part == "other" and _around(name) in beside
    }


def _keeps_state(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the block around a linear module also holds a convolution or weights of its own.

    State space layers and recurrent ones do, and MLPs do not.
    """
    block = _around(name)
    if block == layer_of(name):
        return False
    own = modules[block]
    convolves = any(isinstance(child, nn.Conv1d) for child in own.children())
    return convolves or any(True for _ in own.parameters(recurse=False))


def outputs(linear: Any) -> int:
    """The numbers that a linear module gives for a token."""
    return int(linear.nf if isinstance(linear, Conv1D) else linear.out_features)


def _most_experts(model: Any) -> int:
    """The number of experts of a mixture, or 0."""
    text = model.config.get_text_config()
    numbers = [getattr(text, key, None) for key in EXPERTS]
    return max((number for number in numbers if isinstance(number, int)), default=0)


# ---------------------------------------------------------------- what is called


def _called(model: Any) -> set[str]:
    """The modules that a forward pass over text computes to their ends.

    What needs values, which the meta device does not have, ends it early. This finds less then.
    """
    called: set[str] = set()

    def note(name: str) -> Any:
        return lambda *_: called.add(name)

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    was_training = model.training
    model.eval()
    try:
        with _without_masks(model.config), torch.no_grad(), suppress(Exception):
            model(input_ids=torch.zeros(1, PROBE_TOKENS, dtype=torch.long, device="meta"))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return called


@contextmanager
def _without_masks(config: Any) -> Iterator[None]:
    """Replace attention by its shape. Masks, which depend on values, are not made for it."""
    ALL_ATTENTION_FUNCTIONS.register(PROBE, _shape_of_attention)
    before = config._attn_implementation
    config._attn_implementation = PROBE
    try:
        yield
    finally:
        config._attn_implementation = before


def _shape_of_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """[rows, heads, tokens, width] -> an empty [rows, tokens, heads, width]."""
    rows, heads, tokens, _width = query.shape
    return query.new_empty(rows, tokens, heads, value.shape[3]), None


def _is_within_called(name: str, called: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:n]) in called for n in range(len(parts)))


# ---------------------------------------------------------------- names


def _kinds(names: Iterable[str]) -> set[str]:
    return {without_numbers(name) for name in names}


def _around(name: str) -> str:
    return name.rpartition(".")[0]


def _last(name: str) -> str:
    return name.rpartition(".")[2]
