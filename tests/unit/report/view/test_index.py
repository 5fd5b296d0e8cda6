"""The index lists every run, and reports a drop only if the test supports it."""

from __future__ import annotations

from dataclasses import replace

from nlijob.analysis.history import Entry, build_history
from nlijob.report.view.index import COLUMNS, MOST_SERIES, Links, index_page
from nlijob.report.view.parts import View
from nlijob.run_folders import FoundRuns
from tests.unit.analysis.made import trainings
from tests.unit.analysis.test_history import entry

LINKS = Links(
    report=lambda folder: f"./{folder}/report.html",
    results=lambda folder: f"./{folder}/results.json",
)


def page(*entries: Entry, others: int = 0, links_out: int = 0) -> View:
    found = FoundRuns(tuple(one.folder for one in entries), (), others, links_out)
    return index_page(build_history(entries), "runs", LINKS, found, "0.1.0")


def column(found: View, name: str) -> list[str]:
    """The texts of a column of the table, of the runs that have figures."""
    place = [one.name for one in found.columns].index(name)
    return [run.cells[place].value for run in found.runs if run.cells]


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_a_significant_drop_is_reported_first() -> None:
    found = page(entry(0, range(3)), entry(1, range(30)))
    (sentence,) = found.below
    assert plain(sentence.text).startswith(
        "The newest run of series 1, “run-1”, is significantly below the run before it, “run-0”: "
        "70.0 % versus 97.0 % on the same 100 test rows, −27.0 points (95 % interval"
    )
    assert found.steady == ""


def test_a_small_drop_is_neither_reported_nor_denied() -> None:
    found = page(entry(0, range(5)), entry(1, range(8)))
    assert found.below == ()
    assert "does not prove that it is as good" in found.steady
    assert "no significant difference; −3.0 points" in plain(found.series[0].sentences[0])


def test_single_runs_are_not_judged() -> None:
    found = page(entry(0), entry(1, series="t"))
    assert (found.below, found.steady, found.series) == ((), "", ())
    assert "2 runs have no other run to be compared with" in found.series_note
    assert column(found, "series") == ["alone", "alone"]


def test_runs_without_figures_stay_in_the_table_with_the_reason() -> None:
    broken = replace(entry(1), state="damaged", reason="torn\x01", figures=None)
    found = page(entry(0), broken, others=2)
    assert [(run.state, run.reason) for run in found.runs] == [("damaged", "torn␁"), ("", "")]
    assert found.left_out == (
        "Without figures: 1 not readable; the table says why. 2 other folders hold no run."
    )


def test_a_run_without_a_report_has_no_link() -> None:
    found = page(replace(entry(0), has_report=False), entry(1))
    assert [run.href for run in found.runs] == ["./run-1/report.html", ""]


def test_the_number_of_series_is_limited_and_the_rest_is_mentioned() -> None:
    pairs = [entry(2 * n + half, series=str(n)) for n in range(MOST_SERIES + 1) for half in (0, 1)]
    found = page(*pairs)
    assert len(found.series) == MOST_SERIES
    assert f"The {MOST_SERIES} latest of {MOST_SERIES + 1} series are shown." in found.series_note
    links = [run.cells[COLUMNS.index("series")].href for run in found.runs]
    assert links[:2] == ["#series-1"] * 2
    assert all(links[: 2 * MOST_SERIES])
    assert not any(links[2 * MOST_SERIES :])


def test_sums_say_how_many_runs_they_cover() -> None:
    first, second = entry(0), entry(1)
    assert second.figures is not None
    second = replace(second, figures=replace(second.figures, energy_j=None))
    facts = {fact.name: fact for fact in page(first, second).series[0].facts}
    assert facts["total energy"].note == "over 1 of 2 runs"
    assert facts["total cost"].value == "no price given"


def test_costs_in_different_currencies_are_not_added() -> None:
    entries = []
    for day, currency in enumerate(("USD", "EUR")):
        one = entry(day)
        assert one.figures is not None
        entries.append(replace(one, figures=replace(one.figures, cost=1.0, currency=currency)))
    facts = {fact.name: fact for fact in page(*entries).series[0].facts}
    assert facts["total cost"].value == "several currencies"


