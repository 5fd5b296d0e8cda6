"""The section on the prompt."""

from __future__ import annotations

from nlijob.report.view.prompt import prompt_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_a_classification_head_has_no_label_tokens() -> None:
    prompt = prompt_section(outcome(Spec(head="sequence-classification")))
    assert prompt.labels is None
    assert "no label tokens" in prompt.lead
