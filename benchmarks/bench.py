"""Training and scoring in each of the job's execution modes and with TRL: `make bench`.

On a GPU the model has phi-2's shape, or another `--shape`, and random weights, made in a temporary
folder. Without a GPU it is the demo's. The rows are the demo's, or `--rows`. Dropout is off so that
all modes do the same steps; one extra measurement uses the recipe's. If rows share a prefix,
another one puts the task after the row in the prompt, so that they share none. Prints a table, and
writes the figures as JSON and as a chart with the loss curves.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import importlib.util
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import torch
import transformers
from torch import Tensor, nn

from benchmarks import step_profile
from benchmarks.origin import origin, today, versions
from benchmarks.shapes import SHAPES, save_random_model
from nlijob.config import JobConfig, load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.gpu.engine import Engine, Forward
from nlijob.gpu.environment import cpu_name
from nlijob.gpu.fast.model import FastModel, shape_of
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded, Head, head_class
from nlijob.gpu.model import LoadedModel, compute_dtype, load, quiet_libraries, read_tokenizer
from nlijob.gpu.scoring import batches, score
from nlijob.gpu.training import Trainer, TrainingSchedule
from nlijob.records.job import Example

if TYPE_CHECKING:
    from benchmarks.trl_baseline import TrlFigures

RESULTS = Path(__file__).parent / "results"
ENCODERS = ("bert",)
"""Model types that are measured with a classification head, on pairs of texts."""
OWN_DROPOUT = 0.1
"""Dropout of a published encoder, of its attention's weights too."""
OUTPUTS = {"phi": "dense", "llama": "o_proj"}
"""Model type -> name of the attention's last linear layer."""
MAX_LENGTH = 2048
EPOCH_OF_WARM_SPEED = 2
OTHER_STEPS = ("with dropout", "no shared prefix")
"""Endings of the names of measurements with other losses than the plain loop."""
MATRIX, CPU_MATRIX = 8192, 2048
"""Rows and columns of the product that gives the matrix rate."""
TRAINED_FLOPS, SCORED_FLOPS = 4, 2
"""Operations per weight and token: forward, and backward to the inputs only (frozen weights)."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all modes are measured on."""

    model_dir: Path
    config: JobConfig
    tokenizer: Any
    head: Head
    rows: Sequence[Encoded]
    device: torch.device
    recipe_dropout: float
    """The recipe's dropout; `config` has none."""
    own_dropout: float = 0.0
    """Dropout of an encoder itself, whose configuration has none."""

    @property
    def is_encoder(self) -> bool:
        """Whether the model has a classification head and reads in both directions."""
        return isinstance(self.head, ClassificationHead)

    def load(self) -> LoadedModel:
        """A fresh model, with the adapter that the seed gives."""
        loaded = load(self.config, self.model_dir, self.tokenizer, self.device)
        for name, module in loaded.model.named_modules() if self.own_dropout else ():
            if isinstance(module, nn.Dropout) and "lora_" not in name:
                module.p = self.own_dropout
        return loaded

    def with_options(self, **train: Any) -> Bench:
        """This bench with other training options."""
        changed = dataclasses.replace(self.config.train, **train)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, train=changed))

    def with_dropout(self) -> Bench:
        """This bench with the recipe's dropout, and that of a published encoder."""
        changed = dataclasses.replace(self.config.lora, dropout=self.recipe_dropout)
        return dataclasses.replace(
            self,
            config=dataclasses.replace(self.config, lora=changed),
            own_dropout=OWN_DROPOUT if self.is_encoder else 0.0,
        )

    def with_task_behind(self) -> Bench:
        """This bench with the lines of the prompt reordered: the row's texts come first."""
        lines = self.config.prompt.template.split("\n")
        texts = ("{premise}", "{hypothesis}")
        fields = [n for n, line in enumerate(lines) if any(text in line for text in texts)]
        begin, end = fields[0], fields[-1] + 1
        template = "\n".join([*lines[begin:end], *lines[:begin], *lines[end:]])
        prompt = dataclasses.replace(self.config.prompt, template=template)
        examples = [row.example for row in self.rows]
        head = CausalHead(self.tokenizer, prompt, MAX_LENGTH, examples)
        return dataclasses.replace(
            self,
            config=dataclasses.replace(self.config, prompt=prompt),
            head=head,
            rows=head.encode("train", examples),
        )


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Mean number of tokens computed per row, without padding."""

    training: float
    scoring: float


@dataclasses.dataclass(frozen=True)
class Figures:
    """Figures of one mode; None where they were not measured."""

    warm_up_s: float
    """Time before the first step that is timed."""
    training_examples_per_s: float
    """Speed after the warm-up."""
    training_examples_per_s_with_warm_up: float | None
    """Speed over all epochs of the recipe and the warm-up before them."""
    training_peak_bytes: int | None
    losses: list[float]
    """Losses of the first steps, or of the first epoch."""
    tokens: Tokens
    scoring_examples_per_s: float | None = None
    scoring_peak_bytes: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """TRL's settings that differ from its defaults."""


