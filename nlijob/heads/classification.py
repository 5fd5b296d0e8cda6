"""The classification head: a linear layer on the transformer, with one output per label."""

from __future__ import annotations

from nlijob.heads.base import HeadDescription

SNIPPET = """\
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer{quantization_import}

MODEL, REVISION = {model!r}, {revision!r}
ADAPTER = "adapter"  # the folder beside this report; it holds the trained head too
LABELS = {labels!r}

tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION{trust})
model = AutoModelForSequenceClassification.from_pretrained(
    MODEL,
    revision=REVISION{trust},
    num_labels=len(LABELS),
    ignore_mismatched_sizes=True,  # the adapter holds the head, whatever the model has
    dtype=torch.{dtype},{quantization}
){after_loading}
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model.config.pad_token_id = tokenizer.pad_token_id
model = PeftModel.from_pretrained(model, ADAPTER).eval()


def predict(premise: str, hypothesis: str) -> str:
    inputs = tokenizer({texts}, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        logits = model(**inputs).logits[0]
    return LABELS[int(logits.argmax())]


print(predict("A man is playing a guitar.", "A person makes music."))
"""

CLASSIFICATION = HeadDescription(
    title="classification head",
    task="with a classification head",
    reading=(
        "The classification head reads one hidden state of this text (at its last token; in an "
        "encoder at its first, or their mean) and has one output per label, so there are no label "
        "tokens."
    ),
    snippet=SNIPPET,
    faults=lambda config: (),
    writes_text=False,
    takes_few_shot=False,
    unquantized_modules=("score", "classifier"),
)
