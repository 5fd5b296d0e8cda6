"""A model whose weights are divided between GPUs, each with less memory than one alone would need.

    python -m benchmarks.sharded --shape "Llama 2 13B" --gpus 2 --limit 6

The model has random weights, made on the GPU a layer at a time. Three parts, each in processes of
its own, print a line of JSON: one GPU with the limit (GiB that torch may allocate), which runs out
of memory; several with the same limit; and one without it. The last one takes the same steps in the
plain loop, and reads the adapter that the second part has saved. Rows and tokenizer are the demo's.
On a machine without a GPU, `--shape tiny --device cpu` tries the script out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn

from nlijob.accelerate_file import FILE
from nlijob.config import JobConfig, load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.errors import HardwareError, JobError
from nlijob.gpu import checkpoints
from nlijob.gpu.engine import Engine
from nlijob.gpu.group import ALONE, Group, ProcessGroup
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import (
    GIB,
    LoadedModel,
    MetaModel,
    add_adapter,
    meta_model,
    quiet_libraries,
    read_tokenizer,
)
from nlijob.gpu.model.structure import layer_of
from nlijob.gpu.sharded import ShardedEngine, shard, sharding
from nlijob.gpu.training import reason
from nlijob.memory import is_out_of_memory
from nlijob.planning.memory import CONTEXT_BYTES, memory_need
from nlijob.records.job import Example
from tools.memory_table import SHAPES, look_of

TINY = transformers.LlamaConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4
)
LIMITED, DIVIDED, ALONE_PART = "one GPU, limited", "divided", "one GPU"
ADAPTER, LOGITS = "adapter", "logits.pt"
SCORED_ROWS = 64


def main() -> None:
    """Do all parts in processes of their own, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", default="Llama 2 13B", choices=[*SHAPES, "tiny"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--limit", type=float, help="GiB of each GPU that torch may allocate")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps to take and compare")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        _do(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in (LIMITED, DIVIDED, ALONE_PART):
            start = [sys.executable]
            if part == DIVIDED:
                start += ["-m", "accelerate.commands.launch", "--config_file", str(FILE)]
                start += ["--num_processes", str(options.gpus), "--num_machines", "1"]
                start += ["--main_process_port", "0", "--dynamo_backend", "no"]
            own = ["-m", "benchmarks.sharded", *sys.argv[1:], "--part", part, "--folder", folder]
            subprocess.run([*start, *own], check=False)


def _do(options: argparse.Namespace) -> None:
    quiet_libraries()
    group = ProcessGroup(options.device) if options.part == DIVIDED else ALONE
    device = group.device if group.is_shared else torch.device(options.device, 0)
    figures: dict[str, Any] = {"part": options.part, "shape": options.shape}
    if device.type == "cuda":
        figures["device"] = torch.cuda.get_device_name(device)
        if options.limit and options.part != ALONE_PART:
            figures["limit_gib"] = options.limit
            whole = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(options.limit * GIB / whole, device)
    try:
        figures |= _measured(options, group, device)
    except (JobError, RuntimeError) as error:
        lacks_memory = isinstance(error, HardwareError) or is_out_of_memory(error)
        if not lacks_memory or options.part != LIMITED:
            raise
        figures["out_of_memory"] = reason(error)
    if group.is_lead:
        print(json.dumps(figures), flush=True)
    if group.is_shared:
        group.gather(None)
        torch.distributed.destroy_process_group()


def _measured(options: argparse.Namespace, group: Group, device: torch.device) -> dict[str, Any]:
    config, shape = _config(options), TINY if options.shape == "tiny" else SHAPES[options.shape]
    tokenizer = read_tokenizer(config, MODEL_DIR)
    examples = _examples(options.steps * options.batch_size)
    head = CausalHead(tokenizer, config.prompt, 2048, examples)
    rows = head.encode("train", examples)
    started = time.monotonic()
    place = torch.device("cpu") if group.is_shared else device
    loaded = _random_model(config, shape, tokenizer, device, place)
    figures: dict[str, Any] = {"made_s": round(time.monotonic() - started, 1)}
    engine: Engine
    if settings := sharding():
        group.in_step = True
        loaded = shard(loaded, group, settings)
        engine = ShardedEngine(loaded, head, config, rows, settings)
    else:
        engine = Engine(loaded, head, config, rows)
    figures["loaded_s"] = round(time.monotonic() - started, 1)
    scored = rows[:SCORED_ROWS]
    if options.part == ALONE_PART:
        figures |= _compare_with_saved(loaded, engine, scored, options.folder)
    with loaded.model.disable_adapter():
        base = engine.forward()(scored)
    figures["peaks_gib"] = {"load and base": _peaks(group, device)}
    trainer = engine.trainer(config.train, group)
    started = time.monotonic()
    steps = list(trainer.epoch(1))
    figures["training_examples_per_s"] = round(len(rows) / (time.monotonic() - started), 1)
    figures["losses"] = [round(step.loss, 4) for step in steps]
    figures["peaks_gib"]["train"] = _peaks(group, device)
    tuned = engine.forward()(scored)
    figures["peaks_gib"]["score"] = _peaks(group, device)
    figures["mode"] = engine.plan().way
    if group.is_shared:
        needed = memory_need(config, look_of(config, shape))
        sums = {one.gpus: one.total_bytes - CONTEXT_BYTES for one in needed.sharded}
        figures["sum_gib"] = round(sums[group.size] / GIB, 2) if group.size in sums else None
        if group.is_lead:
            checkpoints.save_adapter(loaded.model, options.folder / ADAPTER, config.model)
            torch.save({"base": base.cpu(), "tuned": tuned.cpu()}, options.folder / LOGITS)
    return figures


