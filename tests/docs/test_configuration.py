"""The configuration reference is that of the code."""

from __future__ import annotations

import dataclasses

from nlijob.config import JobConfig, load_config
from nlijob.recipe import recipe_names
from tests import markdown
from tests.docs.pages import DOCS
from tools.configuration_reference import MARKER, PAGE, reference

SECTIONS = [
    field.name
    for field in dataclasses.fields(JobConfig)
    if dataclasses.is_dataclass(getattr(load_config("demo"), field.name))
]


def test_the_generated_part_is_up_to_date() -> None:
    _, _, generated = PAGE.read_text(encoding="utf-8").partition(MARKER)
    assert generated == reference(), "run python -m tools.configuration_reference"


def test_every_key_is_in_its_sections_table_with_a_meaning() -> None:
    for name in SECTIONS:
        rows = markdown.table(markdown.section(PAGE, f"`[{name}]`"))
        meanings = {key.strip("`"): meaning for key, _, _, meaning in rows[1:]}
        keys = [key.name for key in dataclasses.fields(getattr(load_config("demo"), name))]
        assert list(meanings) == keys
        assert all(meanings.values()), [key for key, meaning in meanings.items() if not meaning]


def test_every_recipe_is_named() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    named = {name for name in recipe_names() if f"`{name}`" in text}
    between = {f"reference-{n}" for n in range(5)}  # "`reference-0` to `reference-4`"
    assert named | between == set(recipe_names())
