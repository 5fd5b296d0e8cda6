"""deploy/aws-batch: valid according to botocore's service models; exit codes are handled."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

import pytest

from nlijob.errors import ExitCode
from tests.deploy.files import DEPLOY, FAIL_AT_ONCE, RETRY, job_variables, parse, read_json

FOLDER = DEPLOY / "aws-batch"


@pytest.fixture
def definition() -> Any:
    return read_json(FOLDER / "job-definition.json")


@pytest.fixture
def container(definition: Any) -> Any:
    return definition["containerProperties"]


@pytest.fixture
def schedule() -> Any:
    return read_json(FOLDER / "schedule.json")


def input_shape(service: str, operation: str) -> Any:
    session = pytest.importorskip("botocore.session").Session()
    return session.get_service_model(service).operation_model(operation).input_shape


def faults(service: str, operation: str, parameters: Any) -> list[str]:
    """What the service would refuse according to its model."""
    validate = pytest.importorskip("botocore.validate")
    shape = input_shape(service, operation)
    report: str = validate.ParamValidator().validate(parameters, shape).generate_report()
    return [*report.splitlines(), *_unknown_values(shape, parameters)]


def _unknown_values(shape: Any, value: Any) -> Iterator[str]:
    """Values outside the model's enumerations, which botocore's validator does not check."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for key in value.keys() & shape.members.keys():
            yield from _unknown_values(shape.members[key], value[key])
    elif shape.type_name == "list" and isinstance(value, list):
        for item in value:
            yield from _unknown_values(shape.member, item)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{shape.name}: {value!r} is none of {shape.enum}"


def test_job_definition_is_valid_by_the_service_model(definition: Any) -> None:
    assert faults("batch", "RegisterJobDefinition", definition) == []


def test_compute_environment_is_valid_by_the_service_model() -> None:
    environment = read_json(FOLDER / "compute-environment.json")
    assert faults("batch", "CreateComputeEnvironment", environment) == []


def test_schedule_is_valid_by_the_service_model(schedule: Any) -> None:
    assert faults("scheduler", "CreateSchedule", schedule) == []


def test_what_the_schedule_submits_is_valid_by_the_service_model(schedule: Any) -> None:
    assert schedule["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:batch:submitJob"
    # The scheduler takes a call's parameters with a capital first letter.
    sent = json.loads(schedule["Target"]["Input"])
    parameters = {name[0].lower() + name[1:]: value for name, value in sent.items()}
    assert all(name[0].isupper() for name in sent)
    assert faults("batch", "SubmitJob", parameters) == []


def _outcome(definition: Any, exit_code: int, status_reason: str) -> str:
    """The action of the first matching condition; without one, Batch retries."""
    for condition in definition["retryStrategy"]["evaluateOnExit"]:
        seen = {
            "onExitCode": str(exit_code),
            "onStatusReason": status_reason,
            "onReason": "",
        }
        if all(fnmatch.fnmatchcase(seen[k], v) for k, v in condition.items() if k != "action"):
            return str(condition["action"])
    return "RETRY"


ENDED = "Essential container in task exited"


@pytest.mark.parametrize("code", RETRY)
def test_a_stopped_job_is_retried(definition: Any, code: ExitCode) -> None:
    assert _outcome(definition, code, ENDED) == "RETRY"
    assert definition["retryStrategy"]["attempts"] > 1


def test_a_job_on_a_reclaimed_spot_machine_is_retried(definition: Any) -> None:
    assert (
        _outcome(definition, 137, "Host EC2 (instance i-0123456789abcdef0) terminated.") == "RETRY"
    )


@pytest.mark.parametrize("code", [code for code in ExitCode if code not in (*RETRY, ExitCode.DONE)])
def test_every_other_exit_code_is_final(definition: Any, code: ExitCode) -> None:
    assert set(FAIL_AT_ONCE) < set(ExitCode)
    assert _outcome(definition, code, ENDED) == "EXIT"


def test_job_asks_for_one_gpu(container: Any) -> None:
    wanted = {entry["type"]: entry["value"] for entry in container["resourceRequirements"]}
    assert wanted["GPU"] == "1"


def test_there_is_room_for_one_job_at_a_time(container: Any) -> None:
    wanted = {entry["type"]: entry["value"] for entry in container["resourceRequirements"]}
    resources = read_json(FOLDER / "compute-environment.json")["computeResources"]
    assert int(wanted["VCPU"]) == resources["maxvCpus"]


def test_job_has_shared_memory_and_a_writable_tmp(container: Any) -> None:
    linux = container["linuxParameters"]
    assert linux["sharedMemorySize"] >= 1024
    assert [tmpfs["containerPath"] for tmpfs in linux["tmpfs"]] == ["/tmp"]


def test_job_runs_without_privileges(container: Any) -> None:
    assert container["user"] == "10001:10001"
    assert container["privileged"] is False
    assert container["readonlyRootFilesystem"] is True


def test_runs_and_cache_outlive_the_machine(container: Any) -> None:
    volumes = {volume["name"]: volume["efsVolumeConfiguration"] for volume in container["volumes"]}
    mounts = {m["containerPath"]: volumes[m["sourceVolume"]] for m in container["mountPoints"]}
    assert set(mounts) == {"/runs", "/cache"}
    for volume in mounts.values():
        assert volume["transitEncryption"] == "ENABLED"  # an access point needs it


def test_an_attempt_ends_before_the_next_night(definition: Any) -> None:
    assert definition["timeout"]["attemptDurationSeconds"] < 24 * 3600


def test_run_id_is_new_every_night_and_the_same_in_its_retries(
    definition: Any, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = json.loads(schedule["Target"]["Input"])["Parameters"]
    assert parameters == {"run_id": "phi2-<aws.scheduler.scheduled-time>"}
    assert set(parameters) == set(definition["parameters"])
    values = {**definition["parameters"], "run_id": "phi2-2026-11-21T02:15:00Z"}
    container = definition["containerProperties"]
    arguments = [
        values[word.removeprefix("Ref::")] if word.startswith("Ref::") else word
        for word in container["command"]
    ]
    environment = {entry["name"]: entry["value"] for entry in container["environment"]}
    assert set(environment) <= job_variables()
    options = parse(arguments, environment, monkeypatch)
    assert (options["recipe"], options["run_id"]) == ("phi2", "phi2-2026-11-21T02:15:00Z")


def test_schedule_names_the_queue_and_definition_of_this_folder(
    definition: Any, schedule: Any
) -> None:
    sent = json.loads(schedule["Target"]["Input"])
    assert sent["JobDefinition"] == definition["jobDefinitionName"]
    assert f"--job-queue-name {sent['JobQueue']} " in (FOLDER / "README.md").read_text("utf-8")
