"""The size of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nlijob.records.job import HeadOrigin
from nlijob.records.outcome import Results
from nlijob.report.view.parameters import parameters_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_both_totals_are_explained() -> None:
    parameters = parameters_section(outcome(Spec()))
    counts = {row.cells[0]: row.cells[1] for row in parameters.counts.rows}
    assert counts["total, logical"] == "2,800,655,360"
    assert counts["total, packed"] == "1,542,364,160"
    assert "The logical total" in parameters.explanation


def test_a_model_that_is_not_quantised_has_one_total() -> None:
    results = outcome(Spec())
    counts = replace(results.parameters, total_packed=results.parameters.total_logical)
    explanation = parameters_section(replace(results, parameters=counts)).explanation
    assert "The logical total" not in explanation


def facts(results: Results, **changes: Any) -> dict[str, tuple[str, str]]:
    environment = replace(results.environment, **changes)
    section = parameters_section(replace(results, environment=environment))
    return {fact.name: (fact.value, fact.note) for fact in section.facts}


def test_a_new_head_is_stated_with_its_reason_and_what_the_checkpoint_has_instead() -> None:
    origin = HeadOrigin(
        ("score",), ("score",), "the checkpoint has no classification head", ("cls",)
    )
    shown = facts(outcome(Spec(head="sequence-classification")), head=origin)
    assert shown["head"] == (
        "sequence-classification",
        "score: new, drawn from the seed, as the checkpoint has no classification head",
    )
    assert shown["not used"] == ("cls", "in the checkpoint, but not in this task")


def test_a_checkpoints_own_head_is_stated_with_its_labels() -> None:
    origin = HeadOrigin(("score",), (), "the checkpoint's own, with its labels mapped by name", ())
    shown = facts(outcome(Spec(head="sequence-classification")), head=origin)
    assert shown["head"][1] == "the checkpoint's own, with its labels mapped by name"
    assert "not used" not in shown


def test_of_an_older_run_nothing_is_said_about_where_its_head_comes_from() -> None:
    assert facts(outcome(Spec()))["head"] == ("causal", "")


def test_double_quantisation_is_stated_as_the_weights_are_held() -> None:
    results = outcome(Spec())
    assert results.run.config.model.double_quantization
    assert facts(results)["quantisation"][0] == "4-bit NF4, double quantisation"
    assert facts(results, double_quantization=False)["quantisation"][0] == "4-bit NF4"


def test_what_is_not_in_4_bits_is_named() -> None:
    shown = facts(outcome(Spec()), unquantized_modules=("dt_proj", "lm_head"))
    assert shown["quantisation"][1] == "all linear modules but dt_proj, lm_head"


def test_a_model_whose_layers_4_bits_do_not_support_is_not_called_quantised() -> None:
    results = outcome(Spec())
    counts = replace(results.parameters, quantized_modules=0)
    assert facts(replace(results, parameters=counts))["quantisation"][0] == "none"


def test_allowed_code_of_a_model_is_stated() -> None:
    results = outcome(Spec())
    assert "code that came with the model" not in facts(results)
    model = replace(results.run.config.model, trust_remote_code=True)
    run = replace(results.run, config=replace(results.run.config, model=model))
    assert facts(replace(results, run=run))["code that came with the model"][0] == "allowed"


def test_a_module_that_is_matched_in_each_layer_by_its_whole_name_is_one_line() -> None:
    results = outcome(Spec())
    matched = {f"language_model.layers.{n}.self_attn.q_proj": 1 for n in range(12)}
    counts = replace(results.parameters, matched_modules=matched)
    (row,) = parameters_section(replace(results, parameters=counts)).modules.rows
    assert list(row.cells) == ["language_model.layers.*.self_attn.q_proj", "12"]
