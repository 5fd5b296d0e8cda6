"""The copy of the quantised base model: when it is written, and when it is read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nlijob import records
from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.gpu import quantized
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel, load
from nlijob.gpu.quantized import QuantizedCopy
from nlijob.gpu.session import Session
from nlijob.records.job import Progress, RunRecord, Timing, WorkerTask
from nlijob.rundir import RunDir, write_record

CPU = torch.device("cpu")
READ, WRITTEN = "read from its 4-bit copy", "4-bit copy written"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; any loading time is long enough for a copy."""
    folder = tmp_path / "assets"
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(folder))
    monkeypatch.setattr(quantized, "WORTH_A_COPY_S", 0.0)
    return folder


@dataclasses.dataclass
class Loading:
    """The model as one job loaded it, and the parts of loading that were timed."""

    model: Any
    copy: QuantizedCopy
    parts: list[str]

    def weights(self) -> dict[str, torch.Tensor]:
        weights: dict[str, torch.Tensor] = self.model.state_dict()
        return weights


NewLoading = Callable[..., Loading]


@pytest.fixture
def loading(demo: JobConfig, tokenizer: Any) -> NewLoading:
    """Load the model as a job does, and seal a new copy if `seals`."""

    def new(config: JobConfig = demo, stamp: str = "a", seals: bool = True) -> Loading:
        parts: list[str] = []

        @contextlib.contextmanager
        def timed(part: str) -> Iterator[None]:
            parts.append(part)
            yield

        dtype = torch.bfloat16 if config.model.compute_dtype == "bfloat16" else torch.float32
        copy = QuantizedCopy(config, stamp, dtype, CPU, timed)
        model = load(config, MODEL_DIR, tokenizer, CPU, copy).model
        if seals:
            copy.seal()
        return Loading(model, copy, parts)

    return new


def of_model(config: JobConfig, **changes: Any) -> JobConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def test_a_copy_equals_the_model_bit_for_bit(loading: NewLoading, demo: JobConfig) -> None:
    first, second = loading(), loading()
    assert (first.parts, second.parts) == ([WRITTEN], [READ])
    assert same(first.weights(), second.weights())
    assert any("quant_state" in name for name in second.weights())
    assert second.model.config.pad_token_id == first.model.config.pad_token_id
    assert second.model.generation_config == first.model.generation_config


def test_a_model_read_from_its_copy_scores_and_trains_like_the_original(
    loading: NewLoading, head: CausalHead, rows: list[Encoded]
) -> None:
    def outcome(model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        batch = head.collate(rows[:4], CPU)
        with torch.no_grad():
            logits = head.logits(model.eval(), batch)
        head.logits(model.train(), batch).sum().backward()  # type: ignore[no-untyped-call]
        return logits, [p.grad for p in model.parameters() if p.requires_grad]

    expected, gradients = outcome(loading().model)
    second = loading()
    logits, of_copy = outcome(second.model)
    assert second.parts == [READ]
    assert torch.equal(logits, expected)
    assert all(torch.equal(a, b) for a, b in zip(gradients, of_copy, strict=True))
    assert any(gradient.any() for gradient in of_copy)


def test_a_model_that_loads_quickly_is_not_copied(
    loading: NewLoading, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "WORTH_A_COPY_S", 600.0)
    assert loading().parts == []
    assert not cache.exists()


def test_a_model_that_is_not_quantised_is_not_copied(
    loading: NewLoading, demo: JobConfig, cache: Path
) -> None:
    assert loading(of_model(demo, quantization="none")).parts == []
    assert not cache.exists()


@pytest.mark.parametrize("what", ["files", "constants", "dtype", "versions"])
def test_a_changed_model_gets_a_new_copy_that_replaces_the_old_one(
    loading: NewLoading, demo: JobConfig, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = loading()
    config, stamp = demo, "a"
    if what == "files":
        stamp = "b"
    elif what == "constants":
        config = of_model(demo, double_quantization=not demo.model.double_quantization)
    elif what == "dtype":
        config = of_model(demo, compute_dtype="bfloat16")
    else:
        monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    second = loading(config, stamp)
    assert second.parts == [WRITTEN]
    assert list(second.copy.folder.parent.iterdir()) == [second.copy.folder]
    assert first.copy.folder != second.copy.folder
    assert loading(config, stamp).parts == [READ]


def test_a_new_classification_head_depends_on_the_seed_and_not_on_the_copy(
    loading: NewLoading, demo: JobConfig
) -> None:
    config = of_model(demo, head="sequence-classification")
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=7))
    first, second = loading(config), loading(config)
    assert (second.parts, same(first.weights(), second.weights())) == ([READ], True)
    of_other_seed = loading(other)
    assert of_other_seed.parts == [WRITTEN]
    assert not same(of_other_seed.weights(), second.weights())


