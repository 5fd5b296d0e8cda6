"""The state of the random generators that dropout draws from, so that a training can be continued.

A state holds torch's default generators and the own ones of recomputed layers. It is plain data
in host memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def random_state(device: torch.device, of_layers: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """The state of the generators of training on `device`; `of_layers` are those of its layers."""
    return {
        "host": torch.get_rng_state(),
        "gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "layers": [generator.get_state().cpu() for generator in of_layers],
    }


def restore_random_state(
    state: dict[str, Any], device: torch.device, of_layers: Sequence[torch.Generator] = ()
) -> bool:
    """Continue from a `random_state`; generators change in place, as graphs refer to them.

    A GPU that continues what began on a CPU is seeded from the host's generator. Returns whether
    the generators of the layers were restored too; they are left alone if the state has others.
    """
    torch.set_rng_state(state["host"].cpu())
    if device.type == "cuda" and state["gpu"] is not None:
        torch.cuda.set_rng_state(state["gpu"].cpu(), device)
    elif device.type == "cuda":
        torch.cuda.manual_seed(int(torch.randint(2**62, ())))
    if len(state["layers"]) != len(of_layers):
        return False
    for generator, own in zip(of_layers, state["layers"], strict=True):
        generator.set_state(own.cpu())
    return True
