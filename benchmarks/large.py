"""What a large training set costs the host: time and memory of everything but the GPU's work.

    python -m benchmarks.large --model DIR --rows-from DIR --rows 50000

Multiplies the training rows of a data set to as many as are asked for, and does with them what the
job does: the parent, the GPU side (`benchmarks.large_worker`) and the report each in a process of
its own. The model's weights are not needed: steps are packed, logged and reported as on a GPU, but
computed by nothing, so that a step takes what the host needs for it. Prints a line of JSON.

With `--write DIR` it only writes the rows, as a data set for a job on a GPU: the report of that job
then tells how busy the GPU was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.origin import origin
from benchmarks.reading import largest_memory_bytes
from nlijob import records
from nlijob.config import DataConfig
from nlijob.data.sources import read_file
from nlijob.data.subset import build_subset
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Manifest, TrainStep
from nlijob.report.plots import step_plots
from nlijob.rundir import RunDir

HELD_OUT_ROWS = 1_000
RECIPE = "phi2"


class Watch:
    """Figures of each part of the work: seconds, of these on a core, and the largest memory."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {"imported_mb": round(largest_memory_bytes() / 1e6)}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure the block."""
        began, began_cpu = time.monotonic(), time.process_time()
        yield
        self.figures[f"{name}_s"] = round(time.monotonic() - began, 3)
        self.figures[f"{name}_cpu_s"] = round(time.process_time() - began_cpu, 3)
        self.figures[f"{name}_peak_mb"] = round(largest_memory_bytes() / 1e6)


def main() -> None:
    """Measure each side in a process of its own, or a side of the parent's in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, help="folder with a model's config and tokenizer")
    parser.add_argument("--rows-from", type=Path, help="folder with train.jsonl and the others")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--write", type=Path, help="only write the rows to this folder")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        side, folder = options.measure
        print(json.dumps({"subset": subset, "report": report}[side](Path(folder))))
        return
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        write_multiplied(options.rows_from, options.write, options.rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_multiplied(options.rows_from, Path(folder), options.rows)
        figures = {
            **origin("benchmarks.large", "a large training set", sys.argv[1:]),
            "subset": _of_process("benchmarks.large", "--measure", "subset", folder),
            "worker": _of_process("benchmarks.large_worker", str(options.model), folder),
            "report": _of_process("benchmarks.large", "--measure", "report", folder),
        }
    print(json.dumps({"rows": options.rows, **figures}))


def _of_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def write_multiplied(source: Path, folder: Path, rows: int) -> None:
    """Write splits whose training rows are those of `source` again and again, none twice."""
    for split in SPLITS:
        own = read_file(source / f"{split}.jsonl").rows
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(rows if split == "train" else HELD_OUT_ROWS):
                copy, place = divmod(number, len(own))
                row = own[place]
                premise = f"{row['premise']} {copy}" if copy else row["premise"]
                file.write(json.dumps({**row, "premise": premise}) + "\n")


def run_in(folder: Path) -> RunDir:
    """The run whose records the sides leave to each other."""
    return RunDir(folder / "run")


def subset(folder: Path) -> dict[str, float]:
    """The subset stage, with all rows of the three splits."""
    watch = Watch()
    data = DataConfig(str(folder), train_size=0, validation_size=0, test_size=0)
    with watch.part("subset"):
        build_subset(data, run_in(folder), Hub(True, print))
    return watch.figures


def report(folder: Path) -> dict[str, float]:
    """What grows with rows and steps in the report."""
    watch, run = Watch(), run_in(folder)
    with watch.part("manifest"):
        text = records.dump(records.read(Manifest, run.manifest))
    with watch.part("log"):
        steps = list(records.read_lines(TrainStep, run.train_log))
    with watch.part("chart"):
        charts = step_plots(steps)
    watch.figures["manifest_kb"] = len(text) // 1000
    watch.figures["chart_kb"] = sum(len(chart.svg) for chart in charts.values()) // 1000
    return watch.figures


if __name__ == "__main__":
    main()
