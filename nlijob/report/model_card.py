"""The model card of the adapter: its training, scores and use."""

from __future__ import annotations

from nlijob.analysis.forgetting import forgetting_sentence
from nlijob.analysis.wording import NOT_MEASURED, plural, with_interval
from nlijob.printable import printable
from nlijob.records.outcome import Results
from nlijob.records.trials import Trials
from nlijob.report.card_metadata import front_matter, run_metrics
from nlijob.report.snippet import usage_snippet

CARD = """\
---
{metadata}---

# {base} tuned on {dataset}

A LoRA adapter (r={lora.r}, alpha={lora.alpha}, on {targets}), trained with nlijob \
{run.nlijob_version} on {train_rows:,} rows of {dataset}. It is the checkpoint of epoch \
{selection.epoch} of {epochs}, selected by validation accuracy.{trainings}

| test rows: {tuned.rows:,} (95 % interval) | base model | with this adapter |
|---|---|---|
{mean}| accuracy | {base_accuracy} | {tuned_accuracy} |
| balanced accuracy | {base_balanced_accuracy} | {tuned_balanced_accuracy} |
| macro F1 | {base_macro_f1} | {tuned_macro_f1} |
{elsewhere}
{forgetting}

## Use

```python
{snippet}```
"""


def _trainings(trials: Trials | None) -> str:
    """Of how many trainings the adapter is the best; "" where there is one."""
    if trials is None:
        return ""
    return (
        f" Of {plural(len(trials.trials), 'training')} that differ in their seed alone, this one "
        f"({trials.kept}) has the best validation accuracy."
    )


def _mean(results: Results) -> str:
    """The row of the table with the mean of several trainings; "" where there is one."""
    trials = results.trials
    if trials is None:
        return ""
    base, mean = results.base, trials.accuracy
    return (
        f"| accuracy, mean of {plural(len(trials.trials), 'training')} | "
        f"{with_interval(base.accuracy, base.accuracy_interval)} | "
        f"{with_interval(mean.mean, mean.interval)} |\n"
    )


def model_card(results: Results) -> str:
    """The card as Markdown with the front matter that the Hugging Face hub reads."""
    config, base, tuned = results.run.config, results.base, results.tuned
    balanced, f1 = results.bootstrap.balanced_accuracy, results.bootstrap.macro_f1
    text = CARD.format(
        metadata=front_matter(results, "peft", run_metrics(results), elsewhere=True),
        base=config.model.name,
        dataset=config.data.dataset,
        lora=config.lora,
        targets=", ".join(results.parameters.matched_modules),
        run=results.run,
        train_rows=results.manifest.splits["train"].rows,
        selection=results.selection,
        epochs=len(results.epochs),
        trainings=_trainings(results.trials),
        mean=_mean(results),
        tuned=tuned,
        base_accuracy=with_interval(base.accuracy, base.accuracy_interval),
        tuned_accuracy=with_interval(tuned.accuracy, tuned.accuracy_interval),
        base_balanced_accuracy=with_interval(base.balanced_accuracy, balanced.base),
        tuned_balanced_accuracy=with_interval(tuned.balanced_accuracy, balanced.tuned),
        base_macro_f1=with_interval(base.macro_f1, f1.base),
        tuned_macro_f1=with_interval(tuned.macro_f1, f1.tuned),
        elsewhere=_elsewhere(results),
        forgetting=_forgetting(results),
        snippet=usage_snippet(results),
    )
    return printable(text)


def _elsewhere(results: Results) -> str:
    """Rows of the table with the accuracy on each further test set; "" where there is none."""
    return "".join(
        f"| accuracy elsewhere: {one.manifest.name}, {plural(one.rows, 'row')} | "
        f"{with_interval(one.base.accuracy, one.base.accuracy_interval)} | "
        f"{with_interval(one.tuned.accuracy, one.tuned.accuracy_interval)} |\n"
        for one in results.transfer
    )


def _forgetting(results: Results) -> str:
    """What tuning did to the loss on general text."""
    found = results.forgetting
    if found is None:
        return f"What tuning did to the model's other abilities was {NOT_MEASURED}."
    return forgetting_sentence(found)