Measurement = Callable[[], Figures]


def main() -> None:
    """Measure, print the table, and write the files."""
    options = options_of(__doc__)
    quiet_libraries()
    device = first_device()
    with tempfile.TemporaryDirectory() as folder:
        bench = bench_of(options, device, Path(folder))
        options.out.mkdir(parents=True, exist_ok=True)
        if options.profile:
            _profile(bench, options)
            return
        measurements = dict(_measurements(bench, options))
        if not measurements:
            sys.exit("nothing to measure: TRL is not installed, or does not train this model")
        report = {
            **origin("benchmarks.bench", setting_of(bench, options), sys.argv[1:]),
            **measure(bench, measurements),
        }
    write(report, options, device)


def first_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def options_of(doc: str | None) -> argparse.Namespace:
    """The options of the command line; `doc` is the docstring of the module that is run."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else "")
    parser.add_argument(
        "--shape", choices=SHAPES, default="phi-2", help="model with random weights"
    )
    parser.add_argument("--model", type=Path, help="folder with that model and a tokenizer")
    parser.add_argument(
        "--tokenizer", type=Path, default=MODEL_DIR, help="of random weights; default: the demo's"
    )
    parser.add_argument("--name", help="what the model is called in the table and the file's name")
    parser.add_argument("--rows", type=Path, default=DATA_DIR, help="folder with train.jsonl")
    parser.add_argument("--train-size", type=int, default=1001)
    parser.add_argument("--batch-size", type=int, help="rows of a step; default: the recipe's")
    parser.add_argument(
        "--targets",
        choices=("attention", "all-linear"),
        default="attention",
        help="linear layers with an adapter, on a GPU",
    )
    parser.add_argument("--compute-dtype", help="default: the recipe's")
    parser.add_argument("--plain-steps", type=int, default=100, help="steps of the plain loop")
    parser.add_argument("--trl-steps", type=int, default=40, help="timed steps of TRL; 0: no TRL")
    parser.add_argument("--only-trl", action="store_true", help="leave out the job's own modes")
    parser.add_argument("--profile", action="store_true", help="only list the kernels of a step")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def _differs(options: argparse.Namespace) -> list[str]:
    """What distinguishes a measurement from the default one, for the names of its files."""
    name = re.sub(r"[^\w.]+", "-", options.name) if options.name else options.shape
    return [
        *[name] * (name != "phi-2"),
        *[f"batch-{options.batch_size}"] * bool(options.batch_size),
        *[options.targets] * (options.targets != "attention"),
        *["trl"] * options.only_trl,
    ]


def setting_of(bench: Bench, options: argparse.Namespace) -> str:
    """What the model is called in the table of measured runs."""
    if options.name:
        return str(options.name)
    if options.model:
        return _model_name(bench.model_dir)
    return f"{options.shape}'s shape" if bench.device.type == "cuda" else "the demo's model"


def bench_of(options: argparse.Namespace, device: torch.device, folder: Path) -> Bench:
    """What the options ask to measure; a model with random weights is made in the folder."""
    on_gpu = device.type == "cuda"
    recipe = "phi2" if on_gpu else "demo"
    exact: dict[str, Any] = {
        "lora.dropout": 0.0,
        "model.residual_dropout": 0.0,
        "model.device": device.type,
    }
    model_dir = options.model or (
        save_random_model(options.shape, folder, device, options.tokenizer) if on_gpu else MODEL_DIR
    )
    kind = transformers.AutoConfig.from_pretrained(model_dir).model_type
    if kind in ENCODERS:
        exact |= {"model.head": "sequence-classification", "prompt.template": ""}
    if options.targets != "attention" or kind in ENCODERS:
        exact |= {"lora.target_modules": options.targets}
    elif on_gpu or options.model:
        exact |= {"lora.target_modules": ("q_proj", "k_proj", "v_proj", OUTPUTS[kind])}
    if options.compute_dtype:
        exact |= {"model.compute_dtype": options.compute_dtype}
    if options.batch_size:
        exact |= {"train.batch_size": options.batch_size}
    config = load_config(recipe, exact)
    tokenizer = read_tokenizer(config, model_dir)
    examples = spread_rows(options.rows, options.train_size)
    head = head_class(config.model.head)(tokenizer, config.prompt, MAX_LENGTH, examples)
    encoded = head.encode("train", examples)
    dropout = load_config(recipe).lora.dropout
    return Bench(model_dir, config, tokenizer, head, encoded, device, dropout)


def spread_rows(folder: Path, count: int) -> list[Example]:
    """At most `count` of the labelled training rows in a folder, evenly spread."""
    rows = [row for row in read_file(folder / "train.jsonl").rows if row["label"] >= 0]
    count = min(count, len(rows))
    return [
        Example(i, rows[i]["premise"], rows[i]["hypothesis"], rows[i]["label"])
        for i in (n * len(rows) // count for n in range(count))
    ]


# ---------------------------------------------------------------- measuring


def measure(bench: Bench, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
    """The figures of each measurement, with the machine and what was measured on."""
    weights = _linear_weights(bench)
    rate = _rate(bench)
    measured = {}
    for name, measurement in measurements.items():
        figures = measurement()
        measured[name] = {
            **dataclasses.asdict(figures),
            "takes_the_same_steps": not name.endswith(OTHER_STEPS),
            "share_of_matrix_rate_training": _share(
                figures.training_examples_per_s,
                weights * figures.tokens.training * TRAINED_FLOPS,
                rate,
            ),
            "share_of_matrix_rate_scoring": _share(
                figures.scoring_examples_per_s,
                weights * figures.tokens.scoring * SCORED_FLOPS,
                rate,
            ),
        }
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return {
        "device": _device_name(bench.device),
        "cpu": f"{os.cpu_count()} cores of {cpu_name()}",
        "model": _model_name(bench.model_dir),
        "cuda": torch.version.cuda,
        "rows": len(bench.rows),
        "mean_tokens": mean_tokens(bench),
        "batch_size": bench.config.train.batch_size,
        "scoring_batch_size": bench.config.eval.batch_size,
        "lora": dataclasses.asdict(bench.config.lora),
        "recipe_dropout": bench.recipe_dropout,
        "weights_multiplied_a_token": weights,
        "matrix_rate_flops": rate,
        "ways": measured,
    }


def _share(examples_per_s: float | None, flops: float, rate: float) -> float | None:
    """Fraction of the machine's matrix rate; None where the speed was not measured."""
    return examples_per_s * flops / rate if examples_per_s else None


