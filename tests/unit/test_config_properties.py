"""Whatever a recipe or an option says, it gives a valid configuration or an error with advice."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nlijob.config import JobConfig, check, load_config, parse_assignment
from nlijob.errors import ConfigurationError

DEMO = load_config("demo")
KEYS = [
    f"{section.name}.{key.name}"
    for section in dataclasses.fields(JobConfig)
    if dataclasses.is_dataclass(getattr(DEMO, section.name))
    for key in dataclasses.fields(getattr(DEMO, section.name))
]
SCALARS = st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=12)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.text(max_size=6), SCALARS, max_size=3)
)


@given(overrides=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_any_values_give_a_valid_configuration_or_an_error_that_names_a_key(
    overrides: dict[str, Any],
) -> None:
    found: JobConfig | ConfigurationError
    try:
        found = load_config("demo", overrides)
    except ConfigurationError as error:
        found = error
    if isinstance(found, JobConfig):
        assert check(found) == []
    else:
        sections = {key.partition(".")[0] for key in overrides}
        assert any(f"{section}." in found.message for section in sections)


@given(text=st.text(max_size=40))
def test_any_assignment_is_read_or_refused(text: str) -> None:
    try:
        key, _ = parse_assignment(text)
    except ConfigurationError:
        return
    assert key.count(".") == 1


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_any_bytes_are_a_recipe_or_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = tmp_path_factory.mktemp("recipe") / "mine.toml"
    recipe.write_bytes(content)
    with pytest.raises(ConfigurationError):  # so few bytes name no model and no data
        load_config(str(recipe))
