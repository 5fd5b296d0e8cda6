"""The job's training done by Unsloth. NOT RUN YET: written from the source of Unsloth 2026.10.9.

Unsloth wants older versions of datasets (below 5) and trl (at most 1.15) than the job, and at most
transformers 5.17.0, so it needs an environment of its own, with a GPU:

    python -m venv ../unsloth
    ../unsloth/bin/pip install unsloth==2026.10.9 transformers==5.17.0 matplotlib
    ../unsloth/bin/python -m benchmarks.unsloth_baseline --shape llama-3b --rows ROWS

in the top folder of the repository, which is not installed there: only its modules are used.
`make bench ARGS="--part unsloth --unsloth-python ../unsloth/bin/python"` runs it on all shapes that
Unsloth has layers for.

Like TRL in `benchmarks.trl_baseline`, it gets the shape, the rows in the order of the job's first
epoch, the effective batch, the learning rates, the seed, and a loss on the label token only. It
quantises the model and makes the adapter itself, from the same rank, alpha, layers and seed. So its
losses are near the job's, not equal to them.
"""

from __future__ import annotations

import unsloth  # isort: skip  # before the libraries that it patches

import functools
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import (
    MAX_LENGTH,
    Bench,
    Figures,
    bench_of,
    first_device,
    measure,
    options_of,
    setting_of,
    trial_figures,
    write,
)
from benchmarks.origin import origin
from benchmarks.trl_baseline import trial
from nlijob.gpu.heads import CausalHead
from nlijob.gpu.model import LoadedModel, quiet_libraries
from nlijob.gpu.training import TrainingSchedule

CHECKPOINTING: Mapping[str, str | bool] = {
    "Unsloth, as it comes": "unsloth",
    "Unsloth, without checkpointing": False,
}
"""Name -> Unsloth's own gradient checkpointing, its default, and none."""


def main() -> None:
    """Measure both settings, print the table, and write the files."""
    options = options_of(__doc__)
    if not torch.cuda.is_available():
        sys.exit("Unsloth needs a GPU")
    quiet_libraries()
    device = first_device()
    with tempfile.TemporaryDirectory() as folder:
        bench = bench_of(options, device, Path(folder))
        options.out.mkdir(parents=True, exist_ok=True)
        measurements = {
            name: functools.partial(figures_of, bench, checkpointing, options.trl_steps)
            for name, checkpointing in CHECKPOINTING.items()
        }
        report = {
            **origin("benchmarks.unsloth_baseline", setting_of(bench, options), sys.argv[1:]),
            **measure(bench, measurements),
        }
    write(report, options, device, "unsloth")


def figures_of(bench: Bench, checkpointing: str | bool, steps: int) -> Figures:
    """Train a few steps to warm up, its compiling included, and then time `steps` steps."""
    assert isinstance(bench.head, CausalHead)
    torch.cuda.reset_peak_memory_stats()
    settings: dict[str, Any] = {"gradient_checkpointing": bool(checkpointing)}
    schedule = TrainingSchedule(bench.config.train, bench.rows)
    done = trial(_loaded(bench, checkpointing), bench.head, schedule, settings, steps)
    return trial_figures(bench, done, settings)


def _loaded(bench: Bench, checkpointing: str | bool) -> LoadedModel:
    """The model as Unsloth reads and quantises it, with its adapter."""
    lora, seed = bench.config.lora, bench.config.train.seed
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=str(bench.model_dir),
        max_seq_length=MAX_LENGTH,
        dtype=torch.bfloat16,
        load_in_4bit=True,
        use_gradient_checkpointing=checkpointing,
        random_state=seed,
    )
    modules = lora.target_modules
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=lora.r,
        target_modules=modules if isinstance(modules, str) else list(modules),
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        use_gradient_checkpointing=checkpointing,
        random_state=seed,
        max_seq_length=MAX_LENGTH,
    )
    return LoadedModel(model, bench.tokenizer, bench.device, torch.bfloat16, MAX_LENGTH)


if __name__ == "__main__":
    main()
