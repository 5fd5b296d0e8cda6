"""`predict` with a stand-in for the GPU side: what it reads, writes, refuses and says."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from nlijob import __version__, cli, records, stopping
from nlijob.attempt import Moment
from nlijob.errors import HardwareError
from nlijob.records.job import RunRecord, WorkerTask
from nlijob.records.use import AdapterRecord, Chunk, RowFault, ScoredChunk, UseTask
from nlijob.rundir import RunDir, write_record
from nlijob.stopping import Stopped
from nlijob.streams import _lasting
from nlijob.use import labelling, predict, tuned
from nlijob.use.workspace import Workspace
from tests.in_process import Shown
from tests.synthetic import STAMPS, Spec, build_run

TOO_LONG = "too long"
"""A premise that the stand-in does not label."""


class StandIn:
    """Labels chunks at once: the label number is the premise's length modulo 3."""

    launched = Moment(0.0, 0.0)
    dies_at: int | None = None
    """Chunk at which it meets a lack of memory."""
    tasks: Sequence[tuple[WorkerTask, UseTask]] = ()

    def __init__(self, run: RunDir, device: str, work: str, trusts_code: bool) -> None:
        self._place = Workspace(run.root)
        self._number = 1
        assert (device, work, trusts_code) == ("cpu", "predict", False)

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def give(self, task: WorkerTask) -> None:
        type(self).tasks = [(task, records.read(UseTask, self._place.task))]

    @property
    def is_at_work(self) -> bool:
        if self._number == self.dies_at:
            return False
        file = self._place.chunk(self._number)
        chunk = records.read(Chunk, file)
        scored = [len(premise) % 3 for premise in chunk.premises]
        bad = [RowFault(i, "200 tokens") for i, p in enumerate(chunk.premises) if p == TOO_LONG]
        shares = tuple((0.25, 0.25, 0.5) for _ in scored)
        text = ScoredChunk(tuple(scored), shares, tuple(bad)).text()
        self._place.scored(self._number).write_text(text, encoding="utf-8")
        self._number += 1
        return True

    def raise_outcome(self) -> None:
        raise HardwareError("out of memory: the kernel ended the GPU side")

    def follow(self, on_progress: object) -> None:
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter, to be copied."""
    run = build_run(
        tmp_path_factory.mktemp("made"), Spec(epochs=2, gpu=False, demo=True, rows=12, train_rows=9)
    )
    run.adapter.mkdir()
    save_file({"weight": np.zeros(2)}, run.adapter / "adapter_model.safetensors")
    (run.adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    return run.root


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(stopping, "raise_on_signals", lambda: None)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(predict, "GpuSide", StandIn)
    monkeypatch.setattr(StandIn, "dies_at", None)
    monkeypatch.setattr(StandIn, "tasks", ())
    monkeypatch.setattr(labelling, "CHUNK_ROWS", 4)
    monkeypatch.setattr(tuned, "model_stamp", lambda *_: STAMPS["model"])
    return RunDir(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Shown]:
    """Calls `predict`."""

    def call(*arguments: str | Path) -> Shown:
        monkeypatch.setattr(sys, "argv", ["entrypoint.py", "predict", *map(str, arguments)])
        return Shown(cli.main(), *capsys.readouterr())

    return call


def adapter_alone(run: RunDir, to: Path, **changes: Any) -> Path:
    """The run's adapter in a folder of its own, as the job writes it."""
    folder = shutil.copytree(run.adapter, to)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    record = AdapterRecord(
        records.read(RunRecord, run.config).config,
        STAMPS["model"],
        (5, 6, 7),
        hashlib.sha256(weights).hexdigest(),
        __version__,
    )
    write_record(folder / "nlijob.json", dataclasses.replace(record, **changes))
    return folder


def json_rows(premises: Sequence[str]) -> str:
    return "".join(json.dumps({"premise": p, "hypothesis": "b"}) + "\n" for p in premises)


def labels(lines: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in lines.splitlines()]
    return [(row["premise"], row["predicted_label"]) for row in rows]


def expected(premises: Sequence[str]) -> list[tuple[str, str]]:
    names = ("entailment", "neutral", "contradiction")
    return [(premise, names[len(premise) % 3]) for premise in premises]


PREMISES = ["x" * n for n in range(1, 31)]


def test_rows_of_many_chunks_stay_in_order(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json_rows(PREMISES), encoding="utf-8")
    shown = called(run.root, source, "-o", out)
    assert shown.code == 0, shown.err
    assert labels(out.read_text("utf-8")) == expected(PREMISES)
    assert "predicted_label, probability_entailment, probability_neutral" in shown.err
    assert f"30 rows written to {out}" in shown.err


