"""The whole job on a model and a data set from a hub: prefetch, then offline with the hub gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nlijob import records
from nlijob.demo import MODEL_DIR
from nlijob.records.job import Example, Prediction
from nlijob.rundir import RunDir
from tests import hub_server, jobs

MODEL, DATA = "acme/phi-mini", "acme/snli-mini"
MODEL_COMMIT, DATA_COMMIT = "a" * 40, "b" * 40
OPTIONS = (
    *("--model", MODEL, "--set", f"model.revision='{MODEL_COMMIT}'"),
    *("--dataset", DATA, "--set", f"data.revision='{DATA_COMMIT}'"),
    *("--set", "data.config_name='plain_text'", "--device", "cpu", "--epochs", "1"),
    *("--train-stride", "2", "--validation-stride", "1", "--test-stride", "1"),
    *("--set", "eval.generate_tokens=2", "--set", "lora.r=4"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub client's cache that `prefetch` filled before the hub went away."""
    folder = tmp_path_factory.mktemp("hub")
    hub_server.write_phi_repository(folder / "model", seed=0, tokenizer_dir=MODEL_DIR)
    rows = {split: hub_server.example_rows(40) for split in ("train", "validation", "test")}
    hub_server.write_snli_repository(folder / "data", rows)
    served = hub_server.HubServer(
        models={MODEL: {MODEL_COMMIT: folder / "model"}},
        datasets={DATA: {DATA_COMMIT: folder / "data"}},
    )
    with served as hub:
        env = hub_server.client_environment(hub.url, folder / "home")
        done = jobs.run("prefetch", *OPTIONS, env=env)
    assert done.returncode == 0, done.stderr
    return folder / "home"


@pytest.mark.slow
def test_the_job_runs_offline_from_the_cache(home: Path, tmp_path: Path) -> None:
    env = hub_server.client_environment("http://127.0.0.1:9", home)
    done = jobs.run(
        *("run", "--offline", "--runs-dir", tmp_path, "--run-id", "job", *OPTIONS), env=env
    )
    assert done.returncode == 0, done.stderr
    job = RunDir(tmp_path / "job")
    outcome = jobs.results(job)
    assert outcome.manifest.revision == DATA_COMMIT
    assert sum(s.unlabelled_dropped for s in outcome.manifest.splits.values()) > 0
    assert_snippet_predicts_as_the_job_did(job, env)


def assert_snippet_predicts_as_the_job_did(job: RunDir, env: dict[str, str]) -> None:
    """Run the report's own code for using the adapter on every test row."""
    from nlijob.report.snippet import usage_snippet

    outcome = jobs.results(job)
    examples = list(records.read_lines(Example, job.subset("test")))
    pairs = [(e.premise, e.hypothesis) for e in examples]
    code = usage_snippet(outcome) + f"\nfor pair in {pairs!r}:\n    print(predict(*pair))\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=job.root,
        env={**env, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tuned = [
        p for p in records.read_lines(Prediction, job.evaluate_predictions) if p.split == "test"
    ]
    expected = [outcome.manifest.label_names[p.predicted] for p in tuned]
    assert done.stdout.split()[1:] == expected  # the snippet prints an example of its own first


def test_offline_without_the_cache_says_what_to_do(tmp_path: Path) -> None:
    env = hub_server.client_environment("http://127.0.0.1:9", tmp_path / "empty")
    done = jobs.run("run", "--offline", "--runs-dir", tmp_path, *OPTIONS, env=env)
    assert done.returncode == 4
    assert "prefetch" in done.stderr
