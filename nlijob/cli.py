"""The command line: parse, call, and turn known errors into a message, a hint and an exit code.

Nothing heavy is imported at module level, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nlijob import __version__, stopping
from nlijob.config import (
    Device,
    JobConfig,
    check,
    load_config,
    parse_assignment,
    recipe_name,
    recipe_names,
)
from nlijob.ending import end_of
from nlijob.errors import ConfigurationError, ExitCode, HardwareError, NotAvailableError
from nlijob.stopping import Stopped

if TYPE_CHECKING:
    from nlijob.console import Console

F = TypeVar("F", bound=Callable[..., Any])

SIZE = click.IntRange(min=0)
STRIDE = click.IntRange(min=1)

OPTIONS: dict[str, tuple[str, Any, str]] = {
    "model": ("model.name", str, "Hub model id, or a folder with a model."),
    "dataset": ("data.dataset", str, "Hub data set id, or a folder with a file a split."),
    "train-size": ("data.train_size", SIZE, "Take this many training rows; 0 takes all."),
    "train-stride": ("data.train_stride", STRIDE, "Take every n-th training row."),
    "validation-size": ("data.validation_size", SIZE, "The same for validation."),
    "validation-stride": ("data.validation_stride", STRIDE, "The same for validation."),
    "test-size": ("data.test_size", SIZE, "The same for test."),
    "test-stride": ("data.test_stride", STRIDE, "The same for test."),
    "epochs": ("train.epochs", int, "Epochs of training."),
    "batch-size": ("train.batch_size", int, "Rows an optimizer step."),
    "learning-rate": ("train.learning_rate", float, "Peak learning rate."),
    "seed": ("train.seed", int, "Seed of adapter, order and dropout."),
    "device": ("model.device", click.Choice(["auto", "cpu", "cuda"]), "Where to run."),
    "min-accuracy": ("report.min_accuracy", float, "Exit 3 below this test accuracy (0 to 1)."),
    "min-gain": ("report.min_gain", float, "Exit 3 below this gain in test accuracy."),
    "gate-on": (
        "report.gate_on",
        click.Choice(["value", "lower"]),
        "Judge by the figure, or by the lower bound of its interval.",
    ),
    "price-per-hour": ("report.price_per_hour", float, "What an hour of the machine costs."),
}
"""Option -> configuration key, type, help."""


OWN_OPTIONS = ("-h", "--help", "--version")


class Assignment(click.types.StringParamType):
    """section.key=value; in NLIJOB_SET several, apart by white space, which values may hold too."""

    name = "assignment"

    def split_envvar_value(self, rv: str) -> list[str]:
        """The assignments in the environment variable."""
        return re.split(r"\s+(?=\w+\.\w+\s*=)", rv.strip())


class JobGroup(click.Group):
    """The commands; with none named, the options are those of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front where no command is named."""
        if not args or (args[0].startswith("-") and args[0] not in OWN_OPTIONS):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        return int(cli.main(standalone_mode=False) or ExitCode.DONE)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return ExitCode.CONFIGURATION
    except (Exception, Stopped, KeyboardInterrupt) as error:
        end = end_of(error)
        if end.exit_code == ExitCode.INTERNAL:
            traceback.print_exc()
        _say_error(end.message, end.hint)
        return end.exit_code


@click.group(cls=JobGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nlijob")
def cli() -> None:
    """Fine-tune a language model on an NLI data set with QLoRA and report what it brought.

    With no command, runs the whole job (`run`). Every option is also an environment variable:
    --train-size is NLIJOB_TRAIN_SIZE.

    Exit codes: 0 done, 2 usage or configuration, 3 gate failed, 4 model or data not to be had,
    5 hardware not suitable or out of memory, 6 training diverged, 70 internal error, 75 stopped.
    """


def recipe_options(command: F) -> F:
    """The options that make up a configuration, for commands that need one."""
    for name, (_, kind, text) in reversed(OPTIONS.items()):
        variable = "NLIJOB_" + name.upper().replace("-", "_")
        command = click.option(f"--{name}", type=kind, envvar=variable, help=text)(command)
    command = click.option(
        "--set",
        "assignments",
        type=Assignment(),
        multiple=True,
        envvar="NLIJOB_SET",
        metavar="SECTION.KEY=VALUE",
        help="Any other value of the recipe; may be given again.",
    )(command)
    command = click.option(
        "--offline", is_flag=True, envvar="NLIJOB_OFFLINE", help="Use what is in the cache only."
    )(command)
    return click.option(
        "--recipe",
        default="phi2",
        show_default=True,
        envvar="NLIJOB_RECIPE",
        metavar="NAME|FILE",
        help="A recipe's name or a TOML file.",
    )(command)


@cli.command()
@recipe_options
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    envvar="NLIJOB_RUNS_DIR",
    help="Where runs are kept.",
)
@click.option(
    "--run-id",
    envvar="NLIJOB_RUN_ID",
    help="Name of the run; the same name goes on with it. Default: the recipe's name, with a "
    "short hash where options change what is computed.",
)
@click.option(
    "--upload",
    envvar="NLIJOB_UPLOAD",
    metavar="URL",
    help="Keep a copy of the run at URL/RUN_ID while it runs: s3://, gs:// or file://.",
)
@click.option(
    "--resume-from",
    envvar="NLIJOB_RESUME_FROM",
    metavar="URL",
    help="Fetch the run from URL/RUN_ID first, where it got further there.",
)
@click.option(
    "--notify-url",
    envvar="NLIJOB_NOTIFY_URL",
    metavar="URL",
    help="Post a short JSON document there when the job ends, however it ends.",
)
def run(
    recipe: str,
    offline: bool,
    assignments: tuple[str, ...],
    runs_dir: Path,
    run_id: str | None,
    upload: str | None,
    resume_from: str | None,
    notify_url: str | None,
    **options: Any,
) -> int:
    """Run the whole job and write report.html."""
    started_at, started = time.time(), time.monotonic()
    from nlijob.console import Console
    from nlijob.hub import Hub
    from nlijob.notify import Notice
    from nlijob.pipeline import Job, check_gates
    from nlijob.records import RunRecord
    from nlijob.rundir import RunDir, now
    from nlijob.storage.mirror import Mirror
    from nlijob.storage.place import Place
    from nlijob.storage.resume import resume

    stopping.raise_on_signals()
    console = Console()
    with Notice(notify_url, recipe, console.line) as notice:
        config = _configuration(recipe, assignments, options)
        run_id = _checked_run_id(run_id or _default_run_id(recipe, config))
        run_dir = notice.run = RunDir(runs_dir / run_id)
        source = Place("--resume-from", resume_from, run_id) if resume_from else None
        target = Place("--upload", upload, run_id) if upload else None
        config = _with_device(config, recipe, console, run_dir)
        record = RunRecord(
            run_id=run_id,
            recipe=recipe,
            config=config,
            command=_recorded(sys.argv[1:]),
            created_at=now(),
            nlijob_version=__version__,
        )
        with run_dir.lock():
            if source:
                resume(run_dir, source, console.line)
            with Mirror(run_dir, target, console.line) if target else nullcontext() as mirror:
                notice.mirror = mirror
                hub = Hub(offline, console.line)
                job = Job(run_dir, record, hub, console, started_at, started)
                notice.results = job.work()
        check_gates(notice.results)
    return ExitCode.DONE


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path, file_okay=False))
def report(run_dir: Path) -> int:
    """Render a run's report again from its records; needs neither torch nor a GPU."""
    from nlijob.report.render import render
    from nlijob.rundir import RunDir

    run_ = RunDir(run_dir)
    if not run_.evaluate_result.is_file():
        raise NotAvailableError(
            f"{run_dir} holds no finished evaluation to report on",
            "name a folder such as runs/demo; `run` with the same options finishes it",
        )
    with run_.lock():
        click.echo(f"Report: {render(run_)}")
    return ExitCode.DONE


