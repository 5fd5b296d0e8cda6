"""The model card of the adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from nlijob.analysis.outcome import build_results
from nlijob.analysis.wording import percent
from nlijob.records.outcome import Emissions, Results
from nlijob.report.card_metadata import Metric, front_matter
from nlijob.report.model_card import model_card
from tests.synthetic import Spec, build_run
from tests.transfer_sets import TWO, MadeSet, add_sets
from tests.unit.report.view.outcomes import outcome, several_trainings


def test_the_card_says_of_how_many_trainings_the_adapter_is_the_best() -> None:
    results = several_trainings()
    assert results.trials is not None
    card = model_card(results)
    assert (
        "Of 3 trainings that differ in their seed alone, this one (seed-43) has the best "
        "validation accuracy." in card
    )
    (mean,) = (line for line in card.splitlines() if line.startswith("| accuracy, mean of 3"))
    assert f"| {percent(results.trials.accuracy.mean)} (" in mean


def test_the_card_of_one_training_knows_of_no_others() -> None:
    card = model_card(outcome(Spec()))
    assert "trainings" not in card
    assert card.count("| accuracy") == 1


def metadata(results: Results) -> ModelCardData:
    """What the hub's own library reads of the card; it raises where the card is not valid."""
    return read_by_the_hub(model_card(results))


def read_by_the_hub(card: str) -> ModelCardData:
    data = ModelCard(card).data
    assert isinstance(data, ModelCardData)
    again = ModelCard(f"---\n{data.to_yaml()}\n---\n").data
    assert again.to_yaml() == data.to_yaml()
    return data


def test_the_hub_reads_base_model_data_set_and_library() -> None:
    data = metadata(outcome(Spec()))
    assert data.base_model == "microsoft/phi-2"
    assert data.datasets == ["stanfordnlp/snli"]
    assert data.library_name == "peft"
    assert "natural-language-inference" in (data.tags or [])


def test_the_hub_reads_the_results_on_the_test_rows() -> None:
    results = outcome(Spec())
    data = metadata(results)
    assert data.model_name == "phi-2 tuned on snli"
    found = {one.metric_type: one for one in data.eval_results or []}
    assert {name: one.metric_value for name, one in found.items()} == pytest.approx(
        {
            "accuracy": results.tuned.accuracy,
            "balanced_accuracy": results.tuned.balanced_accuracy,
            "f1": results.tuned.macro_f1,
        },
        abs=5e-5,
    )
    accuracy = found["accuracy"]
    assert (accuracy.dataset_type, accuracy.dataset_config, accuracy.dataset_split) == (
        *("stanfordnlp/snli", "plain_text", "test"),
    )
    assert accuracy.dataset_revision == results.manifest.revision
    assert accuracy.task_type == "text-classification"


def test_the_hub_reads_the_results_on_further_test_sets(tmp_path: Path) -> None:
    small = Spec(rows=12, train_rows=8, epochs=1, few_shot=0, forgets=None, samples=False)
    run = build_run(tmp_path, replace(small, word_importance=False, generations=False))
    with_set = build_results(add_sets(run, MadeSet("hans", label_names=TWO, answers=(0, 1, 1))))
    *_, last = metadata(with_set).eval_results or []
    assert last.dataset_name == "hans"
    assert last.metric_type == "accuracy"
    assert last.metric_value == pytest.approx(with_set.transfer[0].tuned.accuracy, abs=5e-5)


def test_names_that_cannot_be_the_hubs_are_left_out() -> None:
    results = outcome(Spec())
    config = results.run.config
    local = replace(
        config,
        model=replace(config.model, name='/models/ours: "a" #1'),
        data=replace(config.data, dataset="../rows"),
    )
    manifest = replace(results.manifest, dataset="../rows")
    local_run = replace(results.run, config=local)
    data = metadata(replace(results, run=local_run, manifest=manifest))
    assert data.base_model is None
    assert data.datasets is None
    assert data.model_name == 'ours: "a" #1 tuned on rows'
    assert {one.dataset_type for one in data.eval_results or []} == {"local"}
    demo = metadata(outcome(Spec(gpu=False, demo=True)))
    assert (demo.base_model, demo.datasets) == (None, None)


def test_emissions_are_in_the_card_where_they_are_known() -> None:
    results = outcome(Spec())
    assert "co2_eq_emissions" not in metadata(results)
    known = replace(results, emissions=Emissions(1234.5, 400.0, 1.1e7))
    found = metadata(known)["co2_eq_emissions"]
    assert found["emissions"] == 1234
    assert found["source"] == "energy of the GPUs, at 400 g of CO2 equivalents per kWh"
    assert found["hardware_used"] == "NVIDIA H200"


def test_the_card_of_a_merged_model_has_the_accuracy_of_its_own_files() -> None:
    results = outcome(Spec())
    text = front_matter(results, "transformers", [Metric("accuracy", "accuracy", 0.5)])
    data = read_by_the_hub(f"---\n{text}---\n")
    assert data.library_name == "transformers"
    (one,) = data.eval_results or []
    assert one.metric_value == 0.5
