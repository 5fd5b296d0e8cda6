"""The table of measured runs says what the files of results hold, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import NOT_MEASURED, NOT_RECORDED, Row, rows_of, rows_of_folder
from benchmarks.table import BEGIN, END, RESULTS, with_table, write_table

PAGE = (RESULTS / "README.md").read_text(encoding="utf-8")
WAY = {
    "training_examples_per_s": 100.0,
    "training_examples_per_s_with_warm_up": None,
    "scoring_examples_per_s": 300.0,
    "training_peak_bytes": 2**31,
    "share_of_matrix_rate_training": 0.05,
    "share_of_matrix_rate_scoring": 0.5,
}


def modes(**changes: Any) -> dict[str, Any]:
    """A file of execution modes with one mode."""
    return {
        "batch_size": 8,
        "lora": {"target_modules": ["q_proj", "dense"]},
        "ways": {"graphs": WAY},
        **changes,
    }


def rows(data: dict[str, Any], name: str = "2026-11-21-card.json") -> list[Row]:
    return [row for _, row in rows_of(name, data)]


def test_the_table_stands_first_and_is_that_of_the_files() -> None:
    assert PAGE.startswith(f"# Measured runs\n\n{BEGIN}\n")
    again = with_table(PAGE, rows_of_folder(RESULTS))
    assert again == PAGE, "run `python -m benchmarks.table`"


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.name)
def test_every_file_has_a_row_with_its_date_and_card(file: Path) -> None:
    found = rows(json.loads(file.read_text("utf-8")), file.name)
    assert found
    assert all(row.date == file.name[:10] for row in found)
    assert all(row.measured and row.setting for row in found)
    assert f"]({file.name})" in PAGE.partition(END)[0]


def test_a_mode_has_its_speeds_its_share_and_the_limit() -> None:
    (row,) = rows(modes(setting="a shape", device="NVIDIA H200", versions={"torch": "2.11.0"}))
    assert row.setting == "a shape, batch 8, adapters on q, dense"
    assert row.measured == "100.0 training examples/s; 300 rows/s scored; 2.00 GiB in training"
    assert row.share == "5.0 % training; 50 % scoring"
    assert row.limit == "2,000 training; 600 scoring"
    assert (row.card, row.versions) == ("NVIDIA H200", "torch 2.11.0")


def test_what_an_older_file_lacks_is_not_recorded() -> None:
    (row,) = rows(modes())
    assert row.setting.startswith(f"model {NOT_RECORDED}")
    assert {row.card, row.versions, row.command} == {NOT_RECORDED}


def test_a_share_that_is_null_was_not_measured() -> None:
    way = {**WAY, "share_of_matrix_rate_training": None, "share_of_matrix_rate_scoring": None}
    (row,) = rows(modes(ways={"plain loop": way}))
    assert (row.share, row.limit) == (NOT_MEASURED, NOT_MEASURED)


def test_modes_are_ordered_by_speed() -> None:
    fast = {**WAY, "training_examples_per_s": 900.0}
    found = rows(modes(ways={"graphs": fast, "plain loop": WAY}))
    assert [row.mode for row in found] == ["plain loop", "graphs"]


def test_whole_jobs_say_which_caches_they_found() -> None:
    jobs = [
        {"caches": "empty caches", "whole_s": 30.26, "to_first_step_s": 20.0},
        {"caches": "caches of the job before", "whole_s": 19.0, "to_first_step_s": 9.5},
    ]
    data = {"setting": "phi-2's shape", "device": ["NVIDIA H200"] * 2, "whole_jobs": jobs}
    cold, warm = rows(data)
    assert cold.mode == "whole job, empty caches"
    assert cold.measured == "30.3 s in all; 20.0 s to the first step"
    assert warm.mode == "whole job, caches of the job before"
    assert (warm.card, warm.share) == ("2 × NVIDIA H200", NOT_RECORDED)


def test_a_file_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="no known kind: date"):
        rows({"date": "2026-11-21"})


def test_versions_and_commands_are_listed_once(tmp_path: Path) -> None:
    known = {"command": "make bench", "versions": {"torch": "2.11.0"}}
    for name in ("one", "two"):
        text = json.dumps(modes(setting=name, **known))
        (tmp_path / f"2026-11-21-{name}.json").write_text(text, encoding="utf-8")
    write_table(tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page.count("| A | 1 |\n") == 2
    assert page.count("- A: torch 2.11.0\n") == page.count("- 1: `make bench`\n") == 1


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Notes\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the page lacks"):
        write_table(tmp_path)
    assert page.read_text("utf-8") == "# Notes\n"
