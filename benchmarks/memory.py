"""The execution mode, speed and peak memory of the job on a GPU with little memory.

    python -m benchmarks.memory --model DIR --rows DIR 16 8 4 3

A limit is the number of GiB that torch may allocate, or "lean" for
train.gradient_checkpointing=true without a limit. Each is measured in a process of its own:
loading, planning, an epoch to warm up, an epoch to measure, and scoring. Prints a line of JSON for
each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import MAX_LENGTH, spread_rows
from nlijob.config import load_config
from nlijob.errors import JobError
from nlijob.gpu.engine import Engine
from nlijob.gpu.heads import CausalHead
from nlijob.gpu.model import GIB, load, quiet_libraries, read_tokenizer
from nlijob.gpu.scoring import score
from nlijob.gpu.training import reason

LEAN = "lean"
DEVICE = torch.device("cuda", 0)


def main() -> None:
    """Measure each limit in a process of its own, or a single one in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, required=True, help="folder with model and tokenizer")
    parser.add_argument("--rows", type=Path, required=True, help="folder with train.jsonl")
    parser.add_argument("--train-size", type=int, default=1001)
    parser.add_argument("limits", nargs="+", help=f"GiB, or {LEAN}")
    options = parser.parse_args()
    if len(options.limits) == 1:
        print(json.dumps(_measured(options, options.limits[0])))
        return
    for limit in options.limits:
        before = sys.argv[1 : -len(options.limits)]
        subprocess.run([sys.executable, "-m", "benchmarks.memory", *before, limit], check=False)


def _measured(options: argparse.Namespace, limit: str) -> dict[str, Any]:
    quiet_libraries()
    changes = {"model.device": "cuda", "train.gradient_checkpointing": limit == LEAN}
    config = load_config("phi2", changes)
    if limit != LEAN:
        whole = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction(float(limit) * GIB / whole, DEVICE)
    tokenizer = read_tokenizer(config, options.model)
    examples = spread_rows(options.rows, options.train_size)
    head = CausalHead(tokenizer, config.prompt, MAX_LENGTH, examples)
    encoded = head.encode("train", examples)
    figures: dict[str, Any] = {"limit": limit, "peaks_gib": {}}

    def peak(phase: str) -> None:
        figures["peaks_gib"][phase] = {
            "allocated": round(torch.cuda.max_memory_allocated() / GIB, 3),
            "reserved": round(torch.cuda.max_memory_reserved() / GIB, 3),
        }
        torch.cuda.reset_peak_memory_stats()

    try:
        loaded = load(config, options.model, tokenizer, DEVICE)
        peak("load")
        engine = Engine(loaded, head, config, encoded)
        peak("plan")
        trainer = engine.trainer()
        peak("capture")
        losses = [step.loss for step in trainer.epoch(1)]
        started = time.monotonic()
        losses += [step.loss for step in trainer.epoch(2)]
        figures["training_examples_per_s"] = round(len(examples) / (time.monotonic() - started), 1)
        figures["losses"] = [round(loss, 3) for loss in (losses[0], losses[-1])]
        peak("train")
        batch = config.eval.batch_size
        for _ in range(2):  # the first run loads libraries, the second is measured
            scored, _ = score(engine.forward(), head, "train", encoded, batch, lambda done: None)
        figures["scoring_examples_per_s"] = round(scored.examples_per_s, 1)
        peak("score")
        figures["plan"] = engine.plan().__dict__
    except (JobError, torch.OutOfMemoryError) as error:
        figures["error"] = reason(error)
    return figures


if __name__ == "__main__":
    main()
