"""Looks at a model without its weights: what configuration, head, prompt and adapter resolve to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from nlijob.analysis.wording import plural
from nlijob.config import JobConfig
from nlijob.gpu.engine import execution_modes
from nlijob.gpu.environment import cpu_name
from nlijob.gpu.fast.host import free_bytes
from nlijob.gpu.fast.stacks.llama import is_of_family
from nlijob.gpu.heads import Encoded, EncodedRows, head_class
from nlijob.gpu.heads.rows import lengths_of
from nlijob.gpu.model import (
    MetaModel,
    add_adapter,
    compute_dtype,
    held_weights,
    max_length,
    vocabulary_size,
    weight_bytes,
)
from nlijob.gpu.model.structure import ATTENTION, LINEAR, layer_of, outputs
from nlijob.gpu.prompt_record import prompt_notes
from nlijob.gpu.session import Session
from nlijob.gpu.training import execution_name
from nlijob.gpu.words import prompt_line
from nlijob.records.job import SPLITS, Example, Split
from nlijob.records.planning import ModelLook, TokenCounts

MOST_ROWS = 5_000
"""Rows of a split that are tokenised; of more, as many evenly spaced ones."""
ROWS_FOR_MODES = 2**31


def look_at(session: Session) -> ModelLook:
    """What the session's configuration resolves to. Raises the errors that the job would raise."""
    config, head = session.config, session.head
    device = _device(config)
    meta = session.meta
    model_config = meta.config
    dtype = compute_dtype(config.model, model_config, device) if device else torch.bfloat16
    rows = {split: _rows(session, split) for split in SPLITS}
    matrices, experts = matrix_weights(meta), expert_weights(meta)
    loading_bytes = weight_bytes(meta, config.model, dtype)
    held, of_layers = held_weights(meta, config.model, dtype), layer_outputs(meta)
    base_parameters = sum(parameter.numel() for parameter in meta.model.parameters())
    with torch.device("meta"):
        trained = meta.head_modules if head_class(config.model.head).trains_head else ()
        adapted = add_adapter(config, meta.model, trained, meta.targets)
    read, read_by_mlp = adapter_inputs(adapted)
    text_config = model_config.get_text_config()
    first = rows["test"][0]
    return ModelLook(
        model_type=str(model_config.model_type),
        compute_dtype=str(dtype).removeprefix("torch."),
        compute_dtype_is_assumed=device is None and config.model.compute_dtype == "auto",
        max_length=max_length(config.model, model_config, session.tokenizer),
        target_modules=_adapted_modules(adapted),
        trained_head=trained,
        trainable_parameters=sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        base_parameters=base_parameters,
        multiplied_weights=matrices + experts,
        layers=getattr(text_config, "num_hidden_layers", None),
        hidden_size=getattr(text_config, "hidden_size", None),
        weights_bytes=loading_bytes,
        dequantized_bytes=matrices * dtype.itemsize if config.model.quantization == "nf4" else 0,
        execution_modes=_modes(config),
        prompt_form=prompt_line(head.prompt).removeprefix("prompt: "),
        example_prompt=session.tokenizer.decode(first.features["input_ids"]),
        label_token_texts=tuple(session.tokenizer.decode([t]) for t in head.label_tokens),
        label_tokens=tuple(head.label_tokens),
        notes=tuple(_notes(session, rows)),
        tokens={s: _tokens(session.examples[s], of_split) for s, of_split in rows.items()},
        device_name=_device_name(device),
        device_cores=len(os.sched_getaffinity(0)),
        free_memory_bytes=free_bytes(device) if device else None,
        four_bit_bytes=held.four_bit,
        other_weights_bytes=held.others,
        largest_layer_bytes=held.largest_layer,
        largest_dequantized_bytes=held.largest_dequantized,
        largest_outside_bytes=held.largest_outside,
        layer_outputs=of_layers,
        vocabulary=vocabulary_size(model_config) or 0,
        adapter_inputs=read,
        mlp_adapter_inputs=read_by_mlp,
        has_gated_layers=any(map(is_of_family, meta.model.modules())),
    )


def _device(config: JobConfig) -> torch.device | None:
    """The device that the job would compute on; None where it is a GPU that is not here."""
    if config.model.device != "cuda":
        return torch.device("cpu")
    return torch.device("cuda", 0) if torch.cuda.is_available() else None


