"""What a model lost of its general language: records of a job, and part of results.json."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.records.intervals import Interval


@dataclass(frozen=True)
class GeneralText:
    """A text that has nothing to do with the task; its loss shows what tuning did beside it."""

    text: int
    """Its number in the file that it was read from, from 1."""
    content: str
    kind: str = ""
    """What kind of text it is, such as "news"; "" where the file does not say."""


@dataclass(frozen=True)
class TextLoss:
    """The loss of a model on one text."""

    text: int
    """The text's number."""
    tokens: int
    """Number of tokens that were predicted: all that were read but the first."""
    loss: float | None
    """Mean negative log-likelihood of these tokens in nats; None if it is not a finite number."""


@dataclass(frozen=True)
class LossDifference:
    """Loss of a tuned model minus that of the base model on the same tokens."""

    difference: float
    """Mean over all tokens, in nats. Above 0, the tuned model predicts the texts worse."""
    interval: Interval | None
    """95 % interval with texts as units; None where there are fewer than two."""
    p: float
    """Two-sided sign-flip test over texts."""


@dataclass(frozen=True)
class TextChange:
    """One text before and after tuning."""

    text: int
    kind: str
    content: str
    tokens: int
    base_loss: float
    tuned_loss: float


@dataclass(frozen=True)
class TrialForgetting:
    """What one training did to the loss on the texts."""

    name: str
    """Name of the training within the run, such as "seed-43"."""
    tuned_loss: float
    change: LossDifference


@dataclass(frozen=True)
class Forgetting:
    """Losses of base and tuned model on general text, paired by text."""

    source: str
    """Where the texts come from: "general", or a file's path."""
    texts: int
    """Texts that were measured."""
    left_out: int
    """Texts with fewer than two tokens that the model knows, or without a finite loss."""
    tokens: int
    """Predicted tokens of all texts."""
    most_tokens: int
    """Longest text in predicted tokens; longer ones were cut."""
    base_loss: float
    """Mean loss of a token in nats."""
    tuned_loss: float
    base_perplexity: float | None
    """exp(loss); None where that is too large a number."""
    tuned_perplexity: float | None
    change: LossDifference
    worse: int
    """Texts on which the tuned model has the higher loss."""
    better: int
    """Texts on which it has the lower loss."""
    worst: tuple[TextChange, ...]
    """The texts whose loss rose most, the worst first."""
    trials: tuple[TrialForgetting, ...] = ()
    """Every training, where there are several; all other figures are of the kept one."""
    mean_change: LossDifference | None = None
    """Mean over the trainings: these trainings on other texts. None where there is one."""


@dataclass(frozen=True)
class TaskList:
    """elsewhere/text/tasks.json: what lm-evaluation-harness is to run."""

    tasks: tuple[str, ...]
    """Names of its own tasks, and paths of files that define one."""
    documents: int
    """Take this many documents of each task; 0 takes all."""
    folder: str
    """The folder that paths within the files start from: the working folder of the command."""


@dataclass(frozen=True)
class TaskScore:
    """What a model reaches in one task by one metric, as lm-evaluation-harness measures it."""

    task: str
    metric: str
    """Its name, followed by that of the filter of answers if it is not "none": "acc"."""
    value: float
    stderr: float | None
    """The harness' own standard error of `value`; None where it has none."""
    higher_is_better: bool
    documents: tuple[int, ...]
    """Numbers of the documents."""
    values: tuple[float, ...]
    """The metric of each document."""


@dataclass(frozen=True)
class TaskTrial:
    """What one training reaches in a task."""

    name: str
    value: float
    difference: float


@dataclass(frozen=True)
class TaskChange:
    """Both models in one task of lm-evaluation-harness by one metric."""

    task: str
    metric: str
    documents: int
    higher_is_better: bool
    base: float
    base_stderr: float | None
    tuned: float
    tuned_stderr: float | None
    difference: float
    """Mean over the documents of the tuned model's value minus the base model's."""
    interval: Interval | None
    """95 % interval of the difference, paired by document. None for a single document whose values
    are not from 0 to 1."""
    p: float
    """Two-sided sign-flip test over documents."""
    adjusted_p: float
    """p, Holm-adjusted over all tasks and metrics."""
    trials: tuple[TaskTrial, ...] = ()
    """Every training, where there are several."""
