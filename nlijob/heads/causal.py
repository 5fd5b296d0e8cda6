"""The causal head: a language model answers with one token after the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nlijob.heads.base import HeadDescription

if TYPE_CHECKING:
    from nlijob.config import JobConfig

SNIPPET = """\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{quantization_import}

MODEL, REVISION = {model!r}, {revision!r}
ADAPTER = "adapter"  # the folder beside this report
TEMPLATE = {template}
LABEL_TOKENS = {label_tokens!r}

tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION{trust})
model = AutoModelForCausalLM.from_pretrained(
    MODEL,
    revision=REVISION{trust},
    dtype=torch.{dtype},{quantization}
){after_loading}
model = PeftModel.from_pretrained(model, ADAPTER).eval()


def predict(premise: str, hypothesis: str) -> str:
    prompt = TEMPLATE.format(premise=premise, hypothesis=hypothesis)
    {inputs}
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    return max(LABEL_TOKENS, key=lambda label: logits[LABEL_TOKENS[label]].item())


print(predict("A man is playing a guitar.", "A person makes music."))
"""


def _faults(config: JobConfig) -> Iterator[str]:
    prompt, labels = config.prompt, config.data.label_names
    if not prompt.template:
        yield "prompt.template: the causal head needs one, with {premise} and {hypothesis}"
    if prompt.verbalizers != "auto" and len(prompt.verbalizers) != len(labels):
        yield (
            f"prompt.verbalizers: {len(prompt.verbalizers)} given for {len(labels)} labels "
            f'({", ".join(labels)}); give one each, or "auto"'
        )


CAUSAL = HeadDescription(
    title="causal head",
    task="as a language model that answers with a label token",
    reading=(
        "The model's answer is the label token with the highest probability right after this "
        "text; no text is generated for it."
    ),
    snippet=SNIPPET,
    faults=_faults,
    writes_text=True,
    takes_few_shot=True,
)
