"""The charts of a report, drawn from the results and the logs of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from statistics import fmean

from nlijob.analysis.columns import shown_name
from nlijob.analysis.resources import gpu_sample, moment_s
from nlijob.analysis.slices import OF_THE_SOURCE
from nlijob.analysis.wording import GIB, percent, plural
from nlijob.records.forgetting import Forgetting
from nlijob.records.job import GpuSample, HardwareSample, SplitScore, TrainStep
from nlijob.records.outcome import GpuUse, Metrics, Results
from nlijob.records.trials import Trials
from nlijob.report import charts
from nlijob.report.chart_drawing import ACCENT, AFTER, BEFORE, TEST, Plot
from nlijob.report.charts import Change, Curve, Difference, Line, Span, Trade
from nlijob.report.view.epochs import validation_intervals

MOST_POINTS = 500
"""Most points of a line; a longer line is drawn as means of neighbouring points."""
GPU_COLOURS = (AFTER, BEFORE, TEST, ACCENT)
"""Lines of GPUs that can be told apart."""
RUNNING_MEAN = 25
"""Longest window of the running mean of the loss, in optimizer steps."""


@dataclass(frozen=True)
class Clock:
    """Job time: the attempts joined together, without the pauses between them."""

    samples: tuple[HardwareSample, ...]
    times: tuple[float, ...]
    """Job time of each sample, in seconds."""

    @classmethod
    def of(cls, samples: Sequence[HardwareSample]) -> Clock:
        """The clock of these samples, which are in the order in which they were written."""
        times: list[float] = []
        offset = 0.0
        ordered = sorted(samples, key=lambda sample: sample.attempt)
        for _, attempt in groupby(ordered, key=lambda sample: sample.attempt):
            own = [moment_s(sample) for sample in attempt]
            steps = [0.0, *(max(0.0, later - before) for before, later in pairwise(own))]
            times += [offset + passed for passed in accumulate(steps)]
            offset = times[-1]
        return cls(tuple(ordered), tuple(times))

    def spans(self) -> tuple[Span, ...]:
        """The stages in order; each lasts until the next begins."""
        starts = [
            (stage, next(run)[0])
            for (_, stage), run in groupby(
                zip(self.times, self.samples, strict=True),
                key=lambda pair: (pair[1].attempt, pair[1].stage),
            )
        ]
        ends = [*(start for _, start in starts[1:]), self.times[-1]]
        return tuple(
            Span(stage, start, end) for (stage, start), end in zip(starts, ends, strict=True)
        )

    def line(
        self, label: str, value: Callable[[HardwareSample], float | None], colour: str
    ) -> Line:
        """A figure of every sample; interrupted between attempts, thinned if there are many."""
        times: list[float] = []
        values: list[float | None] = []
        pairs = zip(self.times, self.samples, strict=True)
        for _, attempt in groupby(pairs, key=lambda pair: pair[1].attempt):
            own = list(attempt)
            for bucket in _buckets(own, max(1, len(self.times) // MOST_POINTS)):
                measured = [v for _, sample in bucket if (v := value(sample)) is not None]
                times.append(bucket[0][0])
                values.append(sum(measured) / len(measured) if measured else None)
            times.append(own[-1][0])
            values.append(None)
        return Line(label, times, values, colour)


def accuracy_plots(results: Results) -> dict[str, Plot]:
    """Figures on the test split before and after tuning."""
    base, tuned, bootstrap = results.base, results.tuned, results.bootstrap
    changes = [
        Change(
            "accuracy",
            base.accuracy,
            tuned.accuracy,
            base.accuracy_interval,
            tuned.accuracy_interval,
        ),
        Change(
            "balanced accuracy",
            base.balanced_accuracy,
            tuned.balanced_accuracy,
            bootstrap.balanced_accuracy.base,
            bootstrap.balanced_accuracy.tuned,
        ),
        Change(
            "macro F1",
            base.macro_f1,
            tuned.macro_f1,
            bootstrap.macro_f1.base,
            bootstrap.macro_f1.tuned,
        ),
        *(
            Change(f"recall of {before.name}", before.recall, after.recall)
            for before, after in zip(base.classes, tuned.classes, strict=True)
        ),
    ]
    caption = (
        "Test split before (square) and after tuning (circle). Solid bars are 95 % intervals; a "
        "dotted line only joins both recalls of a label, which have no intervals here."
    )
    title = "Figures before and after tuning"
    return {"accuracy": charts.change_chart("chart-accuracy", title, caption, changes)}


def slice_plots(results: Results) -> dict[str, Plot]:
    """Change in accuracy by slice of the texts; empty where none has enough rows."""
    differences = [
        Difference(one.name, one.change, one.change_interval, one.is_significant)
        for one in results.slices
        if one.judged and one.family not in OF_THE_SOURCE
    ]
    if not differences:
        return {}
    caption = (
        "Change in accuracy by slice, with 95 % intervals. Filled markers are significant after "
        "Holm's correction for all slices."
    )
    chart = charts.difference_chart("chart-slices", "Change by slice", caption, differences)
    return {"slices": chart}


def transfer_plots(results: Results) -> dict[str, Plot]:
    """Accuracy before and after on the run's own test rows and elsewhere; empty without a set."""
    if not results.transfer:
        return {}
    base, tuned = results.base, results.tuned
    bounds = base.accuracy_interval, tuned.accuracy_interval
    changes = [Change("own test rows", base.accuracy, tuned.accuracy, *bounds)]
    for one in results.transfer:
        bounds = one.base.accuracy_interval, one.tuned.accuracy_interval
        name = shown_name(one.manifest.name)
        changes.append(Change(name, one.base.accuracy, one.tuned.accuracy, *bounds))
    caption = (
        "Accuracy before (square) and after tuning (circle) on the run's own test rows and on "
        "further test sets. Bars are 95 % intervals."
    )
    title = "Accuracy here and elsewhere"
    return {"transfer": charts.change_chart("chart-transfer", title, caption, changes)}


