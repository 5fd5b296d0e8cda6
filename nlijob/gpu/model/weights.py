"""Judges what a checkpoint gave a model: which weights it lacks, and whose head it has.

The library draws missing weights at random and only warns. Here that is allowed for a head alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn

from nlijob.analysis.wording import plural
from nlijob.errors import NotAvailableError
from nlijob.gpu.model.configuration import MetaModel
from nlijob.gpu.model.initial import draw_head
from nlijob.gpu.model.structure import in_module, transformer_of
from nlijob.heads.label_order import LabelOrder
from nlijob.records.job import HeadOrigin
from nlijob.weight_files import stored_tensors

SHOWN = 5
OLD_BUFFERS = re.compile(
    r"(attn|attention)\.(masked_)?bias$|inv_freq$|position_ids$|num_batches_tracked$"
)
"""Tensors of older checkpoints that hold no weights: masks, and tables that are computed now."""
HINT = (
    "the weights do not belong to this config.json, or were saved incompletely; nothing is drawn "
    "at random but a new head"
)


@dataclass(frozen=True)
class Loading:
    """What the library says about loading a checkpoint."""

    missing: frozenset[str]
    """Weights of the model that the checkpoint lacks."""
    unexpected: frozenset[str]
    """Tensors of the checkpoint that the model lacks."""
    misshapen: Mapping[str, tuple[Sequence[int], Sequence[int]]]
    """Weight -> its shapes in the checkpoint and in the model, where these differ."""

    @classmethod
    def of(cls, model: nn.Module, info: Mapping[str, Any]) -> Loading:
        """From the loaded model and the library's own dictionary."""
        misshapen = {
            name: (tuple(stored), tuple(own)) for name, stored, own in info["mismatched_keys"]
        }
        return cls(
            frozenset(info["missing_keys"]),
            frozenset(info["unexpected_keys"]),
            {**misshapen, **_misshapen_in_4_bits(model)},
        )


def settle_head(
    model: Any,
    loading: Loading,
    meta: MetaModel,
    trained: bool,
    labels: LabelOrder,
    seed: int,
) -> HeadOrigin:
    """Put the head's weights into the job's order, or draw new ones; return where they come from.

    `trained`: whether the head is trained, and so may be new. `labels`: how the checkpoint's labels
    map to the job's. Raises NotAvailableError that names the weights which are missing, unexpected
    or of another shape.
    """
    sized = _sized_by_labels(meta) if trained else {}
    new = {m for m in meta.head_modules if trained and _lacks_all(m, meta, loading.missing)}
    found = _holders(meta, sized) - new
    misfits = [name for name in sized if name in loading.misshapen]
    redrawn = found if misfits or not labels.order else set()
    check_weights(model, loading, new | redrawn, sized if redrawn else ())
    if redrawn:
        _draw_again(model, redrawn, seed)
    elif found:
        _reorder(model, sized, labels.order)
    return HeadOrigin(
        modules=meta.head_modules,
        new=tuple(name for name in meta.head_modules if name in new | redrawn),
        reason=_reason(bool(sized), found, redrawn, new, labels),
        unused=tuple(sorted({_module(name) for name in loading.unexpected})),
    )


def _misshapen_in_4_bits(model: nn.Module) -> dict[str, tuple[Sequence[int], Sequence[int]]]:
    """4-bit weights of another shape than their layer, which the library does not compare."""
    own = {
        f"{name}.weight": (getattr(layer.weight, "quant_state", None), layer)
        for name, layer in model.named_modules()
        if isinstance(layer, bnb.nn.Linear4bit)
    }
    return {
        name: (tuple(state.shape), (layer.out_features, layer.in_features))
        for name, (state, layer) in own.items()
        if state and tuple(state.shape) != (layer.out_features, layer.in_features)
    }


def check_shapes(meta: MetaModel, files: Sequence[Path]) -> None:
    """Raise NotAvailableError for weights of another shape, before any memory is taken for them.

    It compares what has the same name in the files and in the model. The head is left out, because
    it may be for another number of labels.
    """
    own = {
        name: tuple(parameter.shape)
        for name, parameter in meta.model.named_parameters()
        if not any(in_module(name, head) for head in meta.head_modules)
    }
    misshapen = {
        tensor.name: (tensor.shape, own[tensor.name])
        for file in files
        for tensor in stored_tensors(file)
        if tensor.name in own and tensor.shape != own[tensor.name]
    }
    check_weights(meta.model, Loading(frozenset(), frozenset(), misshapen))


