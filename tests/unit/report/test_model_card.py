"""The model card of the adapter."""

from __future__ import annotations

from nlijob.analysis.wording import percent
from nlijob.report.model_card import model_card
from tests.synthetic import Spec
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
