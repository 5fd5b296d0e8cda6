"""Lines for container logs, a bar for a terminal, and how much is shown."""

from __future__ import annotations

import io
import pty
import termios
from pathlib import Path

import pytest

from nlijob import console
from nlijob.console import Console, Verbosity
from nlijob.errors import DiskError
from nlijob.records.job import Progress
from nlijob.remaining import Outlook
from nlijob.status_line import width
from nlijob.terminal import Style, columns_of
from tests.clock import Clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def progress(done: int, part: str = "epoch 1", note: str = "") -> Progress:
    return Progress("train", part, done, 3000, "rows", note)


# ---------------------------------------------------------------- without a terminal


def test_a_stage_line_says_number_name_and_outcome() -> None:
    out = io.StringIO()
    Console(out).stage(2, 6, "baseline", "test 33.0 %")
    assert out.getvalue() == "[2/6] baseline  test 33.0 %\n"


def test_a_short_part_writes_nothing(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    for done in (0, 1000, 3000):
        shown.progress(progress(done))
        clock.now += 5
    assert out.getvalue() == ""


def test_a_part_of_unknown_length_reports_its_rate_alone(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    for done in (0, 1000, 3000):
        shown.progress(Progress("predict", "predict", done, 0, "bytes", "9 rows"))
        clock.now += 20
    assert out.getvalue().splitlines() == [
        "      predict: 1,000 bytes, 50.0 a second, 9 rows",
        "      predict: 3,000 bytes, 75.0 a second, 9 rows",
    ]


def test_a_long_part_reports_every_few_seconds_with_rate_and_time_left(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    shown.progress(progress(0))
    for done in range(100, 1001, 100):
        clock.now += 5
        shown.progress(progress(done, note="loss 0.7"))
    assert out.getvalue().splitlines() == [
        "      epoch 1: 300 of 3,000 rows, 20.0 a second, 2 min 15 s left, loss 0.7",
        "      epoch 1: 600 of 3,000 rows, 20.0 a second, 2 min 0 s left, loss 0.7",
        "      epoch 1: 900 of 3,000 rows, 20.0 a second, 1 min 45 s left, loss 0.7",
    ]


def test_a_part_that_has_done_nothing_yet_has_no_rate(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    shown.progress(progress(0))
    clock.now += 60
    shown.progress(progress(0))
    assert out.getvalue() == "      epoch 1: 0 of 3,000 rows\n"


def test_each_part_is_timed_from_its_own_beginning(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    shown.progress(progress(0))
    clock.now += 1000
    shown.progress(progress(0, part="epoch 2"))
    clock.now += 20
    shown.progress(progress(200, part="epoch 2"))
    assert out.getvalue() == "      epoch 2: 200 of 3,000 rows, 10.0 a second, 4 min 40 s left\n"


def of_process(process: int, done: int) -> Progress:
    part = f"seed-{42 + process}: epoch 1"
    return Progress("train", part, done, 3000, "rows", process=process)


def test_trainings_side_by_side_are_told_in_turn_each_with_its_own_rate(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    for done in range(0, 701, 100):
        for process in (0, 1):
            shown.progress(of_process(process, done // (1 + process)))
        clock.now += 10
    assert out.getvalue().splitlines() == [
        "      seed-42: epoch 1: 300 of 3,000 rows, 10.0 a second, 4 min 30 s left",
        "      seed-43: epoch 1: 150 of 3,000 rows, 5.0 a second, 9 min 30 s left",
        "      seed-42: epoch 1: 600 of 3,000 rows, 10.0 a second, 4 min 0 s left",
        "      seed-43: epoch 1: 300 of 3,000 rows, 5.0 a second, 9 min 0 s left",
    ]


def test_a_line_between_does_not_change_the_rate_of_a_part(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    shown.progress(progress(0))
    clock.now += 16
    shown.line("said by another training")
    shown.progress(progress(160))
    assert "10.0 a second" in out.getvalue()


def test_plain_output_has_no_control_characters(clock: Clock) -> None:
    out = io.StringIO()
    shown = Console(out)
    shown.progress(progress(0))
    clock.now += 20
    shown.progress(progress(10))
    shown.stage(3, 6, "train", "done")
    assert all(character.isprintable() or character == "\n" for character in out.getvalue())


# ---------------------------------------------------------------- in a terminal


OUTLOOK = Outlook(0.456, "about 2 min 10 s left")


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminals without colours, 80 columns wide."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def last_line(out: io.StringIO) -> str:
    return out.getvalue().rpartition("\r")[2]


def test_a_terminal_shows_one_bar_for_the_whole_job_with_the_time_left() -> None:
    out = Terminal()
    Console(out).progress(progress(1500, note="loss 0.7"), OUTLOOK)
    assert last_line(out) == (
        " 45 % ███░░░░░  about 2 min 10 s left; epoch 1: 1,500 of 3,000 rows, loss 0.7"
    )


def test_where_nothing_is_known_of_the_whole_job_the_bar_is_that_of_the_part() -> None:
    out = Terminal()
    Console(out).progress(progress(1500, note="loss 0.7"))
    assert last_line(out) == " 50 % ████░░░░  epoch 1: 1,500 of 3,000 rows, loss 0.7"


def test_trainings_side_by_side_share_the_bar() -> None:
    out = Terminal()
    shown = Console(out)
    for process in (0, 1):
        shown.progress(of_process(process, 1500), OUTLOOK)
    assert "\n" not in out.getvalue()
    assert "seed-43: epoch 1 (and 1 more)" in wide(of_process(1, 1500), shown)


def wide(told: Progress, shown: Console) -> str:
    """What the console has to say of progress where the terminal is wide enough."""
    return shown._status(told, OUTLOOK).doing


@pytest.mark.parametrize("columns", [1, 10, 20, 40, 99, 100, 200])
def test_the_bar_never_fills_a_terminals_line(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "columns_of", lambda _: columns)
    out = Terminal()
    Console(out).progress(progress(1500, part="日本語" * 30), OUTLOOK)
    assert width(last_line(out)) < columns


def test_a_terminal_that_gets_narrower_gets_a_shorter_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    shown = Console(out)
    shown.progress(progress(1000), OUTLOOK)
    monkeypatch.setattr(console, "columns_of", lambda _: 40)
    shown.progress(progress(1500), OUTLOOK)
    assert last_line(out).rstrip() == " 45 % ███░░░░░  about 2 min 10 s left;…"
    shown.line("said")
    assert all(len(line) < 40 for line in out.getvalue().split("\r")[2:])


def test_the_width_is_that_of_the_terminal_at_this_moment() -> None:
    parent, child = pty.openpty()
    with open(parent, "wb"), open(child, "w", encoding="utf-8") as out:
        for columns in (33, 120):
            termios.tcsetwinsize(parent, (24, columns))
            assert columns_of(out) == columns


def test_a_locale_without_the_bars_characters_gets_plain_ones() -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, "ascii", errors="strict", write_through=True)
    out.isatty = lambda: True  # type: ignore[method-assign]
    shown = Console(out, results=out)
    shown.progress(progress(1500), OUTLOOK)
    shown.result("change \u22121.0 points, recall 1 % → 2 %")
    text = written.getvalue().decode("ascii")
    assert " 45 % [###.....]  about 2 min 10 s left; epoch 1: 1,500 of" in text
    assert text.endswith("\rchange -1.0 points, recall 1 % -> 2 %\n")


def test_a_dumb_terminal_gets_lines_instead_of_a_bar(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    shown = Console(out)
    shown.progress(progress(0), OUTLOOK)
    clock.now += 20
    shown.progress(progress(1500), OUTLOOK)
    assert out.getvalue() == (
        "      epoch 1: 1,500 of 3,000 rows, 75.0 a second, 20.0 s left; "
        "job: about 2 min 10 s left\n"
    )


def test_a_line_clears_the_bar_and_stands_alone() -> None:
    out = Terminal()
    shown = Console(out)
    shown.progress(progress(1500))
    shown.line("said")
    assert last_line(out) == "said\n"


def test_an_error_leaves_no_bar_behind(tmp_path: Path) -> None:
    out = Terminal()
    shown = Console(out)
    shown.progress(progress(1500))
    with pytest.raises(DiskError), shown.kept_in(tmp_path / "console.txt", "now"):
        raise DiskError("full")
    assert last_line(out) == ""


def test_a_long_note_is_broken_between_words_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "columns_of", lambda _: 40)
    note = "Note: the base model put < 0.1 % of its probability on the label tokens"
    results, piped = Terminal(), io.StringIO()
    Console(Terminal(), results=results).result(note)
    assert results.getvalue().splitlines() == [
        "Note: the base model put < 0.1 % of its",
        "      probability on the label tokens",
    ]
    Console(Terminal(), results=piped).result(note)
    assert piped.getvalue() == f"{note}\n"


# ---------------------------------------------------------------- colours


@pytest.mark.parametrize(
    ("variables", "at_a_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colours_follow_the_terminal_and_the_usual_variables(
    variables: dict[str, str],
    at_a_terminal: bool,
    elsewhere: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for out, is_colored in ((Terminal(), at_a_terminal), (io.StringIO(), elsewhere)):
        shown = Console(out)
        shown.stage(3, 8, "baseline", "test 30.0 %")
        shown.warn("Note: few rows")
        colored = "\x1b[1m[3/8] baseline  \x1b[0mtest 30.0 %\n\x1b[33mNote:\x1b[0m few rows\n"
        plain = "[3/8] baseline  test 30.0 %\nNote: few rows\n"
        assert out.getvalue() == (colored if is_colored else plain)


def test_the_file_has_no_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    shown = Console(Terminal())
    with shown.kept_in(tmp_path / "console.txt", "now"):
        shown.line("said", Style.GOOD)
    assert (tmp_path / "console.txt").read_text("utf-8") == "--- now\nsaid\n"


# ---------------------------------------------------------------- verbosity


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (Verbosity.QUIET, ["warning"]),
        (Verbosity.NORMAL, ["[1/6] subset    done", "line", "warning"]),
        (Verbosity.VERBOSE, ["[1/6] subset    done", "line", "      | detail", "warning"]),
    ],
)
def test_a_console_shows_what_its_verbosity_asks_for(
    verbosity: Verbosity, shown: list[str]
) -> None:
    out, results = io.StringIO(), io.StringIO()
    console = Console(out, verbosity, results)
    console.stage(1, 6, "subset", "done")
    console.line("line")
    console.detail("detail")
    console.warn("warning")
    console.result("result")
    assert out.getvalue().splitlines() == shown
    assert results.getvalue() == "result\n"


def test_a_quiet_console_shows_no_progress(clock: Clock) -> None:
    out = Terminal()
    Console(out, Verbosity.QUIET).progress(progress(1500))
    assert out.getvalue() == ""


# ---------------------------------------------------------------- the file


def test_every_line_is_kept_from_the_first_on_whatever_is_shown(
    tmp_path: Path, clock: Clock
) -> None:
    file = tmp_path / "worker" / "console.txt"
    for attempt in ("first", "second"):
        console = Console(Terminal(), Verbosity.QUIET, io.StringIO())
        console.line("before")
        with console.kept_in(file, attempt):
            console.progress(progress(0))
            clock.now += 20
            console.progress(progress(10))
            console.warn("warning")
            console.result("result")
        console.line("after")
    part = "      epoch 1: 10 of 3,000 rows, 0.5 a second, 1 h 39 min left"
    lines = ["before", part, "warning", "result", "after"]
    assert file.read_text("utf-8").splitlines() == ["--- first", *lines, "--- second", *lines]


def test_a_folder_that_is_set_aside_meanwhile_keeps_no_later_line(tmp_path: Path) -> None:
    file = tmp_path / "run" / "console.txt"
    console = Console(io.StringIO())
    with console.kept_in(file, "now"):
        console.line("old")
        file.parent.rename(tmp_path / "aside")
        console.line("new")
        file.parent.mkdir()
        console.line("newer")
    assert (tmp_path / "aside" / "console.txt").read_text("utf-8") == "--- now\nold\n"
    assert file.read_text("utf-8") == "--- now\nnew\nnewer\n"


def test_the_error_that_ends_the_job_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "console.txt"
    with pytest.raises(DiskError), Console(io.StringIO()).kept_in(file, "now"):
        raise DiskError("full", "free space")
    assert file.read_text("utf-8").splitlines() == ["--- now", "error: full", "hint: free space"]


def test_a_bug_is_kept_with_its_traceback(tmp_path: Path) -> None:
    file = tmp_path / "console.txt"
    with pytest.raises(ZeroDivisionError), Console(io.StringIO()).kept_in(file, "now"):
        print(1 // 0)
    assert "ZeroDivisionError" in file.read_text("utf-8")


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = io.StringIO()
    console = Console(out)
    with console.kept_in(tmp_path / "file" / "console.txt", "now"):
        console.line("said")
    assert out.getvalue() == "said\n"


def test_control_characters_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    out, file = Terminal(), tmp_path / "console.txt"
    console = Console(out)
    with console.kept_in(file, "now"):
        console.line("\x1b]0;title\x07 caf\udce9\r\u202e")
    shown = r"\x1b]0;title\x07 caf\udce9\r\u202e"
    assert out.getvalue() == f"{shown}\n"
    assert shown in file.read_text("utf-8")