@cli.command()
@click.argument("run_dirs", nargs=-1, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("compare.html"),
    show_default=True,
    help="The page; the JSON goes beside it.",
)
def compare(run_dirs: tuple[Path, ...], output: Path) -> int:
    """Compare finished runs, row by row, with the first.

    Writes one HTML page and, beside it, the same as JSON: compare.html and compare.json in the
    current folder. Pages that an earlier comparison wrote are replaced, other files never.
    """
    from nlijob.report.pages import write_comparison

    page, document = write_comparison(run_dirs, output)
    click.echo(f"Comparison: {page} ({document})")
    return ExitCode.DONE


@cli.command()
@click.argument("runs_dir", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page; the JSON goes beside it.  [default: RUNS_DIR/index.html]",
)
def index(runs_dir: Path, output: Path | None) -> int:
    """List the runs of a schedule, with the trend of accuracy.

    Writes one HTML page that links to the runs' reports and, beside it, the same as JSON. Pages
    that this command wrote earlier are replaced, other files never.
    """
    from nlijob.report.pages import write_index

    page, document = write_index(runs_dir, output or runs_dir / "index.html")
    click.echo(f"Index: {page} ({document})")
    return ExitCode.DONE


@cli.command()
@recipe_options
def prefetch(recipe: str, offline: bool, assignments: tuple[str, ...], **options: Any) -> int:
    """Fetch model and data into the cache, so that `run --offline` needs no network."""
    import tempfile

    from nlijob.hub import Hub
    from nlijob.rundir import RunDir
    from nlijob.subset import build_subset

    config = _configuration(recipe, assignments, options)
    hub = Hub(offline, click.echo)
    click.echo(f"model {config.model.name}: {hub.model_folder(config.model)}")
    with tempfile.TemporaryDirectory() as folder:
        manifest = build_subset(config.data, RunDir(Path(folder)), hub)
    for split in manifest.splits.values():
        click.echo(
            f"data set {manifest.dataset}, {split.split}: {split.source_rows:,} rows, "
            f"{split.rows:,} in the subset"
        )
    return ExitCode.DONE


