"""Speed and memory of `predict` on a finished run, beside the job's own scoring.

    python -m benchmarks.predict runs/phi2 --rows 50000

Labels the run's rows, repeated to that number, as a user does. Then scores the same rows with the
job's own scoring in this process: encoded beforehand, forward passes only. Both are on the same
device, one after the other. Prints a line of JSON.

`predict_rows_per_s` leaves out the first chunk, before which the model is loaded; so there must be
several chunks of rows. The share is what is lost by reading, tokenizing and writing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import tempfile
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.config import Device
from nlijob.console import Console
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Example, ScoreResult, WorkerTask
from nlijob.records.use import Chunk, UseTask
from nlijob.rundir import RunDir, write_record
from nlijob.use.labelling import CHUNK_ROWS
from nlijob.use.predict import Request, predict
from nlijob.use.tuned import find_model, find_tuned, with_device
from nlijob.use.workspace import workspace


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--rows", type=int, default=6 * CHUNK_ROWS)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    rows = _rows(RunDir(options.run), options.rows)
    figures: dict[str, Any] = {"run": str(options.run), "rows": len(rows)}
    figures |= _predicted(options.run, rows, options.device)
    recorded = records.read(ScoreResult, RunDir(options.run).evaluate_result).scores["test"]
    figures["run_recorded_rows_per_s"] = round(recorded.examples_per_s, 1)
    figures |= _scored(options.run, rows, options.device)
    share = figures["predict_rows_per_s"] / figures["scoring_rows_per_s"]
    print(json.dumps({**figures, "share": round(share, 3)}))


def _rows(run: RunDir, count: int) -> list[Example]:
    """The run's rows, repeated."""
    own = chain.from_iterable(records.read_lines(Example, run.subset(split)) for split in SPLITS)
    return list(islice(cycle(list(own)), count))


def _predicted(run: Path, rows: list[Example], device: Device) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for row in rows:
                texts = {"premise": row.premise, "hypothesis": row.hypothesis}
                file.write(json.dumps(texts) + "\n")
        output = Path(folder) / "labelled.jsonl"
        counts = predict(Request(source=run, rows=source, output=output, device=device), Console())
    rate = counts.rate()
    if rate is None:
        raise SystemExit(f"give more than {CHUNK_ROWS} rows")
    usage = {
        "parent": _peak_mib(resource.RUSAGE_SELF),
        "gpu_side": _peak_mib(resource.RUSAGE_CHILDREN),
    }
    return {"predict_rows_per_s": round(rate, 1), "peak_memory_mib": usage}


def _peak_mib(who: int) -> int | None:
    """Largest resident memory in MiB of this process or of those it started; None if not known."""
    with contextlib.suppress(ChildProcessError):  # one that has ended counts once it is waited for
        os.waitpid(-1, os.WNOHANG)
    return round(resource.getrusage(who).ru_maxrss / 1024) or None


def _scored(run: Path, rows: list[Example], device: Device) -> dict[str, Any]:
    """The rate of the job's scoring on the same rows, from the second time on."""
    from nlijob.gpu.model import quiet_libraries
    from nlijob.gpu.predicting import Predictor
    from nlijob.gpu.session import Session

    quiet_libraries()
    tuned = find_tuned(run)
    config = with_device(tuned.config, device)
    task = UseTask(str(tuned.adapter.absolute()), tuned.label_tokens)
    model_dir, stamp = find_model(tuned, Hub(False, print), print)
    with workspace() as place:
        place.prepare(config, task, tuned.checked_rows)
        write_record(place.run.worker_task, WorkerTask(1, 0.0, 0.0, str(model_dir), stamp, {}))
        predictor = Predictor(Session(place.run), task)
        texts = tuple(row.premise for row in rows), tuple(row.hypothesis for row in rows)
        encoded = predictor.encode(Chunk(*texts))
        scores = [predictor.scored(encoded)[0] for _ in range(2)]
    return {
        "scoring_rows_per_s": round(scores[-1].examples_per_s, 1),
        "device": config.model.device,
        "mode": predictor.mode,
    }


if __name__ == "__main__":
    main()
