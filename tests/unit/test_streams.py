"""Whatever becomes of standard output and standard error, a command goes on."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from nlijob import streams
from nlijob.recipe import recipe_names
from tests.jobs import ROOT, command, environment

CODE = """
import os, sys
from nlijob.streams import lasting_streams

with lasting_streams():
    for stream in (sys.stdout, sys.stderr):
        print("x" * 100_000, "\\u00e9", file=stream, flush=True)
    opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    os.write(opened, str(opened).encode())
"""


def ended(tmp_path: Path, redirection: str, code: str = CODE, **env: str) -> tuple[int, str]:
    """Status of a process started by a shell with redirections, and what it wrote to a file."""
    file = tmp_path / "file"
    done = subprocess.run(
        ["bash", "-c", f'"$0" "$@" {redirection}', sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode, file.read_text("utf-8") if file.exists() else ""


@pytest.mark.parametrize(
    "redirection",
    ["> /dev/full", "2> /dev/full", "> /dev/full 2>&1", ">&-", "2>&-", "<&- >&- 2>&-"],
)
def test_a_stream_that_cannot_be_written_ends_nothing(tmp_path: Path, redirection: str) -> None:
    status, written = ended(tmp_path, redirection)
    assert status == 0
    assert int(written) > 2  # no file takes the place of a closed stream


@pytest.mark.parametrize("redirection", ["| head -c 9", "2>&1 | head -c 9", "2>&1 | true"])
def test_a_reader_that_is_gone_ends_nothing(tmp_path: Path, redirection: str) -> None:
    status, written = ended(tmp_path, f"{redirection}; exit ${{PIPESTATUS[0]}}")
    assert status == 0
    assert written


@pytest.mark.parametrize(("reader", "has_none"), [("true", "True"), ("cat > /dev/null", "False")])
def test_a_command_can_know_that_nobody_reads_its_output(
    tmp_path: Path, reader: str, has_none: str
) -> None:
    code = CODE.replace("opened = ", "from nlijob.streams import has_no_reader; opened = ")
    code = code.replace("str(opened)", "str(has_no_reader())")
    assert ended(tmp_path, f"| {reader}", code)[1] == has_none


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_that_lacks_a_character_ends_nothing(tmp_path: Path, encoding: str) -> None:
    code = CODE.replace("00e9", "4e2d")
    assert ended(tmp_path, "", code, PYTHONIOENCODING=encoding)[0] == 0


def test_a_stream_that_another_program_made_non_blocking_loses_nothing(tmp_path: Path) -> None:
    code = "import os, sys; os.set_blocking(1, False)\n" + CODE
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(write)
        with os.fdopen(read, "rb") as shown:
            assert len(shown.read()) == 100_004
    assert process.returncode == 0


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line, *command()],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_command_whose_reader_has_enough_ends_quietly() -> None:
    done = shell('"$0" "$@" recipes | head -1; echo ${PIPESTATUS[0]}')
    assert done.stdout.splitlines() == [recipe_names()[0], "0"]
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["schema", "recipes"])
def test_a_command_whose_result_cannot_be_written_ends_with_74(name: str) -> None:
    done = shell(f'"$0" "$@" {name} > /dev/full')
    assert done.returncode == 74
    assert "standard output cannot be written: No space left on device" in done.stderr


def test_an_error_that_nobody_can_read_keeps_its_exit_code() -> None:
    assert shell('"$0" "$@" run --recipe dmo >&- 2>&-').returncode == 2


# ---------------------------------------------------------------- a reader that does not read


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe that nobody reads, and the stream of a job that writes to it."""
    read, write = os.pipe()
    stream = streams._lasting(None, write)
    raw = streams._raw(stream)
    assert raw
    raw.patience_s = 0.01
    yield read, stream
    os.set_blocking(write, False)
    stream.close()
    os.close(read)
    os.close(write)


def content(read: int) -> str:
    """All that the pipe holds at present."""
    os.set_blocking(read, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(read, 1 << 20):
            found += piece
    return found.decode()


def test_a_reader_that_never_reads_holds_a_job_for_a_short_time_only(
    pipe: tuple[int, TextIO],
) -> None:
    _, stream = pipe
    for _ in range(100):
        print("x" * 10_000, file=stream)  # much more than a pipe holds


def test_what_is_read_in_time_is_whole(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    text = "".join(f"{i} \u00e9\n" for i in range(4_000))
    print(text, end="", file=stream)
    assert content(read) == text


def test_a_reader_that_comes_back_is_told_what_it_missed(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    for _ in range(50):
        print("x" * 10_000, file=stream)
    content(read)
    print("back", file=stream)
    notice, line = content(read).strip().splitlines()
    assert re.fullmatch(r"\[[\d,]+ bytes were left out, as nobody read them\]", notice)
    assert line == "back"


def test_the_patience_is_for_all_lines_together(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stream = pipe
    asked: list[float | None] = []

    def never_ready(*arguments: Any) -> tuple[list[int], list[int], list[int]]:
        asked.append(arguments[3])
        time.sleep(0.02)
        return [], [], []

    monkeypatch.setattr("select.select", never_ready)
    for _ in range(3):
        print("x", file=stream)
    assert asked == [0.01, 0.0, 0.0]


def test_a_command_whose_output_is_its_result_waits_for_a_slow_reader() -> None:
    done = shell('"$0" "$@" schema | (sleep 1; wc -c)')
    assert int(done.stdout) > 65_536  # more than a pipe holds
