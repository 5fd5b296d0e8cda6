"""The modules that LoRA adapts, by name."""

from __future__ import annotations

from torch import nn

from nlijob.errors import ConfigurationError


def is_target(name: str, target: str) -> bool:
    """Whether PEFT counts a module of this name among a target's."""
    return name == target or name.endswith(f".{target}")


def in_module(name: str, module: str) -> bool:
    """Whether a name is a module's, or that of something within it."""
    return name == module or name.startswith(f"{module}.")


def check_targets(model: nn.Module, targets: tuple[str, ...]) -> None:
    """Raise ConfigurationError if a target matches no module, which PEFT itself ignores."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    unmatched = [t for t in targets if not any(is_target(name, t) for name in linear)]
    if unmatched:
        last_names = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigurationError(
            f"lora.target_modules: no linear module of the model is named {' or '.join(unmatched)}",
            f"the model has {', '.join(last_names)}",
        )
