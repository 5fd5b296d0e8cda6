"""deploy/google-batch: valid messages of the client library; exit codes are handled."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from nlijob.errors import ExitCode
from tests.deploy.files import DEPLOY, FAIL_AT_ONCE, RETRY, ROOT, job_variables, parse

FILE = DEPLOY / "google-batch" / "job.json"
SPOT_MACHINE_RECLAIMED = 50001


@pytest.fixture
def batch() -> Any:
    return pytest.importorskip("google.cloud.batch_v1")


@pytest.fixture
def job(batch: Any) -> Any:
    """The job as the client library reads it; unknown fields and values are an error."""
    return batch.Job.from_json(FILE.read_text(encoding="utf-8"), ignore_unknown_fields=False)


@pytest.fixture
def task(job: Any) -> Any:
    (group,) = job.task_groups
    assert group.task_count == 1
    return group.task_spec


def _tried_again(batch: Any, task: Any, exit_code: int) -> bool:
    """Whether the retry policy, the only one, names the exit code; otherwise the job fails."""
    (policy,) = task.lifecycle_policies  # Batch supports one
    assert policy.action == batch.LifecyclePolicy.Action.RETRY_TASK
    return exit_code in policy.action_condition.exit_codes


@pytest.mark.parametrize("code", [*RETRY, SPOT_MACHINE_RECLAIMED])
def test_a_stopped_job_and_one_on_a_reclaimed_machine_are_retried(
    batch: Any, task: Any, code: int
) -> None:
    assert _tried_again(batch, task, code)
    assert 1 <= task.max_retry_count <= 10


@pytest.mark.parametrize("code", [code for code in ExitCode if code not in (*RETRY, ExitCode.DONE)])
def test_every_other_exit_code_is_final(batch: Any, task: Any, code: ExitCode) -> None:
    assert set(FAIL_AT_ONCE) < set(ExitCode)
    assert not _tried_again(batch, task, code)


def test_job_asks_for_one_gpu_with_its_driver_on_a_spot_machine(batch: Any, job: Any) -> None:
    (instance,) = job.allocation_policy.instances
    (accelerator,) = instance.policy.accelerators
    assert accelerator.count == 1
    assert accelerator.type_.startswith("nvidia-")
    assert instance.install_gpu_drivers
    assert instance.policy.provisioning_model == batch.AllocationPolicy.ProvisioningModel.SPOT


def test_container_is_given_the_gpu_and_shared_memory_and_no_privileges(task: Any) -> None:
    options = task.runnables[0].container.options
    for option in ("--gpus all", "--read-only", "--tmpfs /tmp", "--shm-size 2g", "--cap-drop ALL"):
        assert f"{option} " in f"{options} "
    assert "--privileged" not in options


def test_runs_outlive_the_machine_and_are_writable_for_the_images_user(task: Any) -> None:
    (volume,) = task.volumes
    assert volume.gcs.remote_path
    assert list(task.runnables[0].container.volumes) == [f"{volume.mount_path}:/runs:rw"]
    assert {"-o allow_other", "--uid=10001", "--gid=10001"} <= set(volume.mount_options)
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text("utf-8")


def test_a_night_ends_before_the_next(task: Any) -> None:
    assert 0 < task.max_run_duration.total_seconds() < 24 * 3600


def test_container_starts_the_images_own_entrypoint(task: Any) -> None:
    (line,) = [
        line.removeprefix("ENTRYPOINT ")
        for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines()
        if line.startswith("ENTRYPOINT ")
    ]
    entrypoint = [word.strip(' "') for word in line.strip("[]").split(",")]
    assert _words(task)[: len(entrypoint) + 1] == ["exec", *entrypoint]


def test_run_id_is_new_every_night_and_the_same_in_its_retries(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _words(task)[_words(task).index("run") :]
    variables = dict(task.environment.variables)
    assert set(variables) <= job_variables()
    options = parse(arguments, variables, monkeypatch)
    assert (options["recipe"], options["run_id"]) == ("phi2", "phi2-${BATCH_JOB_UID:?}")


def _words(task: Any) -> list[str]:
    container = task.runnables[0].container
    assert container.entrypoint == "/bin/sh"
    flag, script = container.commands
    assert flag == "-c"
    return shlex.split(script)
