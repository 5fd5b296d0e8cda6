"""Writes the table of GPUs and models in docs/models.md, from the sums that `plan` prints.

    python -m tools.memory_table

The models are built without weights, with the `phi2` recipe's adapter. It takes half a minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers

from nlijob.analysis.wording import gib
from nlijob.config import JobConfig, load_config
from nlijob.gpu.fast.stacks.llama import is_of_family
from nlijob.gpu.model import add_adapter, held_weights, meta_model, quiet_libraries
from nlijob.gpu.model_look import adapter_inputs, layer_outputs, matrix_weights
from nlijob.planning.memory import CARDS_GB, memory_need
from nlijob.records.planning import CardFit, ModelLook, ModeMemory, PlannedMemory, TokenCounts

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
BEGIN = "<!-- Generated: python -m tools.memory_table -->\n"
END = "<!-- End of the table of memory -->\n"
RECIPE = "phi2"
TOKENS = TokenCounts(1001, 1001, 59.6, 110)
"""About the lengths of SNLI's rows in the recipe's prompt."""
SHAPES: dict[str, transformers.PretrainedConfig] = {
    "phi-2": transformers.PhiConfig(
        vocab_size=51_200,
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=32,
        num_attention_heads=32,
    ),
    "Llama 2 7B": transformers.LlamaConfig(),  # the library's defaults are its shape
    "Llama 2 13B": transformers.LlamaConfig(
        hidden_size=5120,
        intermediate_size=13_824,
        num_hidden_layers=40,
        num_attention_heads=40,
    ),
    "Qwen2.5 32B": transformers.Qwen2Config(
        vocab_size=152_064,
        hidden_size=5120,
        intermediate_size=27_648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
    ),
    "Llama 3 70B": transformers.LlamaConfig(
        vocab_size=128_256,
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    ),
}
MODES = {
    "gradient checkpointing, one row at a time": "checkpointing, 1 row",
    "gradient checkpointing, 8 rows at a time": "checkpointing",
    "4-bit weights": "4-bit",
    "dequantised weights": "fastest",
}
"""Execution mode -> its name in the table."""


def main() -> None:
    """Replace the generated part of the page."""
    quiet_libraries()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "".join(f"{line}\n" for line in lines())
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")


def lines() -> Iterator[str]:
    """The lines of the table."""
    cards = [f"{card} GB" for card in CARDS_GB]
    columns = ("model", *cards, "leanest to fastest, one GPU", "sharded over 2, 4, 8, each")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    config = load_config(RECIPE, {"model.device": "cuda"})
    for name, shape in SHAPES.items():
        yield line(name, memory_need(config, look_of(config, shape)))


def line(name: str, memory: PlannedMemory) -> str:
    """The line of a model: what each size of GPU can do, and the sums."""
    cells = (*map(_cell, memory.cards), _totals(memory.modes), _totals(memory.sharded))
    return f"| {name} | {' | '.join(cells)} |"


def look_of(config: JobConfig, shape: transformers.PretrainedConfig) -> ModelLook:
    """What the sum needs to know of a model, from its shape alone."""
    meta = meta_model(config, shape)
    held = held_weights(meta, config.model, torch.bfloat16)
    matrices, outputs = matrix_weights(meta), layer_outputs(meta)
    parameters = sum(p.numel() for p in meta.model.parameters())
    with torch.device("meta"):
        adapted = add_adapter(config, meta.model, (), meta.targets)
    read, read_by_mlp = adapter_inputs(adapted)
    return ModelLook(
        model_type=shape.model_type,
        compute_dtype="bfloat16",
        compute_dtype_is_assumed=True,
        max_length=2048,
        target_modules=dict.fromkeys(meta.targets, shape.num_hidden_layers),
        trained_head=(),
        trainable_parameters=sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        base_parameters=parameters,
        multiplied_weights=matrices,
        layers=shape.num_hidden_layers,
        hidden_size=shape.hidden_size,
        weights_bytes=held.four_bit + held.others,
        dequantized_bytes=2 * matrices,
        execution_modes=(),
        example_prompt="",
        label_token_texts=(),
        label_tokens=(),
        tokens={"train": TOKENS},
        device_name=None,
        device_cores=1,
        free_memory_bytes=None,
        four_bit_bytes=held.four_bit,
        other_weights_bytes=held.others,
        largest_layer_bytes=held.largest_layer,
        largest_dequantized_bytes=held.largest_dequantized,
        largest_outside_bytes=held.largest_outside,
        layer_outputs=outputs,
        vocabulary=shape.vocab_size,
        adapter_inputs=read,
        mlp_adapter_inputs=read_by_mlp,
        has_gated_layers=any(map(is_of_family, meta.model.modules())),
    )


def _cell(card: CardFit) -> str:
    if card.mode is None or card.gpus is None:
        return "no"
    return MODES[card.mode] if card.gpus == 1 else f"sharded over {card.gpus}"


def _totals(modes: Sequence[ModeMemory]) -> str:
    totals = [gib(mode.total_bytes).removesuffix(" GiB") for mode in modes]
    return f"{', '.join(totals)} GiB"


if __name__ == "__main__":
    main()
