"""The table of families in the documents is that of the families that are tried."""

from __future__ import annotations

from nlijob.config import load_config
from nlijob.planning.memory import memory_need
from tests.families import FAMILIES, HEADS
from tests.unit.planning.test_durations import model
from tools import memory_table
from tools.model_table import HEADER, PAGE, documented


def test_the_table_has_a_line_for_each_family_with_each_head() -> None:
    assert HEADER in PAGE.read_text(encoding="utf-8")
    expected = {f"| {family.name} | `{head}` " for family in FAMILIES for head in HEADS}
    lines = documented()
    assert {line[: line.index("|", line.index("`"))] for line in lines} == expected
    assert len(lines) == len(expected)


def test_no_family_differs_between_the_ways_in_which_it_is_computed() -> None:
    assert not [line for line in documented() if "**differs**" in line]


def test_the_table_of_memory_has_the_sums_that_plan_prints() -> None:
    memory = memory_need(load_config("phi2", {"model.device": "cuda"}), model())
    assert memory_table.line("phi-2", memory) in PAGE.read_text(encoding="utf-8").splitlines()
