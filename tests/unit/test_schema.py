"""The published JSON Schema of results.json."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nlijob import records
from nlijob.schema import record_schema, results_schema
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome

PUBLISHED = Path(__file__).parents[2] / "docs" / "results.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(results_schema())


def as_json(spec: Spec) -> Any:
    return json.loads(records.dump(outcome(spec)))


def test_the_schema_is_a_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(results_schema())


def test_the_published_schema_matches_the_code() -> None:
    text = "make it anew: entrypoint.py schema > docs/results.schema.json"
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == results_schema(), text


@pytest.mark.parametrize(
    "spec",
    [
        Spec(),
        Spec(head="sequence-classification", gpu=False, base_validation=False),
        Spec(demo=True, resumed=True, samples=False, generations=False, few_shot=0),
        Spec(hostile=True, word_importance=False, blank_premise=False, test_each_epoch=False),
    ],
    ids=["gpu", "classification on a cpu", "demo", "hostile rows"],
)
def test_results_of_every_kind_are_valid(spec: Spec) -> None:
    VALIDATOR.validate(as_json(spec))


def drop_gain(results: Any) -> None:
    del results["gain"]


def add_key(results: Any) -> None:
    results["tuned"]["acuracy"] = 0.5


def accuracy_as_text(results: Any) -> None:
    results["tuned"]["accuracy"] = "71 %"


def other_version(results: Any) -> None:
    results["format_version"] += 1


def unknown_head(results: Any) -> None:
    results["run"]["config"]["model"]["head"] = "regression"


@pytest.mark.parametrize(
    "break_it", [drop_gain, add_key, accuracy_as_text, other_version, unknown_head]
)
def test_invalid_results_are_refused(break_it: Callable[[Any], None]) -> None:
    broken = copy.deepcopy(as_json(Spec()))
    break_it(broken)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(broken)


def test_fields_have_the_docstrings_of_the_code() -> None:
    assert results_schema()["properties"]["mcnemar_p"]["description"].startswith("Exact two-sided")


def test_an_unsupported_type_is_refused() -> None:
    @dataclass
    class Odd:
        """A class with a field that JSON has no type for."""

        when: complex

    with pytest.raises(TypeError, match="complex"):
        record_schema(Odd)
