"""Training and scoring in each of the job's ways, side by side: `make bench`.

On a GPU, phi-2's geometry with random weights, made in a temporary folder; without one, the demo's
model and the plain way alone. Rows are the demo's, or `--rows`. Prints a table; writes the figures
as JSON, and the loss curves of the plain way and the fastest one over each other.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import gc
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import transformers
from torch import nn

from nlijob.config import JobConfig, load_config
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.gpu.engine import Engine, Forward
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.trainer import GraphTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel, load, quiet_libraries, read_tokenizer
from nlijob.gpu.scoring import score
from nlijob.gpu.training import Course, Trainer
from nlijob.records import Example
from nlijob.subset import read_rows

RESULTS = Path(__file__).parent / "results"
PHI_2 = {
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.4,
}
"""microsoft/phi-2's configuration, as far as it sets sizes."""
EPOCH_OF_WARM_SPEED = 2
MATRIX = 8192
TRAINED_FLOPS, SCORED_FLOPS = 4, 2
"""Operations a weight and token: forward, and backward to the inputs alone (weights are frozen)."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every way is measured on."""

    model_dir: Path
    config: JobConfig
    tokenizer: Any
    head: CausalHead
    rows: list[Encoded]
    device: torch.device

    def load(self) -> LoadedModel:
        """The model afresh, with the adapter that the seed gives."""
        return load(self.config, self.model_dir, self.tokenizer, self.device)

    def with_options(self, **train: Any) -> Bench:
        """The same with other options of training."""
        changed = dataclasses.replace(self.config.train, **train)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, train=changed))


def main() -> None:
    """Measure, print, write."""
    options = _options()
    quiet_libraries()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench(options, device, Path(folder))
        report = _measure(bench, options.plain_steps)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"{report['date']}-{report['device'].lower().replace(' ', '-')}-ways"
    (options.out / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _plot(report, options.out / f"{stem}.png")
    _print(report)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, help="folder with model and tokenizer")
    parser.add_argument("--rows", type=Path, default=DATA_DIR, help="folder with train.jsonl")
    parser.add_argument("--train-size", type=int, default=1001)
    parser.add_argument("--plain-steps", type=int, default=100, help="steps of the plain loop")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def _bench(options: argparse.Namespace, device: torch.device, folder: Path) -> Bench:
    on_gpu = device.type == "cuda"
    recipe = {"lora.dropout": 0.0, "model.residual_dropout": 0.0, "model.device": device.type}
    config = load_config("phi2" if on_gpu else "demo", recipe)
    model_dir = options.model or (_random_phi_2(folder, device) if on_gpu else MODEL_DIR)
    tokenizer = read_tokenizer(config, model_dir)
    rows = [row for row in read_rows(options.rows / "train.jsonl") if row["label"] >= 0]
    size = min(options.train_size, len(rows))
    chosen = [i * len(rows) // size for i in range(size)]
    examples = [
        Example(i, rows[i]["premise"], rows[i]["hypothesis"], rows[i]["label"]) for i in chosen
    ]
    head = CausalHead(tokenizer, config.prompt, 2048, examples)
    return Bench(model_dir, config, tokenizer, head, head.encode("train", examples), device)


def _random_phi_2(folder: Path, device: torch.device) -> Path:
    """A model of phi-2's size with random weights, and the demo's tokenizer."""
    torch.manual_seed(0)
    with device:
        model: Any = transformers.PhiForCausalLM(transformers.PhiConfig(**PHI_2)).bfloat16()
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(MODEL_DIR).save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- measuring


def _measure(bench: Bench, plain_steps: int) -> dict[str, Any]:
    weights = _linear_weights(bench)
    tokens = sum(row.length for row in bench.rows) / len(bench.rows)
    rate = _matrix_rate(bench.device)
    ways = {}
    for name, way in _ways(bench):
        ways[name] = way(plain_steps if name == "plain" else None)
        if rate:
            flops = weights * tokens * ways[name]["training_examples_per_s"] * TRAINED_FLOPS
            ways[name]["share_of_matrix_rate_training"] = flops / rate
            flops = weights * tokens * ways[name]["scoring_examples_per_s"] * SCORED_FLOPS
            ways[name]["share_of_matrix_rate_scoring"] = flops / rate
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": _device_name(bench.device),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "transformers", "peft", "bitsandbytes")
        },
        "cuda": torch.version.cuda,
        "rows": len(bench.rows),
        "mean_tokens": tokens,
        "batch_size": bench.config.train.batch_size,
        "scoring_batch_size": bench.config.eval.batch_size,
        "lora": dataclasses.asdict(bench.config.lora),
        "weights_multiplied_a_token": weights,
        "matrix_rate_flops": rate,
        "ways": ways,
    }