def check_weights(
    model: Any, loading: Loading, new: Iterable[str] = (), redrawn: Collection[str] = ()
) -> None:
    """Raise NotAvailableError unless the checkpoint has all weights of the model and no others.

    `new`: modules that the checkpoint may lack. `redrawn`: weights that may have another shape.
    """
    missing = [n for n in loading.missing if not any(in_module(n, m) for m in new)]
    unexpected = [n for n in loading.unexpected if _is_of_transformer(model, n)]
    misshapen = [
        f"{name} ({list(stored)} instead of {list(own)})"
        for name, (stored, own) in loading.misshapen.items()
        if name not in redrawn
    ]
    faults = [
        f"{_named(names)} {what}"
        for names, what in (
            (missing, "missing"),
            (unexpected, "not part of such a model"),
            (misshapen, "of another shape"),
        )
        if names
    ]
    if faults:
        raise NotAvailableError(f"the model's weights do not fit: {'; '.join(faults)}", HINT)


def _named(names: Sequence[str]) -> str:
    """The first of some tensors, and how many there are."""
    shown = ", ".join(sorted(names)[:SHOWN])
    more = ", ..." if len(names) > SHOWN else ""
    return f"{plural(len(names), 'tensor')} ({shown}{more})"


def _is_of_transformer(model: Any, name: str) -> bool:
    """Whether an unexpected tensor should be part of the transformer, and not of another head."""
    if OLD_BUFFERS.search(name) or name in dict(model.named_buffers()):
        return False
    prefix = transformer_of(model)
    inner = name.removeprefix(f"{prefix}.")
    if in_module(inner, "pooler"):
        return False
    children = dict(getattr(model, prefix, nn.Module()).named_children())
    return inner != name or inner.partition(".")[0] in children


def _module(name: str) -> str:
    """The outer module of an unexpected tensor; "bert.pooler" for a transformer's part."""
    parts = name.split(".")
    return ".".join(parts[: max(1, parts.index("pooler") + 1)]) if "pooler" in parts else parts[0]


def _lacks_all(module: str, meta: MetaModel, lacking: Collection[str]) -> bool:
    own = [name for name, _ in meta.model.named_parameters() if in_module(name, module)]
    return all(name in lacking for name in own)


def _sized_by_labels(meta: MetaModel) -> dict[str, int]:
    """Weight of the head -> its dimension with an entry for each label."""
    config = deepcopy(meta.config)
    config.num_labels += 1
    with torch.device("meta"):
        more: Any = type(meta.model)(config)
    shapes = {name: parameter.shape for name, parameter in meta.model.named_parameters()}
    return {
        name: next(i for i, n in enumerate(parameter.shape) if n != shapes[name][i])
        for name, parameter in more.named_parameters()
        if parameter.shape != shapes[name]
    }


def _holders(meta: MetaModel, weights: Iterable[str]) -> set[str]:
    """The head's modules that hold these weights."""
    return {m for m in meta.head_modules if any(in_module(name, m) for name in weights)}


def _draw_again(model: Any, modules: Iterable[str], seed: int) -> None:
    """Initialise modules from the seed, as if the checkpoint lacked them."""
    torch.manual_seed(seed)
    for name in sorted(modules):
        draw_head(model, model.get_submodule(name))


def _reorder(model: Any, sized: Mapping[str, int], order: Sequence[int]) -> None:
    """Put the head's outputs into the job's order of labels."""
    for name, dimension in sized.items():
        weight: Tensor = model.get_parameter(name)
        index = torch.tensor(order, device=weight.device)
        weight.data = weight.data.index_select(dimension, index)


def _reason(
    is_trained: bool,
    found: Collection[str],
    redrawn: Collection[str],
    new: Collection[str],
    labels: LabelOrder,
) -> str:
    if not is_trained:
        return ""
    if not found:
        return "the checkpoint has no classification head"
    if redrawn and labels.order:
        return "the checkpoint's head has another number of labels than its configuration"
    if new and not redrawn:
        return f"the checkpoint has none; the rest is {labels.reason}"
    return labels.reason


def lacking(meta: MetaModel, files: Sequence[Path]) -> str:
    """Which weights of the transformer the files lack, in words, where the library failed at it."""
    stored = {tensor.name for file in files for tensor in stored_tensors(file)}
    prefix = f"{transformer_of(meta.model)}."
    own = {n for n, _ in meta.model.named_parameters() if n.startswith(prefix)}
    missing = sorted(own - stored)
    # a checkpoint that calls everything otherwise is no incomplete one
    return f"; {_named(missing)} missing" if missing and own & stored else ""


def check_finite(name: str, bad: Sequence[tuple[Path, str]], unused: Collection[str]) -> None:
    """Raise NotAvailableError that names the tensors with NaN or infinite values.

    `bad`: files and the tensors in them. `unused`: tensors that the model does not load.
    """
    used = [f"{tensor} in {file.name}" for file, tensor in bad if tensor not in unused]
    if used:
        raise NotAvailableError(
            f"model {name}: {_named(used)} with values that are NaN or infinite",
            "the weights are damaged, or were saved after a training that diverged",
        )
