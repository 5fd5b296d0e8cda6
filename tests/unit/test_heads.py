"""The table of heads: it names every head on both sides, and refuses any other name."""

from __future__ import annotations

import typing

import pytest

from nlijob.config import load_config
from nlijob.errors import ConfigurationError
from nlijob.gpu.heads import HEAD_CLASSES, head_class
from nlijob.heads import HEADS, HeadName, describe


def test_configuration_descriptions_and_implementations_name_the_same_heads() -> None:
    assert {*HEADS} == {*HEAD_CLASSES} == {*typing.get_args(HeadName)}


@pytest.mark.parametrize("look_up", [describe, head_class])
def test_an_unknown_head_is_refused_with_the_known_names(look_up: typing.Any) -> None:
    with pytest.raises(ConfigurationError, match="'magic'; known: causal, sequence-classification"):
        look_up("magic")


def test_few_shot_examples_are_refused_where_the_head_takes_none() -> None:
    options = {"model.head": "sequence-classification", "prompt.verbalizers": []}
    with pytest.raises(ConfigurationError, match=r"eval\.few_shot: the classification head takes"):
        load_config("demo", {**options, "eval.few_shot": 2})
