"""deploy/kubernetes: valid according to Kubernetes' schemas; exit codes are handled."""

from __future__ import annotations

from typing import Any

import pytest

from nlijob.errors import ExitCode
from nlijob.launch import STOP_GRACE_S
from tests.deploy.files import DEPLOY, FAIL_AT_ONCE, RETRY, action, job_variables, read_yaml

OLDEST, NEWEST = "1.31", "1.37"
FILES = ("cronjob.yaml", "reports.yaml")


@pytest.fixture
def cronjob() -> dict[str, Any]:
    documents = read_yaml(DEPLOY / "kubernetes" / "cronjob.yaml")
    (spec,) = [document["spec"] for document in documents if document["kind"] == "CronJob"]
    assert isinstance(spec, dict)
    return spec


@pytest.fixture
def job(cronjob: dict[str, Any]) -> dict[str, Any]:
    spec = cronjob["jobTemplate"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.fixture
def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec = job["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", FILES)
def test_manifests_are_valid_by_the_published_schemas(name: str, version: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    for document in read_yaml(DEPLOY / "kubernetes" / name):
        assert kubernetes.validate(document, version, strict=True) == version


@pytest.mark.parametrize("code", FAIL_AT_ONCE)
@pytest.mark.parametrize("disrupted", [False, True])
def test_permanent_errors_fail_the_job_at_once(
    job: dict[str, Any], code: ExitCode, disrupted: bool
) -> None:
    assert action(job, code, disrupted) == "FailJob"


@pytest.mark.parametrize("code", RETRY)
def test_a_stopped_job_is_retried(job: dict[str, Any], code: ExitCode) -> None:
    assert action(job, code) == "Count"
    assert any(code in rule.get("onExitCodes", {}).get("values", ()) for rule in _rules(job))
    assert job["backoffLimit"] >= 1


@pytest.mark.parametrize("code", RETRY)
def test_a_reclaimed_node_does_not_count_as_a_failure(job: dict[str, Any], code: ExitCode) -> None:
    assert action(job, code, disrupted=True) == "Ignore"


def test_rules_are_about_the_jobs_container(job: dict[str, Any], pod: dict[str, Any]) -> None:
    (name,) = [container["name"] for container in pod["containers"]]
    named = {rule["onExitCodes"]["containerName"] for rule in _rules(job) if "onExitCodes" in rule}
    assert named == {name}


def test_pods_are_never_restarted_in_place(pod: dict[str, Any]) -> None:
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it


def test_two_pods_never_work_on_one_run(cronjob: dict[str, Any], job: dict[str, Any]) -> None:
    assert cronjob["concurrencyPolicy"] == "Forbid"
    assert job["podReplacementPolicy"] == "Failed"
    assert job.get("parallelism", 1) == 1


def test_job_asks_for_one_gpu(pod: dict[str, Any]) -> None:
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_job_has_time_to_stop_cleanly(pod: dict[str, Any]) -> None:
    assert pod["terminationGracePeriodSeconds"] > STOP_GRACE_S + 5


def test_run_id_is_new_every_night_and_the_same_in_its_retries(pod: dict[str, Any]) -> None:
    environment = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
    source = environment["NLIJOB_RUN_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert source == "metadata.labels['batch.kubernetes.io/job-name']"
    assert set(environment) <= job_variables()


@pytest.mark.parametrize("name", FILES)
def test_pods_run_without_privileges(name: str) -> None:
    document = read_yaml(DEPLOY / "kubernetes" / name)[-1]["spec"]
    pod = (
        document["jobTemplate"]["spec"]["template"]["spec"]
        if "jobTemplate" in document
        else document
    )
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_runs_and_cache_outlive_the_pod(pod: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {m["mountPath"]: volumes[m["name"]] for m in pod["containers"][0]["volumeMounts"]}
    documents = read_yaml(DEPLOY / "kubernetes" / "cronjob.yaml")
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    kept = {mounts[path]["persistentVolumeClaim"]["claimName"] for path in ("/runs", "/cache")}
    assert kept == claims == {"nlijob-runs", "nlijob-cache"}
    assert "emptyDir" in mounts["/tmp"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"


def test_reports_are_read_only_and_on_no_network() -> None:
    (document,) = read_yaml(DEPLOY / "kubernetes" / "reports.yaml")
    (container,) = document["spec"]["containers"]
    assert [mount["readOnly"] for mount in container["volumeMounts"]] == [True]
    assert "--bind=127.0.0.1" in container["command"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def _rules(job: dict[str, Any]) -> list[dict[str, Any]]:
    rules = job["podFailurePolicy"]["rules"]
    assert isinstance(rules, list)
    return rules
