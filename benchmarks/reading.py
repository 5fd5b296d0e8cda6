"""Memory and CPU time of reading a large data set: `python -m benchmarks.reading`.

Makes files of made-up rows in a temporary folder, and builds the subset from each of them in a
process of its own, which reports its largest resident memory. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlijob.analysis.wording import MIB
from nlijob.config import DataConfig
from nlijob.data.subset import build_subset
from nlijob.hub import Hub
from nlijob.records.job import SPLITS
from nlijob.rundir import RunDir

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "jsonl.zst")
HELD_OUT_ROWS = 10_000
PARQUET_BATCH = 10_000
WORDS = [
    a + b for a in "bdfgklmnprst" for b in ("ado", "er", "il", "ona", "ush", "alim", "e", "ix")
]
LABELS = ("entailment", "neutral", "contradiction")


def main() -> None:
    """Measure each format with a part of the rows taken, and with all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="training rows in the source")
    parser.add_argument("--taken", type=int, default=1_000, help="training rows taken; 0 for all")
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.taken)))
        return
    print(f"{options.rows:,} rows, {options.taken or options.rows:,} taken")
    print(f"{'format':>10} {'file, MB':>10} {'memory, MB':>11} {'CPU, s':>8}")
    for form in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder)
            for split in SPLITS:
                rows = options.rows if split == "train" else HELD_OUT_ROWS
                write(source / f"{split}.{form}", split, rows)
            size = (source / f"train.{form}").stat().st_size / 1e6
            figures = in_a_process(source, options.taken)
        print(f"{form:>10} {size:>10.0f} {figures['memory_mb']:>11.0f} {figures['time_s']:>8.1f}")


def in_a_process(source: Path, taken: int) -> dict[str, float]:
    """What `measured` returns in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.reading", "--measure", str(source)]
    done = subprocess.run([*command, "--taken", str(taken)], check=True, capture_output=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measured(source: Path, taken: int) -> dict[str, float]:
    """Build the subset; the process's largest resident memory in MB, and its CPU time in s."""
    data = DataConfig(str(source), train_size=taken, validation_size=1000, test_size=1000)
    started_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        build_subset(data, RunDir(Path(folder)), Hub(True, print))
    return {"memory_mb": largest_memory_bytes() / 1e6, "time_s": time.process_time() - started_s}


def largest_memory_bytes() -> int:
    """The process's largest resident memory since it began this program.

    The figure of `getrusage` would include the larger process from which it was forked.
    """
    (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("utf-8"), re.M)
    return int(line) * 1024


def made_rows(split: str, rows: int) -> Iterator[dict[str, Any]]:
    """Rows about as long as SNLI's, three for each premise."""
    for number in range(rows):
        yield {
            "premise": f"In the {split} picture {number // 3} {_words(number // 3, 10)} is on a "
            'ladder and says "hello".',
            "hypothesis": f"Somebody cleans {_words(number, 4)} of house {number}.",
            "label": LABELS[number % 3],
        }


def _words(seed: int, count: int) -> str:
    """Words that compress about as badly as those of a language."""
    return " ".join(
        WORDS[(seed * 7919 + 31 * i * (seed % 1009)) % len(WORDS)] for i in range(count)
    )


def write(path: Path, split: str, rows: int) -> None:
    """Write made-up rows in the format that the name says."""
    if path.suffix == ".parquet":
        _write_parquet(path, split, rows)
        return
    import pyarrow

    kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pyarrow.output_stream(str(path), compression=kind, buffer_size=MIB) as stream:
        for line in _lines(path.name, split, rows):
            stream.write(line.encode())


def _lines(name: str, split: str, rows: int) -> Iterator[str]:
    if ".csv" in name or ".tsv" in name:
        mark = "," if ".csv" in name else "\t"
        yield mark.join(("premise", "hypothesis", "label")) + "\n"
        for row in made_rows(split, rows):
            fields = [
                '"' + text.replace('"', '""') + '"' if mark == "," and '"' in text else text
                for text in row.values()
            ]
            yield mark.join(fields) + "\n"
    elif ".jsonl" in name:
        yield from (json.dumps(row) + "\n" for row in made_rows(split, rows))
    else:
        for number, row in enumerate(made_rows(split, rows)):
            yield ("[" if number == 0 else ",\n") + json.dumps(row)
        yield "]\n"


def _write_parquet(path: Path, split: str, rows: int) -> None:
    import pyarrow
    import pyarrow.parquet

    batch: list[dict[str, Any]] = []
    names = ("premise", "hypothesis", "label")
    schema = pyarrow.schema([(name, pyarrow.string()) for name in names])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for row in made_rows(split, rows):
            batch.append(row)
            if len(batch) == PARQUET_BATCH:
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema))
                batch.clear()
        writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema))


if __name__ == "__main__":
    main()