def _compare_with_saved(
    loaded: LoadedModel, engine: Engine, rows: Sequence[Encoded], folder: Path
) -> dict[str, Any]:
    """How far one process is off the divided model, with the adapter that this has saved.

    The model is then again as it was before.
    """
    if not (folder / LOGITS).is_file():
        return {}
    saved = torch.load(folder / LOGITS, weights_only=True)
    with loaded.model.disable_adapter():
        base = engine.forward()(rows).cpu()
    first = checkpoints.on_host(checkpoints.trained_weights(loaded.model))
    checkpoints.load_adapter(loaded.model, folder / ADAPTER)
    tuned = engine.forward()(rows).cpu()
    checkpoints.set_trained_weights(loaded.model, first)
    return {
        "adapter_read": True,
        "base_logits_difference": _relative(base, saved["base"]),
        "tuned_logits_difference": _relative(tuned, saved["tuned"]),
        "change_by_tuning": _relative(tuned, base),
    }


def _relative(one: Tensor, other: Tensor) -> float:
    return round(float((one - other).norm() / other.norm()), 6)


def _peaks(group: Group, device: torch.device) -> list[dict[str, float]]:
    """torch's peaks since the last call in each process, in GiB."""
    if device.type != "cuda":
        return []
    own = {
        "allocated": round(torch.cuda.max_memory_allocated(device) / GIB, 3),
        "reserved": round(torch.cuda.max_memory_reserved(device) / GIB, 3),
    }
    torch.cuda.reset_peak_memory_stats(device)
    return group.gather(own)


# ---------------------------------------------------------------- model and rows


def _config(options: argparse.Namespace) -> JobConfig:
    return load_config(
        "demo",
        {
            "model.device": options.device,
            "train.batch_size": options.batch_size,
            "train.epochs": 1,
            "train.gradient_checkpointing": True,
            "train.speed": "auto" if options.part == LIMITED else "plain",
            "lora.target_modules": "attention",
            "lora.dropout": 0.0,
        },
    )


def _examples(count: int) -> list[Example]:
    rows = [row for row in read_file(DATA_DIR / "train.jsonl").rows if row["label"] >= 0]
    return [
        Example(i, row["premise"], row["hypothesis"], row["label"])
        for i, row in enumerate(rows[:count])
    ]


def _random_model(
    config: JobConfig,
    shape: transformers.PretrainedConfig,
    tokenizer: Any,
    device: torch.device,
    place: torch.device,
) -> LoadedModel:
    """The model in 4 bits at `place`, with weights drawn on `device`, the same in each process."""
    shape._attn_implementation = "sdpa"
    shape.use_cache = False
    shape.pad_token_id = tokenizer.pad_token_id
    meta = meta_model(config, shape)
    meta.model.to(torch.bfloat16)
    torch.manual_seed(0)
    with torch.no_grad():
        _draw(meta, device, place)
    torch.manual_seed(config.train.seed)
    model = add_adapter(config, meta.model, (), meta.targets)
    return LoadedModel(
        model,
        tokenizer,
        place,
        torch.bfloat16,
        2048,
        targets=meta.targets,
        unquantized=("lm_head",),
    )


def _draw(meta: MetaModel, device: torch.device, place: torch.device) -> None:
    model: Any = meta.model
    for name, module in list(model.named_modules()):
        if any(True for _ in module.buffers(recurse=False)):  # tables, which are computed
            model.set_submodule(name, type(module)(model.config).to(place))
        elif isinstance(module, nn.Linear) and layer_of(name):
            model.set_submodule(name, _four_bit(module, device).to(place))
        else:
            for key, weight in list(module.named_parameters(recurse=False)):
                drawn = torch.ones(weight.shape, dtype=torch.bfloat16, device=device)
                if weight.dim() > 1:
                    drawn.normal_(std=0.02)
                setattr(module, key, nn.Parameter(drawn.to(place), requires_grad=False))


def _four_bit(linear: nn.Linear, device: torch.device) -> Linear4bit:
    """A linear module with random weights in NF4, as the job loads them."""
    shape = (linear.out_features, linear.in_features)
    weight = torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(std=0.02)
    made = Linear4bit(
        *reversed(shape),
        bias=linear.bias is not None,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        device="meta",
    )
    made.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", module=made).to(device)
    made.support_avx512bf16_for_cpu = False
    if linear.bias is not None:
        bias = torch.zeros(shape[0], dtype=torch.bfloat16, device=device)
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
