"""Every stage of the job, and the other phases whose time is measured, in one table.

    subset -> elsewhere -> baseline -> search -> train -> select -> evaluate -> explain -> report

Train, select and evaluate are done for each of the run's trainings, the others once. The search is
part of a job only where its configuration asks for one (see `nlijob.trials.stages_of`).

To add a stage, add a line here, its files to RunDir, and its work: a file in `nlijob/gpu/stages/`
for the GPU side, a method of `pipeline.Job` for the parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SEARCH = "search"
UNREAD = ("machine",)
"""Sections of the configuration that no stage reads: they do not affect what is computed."""
WHOLE_JOB = "job"
"""The phase name under which an attempt's whole time is recorded."""


@dataclass(frozen=True)
class Phase:
    """A part of the job whose time is measured."""

    name: str
    words: str
    """What happens in the phase, in the words of the page."""


@dataclass(frozen=True)
class Stage(Phase):
    """A phase with a completion marker: it is not repeated while its inputs stay the same."""

    side: Literal["parent", "gpu"]
    reads: tuple[str, ...]
    """Sections and keys of the configuration that affect its outcome."""
    follows: tuple[str, ...]
    """Stages whose outcome it reads."""
    of: Literal["run", "trial"] = "run"
    """Whether it is done once, or for each training of the run."""
    stamp: Literal["", "data", "model", "elsewhere"] = ""
    """Files outside the run that it reads: the source of the rows, the base model, or the sources
    of further test sets."""
    is_optional: bool = False
    """Whether only some jobs have it."""
    ignores: tuple[str, ...] = (
        "model.requires_gpu",
        "train.checkpoint_every_s",
        "train.keep",
        "train.seeds",
    )
    """Keys of these sections that do not affect its outcome."""


PHASES: tuple[Phase, ...] = (
    Phase("fetch", "settings read, files fetched"),
    Stage("subset", "rows selected", "parent", ("data",), (), stamp="data"),
    Stage(
        "elsewhere",
        "further test sets and texts read",
        "parent",
        ("transfer", "forgetting"),
        ("subset",),
        stamp="elsewhere",
    ),
    Phase("start", "waiting for the model's process to start"),
    Phase("encode", "rows tokenized"),
    Phase("load", "model loaded and quantised"),
    Phase("plan", "execution mode selected and checked"),
    Stage(
        "baseline",
        "base model scored",
        "gpu",
        ("model", "prompt", "eval.batch_size", "eval.few_shot", "train.seed"),
        ("subset", "elsewhere"),
        stamp="model",
    ),
    Stage(
        SEARCH,
        "settings searched",
        "gpu",
        ("model", "prompt", "lora", "train", "sweep", "eval.batch_size"),
        ("subset",),
        stamp="model",
        is_optional=True,
    ),
    Stage(
        "train",
        "training",
        "gpu",
        ("model", "prompt", "lora", "train", "eval.batch_size", "eval.test_each_epoch"),
        ("subset",),
        of="trial",
        stamp="model",
    ),
    Stage("select", "checkpoint selected", "gpu", (), ("train",), of="trial"),
    Stage(
        "evaluate",
        "tuned model scored",
        "gpu",
        ("eval.batch_size",),
        ("baseline", "select"),
        of="trial",
    ),
    Stage(
        "explain",
        "adapter kept, failure cases examined",
        "gpu",
        (
            *("eval.batch_size", "eval.cases", "eval.generate_tokens"),
            *("eval.word_importance", "eval.blank_premise"),
        ),
        ("evaluate",),
    ),
    Stage("report", "report written", "parent", ("report", "description"), ("explain",)),
)
"""In the order in which they begin."""
EVERY_STAGE = tuple(phase for phase in PHASES if isinstance(phase, Stage))
STAGES = tuple(stage for stage in EVERY_STAGE if not stage.is_optional)
"""Those of a job without a search."""
STAGE_NAMES = tuple(stage.name for stage in STAGES)
GPU_STAGES = tuple(stage.name for stage in STAGES if stage.side == "gpu")
TRIAL_STAGES = tuple(stage.name for stage in STAGES if stage.of == "trial")


def stages_after(name: str, stages: Sequence[Stage] = STAGES) -> tuple[str, ...]:
    """Those of the stages that read the outcome of a stage, or of one that reads it, in order."""
    found: tuple[str, ...] = ()
    for stage in stages:
        if not {name, *found}.isdisjoint(stage.follows):
            found += (stage.name,)
    return found