def test_standard_input_goes_to_standard_output(
    run: RunDir, called: Callable[..., Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"premise,hypothesis,id\na,b,7\nab,b,8\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    shown = called(run.root, "--format", "csv")
    assert shown.out.splitlines()[1:] == [
        "a,b,7,neutral,0.25,0.25,0.5",
        "ab,b,8,contradiction,0.25,0.25,0.5",
    ]


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("claim,text", ("--premise-column", "text", "--hypothesis-column", "claim")),
        ("sentence2,sentence1", ()),  # as corpora name them
        ("hypothesis,context", ()),
    ],
)
def test_columns_are_found_by_name_as_in_the_job(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, header: str, options: Sequence[str]
) -> None:
    (tmp_path / "in.csv").write_text(f"{header}\nb,ab\n", encoding="utf-8")
    shown = called(run.root, tmp_path / "in.csv", *options)
    assert shown.out.splitlines()[1].startswith("b,ab,contradiction,"), shown.err


def test_a_compressed_file_is_unpacked(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(json_rows(PREMISES).encode()))
    shown = called(run.root, tmp_path / "in.jsonl.gz")
    assert labels(shown.out) == expected(PREMISES)


def test_a_compressed_file_that_is_cut_is_refused(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    packed = gzip.compress(json_rows(PREMISES).encode())
    (tmp_path / "in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    shown = called(run.root, tmp_path / "in.jsonl.gz")
    assert shown.code == 4
    assert "in.jsonl.gz cannot be read after line 0: EOFError" in shown.err


class Failing(io.BytesIO):
    """A stream that breaks after six lines."""

    lines_left = 6

    def readline(self, size: int | None = -1) -> bytes:
        self.lines_left -= 1
        if self.lines_left < 0:
            raise OSError(5, "Input/output error")
        return super().readline(size)


def test_an_input_that_breaks_ends_it_with_the_rows_before(
    run: RunDir, called: Callable[..., Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(Failing(json_rows(PREMISES).encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    shown = called(run.root, "--format", "jsonl")
    assert shown.code == 4
    assert labels(shown.out) == expected(PREMISES[:6])
    assert "standard input cannot be read after line 6: OSError" in shown.err
    assert "6 rows are written to standard output" in shown.err


@pytest.mark.parametrize("base", [True, False])
def test_the_gpu_side_gets_the_adapter_unless_the_base_model_is_asked_for(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, base: bool
) -> None:
    (tmp_path / "in.jsonl").write_text(json_rows(["a"]), encoding="utf-8")
    shown = called(run.root, tmp_path / "in.jsonl", *(["--base"] if base else []))
    assert shown.code == 0
    assert StandIn.tasks[0][1].adapter == (None if base else str(run.adapter))


@pytest.mark.parametrize("bad", ["malformed", "too long"])
def test_a_bad_row_ends_it_and_the_rows_before_stay(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, bad: str
) -> None:
    lines = json_rows(PREMISES[:6]), json_rows([TOO_LONG]), json_rows(PREMISES[6:])
    text = lines[0] + ("{\n" if bad == "malformed" else lines[1]) + lines[2]
    (tmp_path / "in.jsonl").write_text(text, encoding="utf-8")
    out = tmp_path / "out.jsonl"
    shown = called(run.root, tmp_path / "in.jsonl", "-o", out)
    assert shown.code == 4
    assert f"error: {tmp_path / 'in.jsonl'}, line 7: " in shown.err
    assert f"the 6 rows before it are written to {out}" in shown.err
    assert labels(out.read_text("utf-8")) == expected(PREMISES[:6])


@pytest.mark.parametrize("bad", ["{\n", json_rows([TOO_LONG])], ids=["malformed", "too long"])
def test_bad_rows_can_be_left_out(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, bad: str
) -> None:
    text = bad + json_rows(PREMISES[:6]) + bad * 9 + json_rows(PREMISES[6:])
    (tmp_path / "in.jsonl").write_text(text, encoding="utf-8")
    shown = called(run.root, tmp_path / "in.jsonl", "--on-error", "skip")
    assert shown.code == 0
    assert labels(shown.out) == expected(PREMISES)
    assert "left out: line 1: " in shown.err
    assert "left out: line 8: " in shown.err
    assert "10 rows left out" in shown.err


def test_rows_left_out_beyond_the_first_are_counted_only(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("{\n" * 50 + json_rows(["a"]), encoding="utf-8")
    shown = called(run.root, tmp_path / "in.jsonl", "--on-error", "skip")
    assert shown.err.count("left out: line") == labelling.SHOWN_FAULTS
    assert "50 rows left out" in shown.err


def test_an_input_without_rows_gives_its_header(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    (tmp_path / "in.tsv").write_text("premise\thypothesis\n", encoding="utf-8")
    shown = called(run.root, tmp_path / "in.tsv")
    assert shown.code == 0
    assert shown.out.startswith("premise\thypothesis\tpredicted_label\t")


def test_what_was_written_stays_if_the_gpu_side_runs_out_of_memory(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "dies_at", 3)
    (tmp_path / "in.jsonl").write_text(json_rows(PREMISES), encoding="utf-8")
    shown = called(run.root, tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl")
    assert shown.code == 5
    assert labels((tmp_path / "out.jsonl").read_text("utf-8")) == expected(PREMISES[:8])


def test_a_stop_says_how_many_rows_are_written(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = labelling._scored

    def stopped(number: int, *others: Any) -> ScoredChunk:
        if number == 3:
            raise Stopped("SIGTERM")
        return scored(number, *others)

    monkeypatch.setattr(labelling, "_scored", stopped)
    (tmp_path / "in.jsonl").write_text(json_rows(PREMISES), encoding="utf-8")
    shown = called(run.root, tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl")
    assert shown.code == 75
    assert f"8 rows are written to {tmp_path / 'out.jsonl'}" in shown.err


def test_a_reader_that_is_gone_ends_it_early_and_well(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text(json_rows(PREMISES), encoding="utf-8")
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", _lasting(None, writing))
    shown = called(run.root, tmp_path / "in.jsonl")
    os.close(writing)
    assert shown.code == 0
    assert "nobody reads standard output" in shown.err


def test_a_full_disk_is_a_fault_of_the_disk(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(json_rows(PREMISES), encoding="utf-8")
    assert called(run.root, tmp_path / "in.jsonl", "-o", "/dev/full").code == 74


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("file", "code", "text"),
    [
        ("rows.txt", 2, "give --format"),
        ("rows.jsonl", 4, "No such file"),
    ],
)
def test_an_input_that_cannot_be_read_is_named(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, file: str, code: int, text: str
) -> None:
    shown = called(run.root, tmp_path / file)
    assert shown.code == code
    assert text in shown.err


@pytest.mark.parametrize("output", ["in.jsonl", "out.csv", "out.jsonl.gz"])
def test_an_output_that_is_the_input_or_of_another_format_is_refused(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, output: str
) -> None:
    (tmp_path / "in.jsonl").write_text(json_rows(PREMISES), encoding="utf-8")
    shown = called(run.root, tmp_path / "in.jsonl", "-o", tmp_path / output)
    assert shown.code == 2
    assert (tmp_path / "in.jsonl").read_text("utf-8") == json_rows(PREMISES)


def test_a_damaged_run_is_refused_as_by_report(run: RunDir, called: Callable[..., Shown]) -> None:
    run.evaluate_predictions.write_text("", encoding="utf-8")
    shown = called(run.root, "--format", "csv")
    assert shown.code == 4
    assert (
        "cannot be used:\n  - evaluate: evaluate/predictions.jsonl is missing or has" in shown.err
    )


def test_a_run_whose_base_model_is_another_one_now_is_refused(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "model_stamp", lambda *_: "config.json:1|model.safetensors:2")
    (tmp_path / "in.jsonl").write_text(json_rows(PREMISES), encoding="utf-8")
    shown = called(run.root, tmp_path / "in.jsonl")
    assert shown.code == 4
    assert "differ from the files that the run read" in shown.err
    assert shown.out == ""


def test_an_adapter_alone_is_used_with_what_stands_beside_it(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    adapter = adapter_alone(run, tmp_path / "adapter")
    (tmp_path / "in.jsonl").write_text(json_rows(["a"]), encoding="utf-8")
    shown = called(adapter, tmp_path / "in.jsonl")
    assert labels(shown.out) == expected(["a"])
    assert StandIn.tasks[0][1] == UseTask(str(adapter), (5, 6, 7))


def test_an_adapter_of_somebody_else_is_refused_with_what_it_lacks(
    run: RunDir, called: Callable[..., Shown]
) -> None:
    shown = called(run.adapter, "--format", "csv")
    assert shown.code == 4
    assert "has no nlijob.json: an adapter alone does not say which prompt and labels" in shown.err


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "has no adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "safetensors"),
        (lambda folder: (folder / "nlijob.json").write_text("{"), "nlijob.json cannot be read"),
        (
            lambda folder: save_file({"w": np.ones(2)}, folder / "adapter_model.safetensors"),
            "is not the file that nlijob.json belongs to",
        ),
    ],
    ids=["no settings", "no weights", "record cut", "other weights"],
)
def test_a_damaged_adapter_is_refused(
    run: RunDir,
    called: Callable[..., Shown],
    tmp_path: Path,
    damage: Callable[[Path], object],
    text: str,
) -> None:
    adapter = adapter_alone(run, tmp_path / "adapter")
    damage(adapter)
    shown = called(adapter, "--format", "csv")
    assert shown.code == 4
    assert text in shown.err


def test_a_folder_with_a_model_is_not_taken_for_a_run(
    called: Callable[..., Shown], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "phi"}', encoding="utf-8")
    shown = called(tmp_path, "--format", "csv")
    assert shown.code == 4
    assert "holds a model, neither a run nor an adapter" in shown.err


def test_a_folder_without_run_or_adapter_is_refused(
    called: Callable[..., Shown], tmp_path: Path
) -> None:
    assert called(tmp_path, "--format", "csv").code == 4
    assert called(tmp_path / "none", "--format", "csv").code == 4
