"""Expected times: they follow from recorded measurements, and from nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from nlijob.config import JobConfig, load_config
from nlijob.planning.durations import CPUS, GPUS, expected_time
from nlijob.records.job import Split
from nlijob.records.planning import ModelLook, Span, TokenCounts
from nlijob.sweep import count_candidates, most_epochs, search_epochs
from tests.jobs import ROOT

RESULTS = ROOT / "benchmarks" / "results"
ROWS: dict[Split, int | None] = {"train": 1001, "validation": 100, "test": 100}
TOKENS = TokenCounts(1001, 1001, 59.6, 100)


def model(**changes: Any) -> ModelLook:
    """phi-2 on an H200."""
    values: dict[str, Any] = {
        "model_type": "phi",
        "compute_dtype": "bfloat16",
        "compute_dtype_is_assumed": False,
        "max_length": 2048,
        "target_modules": dict.fromkeys(("q_proj", "k_proj", "v_proj", "dense"), 32),
        "trained_head": (),
        "trainable_parameters": 20_971_520,
        "base_parameters": 2_779_683_840,
        "multiplied_weights": 2_516_582_400,
        "layers": 32,
        "hidden_size": 2560,
        "weights_bytes": 2_000_000_000,
        "dequantized_bytes": 5_033_164_800,
        "execution_modes": (),
        "example_prompt": "",
        "label_token_texts": (),
        "label_tokens": (),
        "tokens": {"train": TOKENS, "validation": TOKENS, "test": TOKENS},
        "device_name": "NVIDIA H200",
        "device_cores": 16,
        "free_memory_bytes": 140 * 2**30,
        "four_bit_bytes": 1_298_227_200,
        "other_weights_bytes": 526_202_880,
        "largest_layer_bytes": 40_625_920,
        "largest_dequantized_bytes": 52_428_800,
        "largest_outside_bytes": 262_144_000,
        "layer_outputs": 737_280,
        "vocabulary": 51_200,
    }
    return ModelLook(**{**values, **changes})


def recipe(device: str = "cuda", key: str = "train.seed", value: object = 42) -> JobConfig:
    """The phi2 recipe on a device, with one value changed."""
    return load_config("phi2", {"model.device": device, key: value})


def test_the_measured_job_lies_between_the_bounds() -> None:
    measured = json.loads((RESULTS / "2026-11-21-h200-phi2-shape-graphs.json").read_text("utf-8"))
    found = expected_time(recipe(), model(), ROWS)
    assert found.job is not None
    assert found.training is not None
    training_s = sum(5 * 1001 / 5 / epoch["examples_per_s"] for epoch in measured["epochs"])
    assert found.training.low_s < training_s < found.training.high_s
    assert found.job.low_s < measured["total_s"] < found.job.high_s


def test_figures_of_gpus_are_those_that_were_recorded() -> None:
    for figures, name in zip(GPUS, ("", "-llama-3b"), strict=True):
        file = RESULTS / f"2026-11-21-nvidia-h200-ways{name}.json"
        recorded = json.loads(file.read_text("utf-8"))
        assert recorded["weights_multiplied_a_token"] == figures.multiplied_weights
        assert recorded["mean_tokens"] == pytest.approx(figures.mean_tokens, abs=0.05)
        ways = recorded["ways"].values()
        speeds = [round(way["training_examples_per_s"]) for way in ways]
        assert figures.training_per_s in speeds
        assert figures.plain_training_per_s in speeds


def test_figures_of_the_leanest_mode_are_those_of_the_recorded_table() -> None:
    text = (RESULTS / "README.md").read_text("utf-8")
    row = re.search(r"^\| none, `train\.gradient_checkpointing=true` \|.*", text, re.M)
    assert row
    assert f"| {GPUS[0].lean_training_per_s} | {GPUS[0].lean_scoring_per_s} |" in row[0]


def test_figures_of_cpus_are_those_of_the_recorded_table() -> None:
    text = (RESULTS / "README.md").read_text("utf-8")
    for figures in CPUS:
        row = re.search(rf"^\| {figures.hidden_size}, {figures.layers} \|(.*)\|$", text, re.M)
        assert row
        # two runs a cell: "239, 247"; a comma without a blank is one of thousands
        cells = [float(cell.split(", ")[0].replace(",", "")) for cell in row[1].split("|")]
        float32, _, bfloat16, float32_scoring, bfloat16_scoring = cells
        assert float32 == figures.float32_training_per_s
        assert bfloat16 == figures.bfloat16_training_per_s
        assert float32_scoring == figures.float32_scoring_per_s
        assert bfloat16_scoring == figures.bfloat16_scoring_per_s


def training(config: JobConfig, look: ModelLook) -> Span:
    span = expected_time(config, look, ROWS).training
    assert span
    return span


def test_gradient_checkpointing_has_its_own_measured_speed() -> None:
    span = training(recipe(key="train.gradient_checkpointing", value=True), model())
    assert span.low_s < 5 * 1001 / 193 < span.high_s
    assert span.low_s > training(recipe(), model()).low_s


def test_where_memory_is_short_the_upper_bound_is_that_of_a_leaner_mode() -> None:
    short, ample = (training(recipe(), model(free_memory_bytes=n * 2**30)) for n in (4, 80))
    assert short.low_s == ample.low_s
    assert short.high_s > 3 * ample.high_s


def test_a_mode_that_was_not_measured_has_no_estimate() -> None:
    llama = model(model_type="llama")
    config = recipe(key="train.gradient_checkpointing", value=True)
    assert expected_time(config, llama, ROWS).training is None
    assert expected_time(recipe(), llama, ROWS).training is not None


def test_fewer_rows_in_a_step_widen_the_upper_bound() -> None:
    one, eight = (training(recipe(key="train.batch_size", value=n), model()) for n in (1, 8))
    assert one.high_s == pytest.approx(8 * eight.high_s)
    assert one.low_s == eight.low_s


def test_a_gpu_that_was_not_measured_has_no_estimate() -> None:
    found = expected_time(recipe(), model(device_name="NVIDIA A40"), ROWS)
    assert found.job is None
    assert "not known for this machine" in found.basis
    assert "NVIDIA A40" in found.basis


def test_a_model_of_another_size_has_no_estimate_on_a_gpu() -> None:
    found = expected_time(recipe(), model(multiplied_weights=70_000_000_000), ROWS)
    assert found.job is None
    assert "times the work" in found.basis


def test_without_a_gpu_the_estimate_names_the_one_that_it_is_for() -> None:
    found = expected_time(recipe(), model(device_name=None), ROWS)
    assert found.job is not None
    assert "NVIDIA H200; not known for other GPUs" in found.basis


def test_a_larger_model_takes_longer_on_a_cpu() -> None:
    sizes = (1_000_000, 30_000_000, 100_000_000, 2_500_000_000)
    spans = [
        expected_time(recipe("cpu"), model(multiplied_weights=n, device_name="CPU"), ROWS).training
        for n in sizes
    ]
    lows = [span.low_s for span in spans if span]
    assert lows == sorted(lows)
    assert len(set(lows)) == len(sizes)
    assert all(span and 4 * span.low_s < span.high_s for span in spans)


def test_the_time_is_not_known_without_the_number_of_rows() -> None:
    found = expected_time(recipe(), model(), {**ROWS, "train": None})
    assert found.job is None
    assert found.basis == "not known before the rows are here"


def test_a_search_adds_the_rows_of_its_candidates_epochs() -> None:
    plain = recipe()
    space = {"lora.r": [8, 16], "train.epochs": [1, 2, 3]}
    searched = load_config("phi2", {"model.device": "cuda", "sweep.space": space})
    of_search = 2 * (1 + 2 + 3)
    ratio = training(searched, model()).low_s / training(plain, model()).low_s
    assert ratio == pytest.approx(
        (3 + of_search) / 5
    )  # the run may train for 3 epochs instead of 5


def test_optunas_candidates_count_with_the_most_epochs_that_it_may_choose() -> None:
    values = {"sweep.space": {"train.epochs": "2..4"}, "sweep.trials": 7}
    config = load_config("phi2", {"model.device": "cuda", **values})
    assert (count_candidates(config), search_epochs(config), most_epochs(config)) == (7, 28, 4)
    plain = recipe()
    assert (count_candidates(plain), search_epochs(plain), most_epochs(plain)) == (0, 0, 5)


def test_several_gpus_share_the_trainings_at_best_and_do_one_each_at_worst() -> None:
    one, two = (
        expected_time(recipe(key="train.seeds", value=3), model(), ROWS, processes=processes)
        for processes in (1, 2)
    )
    assert one.training is not None
    assert two.training is not None
    assert two.training.low_s == pytest.approx(one.training.low_s / 2)
    assert two.training.high_s == pytest.approx(one.training.high_s * 2 / 3)
    assert two.basis == f"{one.basis}; divided among 2 processes"


def test_no_time_is_expected_where_weights_are_divided_which_was_not_measured() -> None:
    found = expected_time(recipe(key="machine.accelerate_config", value="fsdp"), model(), ROWS)
    assert found.job is None
