"""The code snippet of a report."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.heads import HeadName
from nlijob.records.outcome import Results
from nlijob.report.snippet import usage_snippet
from tests.synthetic import TEMPLATE, Spec, build_run


def results(root: Path, head: HeadName = "causal") -> Results:
    return build_results(build_run(root, Spec(head=head, samples=False)))


def constants(code: str) -> dict[str, object]:
    """The values that a script assigns as literals at its top."""
    found: dict[str, object] = {}
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                found[statement.targets[0].id] = ast.literal_eval(statement.value)
            except ValueError:
                continue
    return found


@pytest.mark.parametrize("head", ["causal", "sequence-classification"])
def test_the_snippet_is_valid_python(tmp_path: Path, head: HeadName) -> None:
    compile(usage_snippet(results(tmp_path, head)), "snippet", "exec")


def test_the_snippet_contains_the_exact_prompt_and_label_tokens(tmp_path: Path) -> None:
    values = constants(usage_snippet(results(tmp_path)))
    assert values["TEMPLATE"] == TEMPLATE
    assert values["LABEL_TOKENS"] == {"entailment": 657, "neutral": 352, "contradiction": 362}


def test_the_classification_snippet_contains_the_labels_in_order(tmp_path: Path) -> None:
    values = constants(usage_snippet(results(tmp_path, "sequence-classification")))
    assert values["LABELS"] == ["entailment", "neutral", "contradiction"]


def test_a_model_that_was_not_quantised_is_loaded_without_quantisation(tmp_path: Path) -> None:
    made = results(tmp_path)
    model = replace(made.run.config.model, quantization="none")
    plain = replace(made, run=replace(made.run, config=replace(made.run.config, model=model)))
    assert "BitsAndBytes" not in usage_snippet(plain)


def test_a_template_with_quotes_remains_one_string(tmp_path: Path) -> None:
    made = results(tmp_path)
    hostile = '"""\'\'\'\\ {premise}\n")\nimport os  # {hypothesis} \u2028'
    code = usage_snippet(replace(made, prompt=replace(made.prompt, template=hostile)))
    assert constants(code)["TEMPLATE"] == hostile


def changed(made: Results, *, unquantized: tuple[str, ...] | None, trusts: bool = False) -> Results:
    model = replace(made.run.config.model, trust_remote_code=trusts)
    run = replace(made.run, config=replace(made.run.config, model=model))
    environment = replace(made.environment, unquantized_modules=unquantized)
    return replace(made, run=run, environment=environment)


def test_what_the_job_kept_out_of_4_bits_is_kept_out_of_them_again(tmp_path: Path) -> None:
    code = usage_snippet(changed(results(tmp_path), unquantized=("dt_proj", "lm_head")))
    assert 'llm_int8_skip_modules=["dt_proj", "lm_head"]' in code


def test_of_an_older_run_the_head_is_kept_out_of_4_bits(tmp_path: Path) -> None:
    code = usage_snippet(changed(results(tmp_path, "sequence-classification"), unquantized=None))
    assert 'llm_int8_skip_modules=["score", "classifier"]' in code


def test_4_bit_weights_are_not_repacked_for_a_cpu(tmp_path: Path) -> None:
    assert "support_avx512bf16_for_cpu = False" in usage_snippet(results(tmp_path))


@pytest.mark.parametrize("trusts", [True, False])
def test_a_models_own_code_is_allowed_where_the_job_allowed_it(
    tmp_path: Path, trusts: bool
) -> None:
    code = usage_snippet(changed(results(tmp_path), unquantized=(), trusts=trusts))
    assert code.count("trust_remote_code=True") == (2 if trusts else 0)
