"""Python code that uses a run's adapter: shown in the report, to be copied."""

from __future__ import annotations

from nlijob.records import Results

CAUSAL = """\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{quantization_import}

MODEL, REVISION = {model!r}, {revision!r}
ADAPTER = "adapter"  # the folder beside this report
TEMPLATE = {template}
LABEL_TOKENS = {label_tokens!r}

tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION)
model = AutoModelForCausalLM.from_pretrained(
    MODEL,
    revision=REVISION,
    dtype=torch.{dtype},{quantization}
)
model = PeftModel.from_pretrained(model, ADAPTER).eval()


def predict(premise: str, hypothesis: str) -> str:
    prompt = TEMPLATE.format(premise=premise, hypothesis=hypothesis)
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    return max(LABEL_TOKENS, key=lambda label: logits[LABEL_TOKENS[label]].item())


print(predict("A man is playing a guitar.", "A person makes music."))
"""

CLASSIFICATION = """\
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer{quantization_import}

MODEL, REVISION = {model!r}, {revision!r}
ADAPTER = "adapter"  # the folder beside this report; it holds the trained head too
LABELS = {labels!r}

tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION)
model = AutoModelForSequenceClassification.from_pretrained(
    MODEL,
    revision=REVISION,
    num_labels=len(LABELS),
    dtype=torch.{dtype},{quantization}
)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model.config.pad_token_id = tokenizer.pad_token_id
model = PeftModel.from_pretrained(model, ADAPTER).eval()


def predict(premise: str, hypothesis: str) -> str:
    inputs = tokenizer({text}, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        logits = model(**inputs).logits[0]
    return LABELS[int(logits.argmax())]


print(predict("A man is playing a guitar.", "A person makes music."))
"""

QUANTIZATION = """
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant={double},
        bnb_4bit_compute_dtype=torch.{dtype},{skipped}
    ),"""


def usage_snippet(results: Results) -> str:
    """A script for this run's model, revision, adapter, prompt and labels."""
    config, prompt = results.run.config, results.prompt
    causal = config.model.head == "causal"
    names = results.manifest.label_names
    shape = CAUSAL if causal else CLASSIFICATION
    return shape.format(
        model=config.model.name,
        revision=config.model.revision,
        template=_text_literal(prompt.template),
        label_tokens=dict(zip(names, prompt.label_tokens, strict=causal)),
        labels=list(names),
        text=_classification_text(prompt.template),
        dtype=results.environment.compute_dtype,
        quantization=_quantization(results),
        quantization_import=", BitsAndBytesConfig" if _is_quantized(results) else "",
    )


def usage_note(results: Results) -> str:
    """What to know before running the script."""
    note = (
        "Run it in the folder of this report, where the adapter stands as adapter/ (PEFT format)."
    )
    if results.run.config.model.name == "demo":
        note += (
            " The base model is the demo's own: put the path of the folder nlijob/demo/model in "
            "place of 'demo'."
        )
    return note


def _quantization(results: Results) -> str:
    if not _is_quantized(results):
        return ""
    causal = results.run.config.model.head == "causal"
    return QUANTIZATION.format(
        double=results.run.config.model.double_quantization,
        dtype=results.environment.compute_dtype,
        # A fresh head cannot be stored in 4 bits; it comes whole from the adapter.
        skipped="" if causal else '\n        llm_int8_skip_modules=["score", "classifier"],',
    )


def _is_quantized(results: Results) -> bool:
    return results.run.config.model.quantization == "nf4"


def _classification_text(template: str) -> str:
    if not template:
        return "premise, hypothesis"
    return f"{_text_literal(template)}.format(premise=premise, hypothesis=hypothesis)"


def _text_literal(text: str) -> str:
    """A Python literal of a text, a line of it a line of code."""
    lines = text.splitlines(keepends=True)
    if len(lines) < 2:
        return repr(text)
    return "(\n" + "".join(f"    {line!r}\n" for line in lines) + ")"