def _measurements(bench: Bench, options: argparse.Namespace) -> Iterator[tuple[str, Measurement]]:
    """The measurements by name; TRL comes last, because it changes settings of shared libraries."""
    if not options.only_trl:
        yield from _own_measurements(bench, options.plain_steps)
    if bench.is_encoder or not options.trl_steps:  # TRL's trainer does not train encoders
        return
    if importlib.util.find_spec("trl"):
        yield from _trl_measurements(bench, options.trl_steps)
    else:
        print("TRL is not installed, so not measured: pip install '.[bench]'", file=sys.stderr)


def _own_measurements(bench: Bench, plain_steps: int) -> Iterator[tuple[str, Measurement]]:
    """The job's own execution modes."""
    fast = "graphs" if bench.device.type == "cuda" else "packed rows"
    plain = bench.with_options(speed="plain")
    yield "plain loop", lambda: _chosen_mode(plain, plain_steps)
    if bench.device.type == "cuda":
        yield f"{fast}, 4-bit weights", lambda: _as_loaded(bench)
    yield fast, lambda: _chosen_mode(bench)
    yield f"{fast}, with dropout", lambda: _chosen_mode(bench.with_dropout())
    if bench.is_encoder:  # which shares no prefix
        yield (
            "plain loop, with dropout",
            lambda: _chosen_mode(plain.with_dropout(), plain_steps),
        )
    elif shape_of(bench.rows).prefix:
        yield f"{fast}, no shared prefix", lambda: _chosen_mode(bench.with_task_behind())


def _chosen_mode(bench: Bench, steps: int | None = None) -> Figures:
    loaded = _fresh(bench)
    started = time.monotonic()
    engine = Engine(loaded, bench.head, bench.config, bench.rows)
    trainer = engine.trainer()
    warm_up_s = time.monotonic() - started
    return _figures(bench, trainer, engine.forward, warm_up_s, steps)