def _device_name(device: torch.device | None) -> str | None:
    if device is None:
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def _tokens(examples: Sequence[Example], rows: Sequence[Encoded]) -> TokenCounts:
    lengths = lengths_of(rows)
    counted = len(_spread(examples))
    mean = int(lengths.sum()) / len(lengths)
    return TokenCounts(len(examples), counted, mean, int(lengths.max()), counted - len(rows))


def _rows(session: Session, split: Split) -> EncodedRows:
    """Rows of a split as model input, without those that the job would leave out."""
    drops = session.config.model.too_long == "drop"
    return session.head.encode(split, _spread(session.examples[split]), drops)


def _notes(session: Session, rows: Mapping[Split, Sequence[Encoded]]) -> Iterator[str]:
    """What to know about the prompt, and about rows that are too long for the model."""
    yield from prompt_notes(session.head, rows)
    for split, of_split in rows.items():
        looked_at = len(_spread(session.examples[split]))
        if left_out := looked_at - len(of_split):
            share = f"{left_out:,} of {plural(looked_at, f'{split} row')}"
            yield f"{share} too long for the model, to be left out."


def _spread(examples: Sequence[Example]) -> Sequence[Example]:
    """All rows, or as many evenly spaced ones as are tokenised."""
    if len(examples) <= MOST_ROWS:
        return examples
    return [examples[i * len(examples) // MOST_ROWS] for i in range(MOST_ROWS)]


def matrix_weights(meta: MetaModel) -> int:
    """Number of weights of the layers' matrices: neither embeddings, nor the head, nor experts."""
    return sum(parameter.numel() for parameter in _layer_weights(meta) if parameter.dim() == 2)


def layer_outputs(meta: MetaModel) -> int:
    """How many numbers the linear modules of all repeated layers give for a token."""
    modules = meta.model.named_modules()
    return sum(outputs(m) for name, m in modules if isinstance(m, LINEAR) and layer_of(name))


def adapter_inputs(adapted: nn.Module) -> tuple[int, int]:
    """How many numbers the modules with an adapter read for a token, all and those of the MLP.

    See `ModelLook`.
    """
    read = [(n, m.in_features) for n, m in adapted.named_modules() if hasattr(m, "lora_A")]
    of_mlp = {(layer_of(name), inputs) for name, inputs in read if not ATTENTION.search(name)}
    return sum(inputs for _, inputs in read), sum(inputs for _, inputs in of_mlp)


def expert_weights(meta: MetaModel) -> int:
    """Number of weights of the experts that a token is multiplied with; 0 without experts.

    Layers hold them as [experts, ...], and choose some for each token.
    """
    of_all = sum(parameter.numel() for parameter in _layer_weights(meta) if parameter.dim() == 3)
    config = meta.config.get_text_config()
    numbers = (getattr(config, name, None) for name in ("num_local_experts", "num_experts"))
    experts = next((number for number in numbers if number), 1)
    return of_all * (getattr(config, "num_experts_per_tok", None) or experts) // experts


def _layer_weights(meta: MetaModel) -> Iterator[nn.Parameter]:
    for name, module in meta.model.named_modules():
        in_head = any(name == head or name.startswith(f"{head}.") for head in meta.head_modules)
        if not in_head and not isinstance(module, nn.Embedding):
            yield from module.parameters(recurse=False)


def _adapted_modules(adapted: nn.Module) -> dict[str, int]:
    """Name -> number of the modules that have an adapter, in the order of the model."""
    found: dict[str, int] = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A"):
            last = name.rpartition(".")[2]
            found[last] = found.get(last, 0) + 1
    return found


def _modes(config: JobConfig) -> tuple[str, ...]:
    """The execution modes in the order in which the job tries them."""
    train = config.train
    rows = train.micro_batch_size or train.batch_size
    plain = execution_name("plain loop", train.gradient_checkpointing, rows)
    if train.speed == "plain":
        return (plain,)
    graphs = config.model.device == "cuda"
    names = tuple(mode.name for mode in execution_modes(train, ROWS_FOR_MODES, graphs))
    return names if train.speed == "graph" else (*names, plain)
