"""The loss on general text before and after tuning, beside the gain."""

from __future__ import annotations

from nlijob.analysis.forgetting import (
    FORGOT,
    forgetting_sentence,
    loss_interval,
    trials_sentence,
)
from nlijob.analysis.wording import (
    NOT_MEASURED,
    count,
    decimal,
    loss,
    loss_difference,
    metric,
    p_value,
    percent,
    plural,
    points,
    points_interval,
    signed,
)
from nlijob.config import OWN_TEXTS
from nlijob.heads import describe
from nlijob.records.forgetting import Forgetting, LossDifference, TaskChange, TextChange
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Column, Row, Table, View, columns, row
from nlijob.report.view.text import unbroken, visible

EXCERPT = 110
"""Characters of a text that are shown."""


def forgetting_section(results: Results) -> View:
    """The figures, or why there are none."""
    found = results.forgetting
    if found is None:
        return View(measured=False, lead=_why_not(results), tasks=_tasks(results))
    return View(
        measured=True,
        tasks=_tasks(results),
        lead=unbroken(forgetting_sentence(found)),
        trials_lead=unbroken(trials_sentence(found)),
        table=_table(results, found),
        trials=_trials(results, found),
        worst=_worst(found) if found.worst else None,
        worst_title=f"The {plural(len(found.worst), 'text')} whose loss rose most",
        note=unbroken(_note(found)),
    )


def source_name(source: str) -> str:
    """Where the texts come from, in words."""
    return f"nlijob's own, {source}" if source in OWN_TEXTS else visible(source)


def _why_not(results: Results) -> str:
    config = results.run.config
    if not describe(config.model.head).writes_text:
        why = "a classification head predicts labels and no text"
    elif not config.forgetting.texts:
        why = "it was turned off (forgetting.texts)"
    else:
        why = "this run has no record of it"
    return f"The loss on general text was {NOT_MEASURED}: {why}."


def _table(results: Results, found: Forgetting) -> Table:
    return Table(
        f"Before and after, on {plural(found.texts, 'general text')} and on the test rows",
        columns("figure", "before", "after", "change", "95 % interval", "test"),
        (
            row(
                "loss on general text, nats a token",
                loss(found.base_loss),
                loss(found.tuned_loss),
                *_change(found.change),
            ),
            row(
                "perplexity of general text",
                _perplexity(found.base_perplexity),
                _perplexity(found.tuned_perplexity),
                "",
                "",
                "",
            ),
            row(
                "texts with a higher and with a lower loss",
                "",
                f"{count(found.worse)} and {count(found.better)}",
                "",
                "",
                "",
            ),
            row(
                "accuracy on the test rows",
                percent(results.base.accuracy),
                percent(results.tuned.accuracy),
                points(results.gain),
                points_interval(results.gain_interval),
                unbroken(p_value(results.mcnemar_p)),
            ),
        ),
    )


def _trials(results: Results, found: Forgetting) -> Table | None:
    """Every training's change, where there are several."""
    if not found.trials:
        return None
    gains = (
        {one.name: one.change.difference for one in results.trials.trials} if results.trials else {}
    )
    kept = results.trials.kept if results.trials else ""
    return Table(
        "Each training",
        columns("training", "gain in accuracy", "loss after", "change", "95 % interval", "test"),
        tuple(
            row(
                one.name,
                points(gains[one.name]) if one.name in gains else NOT_MEASURED,
                loss(one.tuned_loss),
                *_change(one.change),
                mark="kept" if one.name == kept else "",
            )
            for one in found.trials
        ),
    )


def _tasks(results: Results) -> Table | None:
    """Both models in the tasks of lm-evaluation-harness, if there are any."""
    if not results.tasks:
        return None
    return Table(
        "Tasks of lm-evaluation-harness, with its standard errors",
        columns("task", "documents", "before", "after", "change", "95 % interval", "adjusted test"),
        tuple(map(_task, results.tasks)),
    )


def _task(one: TaskChange) -> Row:
    way = "" if one.higher_is_better else ", lower is better"
    bounds = one.interval
    return row(
        f"{visible(one.task)}: {visible(one.metric)}{way}",
        count(one.documents),
        _with_error(one.base, one.base_stderr),
        _with_error(one.tuned, one.tuned_stderr),
        signed(one.difference, 3),
        f"{signed(bounds.low, 3)} to {signed(bounds.high, 3)}" if bounds else NOT_MEASURED,
        unbroken(p_value(one.adjusted_p)),
    )


def _with_error(value: float, stderr: float | None) -> str:
    return metric(value) if stderr is None else f"{metric(value)} ± {metric(stderr)}"


def _change(change: LossDifference) -> tuple[str, str, str]:
    return (
        loss_difference(change.difference),
        loss_interval(change.interval) if change.interval else NOT_MEASURED,
        unbroken(p_value(change.p)),
    )


def _perplexity(value: float | None) -> str:
    return decimal(value) if value is not None else "too large a number"


def _worst(found: Forgetting) -> Table:
    return Table(
        "Texts whose loss rose most",
        (
            Column("text", numeric=False),
            Column("kind", numeric=False),
            *map(Column, ("tokens", "loss before", "loss after", "change")),
        ),
        tuple(map(_text, found.worst)),
    )


def _text(one: TextChange) -> Row:
    return row(
        f"{one.text}: {_excerpt(one.content)}",
        visible(one.kind),
        count(one.tokens),
        loss(one.base_loss),
        loss(one.tuned_loss),
        loss_difference(one.tuned_loss - one.base_loss),
    )


def _excerpt(content: str) -> str:
    text = visible(" ".join(content.split()))
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 3]}..."


def _note(found: Forgetting) -> str:
    left_out = f" {plural(found.left_out, 'text')} could not be measured." if found.left_out else ""
    return (
        f"Texts: {source_name(found.source)}; {count(found.tokens)} predicted tokens, at most "
        f"{count(found.most_tokens)} a text.{left_out} The loss is the mean negative "
        "log-likelihood of a token given those before it; the perplexity is its exponential. It "
        "shows what tuning did to the model as a language model beside the task, not what it can "
        "still do. Texts are the units of interval and test: the interval is that of a ratio of "
        "sums (Cochran, 1977), the test exchanges the models in whole texts. A rise of more than "
        f"{FORGOT} nats (a perplexity {100 * FORGOT:.0f} % higher) that is beyond chance is a "
        "warning on the first screen."
    )