@pytest.mark.parametrize("fault", ["cut short", "a weight missing", "weights gone"])
def test_a_broken_copy_is_replaced(loading: NewLoading, fault: str) -> None:
    first = loading()
    file = first.copy.folder / "model.safetensors"
    if fault == "cut short":
        file.write_bytes(file.read_bytes()[:-1000])
    elif fault == "a weight missing":
        weights = load_file(file)
        weights.pop(next(name for name in weights if name.endswith("layernorm.weight")))
        save_file(weights, file, {"format": "pt"})
    else:
        file.unlink()
    second = loading()
    assert second.parts == [READ, WRITTEN]
    assert same(second.weights(), first.weights())
    assert loading().parts == [READ]


def test_an_unsealed_copy_is_ignored_and_removed(loading: NewLoading) -> None:
    assert loading(seals=False).parts == [WRITTEN]  # this job was killed
    second = loading()
    assert second.parts == [WRITTEN]
    assert list(second.copy.folder.parent.iterdir()) == [second.copy.folder]


@pytest.mark.parametrize(
    ("host", "pid", "age_s", "stays"),
    [
        (socket.gethostname(), os.getpid(), 0.0, True),
        (socket.gethostname(), 2**22 + 1, 0.0, False),  # beyond the largest process id
        ("another-host", 2**22 + 1, 3600.0, True),
        ("another-host", 2**22 + 1, 25 * 3600.0, False),
    ],
    ids=["of this process", "of a dead one", "of another host", "of another host, old"],
)
def test_a_copy_that_a_killed_writer_left_is_removed(
    loading: NewLoading, host: str, pid: int, age_s: float, stays: bool
) -> None:
    folder = loading().copy.folder.parent
    unsealed = folder / f"unsealed-{host}-{pid}-abc_123"
    unsealed.mkdir()
    (unsealed / "model.safetensors").write_text("half of it")
    then = time.time() - age_s
    os.utime(unsealed, (then, then))
    assert loading().parts == [READ]
    assert unsealed.exists() == stays


def test_an_unsealed_copy_names_its_writer(loading: NewLoading) -> None:
    copy = loading(seals=False).copy
    assert copy._unsealed is not None
    assert copy._unsealed.name.startswith(f"unsealed-{socket.gethostname()}-{os.getpid()}-")
    assert loading().parts == [WRITTEN]  # no other job removes it while this process lives


def test_two_jobs_at_once_leave_one_copy(loading: NewLoading) -> None:
    first, second = loading(seals=False), loading(seals=False)
    first.copy.seal()
    second.copy.seal()
    assert list(second.copy.folder.parent.iterdir()) == [first.copy.folder]
    assert loading().parts == [READ]


def test_a_cache_that_is_cleared_meanwhile_does_no_harm(loading: NewLoading, cache: Path) -> None:
    loaded = loading(seals=False)
    shutil.rmtree(cache)
    loaded.copy.seal()
    assert not cache.exists()


def test_other_users_of_the_cache_can_read_a_copy(loading: NewLoading) -> None:
    folder = loading().copy.folder
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in folder.iterdir())
    assert folder.stat().st_mode & 0o055 == 0o055


def test_a_cache_that_cannot_be_written_does_no_harm(loading: NewLoading, cache: Path) -> None:
    cache.write_text("no folder")
    loaded = loading()
    assert not loaded.copy.is_written
    assert any("quant_state" in name for name in loaded.weights())


def test_no_copy_is_written_that_would_take_half_of_the_free_space(
    loading: NewLoading, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert not loading().copy.is_written
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), ValueError("the generation config is invalid")],
)
def test_a_copy_that_cannot_be_written_completely_is_removed(
    loading: NewLoading, cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(model: Any, folder: Path) -> None:
        (folder / "model.safetensors").write_text("some")
        raise error

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", failing)
    loaded = loading()
    assert not loaded.copy.is_written
    assert any("quant_state" in name for name in loaded.weights())
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", [".", "..", "models/a", "/models/a", "acme/base"])
def test_each_model_has_a_folder_of_its_own_within_the_cache(
    demo: JobConfig, cache: Path, name: str
) -> None:
    copy = QuantizedCopy(
        of_model(demo, name=name), "a", torch.float32, CPU, lambda part: contextlib.nullcontext()
    )
    assert copy.folder.parent.parent == cache / "nlijob"


def test_the_job_reports_its_copy_and_the_next_job_reads_it(
    demo: JobConfig, tokenizer: Any, tmp_path: Path
) -> None:
    def loaded(name: str) -> tuple[LoadedModel, list[str], list[str]]:
        run = RunDir(tmp_path / name)
        write_record(run.config, RunRecord("job", "demo", demo, (), "2026-01-01", "0"))
        write_record(run.worker_task, WorkerTask(1, 0.0, 0.0, str(MODEL_DIR), "a", {}))
        session = Session(run)
        model = session.loaded
        session.copy_writer.wait()
        told = session.run.progress
        lines = [line.note for line in records.read_lines(Progress, told)] if told.exists() else []
        timings = records.read_lines(Timing, session.run.timings)
        return model, lines, [t.part for t in timings if t.stage == "load"]

    first, lines, parts = loaded("first")
    (line,) = lines
    assert line.startswith("4-bit copy of the model for the next run: ")
    assert parts == [WRITTEN, ""]
    second, lines, parts = loaded("second")
    assert (lines, parts) == ([], [READ, ""])
    assert same(first.model.state_dict(), second.model.state_dict())
