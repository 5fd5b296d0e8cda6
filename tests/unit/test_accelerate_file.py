"""A user's configuration of accelerate: what it may say, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nlijob.accelerate_file import fsdp_settings
from nlijob.config import MachineConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.launch import launch_command
from nlijob.rundir import RunDir
from nlijob.surroundings import accelerate_config

FSDP = {"fsdp_version": 2, "fsdp_reshard_after_forward": False}


def settings(folder: Path, processes: int | None = 2, **changes: Any) -> dict[str, Any] | None:
    """What is read from a file with these keys."""
    file = folder / "own.json"
    content = {"distributed_type": "FSDP", "fsdp_config": FSDP, "num_processes": 7, **changes}
    file.write_text(json.dumps(content), encoding="utf-8")
    return fsdp_settings(MachineConfig(accelerate_config=str(file)), processes)


def test_without_a_file_no_weights_are_divided() -> None:
    assert fsdp_settings(MachineConfig(), 1) is None


def test_the_file_that_comes_with_the_job_is_supported() -> None:
    found = fsdp_settings(MachineConfig(accelerate_config="fsdp"), 2)
    assert found
    assert (found["fsdp_version"], found["fsdp_activation_checkpointing"]) == (2, True)
    assert found["fsdp_cpu_ram_efficient_loading"] is False


def test_only_the_settings_of_fsdp_are_taken(tmp_path: Path) -> None:
    # without the last, transformers would give all processes but one empty weights
    assert settings(tmp_path) == {**FSDP, "fsdp_cpu_ram_efficient_loading": False}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distributed_type": "MULTI_GPU"}, "distributed_type is 'MULTI_GPU', not 'FSDP'"),
        ({"mixed_precision": "bf16"}, "model.compute_dtype sets the data type"),
        ({"deepspeed_config": {"zero_stage": 3}}, "deepspeed_config is not supported"),
        ({"fsdp_config": None}, "fsdp_config is missing"),
        ({"fsdp_config": {"fsdp_version": 1}}, "fsdp_version is 1; supported: 2"),
        ({"fsdp_config": {}}, "fsdp_version is missing"),
        (
            {"fsdp_config": {**FSDP, "fsdp_offload_params": True}},
            "fsdp_offload_params is True; supported: False",
        ),
        ({"fsdp_config": {**FSDP, "fsdp_other": 1}}, "fsdp_other is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_key(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, **changes)
    assert said in caught.value.message
    assert "own.json" in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"), [(b"a: [", "no YAML"), (b"", "no keys"), (b"\xff", "codec"), (None, "No")]
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "own.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        fsdp_settings(MachineConfig(accelerate_config=str(file)))


def test_a_single_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the job has one"):
        settings(tmp_path, processes=1)


def test_accelerate_is_started_with_fsdp_and_the_job_s_own_processes(tmp_path: Path) -> None:
    config = accelerate_config(False, 4, FSDP)
    assert (config["distributed_type"], config["num_processes"]) == ("FSDP", 4)
    assert config["fsdp_config"] == FSDP
    command = launch_command(RunDir(tmp_path), "cuda", processes=4, uses_fsdp=True)
    assert "--use_fsdp" in command
    assert "--multi_gpu" not in command


@pytest.mark.parametrize(
    "changes",
    [
        {"machine.share": "trials"},
        {"train.speed": "graph"},
        {"sweep.space": {"lora.r": [2, 4]}},
    ],
)
def test_settings_that_divided_weights_rule_out_are_faults(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"machine\.accelerate_config"):
        load_config("demo", {"machine.accelerate_config": "fsdp", **changes})
