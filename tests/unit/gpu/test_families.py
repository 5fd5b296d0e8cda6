"""Tiny models of many families, each through what a job does with it."""

from __future__ import annotations

import pytest

from nlijob.heads import HeadName
from tests import families
from tests.families import FAMILIES, HEADS, MAX_DIFFERENCE, PACKED, Bench, Family
from tools.model_table import documented

ALWAYS = ("Llama", "GPT-2", "Gemma 3, with vision", "Mixtral", "Mamba", "T5", "BERT")
"""The families that `make test` tries: one of each structure. `make test-slow` tries all."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return families.new_bench(tmp_path_factory.mktemp("families"))


def cases() -> list[object]:
    return [
        pytest.param(
            family,
            head,
            id=f"{family.name}-{head}",
            marks=() if family.name in ALWAYS else pytest.mark.slow,
        )
        for family in FAMILIES
        for head in HEADS
    ]


@pytest.mark.parametrize(("family", "head"), cases())
def test_a_family_works_from_its_folder_alone_or_is_refused_with_what_works(
    family: Family, head: HeadName, bench: Bench
) -> None:
    found = families.outcome(family, head, bench)
    if found.refused:
        assert "set model.head=" in found.refused or "the model has" in found.refused
    else:
        assert found.targets
        assert found.difference <= MAX_DIFFERENCE  # packed, in batches and alone
        assert found.step <= MAX_DIFFERENCE or found.execution != PACKED or family.drops
        assert found.usage == 1
    assert families.line(family, head, found) in documented(), "run python -m tools.model_table"
