"""Options that several commands share, and the configuration that they make up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from nlijob.accelerate_file import fsdp_settings
from nlijob.config import JobConfig, TrackerName, load_config, parse_assignment
from nlijob.errors import ConfigurationError
from nlijob.proposals import check_optuna
from nlijob.space import parse_sweep
from nlijob.tracking.packages import check_trackers

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
SIZE = click.IntRange(min=0)
STRIDE = click.IntRange(min=1)


class Names(click.types.StringParamType):
    """Names separated by commas."""

    name = "names"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """How the help shows the value."""
        return "NAME,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The names as a list, as a recipe has it."""
        return [name for part in str(value).split(",") if (name := part.strip())]


class Gpus(click.types.StringParamType):
    """A number of GPUs, from 1 on, or auto."""

    name = "gpus"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """How the help shows the value."""
        return "[auto|N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or "auto", as a recipe has it."""
        text = str(value).strip()
        if text == "auto" or (text.isascii() and text.isdecimal() and int(text) > 0):
            return text if text == "auto" else int(text)
        return self.fail(f"{text!r} is neither auto nor a number from 1 on", param, ctx)


OPTIONS: dict[str, tuple[str, Any, str]] = {
    "model": ("model.name", str, "Hub model id, or a folder that holds a model."),
    "dataset": ("data.dataset", str, "Hub data set id, a folder with data files, or one file."),
    "train-size": ("data.train_size", SIZE, "Take this many training rows; 0 takes all."),
    "train-stride": ("data.train_stride", STRIDE, "Take every n-th training row."),
    "validation-size": ("data.validation_size", SIZE, "Take this many validation rows."),
    "validation-stride": ("data.validation_stride", STRIDE, "Take every n-th validation row."),
    "test-size": ("data.test_size", SIZE, "Take this many test rows."),
    "test-stride": ("data.test_stride", STRIDE, "Take every n-th test row."),
    "epochs": ("train.epochs", int, "Number of training epochs."),
    "batch-size": ("train.batch_size", int, "Rows in each optimizer step."),
    "learning-rate": ("train.learning_rate", float, "Peak learning rate."),
    "seed": ("train.seed", int, "Seed of the adapter, the row order and dropout."),
    "seeds": (
        "train.seeds",
        int,
        "Train that many times: with the recipe's seed and the next ones.",
    ),
    "keep": (
        "train.keep",
        click.Choice(["best", "all"]),
        "Whose adapters to keep of several trainings.",
    ),
    "device": ("model.device", click.Choice(["auto", "cpu", "cuda"]), "Where to run."),
    "gpus": ("machine.gpus", Gpus(), "How many GPUs of this host to use; auto: those that pay."),
    "accelerate-config": (
        "machine.accelerate_config",
        str,
        "Divide the weights between GPUs as this file of accelerate says; fsdp: as one that works.",
    ),
    "min-accuracy": ("report.min_accuracy", float, "Exit 3 below this test accuracy (0 to 1)."),
    "min-gain": ("report.min_gain", float, "Exit 3 below this gain in test accuracy."),
    "gate-on": (
        "report.gate_on",
        click.Choice(["value", "lower"]),
        "Judge by the figure, or by the lower bound of its interval.",
    ),
    "tasks": (
        "forgetting.tasks",
        Names(),
        "Tasks of lm-evaluation-harness for both models, separated by commas (extra lm-eval).",
    ),
    "price-per-hour": ("report.price_per_hour", float, "Price of an hour on this machine."),
}
"""Option -> configuration key, type, help."""


class Assignment(click.types.StringParamType):
    """section.key=value; NLIJOB_SET separates several by white space, which values may contain."""

    name = "assignment"

    def split_envvar_value(self, rv: str) -> list[str]:
        """The assignments in the environment variable."""
        return re.split(r"\s+(?=\w+\.\w+\s*=)", rv.strip())


class Space(Assignment):
    """section.key=values; NLIJOB_SWEEP separates several by white space."""

    name = "space"


def variable(option: str) -> str:
    """The environment variable of an option: train-size -> NLIJOB_TRAIN_SIZE."""
    return "NLIJOB_" + option.upper().replace("-", "_")


def option(name: str, *declarations: str, **settings: Any) -> Callable[[F], F]:
    """A click option `--name` that can also be given as its environment variable."""
    return click.option(f"--{name}", *declarations, envvar=variable(name), **settings)


def recipe_options(command: F) -> F:
    """Add the options that make up a configuration."""
    for name, (_, kind, text) in reversed(OPTIONS.items()):
        command = option(name, type=kind, help=text)(command)
    command = option(
        "set",
        "assignments",
        type=Assignment(),
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Any other value of the recipe; may be given several times.",
    )(command)
    command = option(
        "track",
        type=click.Choice(get_args(TrackerName)),
        multiple=True,
        help="Tell this tracker of steps, epochs, outcome and page (extra of its name); may be "
        "repeated.",
    )(command)
    command = option(
        "trials",
        type=int,
        help="Have Optuna choose that many candidates of a search, instead of all combinations.",
    )(command)
    command = option(
        "sweep",
        "searched",
        type=Space(),
        multiple=True,
        metavar="SECTION.KEY=VALUES",
        help="Search for the best of several values, a,b,c or low..high[:log]; may be repeated.",
    )(command)
    command = option(
        "trust-remote-code",
        is_flag=True,
        help="Run Python code that comes with the model; read it first.",
    )(command)
    command = option("offline", is_flag=True, help="Use only what is in the cache.")(command)
    return option(
        "recipe",
        default="phi2",
        show_default=True,
        metavar="NAME|FILE",
        help="Name of a recipe, or a TOML file.",
    )(command)


def configuration(recipe: str, assignments: tuple[str, ...], options: dict[str, Any]) -> JobConfig:
    """The recipe's configuration, changed by the options of `recipe_options`.

    Raises ConfigurationError that names every fault.
    """
    overrides = dict(parse_assignment(text) for text in assignments)
    if options["searched"]:
        overrides["sweep.space"] = dict(map(parse_sweep, options["searched"]))
    if options["trials"] is not None:
        overrides["sweep.trials"] = options["trials"]
    if options["track"]:
        overrides["report.track"] = list(dict.fromkeys(options["track"]))
    given = {name.replace("_", "-"): value for name, value in options.items()}
    for split in ("train", "validation", "test"):
        drop_overruled(given, f"{split}-size", f"{split}-stride")
    for name, (key, _, _) in OPTIONS.items():
        if given[name] is not None:
            overrides[key] = given[name]
    if given["trust-remote-code"]:
        overrides["model.trust_remote_code"] = True
    if "model.name" in overrides:  # the recipe's revision belongs to the recipe's own model
        overrides.setdefault("model.revision", None)
    if "data.dataset" in overrides:
        overrides.setdefault("data.revision", None)
        overrides.setdefault("data.config_name", None)
    config = load_config(recipe, overrides)
    check_optuna(config)
    check_trackers(config.report)
    fsdp_settings(config.machine)
    return config


def drop_overruled(given: dict[str, Any], one: str, other: str) -> None:
    """Set to None the one of two exclusive options that the command line overrules.

    An option on the command line wins over one in the environment. Raises ConfigurationError where
    both come from the same source.
    """
    if given[one] is None or given[other] is None:
        return
    source = click.get_current_context().get_parameter_source
    typed = [
        name
        for name in (one, other)
        if source(name.replace("-", "_")) is click.core.ParameterSource.COMMANDLINE
    ]
    if len(typed) != 1:
        raise ConfigurationError(f"--{one} and --{other}: give only one of the two")
    given[other if typed == [one] else one] = None
