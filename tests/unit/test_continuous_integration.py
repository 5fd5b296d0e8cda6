"""`.ci/run` with a Makefile whose steps do nothing: what runs beside what, and how it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
STEPS = ("lint", "docs", "test", "test-arithmetic", "test-slow", "test-faults")
BESIDE = ("image-test", "wheel-test")
LIMIT_S = 120.0

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not on this machine")

WAITS = (
    "echo $$$$ >leader; "
    """trap 'trap "" TERM; touch cleaned; exit 1' TERM; """  # make passes the signal on once more
    "touch began; while true; do sleep 0.1; done"
)
"""A step that does not end by itself, and cleans up after itself when it is told to end."""
UNTIL_BEGUN = "for _ in {1..6000}; do [ -e began ] && break; sleep 0.01; done; [ -e began ]"


def run_ci(folder: Path, **does: str) -> subprocess.CompletedProcess[str]:
    """Run `.ci/run` where each step does nothing but say so, or what `does` says, by target."""
    recipes = dict.fromkeys((*STEPS, *BESIDE), "true")
    recipes |= {step.replace("_", "-"): recipe for step, recipe in does.items()}
    rules = [f"{step}:\n\t@echo this is {step}; {recipe}\n" for step, recipe in recipes.items()]
    (folder / "Makefile").write_text("SHELL := bash\n" + "".join(rules), encoding="utf-8")
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    programs = folder / "programs"
    programs.mkdir()
    (programs / "chromium").symlink_to("/bin/true")  # so that nothing is installed
    (folder / "temporary").mkdir()
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    return subprocess.run(
        [folder / ".ci" / "run"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PATH": path, "TMPDIR": str(folder / "temporary")},
        check=False,
    )


def test_every_step_runs_and_all_output_is_shown(tmp_path: Path) -> None:
    done = run_ci(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout.splitlines()
    said = [line.removeprefix("this is ") for line in shown if line.startswith("this is ")]
    assert sorted(said) == sorted((*STEPS, *BESIDE))
    assert [step for step in said if step in STEPS] == list(STEPS)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_needs_no_environment_runs_beside_the_set_up(tmp_path: Path) -> None:
    done = run_ci(tmp_path, image_test="touch began", lint=UNTIL_BEGUN)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_shares_the_environment_begins_after_the_set_up(tmp_path: Path) -> None:
    done = run_ci(tmp_path, lint="touch environment", wheel_test="[ -e environment ]")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("step", BESIDE)
def test_a_step_beside_the_others_that_fails_fails_all(tmp_path: Path, step: str) -> None:
    done = run_ci(tmp_path, **{step.replace("-", "_"): "echo its fault; exit 1"})
    assert done.returncode != 0
    assert "its fault" in done.stdout


def test_a_step_that_fails_stops_those_beside_it_which_clean_up(tmp_path: Path) -> None:
    done = run_ci(tmp_path, image_test=WAITS, docs=f"{UNTIL_BEGUN}; exit 1")
    assert done.returncode != 0
    assert "this is docs" in done.stdout
    assert "this is test\n" not in done.stdout
    assert "make image-test: stopped" in done.stdout
    assert (tmp_path / "cleaned").exists()
    assert not psutil.pid_exists(int((tmp_path / "leader").read_text("utf-8")))
    assert list((tmp_path / "temporary").iterdir()) == []