def _ways(bench: Bench) -> Iterator[tuple[str, Any]]:
    yield "plain", lambda steps: _chosen_way(bench.with_options(speed="plain"), steps)
    if bench.device.type == "cuda":
        yield "graphs, 4-bit weights", lambda steps: _four_bit_way(bench, steps)
        yield "graphs", lambda steps: _chosen_way(bench.with_options(speed="graph"), steps)


def _chosen_way(bench: Bench, steps: int | None) -> dict[str, Any]:
    loaded = _fresh(bench)
    started = time.monotonic()
    engine = Engine(loaded, bench.head, bench.config, bench.rows)
    trainer = engine.trainer()
    warm_up_s = time.monotonic() - started
    return _figures(bench, trainer, engine.forward, warm_up_s, steps)


def _four_bit_way(bench: Bench, steps: int | None) -> dict[str, Any]:
    loaded = _fresh(bench)
    started = time.monotonic()
    fast = FastModel(loaded, bench.head, dense=False)
    trainer = GraphTrainer(loaded, fast, Course(bench.config.train, bench.rows), None)
    warm_up_s = time.monotonic() - started

    def forward() -> Forward:
        loaded.model.eval()
        fast.adapter.refresh()
        return fast.score_rows

    return _figures(bench, trainer, forward, warm_up_s, steps)


def _fresh(bench: Bench) -> LoadedModel:
    loaded = bench.load()
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return loaded


def _figures(
    bench: Bench, trainer: Trainer, forward: Any, warm_up_s: float, steps: int | None
) -> dict[str, Any]:
    """A first epoch (its first `steps` steps) with its losses, a second for the warm speed."""
    losses, first_speed, first_s = _epoch(trainer, 1, steps)
    speed, epoch_s = first_speed, first_s
    if steps is None:
        _, speed, epoch_s = _epoch(trainer, EPOCH_OF_WARM_SPEED, None)
    size = bench.config.eval.batch_size
    for _ in range(2):  # the first loads what the second is measured with
        scored, _ = score(forward(), bench.head, "train", bench.rows, size, lambda done: None)
    epochs = bench.config.train.epochs
    return {
        "warm_up_s": warm_up_s,
        "training_examples_per_s": speed,
        "training_examples_per_s_with_warm_up": None
        if steps is not None
        else epochs * len(bench.rows) / (warm_up_s + first_s + (epochs - 1) * epoch_s),
        "epoch_s": len(bench.rows) / speed,
        "scoring_examples_per_s": scored.examples_per_s,
        "peak_memory_bytes": torch.cuda.max_memory_allocated()
        if bench.device.type == "cuda"
        else None,
        "losses": losses,
    }


def _epoch(trainer: Trainer, epoch: int, steps: int | None) -> tuple[list[float], float, float]:
    """Losses of the steps, examples a second, seconds in all."""
    losses: list[float] = []
    examples = 0
    started = time.monotonic()
    for step in trainer.epoch(epoch):
        losses.append(step.loss)
        examples += step.examples
        if len(losses) == steps:
            break
    seconds = time.monotonic() - started
    return losses, examples / seconds, seconds


def _linear_weights(bench: Bench) -> int:
    """Weights that every token is multiplied with: all linear layers but the head."""
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(bench.model_dir)
        model = transformers.AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    return sum(module.weight.numel() for module in linear)


def _matrix_rate(device: torch.device) -> float | None:
    """Operations a second of one large bfloat16 product of random values; None on a CPU."""
    if device.type != "cuda":
        return None
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        torch.mm(a, b)
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1000)
    median: float = sorted(seconds)[len(seconds) // 2]
    return 2 * MATRIX**3 / median


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


# ---------------------------------------------------------------- telling


def _plot(report: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    styles: Sequence[dict[str, Any]] = ({"lw": 3, "alpha": 0.4}, {"lw": 1}, {"lw": 1, "ls": ":"})
    for (name, way), style in zip(report["ways"].items(), styles, strict=False):
        axes.plot(range(1, len(way["losses"]) + 1), way["losses"], label=name, **style)
    axes.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
    axes.set_title(f"{report['device']}, {report['date']}: the same steps in each way")
    axes.legend()
    figure.savefig(path, dpi=120)


def _print(report: dict[str, Any]) -> None:
    print(f"{'way':24} {'train ex/s':>10} {'warm-up s':>9} {'score ex/s':>10} {'GiB':>6}")
    for name, way in report["ways"].items():
        memory = way["peak_memory_bytes"]
        print(
            f"{name:24} {way['training_examples_per_s']:10.1f} {way['warm_up_s']:9.2f} "
            f"{way['scoring_examples_per_s']:10.1f} "
            f"{'n/a' if memory is None else format(memory / 2**30, '.2f'):>6}"
        )


if __name__ == "__main__":
    main()
