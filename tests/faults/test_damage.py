"""Damage to a run never leads to a false figure, a traceback, or a run that cannot go on."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlijob import cli
from nlijob.rundir import RunDir
from tests.faults import tiny

pytestmark = pytest.mark.faults

Command = Callable[..., tuple[int, str]]
MOST_FILES = 3
"""Files that are damaged at once at most."""


def empty(file: Path, chance: random.Random) -> None:
    file.write_bytes(b"")


def cut(file: Path, chance: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content) + 1)])


def flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes() or b"\0")
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def change_digit(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    if not digits:
        return flip(file, chance)
    at = chance.choice(digits)
    content[at] = ord(chance.choice([d for d in "0123456789" if ord(d) != content[at]]))
    file.write_bytes(content)
    return None


def zero_block(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    start = chance.randrange(len(content) + 1)
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    file.write_bytes(content)


def append(file: Path, chance: random.Random) -> None:
    with file.open("ab") as handle:
        handle.write(chance.randbytes(chance.randrange(1, 40)))


def lose_line(file: Path, chance: random.Random) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    if lines:
        del lines[chance.randrange(len(lines))]
    file.write_bytes(b"".join(lines))


def repeat_line(file: Path, chance: random.Random) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    if lines:
        lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    file.write_bytes(b"".join(lines))


def delete(file: Path, chance: random.Random) -> None:
    file.unlink()


def folder_instead(file: Path, chance: random.Random) -> None:
    file.unlink()
    file.mkdir()


def other_content(file: Path, chance: random.Random) -> None:
    others = [path for path in sorted(file.parent.iterdir()) if path.is_file() and path != file]
    if others:
        shutil.copyfile(chance.choice(others), file)


def dead_link(file: Path, chance: random.Random) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nowhere")


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *(empty, cut, flip, change_digit, zero_block, append),
    *(lose_line, repeat_line, delete, folder_instead, other_content, dead_link),
)


def damage(run: RunDir, chance: random.Random) -> list[str]:
    """Damage some files of a run; returns what was done to each."""
    done = []
    for _ in range(chance.choice([1, 1, 1, 2, MOST_FILES])):
        files = sorted(path for path in run.root.rglob("*") if path.is_file())
        file, how = chance.choice(files), chance.choice(DAMAGES)
        how(file, chance)
        done.append(f"{how.__name__} {run.name(file)}")
    return done


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code and output of a command in this process, which is faster than one of its own."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nlijob", *map(str, arguments)])
        code = cli.main()
        return code, "".join(capsys.readouterr())

    return call


def test_a_damaged_run_shows_its_own_figures_or_none_and_goes_on_to_them(
    finished: RunDir,
    half_done: RunDir,
    copied: Callable[[RunDir], RunDir],
    expected: dict[str, Any],
    damage_seed: int,
    command: Command,
    record_property: Callable[[str, object], None],
) -> None:
    chance = random.Random(damage_seed)
    run = copied(chance.choice([finished, half_done]))
    done = damage(run, chance)
    print(", ".join(done))
    record_property("faults: damaged files", len(done))

    code, output = command("report", run.root)
    tiny.assert_says_what_to_do(code, output)
    if code == 0:
        tiny.assert_same_outcome(run, expected)

    code, output = command("index", run.root.parent)
    tiny.assert_says_what_to_do(code, output)

    code, output = tiny.call(*tiny.arguments(run.root.parent))
    assert code == 0, output
    assert "Traceback" not in output, output
    tiny.assert_same_outcome(run, expected)