@cli.command()
def recipes() -> int:
    """List the recipes that come with the job."""
    for name in recipe_names():
        config = load_config(name)
        lora = config.lora
        click.echo(f"{name}\n    {config.description}")
        click.echo(
            f"    {config.model.name}, {config.model.head}; LoRA r={lora.r} alpha={lora.alpha} on "
            f"{', '.join(lora.target_modules)}; {config.train.epochs} epochs, "
            f"batch {config.train.batch_size}, learning rate {config.train.learning_rate:g}"
        )
    return ExitCode.DONE


@cli.command()
def schema() -> int:
    """Print the JSON Schema of results.json."""
    from nlijob.schema import results_schema

    click.echo(json.dumps(results_schema(), indent=2))
    return ExitCode.DONE


# ---------------------------------------------------------------- detail


def _configuration(recipe: str, assignments: tuple[str, ...], options: dict[str, Any]) -> JobConfig:
    overrides = dict(parse_assignment(text) for text in assignments)
    given = {name.replace("_", "-"): value for name, value in options.items()}
    for split in ("train", "validation", "test"):
        _settle_size(given, f"{split}-size", f"{split}-stride")
    for name, (key, _, _) in OPTIONS.items():
        if given[name] is not None:
            overrides[key] = given[name]
    if "model.name" in overrides:  # a recipe's revision is of the recipe's own model
        overrides.setdefault("model.revision", None)
    if "data.dataset" in overrides:
        overrides.setdefault("data.revision", None)
        overrides.setdefault("data.config_name", None)
    return load_config(recipe, overrides)


def _settle_size(given: dict[str, Any], size: str, stride: str) -> None:
    """Of a size and a stride, the one on the command line wins over one in the environment."""
    if given[size] is None or given[stride] is None:
        return
    source = click.get_current_context().get_parameter_source
    typed = [
        name
        for name in (size, stride)
        if source(name.replace("-", "_")) is click.core.ParameterSource.COMMANDLINE
    ]
    if len(typed) != 1:
        raise ConfigurationError(f"--{size} and --{stride}: give one of the two")
    given[stride if typed == [size] else size] = None


def _default_run_id(recipe: str, config: JobConfig) -> str:
    """The recipe's name, so that a plain run has a plain place; a hash tells other runs apart."""
    name = recipe_name(recipe)
    if config == load_config(recipe):
        return name
    text = json.dumps(dataclasses.asdict(config), sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _checked_run_id(run_id: str) -> str:
    if run_id in ("", ".", "..") or "/" in run_id:
        raise ConfigurationError(f"--run-id {run_id!r}: give a plain folder name")
    return run_id


def _recorded(command: Sequence[str]) -> tuple[str, ...]:
    """The command as the report shows it: URLs are cut short, as they may hold secrets."""
    return tuple(re.sub(r"(\w+://).*", r"\1...", argument) for argument in command)


def _with_device(config: JobConfig, recipe: str, console: Console, run_dir: Any) -> JobConfig:
    """Settle "auto", so that a run's records say where its figures come from."""
    from nlijob.hardware import gpu_count

    wanted = config.model.device
    gpus = gpu_count() if wanted != "cpu" else 0
    if gpus == 0 and (wanted == "cuda" or (wanted == "auto" and config.model.requires_gpu)):
        raise HardwareError(
            f"recipe {recipe_name(recipe)} is made for a GPU; there is none with an NVIDIA driver"
            if config.model.requires_gpu
            else "--device cuda: there is no GPU with an NVIDIA driver",
            "in a container give --gpus all; `--recipe demo` runs on a CPU; "
            "`--device cpu` runs this one there, slowly",
        )
    device: Device = "cuda" if gpus else "cpu"
    where = "GPU" if gpus else "CPU" + ("" if wanted == "cpu" else " (no GPU found)")
    console.line(f"nlijob {__version__}: {run_dir.root} on {where}")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, device=device))
    if faults := check(config):
        raise ConfigurationError.from_faults(faults, f"on this machine's {device}")
    return config


def _say_error(message: str, hint: str) -> None:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
