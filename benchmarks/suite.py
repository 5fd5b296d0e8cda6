"""All that the table of measured runs holds, measured anew: `make bench`.

    make bench                                             everything, on the demo's rows
    make bench ARGS="--part shapes --part table --shape llama-3b"
    make bench ARGS="--part jobs --model phi-2=DIR --rows ROWS"
    make bench ARGS="--part table"                         only write the table again

Parts: `shapes` (training and scoring in each execution mode), `trl` (TRL's trainer on the same
models), `unsloth` (see `benchmarks.unsloth_baseline`), `jobs` (whole jobs, with empty caches and
with those of the job before) and `table`. Each measurement is a process of its own, and its command
is printed first. If one fails, the others are still done, and the exit status is 1. Without a GPU
everything is measured on the demo's model.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nlijob.demo import DATA_DIR

RESULTS = Path(__file__).parent / "results"
PARTS = ("shapes", "trl", "unsloth", "jobs", "table")
JOB_ROWS = ("--train-size", "1001", "--validation-size", "100", "--test-size", "100")
ENCODERS = ("minilm", "bert-base")
"""Shapes that TRL's and Unsloth's trainers of causal models do not train."""
UNSLOTH = ("llama-3b", "llama-1b", "smollm2-135m")
"""Shapes for which Unsloth has layers of its own."""


class Setting(NamedTuple):
    """A shape and the options that it is measured with."""

    shape: str
    batch_size: int | None = None
    """None: the recipe's."""
    targets: str = "attention"


SETTINGS = (
    Setting("phi-2"),
    Setting("phi-2", targets="all-linear"),
    *(Setting("phi-2", batch_size) for batch_size in (16, 32, 64)),
    Setting("llama-3b"),
    Setting("llama-3b", targets="all-linear"),
    Setting("llama-1b"),
    Setting("smollm2-135m"),
    *(Setting(shape) for shape in ENCODERS),
)
"""What is measured on a GPU."""


def main() -> None:
    """Run what the options ask for."""
    import torch

    options = options_of(sys.argv[1:])
    failed = []
    for command in commands(options, has_gpu=torch.cuda.is_available()):
        shown = shlex.join(command)
        print(f"\n{shown}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(shown)
    if failed:
        sys.exit("\n".join(["these failed:", *failed]))


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; those that may be repeated are lists, empty where they are not given."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", action="append", choices=PARTS, default=[], help="default: all but unsloth"
    )
    parser.add_argument(
        "--shape",
        action="append",
        choices=sorted({setting.shape for setting in SETTINGS}),
        default=[],
        help="default: all",
    )
    parser.add_argument(
        "--model",
        action="append",
        type=_named_folder,
        default=[],
        metavar="NAME=DIR",
        help="a model to measure; a shape's name: in place of random weights",
    )
    parser.add_argument("--rows", type=Path, default=DATA_DIR, help="folder with train.jsonl, ...")
    parser.add_argument("--unsloth-python", help="Python of an environment with Unsloth")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if "unsloth" in options.part and not options.unsloth_python:
        parser.error("--part unsloth needs --unsloth-python: see benchmarks/unsloth_baseline.py")
    return options


def _named_folder(text: str) -> tuple[str, str]:
    name, separator, folder = text.partition("=")
    if not name or not separator or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR")
    return name, folder


def commands(options: argparse.Namespace, *, has_gpu: bool) -> Iterator[list[str]]:
    """The commands to run, in their order."""
    parts = options.part or [part for part in PARTS if part != "unsloth"]
    place = ["--rows", str(options.rows), "--out", str(options.out)]
    models = [*_models(options, has_gpu)]
    for name, model in models:
        for command in _of_modes(name, parts):
            yield [sys.executable, "-m", "benchmarks.bench", *model, *command, *place]
    if "unsloth" in parts:
        for name, model in models:
            if name.shape in UNSLOTH:
                python = options.unsloth_python
                yield [python, "-m", "benchmarks.unsloth_baseline", *model, *place]
    if "jobs" in parts:
        yield from _jobs(options, has_gpu)
    if "table" in parts:
        yield [sys.executable, "-m", "benchmarks.table", str(options.out)]


def _models(options: argparse.Namespace, has_gpu: bool) -> Iterator[tuple[Setting, list[str]]]:
    """What is measured in one process, with the options that say so."""
    folders = dict(options.model)
    for setting in SETTINGS if has_gpu else ():
        if not options.shape or setting.shape in options.shape:
            model = folders.get(setting.shape)
            batch = setting.batch_size
            yield (
                setting,
                [
                    *["--shape", setting.shape, "--targets", setting.targets],
                    *(["--batch-size", str(batch)] if batch else []),
                    *(["--model", model, "--name", f"{setting.shape}'s shape"] if model else []),
                ],
            )
    shapes = {setting.shape for setting in SETTINGS}
    for name, folder in folders.items():
        if name not in shapes:
            yield Setting(name), ["--model", folder, "--name", name]
    if not has_gpu and not folders:
        yield Setting("demo"), []


def _of_modes(setting: Setting, parts: Sequence[str]) -> Iterator[list[str]]:
    """Options for the modes that the parts ask for; where both, one process measures all."""
    with_trl = "trl" in parts and setting.shape not in ENCODERS
    if "shapes" in parts:
        yield [] if with_trl else ["--trl-steps", "0"]
    elif with_trl:
        yield ["--only-trl"]


def _jobs(options: argparse.Namespace, has_gpu: bool) -> Iterator[list[str]]:
    """Whole jobs, cold and warm: phi-2's shape on a GPU, the demo without one, and given models."""
    start = [sys.executable, "-m", "benchmarks.start", "--empty-caches", "--out", str(options.out)]
    job = ["--recipe", "phi2", "--dataset", str(options.rows), *JOB_ROWS]
    for name, folder in options.model:
        yield [*start, "--name", name, "--", "--model", folder, *job]
    if not options.model:
        yield (
            [*start, "--shape", "phi-2", "--", *job]
            if has_gpu
            else [*start, "--name", "demo", "--", "--recipe", "demo"]
        )


if __name__ == "__main__":
    main()
