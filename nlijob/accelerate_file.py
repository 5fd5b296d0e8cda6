"""Reads a configuration of accelerate that divides a model's weights between GPUs (FSDP).

Only its settings of FSDP count. All else that such a file may hold, such as the number of
processes, is the job's own to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nlijob.config import MachineConfig
from nlijob.errors import ConfigurationError

BUILT_IN = "fsdp"
"""The name of the configuration that comes with the job."""
FILE = Path(__file__).parent / "accelerate" / "fsdp.yaml"
SUPPORTED: dict[str, tuple[object, ...]] = {
    "fsdp_version": (2,),
    "fsdp_auto_wrap_policy": ("TRANSFORMER_BASED_WRAP",),
    "fsdp_transformer_layer_cls_to_wrap": (),
    "fsdp_reshard_after_forward": (True, False),
    "fsdp_activation_checkpointing": (True, False),
    "fsdp_cpu_ram_efficient_loading": (False,),
    "fsdp_offload_params": (False,),
    "fsdp_state_dict_type": (),
}
"""Setting of FSDP -> the values that the job supports; no value: any."""
OF_OTHERS = ("deepspeed_config", "megatron_lm_config", "parallelism_config", "fp8_config")
HINT = "--accelerate-config fsdp takes the one that comes with the job"


def fsdp_settings(machine: MachineConfig, processes: int | None = None) -> dict[str, Any] | None:
    """The settings of FSDP in the configuration that is named; None where none is.

    `processes`: how many the job has; None where that is not known yet. Raises ConfigurationError
    where the file cannot be read or asks for what the job does not support, and for one process.
    """
    if not machine.accelerate_config:
        return None
    is_own = machine.accelerate_config == BUILT_IN
    path = FILE if is_own else Path(machine.accelerate_config)
    content = _content(path)
    faults = list(_faults(content))
    if faults:
        raise ConfigurationError(f"--accelerate-config {path}: {'; '.join(faults)}", HINT)
    if processes == 1:
        raise ConfigurationError(
            "--accelerate-config: weights are divided between several GPUs, and the job has one",
            "give --gpus 2 or more, or leave --accelerate-config out",
        )
    return {"fsdp_cpu_ram_efficient_loading": False, **content["fsdp_config"]}


def _content(path: Path) -> Mapping[str, Any]:
    """A YAML or JSON file, which is YAML too. Raises ConfigurationError."""
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"--accelerate-config {path}: {reason}", HINT) from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigurationError(f"--accelerate-config {path}: no YAML: {line}", HINT) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"--accelerate-config {path}: it has no keys", HINT)
    return content


def _faults(content: Mapping[str, Any]) -> Iterator[str]:
    """What the job does not support."""
    if content.get("distributed_type") != "FSDP":
        yield f"distributed_type is {content.get('distributed_type')!r}, not 'FSDP'"
    if content.get("mixed_precision") not in (None, False, "no"):
        yield "mixed_precision must be 'no'; model.compute_dtype sets the data type"
    for key in OF_OTHERS:
        if content.get(key):
            yield f"{key} is not supported"
    fsdp = content.get("fsdp_config")
    if not isinstance(fsdp, dict):
        yield "fsdp_config is missing"
        return
    for key, values in SUPPORTED.items():
        if key in fsdp and values and fsdp[key] not in values:
            yield f"{key} is {fsdp[key]!r}; supported: {' and '.join(map(repr, values))}"
    if "fsdp_version" not in fsdp:
        yield "fsdp_version is missing; supported: 2"
    for key in sorted(fsdp.keys() - SUPPORTED.keys()):
        yield f"{key} is not supported"