def _as_loaded(bench: Bench) -> Figures:
    """CUDA graphs with 4-bit weights, which are dequantised at each use."""
    loaded = _fresh(bench)
    started = time.monotonic()
    fast = FastModel(loaded, bench.head, dense=False)
    schedule = TrainingSchedule(bench.config.train, bench.rows)
    trainer = FastTrainer(loaded, fast, schedule, None)
    warm_up_s = time.monotonic() - started

    def forward() -> Forward:
        loaded.model.eval()
        fast.adapter.refresh()
        return fast.score_rows

    return _figures(bench, trainer, forward, warm_up_s, None)


def _trl_measurements(bench: Bench, steps: int) -> Iterator[tuple[str, Measurement]]:
    from benchmarks import trl_baseline

    def measured(settings: Mapping[str, Any]) -> Figures:
        assert isinstance(bench.head, CausalHead)
        schedule = TrainingSchedule(bench.config.train, bench.rows)
        trial = trl_baseline.trial(_fresh(bench), bench.head, schedule, settings, steps)
        return trial_figures(bench, trial, settings)

    for name, settings in trl_baseline.SETTINGS.items():
        yield name, functools.partial(measured, settings)


def _fresh(bench: Bench) -> LoadedModel:
    loaded = bench.load()
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return loaded


def _figures(
    bench: Bench,
    trainer: Trainer,
    forward: Callable[[], Forward],
    warm_up_s: float,
    steps: int | None,
) -> Figures:
    """Train an epoch (or its first `steps` steps) for the losses, and a second for the speed."""
    losses, first_speed, first_s = _epoch(trainer, 1, steps)
    speed, epoch_s = first_speed, first_s
    if steps is None:
        _, speed, epoch_s = _epoch(trainer, EPOCH_OF_WARM_SPEED, None)
    training_peak = peak_bytes(bench.device)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    size = bench.config.eval.batch_size
    for _ in range(2):  # the first run loads libraries, the second is measured
        scored, _ = score(forward(), bench.head, "train", bench.rows, size, lambda done: None)
    epochs = bench.config.train.epochs
    whole_s = warm_up_s + first_s + (epochs - 1) * epoch_s
    return Figures(
        warm_up_s=warm_up_s,
        training_examples_per_s=speed,
        training_examples_per_s_with_warm_up=epochs * len(bench.rows) / whole_s
        if steps is None
        else None,
        training_peak_bytes=training_peak,
        losses=losses,
        tokens=_tokens(bench, trainer),
        scoring_examples_per_s=scored.examples_per_s,
        scoring_peak_bytes=peak_bytes(bench.device),
    )


def _tokens(bench: Bench, trainer: Trainer) -> Tokens:
    whole = mean_tokens(bench)
    if not isinstance(trainer, FastTrainer):
        return Tokens(whole, whole)
    count = len(bench.rows)
    packs = math.ceil(count / bench.config.train.batch_size)
    scored = [
        [bench.rows[i] for i in chosen]
        for chosen in batches(bench.rows, bench.config.eval.batch_size)
    ]
    saved = sum(shape_of(rows, bench.is_encoder).prefix * (len(rows) - 1) for rows in scored)
    return Tokens(whole - trainer.prefix * (count - packs) / count, whole - saved / count)


def trial_figures(bench: Bench, trial: TrlFigures, settings: Mapping[str, Any]) -> Figures:
    """The figures of a training by another trainer, whose tokens are those of the rows."""
    return Figures(
        warm_up_s=trial.warm_up_s,
        training_examples_per_s=trial.examples_per_s,
        training_examples_per_s_with_warm_up=None,
        training_peak_bytes=peak_bytes(bench.device),
        losses=trial.losses,
        tokens=Tokens(mean_tokens(bench), mean_tokens(bench)),
        settings=settings,
    )


def mean_tokens(bench: Bench) -> float:
    """Mean number of tokens of a row."""
    return sum(row.length for row in bench.rows) / len(bench.rows)


