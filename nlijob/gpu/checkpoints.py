"""Writes and reads adapters (in PEFT's format) and the training state that a resume needs."""

from __future__ import annotations

import dataclasses
import shutil
from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from nlijob.config import ModelConfig
from nlijob.disk import disk_faults
from nlijob.files import Piece, atomic_write, fresh_folder, sha256_of
from nlijob.records.use import ADAPTER_RECORD, AdapterRecord
from nlijob.rundir import write_record

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_FILE, "adapter_config.json")
"""What makes up a saved adapter, in PEFT's format."""
MAX_PINNED_BYTES = 512 * 1024**2
"""Largest copy that is made in pinned memory, which no other program gets until the job ends. A
disk takes so much longer for a larger one that a faster copy would save little."""


def save_adapter(
    model: Any, folder: Path, base: ModelConfig, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write `ADAPTER_FILES`. The base model is named as in the recipe, not by a local path.

    `weights`: an earlier copy of `trained_weights` to write instead of the current values.
    """
    settings = copy(model.peft_config["default"])
    settings.base_model_name_or_path, settings.revision = base.name, base.revision
    settings.inference_mode = True
    content = adapter_weights(model, weights or on_host(trained_weights(model)))
    # not with the model's own method, which renders a model card too, in a thread beside training
    with disk_faults(folder, size_bytes(content)):
        folder.mkdir(parents=True, exist_ok=True)
        contiguous = {name: weight.contiguous() for name, weight in content.items()}
        save_file(contiguous, folder / ADAPTER_FILE, metadata={"format": "pt"})
        settings.save_pretrained(folder)
    # safetensors writes files that only their owner can read
    shutil.copymode(folder / "adapter_config.json", folder / ADAPTER_FILE)


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights that training changes, by their names in the model."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def set_trained_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Set the weights to a copy of `trained_weights`. Raises ValueError unless it has the same."""
    own = trained_weights(model)
    if own.keys() != weights.keys():
        raise ValueError("the saved weights are not those that training changes in this model")
    for name, weight in own.items():
        weight.copy_(weights[name])


def adapter_weights(
    model: Any, weights: dict[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Return the weights of the adapter and of a trained head, by their names on disk.

    They are the model's own, not a copy, or those of an earlier copy of `trained_weights`.
    """
    named: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, state_dict=weights or trained_weights(model), save_embedding_layers=False
    )
    return named


@torch.no_grad()
def load_adapter(model: Any, folder: Path) -> None:
    """Load a saved adapter into the model. Raises ValueError unless it has the same weights."""
    weights, own = load_file(folder / ADAPTER_FILE), adapter_weights(model)
    if shapes(weights) != shapes(own):
        raise ValueError(
            f"the adapter in {folder} does not have the weights of this model's adapter"
        )
    for name, weight in own.items():
        weight.copy_(weights[name])


def shapes(weights: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight."""
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def on_host(value: Any) -> Any:
    """Return a copy of nested dicts of tensors in host memory, which training does not change.

    From a GPU, up to `MAX_PINNED_BYTES` are copied to pinned memory, which needs no wait for each
    tensor. torch gives that memory to a later copy only once nothing refers to this one any more:
    so a copy that is being written stays as it is.
    """
    pins = size_bytes(value) <= MAX_PINNED_BYTES
    copied = _on_host(value, pins)
    if pins and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return copied


def _on_host(value: Any, pins: bool) -> Any:
    if isinstance(value, torch.Tensor):
        pinned = _pinned(value) if pins and value.is_cuda else None
        if pinned is None:
            return value.detach().to("cpu", copy=True)
        return pinned.copy_(value.detach(), non_blocking=True)
    if isinstance(value, dict):
        return {name: _on_host(part, pins) for name, part in value.items()}
    return value


def _pinned(like: torch.Tensor) -> torch.Tensor | None:
    """Return pinned memory for such a tensor, or None where the system has no more of it."""
    try:
        return torch.empty_like(like, device="cpu", pin_memory=True, requires_grad=False)
    except RuntimeError:
        return None


def size_bytes(value: Any) -> int:
    """Return the size of the tensors in nested dicts."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(size_bytes, value.values())) if isinstance(value, dict) else 0


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write the training state whole or not at all."""
    with atomic_write(path, size_bytes(state)) as handle:
        torch.save(state, handle)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state into host memory."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def copy_adapter(source: Path, target: Path, use: AdapterRecord) -> list[Path]:
    """Replace `target` by a checkpoint's adapter, without its records; return the new files.

    `use` says how the adapter is used; it is written beside it, with the hash of the weights.
    """
    sha256 = sha256_of([Piece(source / ADAPTER_FILE)])[0]
    with fresh_folder(target) as folder:
        for name in ADAPTER_FILES:
            shutil.copy2(source / name, folder / name)
        write_record(folder / ADAPTER_RECORD, dataclasses.replace(use, adapter_sha256=sha256))
    return [target / name for name in (*ADAPTER_FILES, ADAPTER_RECORD)]
