"""Python code that uses a run's adapter: shown in the report, to be copied."""

from __future__ import annotations

from nlijob.heads import describe
from nlijob.records.job import PromptRecord
from nlijob.records.outcome import Results

QUANTIZATION = """
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant={double},
        bnb_4bit_compute_dtype=torch.{dtype},{skipped}
    ),"""

KEEP_WEIGHTS = """
for module in model.modules():  # some CPUs would repack 4-bit weights, which changes their values
    if hasattr(module, "support_avx512bf16_for_cpu"):
        module.support_avx512bf16_for_cpu = False"""


def usage_snippet(results: Results) -> str:
    """Return a script for this run's model, revision, adapter, prompt and labels.

    The head brings the script's template. Its fields are the keywords below.
    """
    config, prompt = results.run.config, results.prompt
    names = results.manifest.label_names
    return describe(config.model.head).snippet.format(
        model=config.model.name,
        revision=config.model.revision,
        template=_text_literal(prompt.template),
        # a head without label tokens has no use for the mapping, which is then empty
        label_tokens=dict(zip(names, prompt.label_tokens, strict=bool(prompt.label_tokens))),
        labels=list(names),
        texts=_tokenizer_texts(prompt),
        inputs=input_code(prompt),
        dtype=results.environment.compute_dtype,
        quantization=_quantization(results),
        trust=", trust_remote_code=True" if config.model.trust_remote_code else "",
        after_loading=KEEP_WEIGHTS if _is_quantized(results) else "",
        quantization_import=", BitsAndBytesConfig" if _is_quantized(results) else "",
    )


def usage_note(results: Results) -> str:
    """Return what a reader must know before running the script."""
    note = "Run it in this report's folder, which holds the adapter in adapter/ (PEFT format)."
    if results.trials is not None:
        note += f" It is the adapter of {results.trials.kept}."
    if results.run.config.model.name == "demo":
        note += (
            " The base model is the demo's own: replace 'demo' with the path of the folder "
            "nlijob/demo/model."
        )
    return note


def _quantization(results: Results) -> str:
    if not _is_quantized(results):
        return ""
    modules = _unquantized(results)
    names = ", ".join(f'"{name}"' for name in modules)
    return QUANTIZATION.format(
        double=results.run.config.model.double_quantization,
        dtype=results.environment.compute_dtype,
        skipped=f"\n        llm_int8_skip_modules=[{names}]," if modules else "",
    )


def _unquantized(results: Results) -> tuple[str, ...]:
    """The modules that the job kept out of 4 bits; of an older run, those of its head."""
    known = results.environment.unquantized_modules
    if known is not None:
        return known
    modules = describe(results.run.config.model.head).unquantized_modules
    origin = results.environment.head
    return origin.modules if modules and origin else modules


def _is_quantized(results: Results) -> bool:
    return results.run.config.model.quantization == "nf4"


def input_code(prompt: PromptRecord) -> str:
    """Return the lines that make the model's `inputs` of the text `prompt`."""
    if prompt.tokens_before is None:
        return 'inputs = tokenizer(prompt, return_tensors="pt").to(model.device)'
    if not prompt.tokens_before and not prompt.answer_start:
        options = 'add_special_tokens=False, return_tensors="pt"'
        return f"inputs = tokenizer(prompt, {options}).to(model.device)"
    tokens = [*map(str, prompt.tokens_before), "*tokens", *map(str, prompt.answer_start)]
    return (
        'tokens = tokenizer(prompt, add_special_tokens=False)["input_ids"]\n'
        f"    ids = [[{', '.join(tokens)}]]\n"
        '    inputs = {"input_ids": torch.tensor(ids, device=model.device)}'
    )


def _tokenizer_texts(prompt: PromptRecord) -> str:
    """Return the tokenizer's arguments: the filled template, or the pair without a template."""
    if not prompt.template:
        return "premise, hypothesis"
    text = f"{_text_literal(prompt.template)}.format(premise=premise, hypothesis=hypothesis)"
    return f"{text}, add_special_tokens=False" if prompt.is_chat else text


def _text_literal(text: str) -> str:
    """Return a Python literal of a text, with one line of code per line of text."""
    lines = text.splitlines(keepends=True)
    if len(lines) < 2:
        return repr(text)
    return "(\n" + "".join(f"    {line!r}\n" for line in lines) + ")"