def peak_bytes(device: torch.device) -> int | None:
    """Largest memory that torch has allocated; None on a CPU."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


def _epoch(trainer: Trainer, epoch: int, steps: int | None) -> tuple[list[float], float, float]:
    """Losses of the steps, examples per second, and seconds in total."""
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
    """Weights that every token is multiplied with: all linear layers except the head."""
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(bench.model_dir)
        model = bench.head.auto_class.from_config(config)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    return sum(module.weight.numel() for module in linear)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large product of random values."""
    on_gpu = device.type == "cuda"
    size, times = (MATRIX, 20) if on_gpu else (CPU_MATRIX, 5)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = sorted((_gpu_seconds if on_gpu else _cpu_seconds)(a, b) for _ in range(times))
    return 2 * size**3 / seconds[times // 2]


def _gpu_seconds(a: Tensor, b: Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    torch.mm(a, b)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def _cpu_seconds(a: Tensor, b: Tensor) -> float:
    began_s = time.monotonic()
    torch.mm(a, b)
    return time.monotonic() - began_s


def _rate(bench: Bench) -> float:
    """The machine's rate in the element type that the model is computed in."""
    shape = transformers.AutoConfig.from_pretrained(bench.model_dir)
    return matrix_rate(bench.device, compute_dtype(bench.config.model, shape, bench.device))


def _profile(bench: Bench, options: argparse.Namespace) -> None:
    """Write the time of each kernel in the fastest mode's steps, in the second epoch."""
    engine = Engine(_fresh(bench), bench.head, bench.config, bench.rows)
    trainer = engine.trainer()
    list(trainer.epoch(1))
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = step_profile.table(trainer, EPOCH_OF_WARM_SPEED, bench.device)
    text += f"\n{_device_name(bench.device)}, {today()}: {known}\n"
    print(text)
    stem = "-".join([_stem(bench.device), "step-profile", *_differs(options)])
    (options.out / f"{stem}.txt").write_text(text, encoding="utf-8")


def _stem(device: torch.device) -> str:
    return f"{today()}-{_device_name(device).lower().replace(' ', '-')}"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _model_name(model_dir: Path) -> str:
    shape = transformers.AutoConfig.from_pretrained(model_dir)
    return f"{shape.model_type}, {shape.num_hidden_layers} layers of {shape.hidden_size}"


# ---------------------------------------------------------------- output


def write(
    report: dict[str, Any], options: argparse.Namespace, device: torch.device, *ending: str
) -> None:
    """Write a report's file and chart, and print its table; their names get the ending."""
    stem = "-".join([_stem(device), "ways", *_differs(options), *ending])
    text = json.dumps(report, indent=1) + "\n"
    (options.out / f"{stem}.json").write_text(text, encoding="utf-8")
    _plot(report, options.out / f"{stem}.png")
    _print(report)


def _plot(report: dict[str, Any], path: Path) -> None:
    figure, (speeds, curves) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    slowest_first = sorted(report["ways"].items(), key=lambda item: _speed(item[1]))
    for width, (name, mode) in zip(range(len(slowest_first), 0, -1), slowest_first, strict=True):
        (bar,) = speeds.barh(name, _speed(mode))
        share = mode["share_of_matrix_rate_training"]
        beside = f" {_speed(mode):.0f}" + (f" ({share:.0%})" if share else "")
        speeds.annotate(beside, (_speed(mode), bar.get_y() + bar.get_height() / 2), va="center")
        if mode["takes_the_same_steps"]:
            losses = mode["losses"]
            style = {"lw": width, "color": bar.get_facecolor(), "label": name}
            curves.plot(range(1, len(losses) + 1), losses, **style)
    speeds.margins(x=0.3)
    speeds.set(xlabel="training, examples/s" + (" (of the matrix rate)" if share else ""))
    curves.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
    curves.legend(fontsize="small")
    figure.suptitle(f"{report['model']}; {report['device']}, {report['date']}: the same steps")
    figure.savefig(path, dpi=120)


def _print(report: dict[str, Any]) -> None:
    columns = {
        "train ex/s": ("training_examples_per_s", 1, ".1f"),
        "with warm-up": ("training_examples_per_s_with_warm_up", 1, ".1f"),
        "of rate": ("share_of_matrix_rate_training", 1, ".1%"),
        "GiB": ("training_peak_bytes", 2**30, ".2f"),
        "warm-up s": ("warm_up_s", 1, ".2f"),
        "score ex/s": ("scoring_examples_per_s", 1, ".1f"),
        "GiB, scoring": ("scoring_peak_bytes", 2**30, ".2f"),
    }
    print(f"{'mode':24}", *(f"{heading:>12}" for heading in columns))
    for name, mode in sorted(report["ways"].items(), key=lambda item: _speed(item[1])):
        cells = (
            "" if mode[key] is None else format(mode[key] / unit, form)
            for key, unit, form in columns.values()
        )
        print(f"{name:24}", *(f"{cell:>12}" for cell in cells))


def _speed(mode: dict[str, Any]) -> float:
    speed: float = mode["training_examples_per_s"]
    return speed


if __name__ == "__main__":
    main()