def test_the_median_run_is_labelled() -> None:
    wrong = [range(10), range(12), range(30), range(14, 40)]
    sentences = page(*(entry(day, rows) for day, rows in enumerate(wrong))).series[0].sentences
    assert "versus the earlier run of median accuracy, “run-1”" in sentences[1]
    assert "Holm-adjusted" in sentences[0]


def test_the_run_that_fell_behind_is_marked_and_linked() -> None:
    found = page(entry(0, range(3)), entry(1, range(30)))
    assert [run.is_below for run in found.runs] == [True, False]
    assert found.below[0].anchor == found.runs[0].anchor


def test_columns_that_tell_nothing_of_any_run_are_left_to_the_reader() -> None:
    def shown(*entries: Entry) -> set[str]:
        return {one.name for one in page(*entries).columns if not one.further}

    plain_run = entry(0)
    assert plain_run.figures is not None
    on_cpu = replace(plain_run.figures, has_gpu=False)
    priced = replace(plain_run.figures, cost=1.0, currency="USD", gates=False)
    assert shown(replace(plain_run, figures=on_cpu)).isdisjoint({"cost", "gate", "GPU energy"})
    assert {"cost", "gate", "GPU energy"} <= shown(replace(plain_run, figures=priced))


def test_every_run_has_a_cell_in_each_column() -> None:
    found = page(entry(0))
    assert len(found.runs[0].cells) == len(found.columns)


def test_links_that_are_not_followed_are_counted() -> None:
    assert page(entry(0), links_out=1).left_out == "1 link leads elsewhere; none is followed."


# ---------------------------------------------------------------- trends


def test_a_series_has_a_trend_of_accuracy_time_and_energy() -> None:
    (series,) = page(entry(0), entry(3)).series
    accuracy, time, used = series.trends
    assert accuracy.label.startswith("Test accuracy after tuning, with its 95 % interval")
    assert (time.label, used.label) == ("Job time", "GPU energy")
    assert (accuracy.first, accuracy.last) == ("2026-01-02", "2026-01-05")
    assert "run-3, 2026-01-05 00:00: " in accuracy.dots[-1].note


def test_what_was_not_measured_has_no_trend() -> None:
    runs = [entry(0), entry(1)]
    bare = [replace(one.figures, attempts=0, energy_j=None) for one in runs if one.figures]
    found = page(*(replace(run, figures=one) for run, one in zip(runs, bare, strict=True)))
    assert len(found.series[0].trends) == 1


# ---------------------------------------------------------------- several trainings


def of_trainings(day: int, *accuracies: float) -> Entry:
    """A run with these trainings."""
    made, trials = entry(day), trainings(accuracies)
    assert made.figures is not None
    return replace(
        made,
        figures=replace(
            made.figures,
            trainings=len(accuracies),
            accuracy_over_trainings=trials.accuracy,
            gain_over_trainings=trials.gain,
        ),
    )


def test_a_run_with_several_trainings_shows_mean_range_and_number() -> None:
    run = of_trainings(1, 0.7, 0.8, 0.75)
    assert run.figures is not None
    over = run.figures.accuracy_over_trainings
    assert over is not None
    found = page(entry(0), run)
    after = found.runs[0].cells[1]
    value, note = after.value, after.note
    assert plain(value) == f"{100 * over.mean:.1f} %"
    assert plain(note) == f"{100 * over.lowest:.1f} to {100 * over.highest:.1f} %"
    assert plain(found.runs[0].about).endswith(", 3 trainings")
    assert found.has_several
    (series,) = found.series
    latest = next(fact for fact in series.facts if fact.name == "latest accuracy after tuning")
    assert plain(latest.value) == plain(value)
    assert "in 3 trainings" in plain(latest.note)


def test_the_newest_run_is_judged_by_the_kept_adapters_and_this_is_said() -> None:
    (series,) = page(of_trainings(0, 0.7, 0.8), of_trainings(1, 0.7, 0.8)).series
    assert "by the kept adapters" in plain(series.sentences[0])
    (series,) = page(entry(0), entry(1)).series
    assert "kept" not in series.sentences[0]


def test_runs_with_other_numbers_of_trainings_are_one_series_and_said_to_vary() -> None:
    (series,) = page(entry(0), of_trainings(1, 0.7, 0.8)).series
    assert "number of trainings" in series.varying
