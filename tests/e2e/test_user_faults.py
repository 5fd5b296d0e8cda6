"""Faults that only the model and its tokenizer can show, through the whole job."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from nlijob.demo import DATA_DIR, MODEL_DIR
from tests import jobs
from tests.in_process import Shown

Fault = Callable[..., tuple[int, str]]


@pytest.fixture
def fault(tmp_path: Path, nlijob_here: Callable[..., Shown]) -> Fault:
    """Exit code and messages of a job with these options."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        shown = nlijob_here("run", "--runs-dir", tmp_path / "runs", *jobs.SMALL_DEMO, *arguments)
        return shown.code, shown.err

    return call


def test_verbalizers_and_targets_that_do_not_fit_are_told_together(
    fault: Fault, tmp_path: Path
) -> None:
    code, shown = fault(
        *("--set", "prompt.verbalizers=[' 0', ' 0 is', ' 2']"),
        *("--set", "lora.target_modules=['q_proj', 'gate_proj']"),
    )
    assert code == 2
    assert "' 0 is' begins with the same token as ' 0'" in shown
    assert "prompt.verbalizers=[' 0', ' 1', ' 2'] would serve" in shown
    assert "no linear module of the model is named gate_proj" in shown
    assert "the model has attention: q_proj, k_proj, v_proj, dense; mlp: fc1, fc2" in shown
    assert "Traceback" not in shown


def test_a_prompt_longer_than_the_context_is_named_by_row(fault: Fault, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        lines = (DATA_DIR / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:40]
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    long = {"premise": "a man walks " * 400, "hypothesis": "a man walks", "label": 0}
    with (data / "test.jsonl").open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(long) + "\n")
    code, shown = fault("--dataset", data, "--test-size", "0")
    assert code == 4
    assert "row 40 (" in shown
    assert "no row is truncated: leave these rows out with model.too_long='drop'" in shown


def test_weights_that_are_missing_are_named(fault: Fault, tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    code, shown = fault("--model", model)
    assert code == 4
    assert "the model's weights do not fit: 1 tensor (lm_head.weight) missing" in shown
    assert "Traceback" not in shown


def test_a_model_file_that_is_cut_off_is_named_before_the_model_is_loaded(
    fault: Fault, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])
    code, shown = fault("--model", model)
    assert code == 4
    assert "model.safetensors is cut off" in shown
    assert "subset" not in shown


def test_training_that_diverges_ends_with_6(fault: Fault, tmp_path: Path) -> None:
    code, shown = fault("--learning-rate", "1e30")
    assert code == 6, shown
    assert "training diverged in epoch" in shown
    assert "lower train.learning_rate" in shown
