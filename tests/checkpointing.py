"""Takes a training's state to disk within an epoch, and into another trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlijob.gpu import checkpoints
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import Trainer


def written(of: tuple[Trainer, LoadedModel], path: Path) -> dict[str, Any]:
    """What a checkpoint within an epoch holds, read from disk."""
    content = {"weights": checkpoints.trained_weights(of[1].model), "trainer": of[0].state()}
    checkpoints.save_state(checkpoints.on_host(content), path)
    return checkpoints.load_state(path)


def restore(to: tuple[Trainer, LoadedModel], content: dict[str, Any]) -> None:
    """Continue from what `written` returned."""
    checkpoints.set_trained_weights(to[1].model, content["weights"])
    to[0].restore(content["trainer"])
