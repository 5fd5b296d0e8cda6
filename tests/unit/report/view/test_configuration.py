"""The configuration section shows every setting."""

from __future__ import annotations

import dataclasses

from nlijob.records.tracking import TrackerState
from nlijob.report.view.configuration import configuration_section, configuration_tables
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, searched


def test_every_configured_value_is_shown() -> None:
    config = searched().run.config
    shown = {
        (table.caption, row.cells[0])
        for table in configuration_tables(config)
        for row in table.rows
    }
    for section, values in dataclasses.asdict(config).items():
        keys = values if isinstance(values, dict) else {section: values}
        where = section if isinstance(values, dict) else "job"
        assert {(where, key) for key in keys} <= shown


def test_settings_of_a_search_are_left_out_where_there_is_none() -> None:
    captions = {table.caption for table in configuration_tables(outcome(Spec()).run.config)}
    assert "sweep" not in captions


def test_trackers_are_named_with_their_run_or_with_what_failed() -> None:
    told = (TrackerState("mlflow", run="abc"), TrackerState("wandb", fault="no <answer>"))
    section = configuration_section(dataclasses.replace(outcome(Spec()), tracking=told))
    assert section.tracking == (
        "Tracked with MLflow, as run abc.",
        "Tracking with Weights & Biases failed: no <answer>",
    )
