"""The model card of the adapter: its training, scores and use."""

from __future__ import annotations

import json

from nlijob.printable import printable
from nlijob.records.outcome import Results
from nlijob.report.snippet import usage_snippet

CARD = """\
---
base_model: {base_model}
library_name: peft
datasets: {datasets}
tags: [natural-language-inference, qlora, nlijob]
---

# {base} tuned on {dataset}

A LoRA adapter (r={lora.r}, alpha={lora.alpha}, on {targets}), trained with nlijob \
{run.nlijob_version} on {train_rows:,} rows of {dataset}. It is the checkpoint of epoch \
{selection.epoch} of {epochs}, selected by validation accuracy.

| test rows: {tuned.rows:,} | base model | with this adapter |
|---|---|---|
| accuracy | {base_accuracy:.1%} ({base_metrics.correct:,}) | {tuned_accuracy:.1%} \
({tuned.correct:,}) |
| balanced accuracy | {base_metrics.balanced_accuracy:.1%} | {tuned.balanced_accuracy:.1%} |
| macro F1 | {base_metrics.macro_f1:.3f} | {tuned.macro_f1:.3f} |

## Use

```python
{snippet}```
"""


def model_card(results: Results) -> str:
    """The card as Markdown with the front matter that the Hugging Face hub reads."""
    config = results.run.config
    text = CARD.format(
        base_model=json.dumps(config.model.name),
        datasets=json.dumps([config.data.dataset]),
        base=config.model.name,
        dataset=config.data.dataset,
        lora=config.lora,
        targets=", ".join(config.lora.target_modules),
        run=results.run,
        train_rows=results.manifest.splits["train"].rows,
        selection=results.selection,
        epochs=len(results.epochs),
        base_metrics=results.base,
        tuned=results.tuned,
        base_accuracy=results.base.accuracy,
        tuned_accuracy=results.tuned.accuracy,
        snippet=usage_snippet(results),
    )
    return printable(text)
