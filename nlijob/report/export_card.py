"""The model card of an exported merged model: what it is made of, how it scores, and its use."""

from __future__ import annotations

import dataclasses
import re

from nlijob.analysis.wording import count, with_interval
from nlijob.printable import printable
from nlijob.records.outcome import Results
from nlijob.records.use import ExportRecord
from nlijob.report.card_metadata import Metric, front_matter
from nlijob.report.snippet import usage_snippet

CARD = """\
---
{metadata}---

# {base} tuned on {dataset}, merged

{base} with a LoRA adapter (r={lora.r}, alpha={lora.alpha}) merged into its weights. The adapter \
was trained with nlijob {run.nlijob_version} on {train_rows} rows of {dataset}. {weights}

| test rows: {rows} (95 % interval) | accuracy |
|---|---|
| base model, as the run measured it | {base_accuracy} |
| with the adapter, as the run measured it | {run_accuracy} |
| this model, loaded from its files | {merged_accuracy} |

This model and the run answer {same} of {rows} test rows alike. `nlijob-export.json` has these
figures and the whole configuration; `report.html` is the report of the run.

## Use

```python
{snippet}```
"""
CHANGES = (
    (r"^from peft import .*\n", ""),
    (r"^ADAPTER = .*\n", ""),
    (r"^MODEL, REVISION = .*$", 'MODEL = "."  # the folder of this card, or its hub id'),
    (r", revision=REVISION\b", ""),
    (r"^ *revision=REVISION,\n", ""),
    (r"\brevision=REVISION, ", ""),
    (r"^ *ignore_mismatched_sizes=.*\n", ""),
    (r"PeftModel\.from_pretrained\(model, ADAPTER\)", "model"),
)
"""What differs in the script for a merged model: pattern -> replacement."""


def export_card(results: Results, record: ExportRecord) -> str:
    """The card as Markdown with the front matter that the Hugging Face hub reads."""
    config, merged = results.run.config, record.export_test
    assert merged is not None
    run_test = record.run_test
    text = CARD.format(
        metadata=front_matter(
            results, "transformers", [Metric("accuracy", "accuracy", merged.accuracy)]
        ),
        base=config.model.name,
        dataset=config.data.dataset,
        lora=config.lora,
        run=results.run,
        train_rows=count(results.manifest.splits["train"].rows),
        weights=record.weights,
        rows=count(run_test.rows),
        base_accuracy=with_interval(results.base.accuracy, results.base.accuracy_interval),
        run_accuracy=with_interval(run_test.accuracy, run_test.interval),
        merged_accuracy=with_interval(merged.accuracy, merged.interval),
        same=count(record.same_answers or 0),
        snippet=merged_snippet(results, record.dtype),
    )
    return printable(text)


def merged_snippet(results: Results, dtype: str) -> str:
    """The script of the report, for a merged model whose weights have this data type."""
    config = results.run.config
    model = dataclasses.replace(config.model, quantization="none")
    run = dataclasses.replace(results.run, config=dataclasses.replace(config, model=model))
    environment = dataclasses.replace(results.environment, compute_dtype=dtype)
    text = usage_snippet(dataclasses.replace(results, run=run, environment=environment))
    for pattern, replacement in CHANGES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text
