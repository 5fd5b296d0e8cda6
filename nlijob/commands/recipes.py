"""`recipes`."""

from __future__ import annotations

import click

from nlijob.config import load_config
from nlijob.errors import ExitCode
from nlijob.recipe import recipe_names
from nlijob.streams import check_output


@click.command("recipes")
def command() -> int:
    """List the built-in recipes with their main settings."""
    for name in recipe_names():
        config = load_config(name)
        lora, targets = config.lora, config.lora.target_modules
        named = targets if isinstance(targets, str) else ", ".join(targets)
        click.echo(f"{name}\n    {config.description}")
        click.echo(
            f"    {config.model.name}, {config.model.head}; LoRA r={lora.r} alpha={lora.alpha} on "
            f"{named}; {config.train.epochs} epochs, "
            f"batch {config.train.batch_size}, learning rate {config.train.learning_rate:g}"
        )
    check_output()
    return ExitCode.DONE
