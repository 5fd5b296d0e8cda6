"""Which stages are done again, and the reasons that are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.completeness import is_complete, why_again
from nlijob.config import JobConfig
from nlijob.fingerprints import stage_inputs
from nlijob.records.job import Inputs, RunRecord
from nlijob.rundir import RunDir, epoch_marker
from nlijob.stages import STAGE_NAMES
from tests.synthetic import STAMPS, Spec, build_run

STAGES = STAGE_NAMES[:-1]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with the weights of its two epochs; the second one is selected."""
    return build_run(tmp_path / "run", Spec(epochs=2, weights=True))


def config_of(run: RunDir) -> JobConfig:
    return records.read(RunRecord, run.config).config


def inputs_of(run: RunDir, **train: Any) -> Mapping[str, Inputs]:
    config = config_of(run)
    return stage_inputs(replace(config, train=replace(config.train, **train)), STAMPS)


def complete(run: RunDir, **train: Any) -> list[str]:
    inputs = inputs_of(run, **train)
    return [stage for stage in STAGES if is_complete(run, stage, inputs)]


def change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


def test_nothing_is_done_again_without_a_reason(run: RunDir) -> None:
    assert complete(run) == list(STAGES)
    assert [why_again(run, stage, inputs_of(run)) for stage in STAGES] == [""] * len(STAGES)


def test_a_changed_setting_is_the_reason_of_the_stage_that_reads_it(run: RunDir) -> None:
    assert complete(run, learning_rate=0.003) == ["subset", "elsewhere", "baseline"]
    inputs = inputs_of(run, learning_rate=0.003)
    reason = "train.learning_rate is 0.0002 in the folder and 0.003 now"
    assert why_again(run, "train", inputs) == reason
    assert why_again(run, "evaluate", inputs) == ""  # it only follows


def test_a_changed_file_is_the_reason(run: RunDir) -> None:
    change(run.generations)
    run.occlusion.unlink()
    assert "explain" not in complete(run)
    reason = "evaluate/generations.jsonl and evaluate/occlusion.jsonl are missing or have changed"
    assert why_again(run, "explain", inputs_of(run)) == reason


def test_a_marker_that_cannot_be_read_is_the_reason(run: RunDir) -> None:
    run.marker("select").write_text("1" * 5000)
    assert "select" not in complete(run)
    assert why_again(run, "select", inputs_of(run)) == "its marker cannot be read"


def test_training_is_done_again_where_an_epochs_figures_are_damaged(run: RunDir) -> None:
    change(run.epoch_predictions(1))
    assert "train" not in complete(run)
    reason = "train/epoch-1/predictions.jsonl is missing or has changed"
    assert why_again(run, "train", inputs_of(run)) == reason


def test_weights_of_an_epoch_that_nothing_reads_any_more_may_be_deleted(run: RunDir) -> None:
    for epoch in (1, 2):
        (run.epoch(epoch) / "adapter_model.safetensors").unlink()
    assert complete(run) == list(STAGES)


@pytest.mark.parametrize("reader", ["evaluate", "explain"])
@pytest.mark.parametrize(("epoch", "again"), [(1, False), (2, True)])
def test_the_selected_epochs_weights_are_needed_until_they_are_evaluated_and_kept(
    run: RunDir, reader: str, epoch: int, again: bool
) -> None:
    run.unmark(reader)
    change(run.epoch(epoch) / "adapter_model.safetensors")
    assert ("train" not in complete(run)) == again


def test_an_epoch_without_a_marker_is_trained_again(run: RunDir) -> None:
    run.unmark(epoch_marker(2))
    assert "train" not in complete(run)
