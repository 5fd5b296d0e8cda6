"""The bench runs where there is no GPU, on the demo's model."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bench as bench_module
from benchmarks.bench import Bench, main
from nlijob.config import load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.gpu.fast.model import shape_of
from nlijob.gpu.heads import CausalHead
from nlijob.gpu.model import read_tokenizer
from nlijob.records.job import Example
from tests import jobs

pytestmark = pytest.mark.xdist_group("bench")  # so that the bench runs in one process alone
OURS = {"plain loop", "packed rows", "packed rows, with dropout"}
TRL = {"TRL, as it comes", "TRL, best settings"}
HAS_TRL = importlib.util.find_spec("trl") is not None


def run_bench(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *options, "--out", str(folder)],
        cwd=jobs.ROOT,
        env=jobs.environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The figures' file, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("bench")
    size = ("--train-size", "96", "--plain-steps", "3", "--trl-steps", "2")
    done = run_bench(folder, *size)
    (figures,) = folder.glob("*-cpu-ways.json")
    return figures, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ways(bench: tuple[Path, str]) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(bench[0].read_text(encoding="utf-8"))["ways"]
    return measured


@pytest.mark.slow
def test_every_way_is_measured_and_shown(bench: tuple[Path, str], ways: dict[str, Any]) -> None:
    assert set(ways) == OURS | (TRL if HAS_TRL else set())
    assert all(way["training_examples_per_s"] > 0 for way in ways.values())
    assert all(ways[name]["scoring_examples_per_s"] > 0 for name in OURS)
    assert all(way["share_of_matrix_rate_training"] > 0 for way in ways.values())
    assert all(f"\n{name}  " in bench[1] for name in ways)
    assert bench[0].with_suffix(".png").is_file()


@pytest.mark.slow
def test_warm_up_is_counted_where_whole_epochs_are_trained(ways: dict[str, Any]) -> None:
    packed, plain = ways["packed rows"], ways["plain loop"]
    assert packed["warm_up_s"] > 0
    assert packed["training_examples_per_s_with_warm_up"] > 0
    assert plain["training_examples_per_s_with_warm_up"] is None
    assert len(plain["losses"]) == 3


@pytest.mark.slow
def test_a_steps_profile_adds_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--profile", "--train-size", "40", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bench", *options])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main()
    (profile,) = tmp_path.iterdir()
    text = profile.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    head, groups, _ = text.split("\n\n", 2)
    assert head.endswith("ms a step, mean of 5")
    assert sum(float(line.split()[0]) for line in groups.splitlines()) == pytest.approx(
        float(head.split()[0]), abs=0.01
    )
    assert "matrix products" in groups


@pytest.mark.slow
@pytest.mark.skipif(HAS_TRL, reason="TRL is installed")
def test_without_trl_it_says_so_and_goes_on(bench: tuple[Path, str]) -> None:
    assert "TRL is not installed" in bench[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["packed rows", *sorted(TRL)])
def test_each_way_takes_the_plain_loops_steps(ways: dict[str, Any], name: str) -> None:
    if name not in ways:
        pytest.skip("TRL is not installed")
    expected = ways["plain loop"]["losses"]
    # TRL holds the adapters in bfloat16
    assert ways[name]["losses"][: len(expected)] == pytest.approx(expected, rel=1e-3)


def test_with_the_task_behind_the_row_rows_have_no_prefix() -> None:
    config = load_config("phi2", {"model.device": "cpu"})
    tokenizer = read_tokenizer(config, MODEL_DIR)
    rows = read_file(DATA_DIR / "validation.jsonl").rows[:9]
    examples = [Example(i, r["premise"], r["hypothesis"], 0) for i, r in enumerate(rows)]
    head = CausalHead(tokenizer, config.prompt, 512, examples)
    encoded = head.encode("train", examples)
    bench = Bench(MODEL_DIR, config, tokenizer, head, encoded, torch.device("cpu"), 0.0)
    other = bench.with_task_behind()
    assert shape_of(bench.rows).prefix > 20
    assert shape_of(other.rows).prefix == 0
    lengths = [sum(row.length for row in of.rows) for of in (bench, other)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.02)


def test_the_matrix_rate_counts_a_multiplication_and_an_addition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_module, "CPU_MATRIX", 4)
    monkeypatch.setattr(bench_module, "_cpu_seconds", lambda a, b: 0.5)
    rate = bench_module.matrix_rate(torch.device("cpu"), torch.float32)
    assert rate == 2 * 4**3 / 0.5