def forgetting_plots(results: Results) -> dict[str, Plot]:
    """Gain in accuracy against the change of the loss on general text; empty if not measured."""
    found = results.forgetting
    if found is None:
        return {}
    caption = (
        "Gain in accuracy on the test rows against the change of the loss on general text, with "
        "95 % intervals. Up is better at the task, right is worse at general text."
    )
    chart = charts.trade_chart(
        "chart-forgetting", "Gain and loss", caption, _trades(results, found)
    )
    return {"forgetting": chart}


def _trades(results: Results, found: Forgetting) -> list[Trade]:
    """A point for each training; the kept one is filled."""
    changes = {one.name: one.change for one in found.trials}
    if results.trials is None or not changes:
        change = found.change
        own = Trade(change.difference, change.interval, results.gain, results.gain_interval, True)
        return [own]
    return [
        Trade(
            changes[one.name].difference,
            changes[one.name].interval,
            one.change.difference,
            one.change.interval,
            one.name == results.trials.kept,
        )
        for one in results.trials.trials
        if one.name in changes
    ]


def calibration_plots(results: Results) -> dict[str, Plot]:
    """Reliability diagram of both models."""
    caption = (
        "Share of correct answers by the probability of the answer. Above the dotted line a model "
        "is underconfident, below it overconfident. Bars are 95 % intervals."
    )
    models = [
        _model_reliability("before", results.base, BEFORE, "s"),
        _model_reliability("after", results.tuned, AFTER, "o"),
    ]
    chart = charts.reliability("chart-reliability", "Reliability", caption, models)
    return {"reliability": chart}


def epoch_plots(results: Results) -> dict[str, Plot]:
    """Accuracy and loss by epoch, and those of every training where there are several."""
    plots = {"epochs": _epochs(results), "loss": _losses(results)}
    if results.trials is not None:
        plots |= _trainings(results.trials)
    return plots


def training_plots(results: Results) -> dict[str, Plot]:
    """Test rows by the number of trainings that label them correctly; empty for one training."""
    if results.trials is None:
        return {}
    number = len(results.trials.trials)
    caption = f"Test rows by how many of the {number} trainings label them correctly."
    chart = charts.counts_chart(
        "chart-rows-across",
        "Rows and trainings",
        caption,
        results.trials.rows.counts,
        "trainings that label the row correctly",
        "test rows",
    )
    return {"rows-across": chart}


def hardware_plots(results: Results, samples: Sequence[HardwareSample]) -> dict[str, Plot]:
    """Load, memory and power over the job; empty without samples."""
    return dict(_hardware(results, Clock.of(samples))) if samples else {}


def _model_reliability(
    label: str, metrics: Metrics, colour: str, marker: str
) -> charts.Reliability:
    points = [
        (own.mean_confidence, own.accuracy, own.accuracy_interval)
        for own in metrics.calibration.bins
        if own.mean_confidence is not None
        and own.accuracy is not None
        and own.accuracy_interval is not None
    ]
    confidence, accuracy, bounds = zip(*points, strict=True)
    return charts.Reliability(label, confidence, accuracy, bounds, colour, marker)


def _epochs(results: Results) -> Plot:
    scores = [epoch.validation for epoch in results.epochs]
    base, bounds = results.base_validation, validation_intervals(results)
    caption = (
        f"Accuracy after each epoch. Epoch {results.selection.epoch} was selected by validation "
        f"accuracy ({percent(results.selection.validation_accuracy)})."
    )
    return charts.accuracy_by_epoch(
        "chart-epochs",
        "Accuracy by epoch",
        caption,
        [epoch.epoch for epoch in results.epochs],
        [score.accuracy for score in scores],
        [bounds[epoch.epoch] for epoch in results.epochs],
        [epoch.test.accuracy if epoch.test else None for epoch in results.epochs],
        base.accuracy if base else None,
        results.base.accuracy,
        results.selection.epoch,
    )


def _trainings(trials: Trials) -> dict[str, Plot]:
    """Validation accuracy and loss of every training by epoch."""

    def curves(figure: Callable[[SplitScore], float]) -> list[Curve]:
        return [
            Curve(
                {epoch.epoch: figure(epoch.validation) for epoch in one.epochs},
                one.selection.epoch,
                one.name == trials.kept,
            )
            for one in trials.trials
        ]

    each = "of each training (thin lines), and their mean."
    return {
        "trainings-accuracy": charts.curves_by_epoch(
            "chart-trainings-accuracy",
            "Validation accuracy of each training",
            f"Validation accuracy {each}",
            curves(lambda score: score.accuracy),
            "",
        ),
        "trainings-loss": charts.curves_by_epoch(
            "chart-trainings-loss",
            "Validation loss of each training",
            f"Validation loss {each}",
            curves(lambda score: score.loss),
            "loss (nats)",
        ),
    }


def _losses(results: Results) -> Plot:
    caption = "Training and validation loss after each epoch."
    return charts.loss_by_epoch(
        "chart-loss",
        "Loss by epoch",
        caption,
        [epoch.epoch for epoch in results.epochs],
        [epoch.train_loss for epoch in results.epochs],
        [epoch.validation.loss for epoch in results.epochs],
        results.selection.epoch,
    )


def step_plots(steps: Sequence[TrainStep]) -> dict[str, Plot]:
    """Training loss by optimizer step; empty without a training log."""
    if not steps:
        return {}
    width = max(1, min(RUNNING_MEAN, len(steps) // 5))
    losses = [step.loss for step in steps]
    ends = [later.step - 0.5 for step, later in pairwise(steps) if later.epoch != step.epoch]
    every = max(1, len(steps) // (2 * MOST_POINTS))
    windows = (losses[max(0, end - width) : end] for end in range(1, len(losses) + 1, every))
    smoothed = [sum(window) / len(window) for window in windows]  # of the steps shown alone
    caption = (
        f"Training loss at each optimizer step, and its running mean over {plural(width, 'step')}."
    )
    if every > 1:
        caption += f" One step in {every} is shown."
    chart = charts.loss_by_step(
        "chart-steps",
        "Training loss by optimizer step",
        caption,
        [step.step for step in steps][::every],
        losses[::every],
        smoothed,
        ends,
    )
    return {"steps": chart}


def _hardware(results: Results, clock: Clock) -> Iterator[tuple[str, Plot]]:
    spans = clock.spans()

    def gpu_lines(figure: Callable[[GpuSample], float | None]) -> list[Line]:
        return gpu_lines_of(results.resources.gpus, clock, figure)

    figures = [
        ("gpu-load", "GPU load", "%", 100.0, gpu_lines(lambda gpu: _times(gpu.load, 100))),
        (
            "gpu-memory",
            "GPU memory in use",
            "GiB",
            None,
            gpu_lines(lambda gpu: _times(gpu.memory_used_bytes, 1 / GIB)),
        ),
        ("gpu-power", "GPU power", "W", None, gpu_lines(lambda gpu: gpu.power_w)),
        (
            "cpu-load",
            "CPU load of all cores",
            "%",
            100.0,
            [clock.line("CPU", lambda sample: _times(sample.cpu_load, 100), AFTER)],
        ),
        (
            "ram",
            "RAM of the job's processes",
            "GiB",
            None,
            [clock.line("RAM", lambda s: _times(s.ram_used_bytes, 1 / GIB), AFTER)],
        ),
    ]
    for name, title, unit, top, lines in figures:
        measured = [line for line in lines if any(value is not None for value in line.values)]
        if measured:
            caption = f"{title} during the job ({unit})."
            yield (
                name,
                charts.over_time(f"chart-{name}", title, caption, measured, spans, unit, top),
            )


def gpu_lines_of(
    gpus: Sequence[GpuUse], clock: Clock, figure: Callable[[GpuSample], float | None]
) -> list[Line]:
    """A line for each GPU; where there are many, their highest, mean and lowest."""

    def reader(gpu: GpuUse) -> Callable[[HardwareSample], float | None]:
        def read(sample: HardwareSample) -> float | None:
            there = [one for one in gpus if sample.attempt in one.attempts]
            own = gpu_sample(gpu.uuid, sample, len(there)) if gpu in there else None
            return None if own is None else figure(own)

        return read

    readers = [reader(gpu) for gpu in gpus]
    if len(gpus) <= len(GPU_COLOURS):
        return [
            clock.line(f"GPU {number}", read, colour)
            for number, (read, colour) in enumerate(zip(readers, GPU_COLOURS, strict=False))
        ]

    def over_all(
        summary: Callable[[Sequence[float]], float],
    ) -> Callable[[HardwareSample], float | None]:
        def read(sample: HardwareSample) -> float | None:
            measured = [value for one in readers if (value := one(sample)) is not None]
            return summary(measured) if measured else None

        return read

    summaries: tuple[tuple[str, Callable[[Sequence[float]], float]], ...] = (
        (f"highest of {len(gpus)}", max),
        ("mean", fmean),
        ("lowest", min),
    )
    return [
        clock.line(name, over_all(summary), colour)
        for (name, summary), colour in zip(summaries, GPU_COLOURS, strict=False)
    ]


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _buckets(
    items: Sequence[tuple[float, HardwareSample]], size: int
) -> Iterator[Sequence[tuple[float, HardwareSample]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
