"""deploy/kubernetes-hosts: a valid Indexed Job whose pods find each other and end together."""

from __future__ import annotations

from typing import Any

import pytest

from nlijob.errors import ExitCode
from nlijob.hosts import hosts_of
from nlijob.launch import STOP_GRACE_S
from tests.deploy.files import DEPLOY, FAIL_AT_ONCE, RETRY, action, job_variables, read_yaml

FILE = DEPLOY / "kubernetes-hosts" / "cronjob.yaml"
OLDEST, NEWEST = "1.31", "1.37"
JOB = "nlijob-hosts-29401234"


@pytest.fixture
def documents() -> dict[str, Any]:
    return {document["kind"]: document for document in read_yaml(FILE)}


@pytest.fixture
def job(documents: dict[str, Any]) -> dict[str, Any]:
    spec = documents["CronJob"]["spec"]["jobTemplate"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.fixture
def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec = job["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_file_is_valid_by_the_published_schemas(version: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    for document in read_yaml(FILE):
        assert kubernetes.validate(document, version, strict=True) == version


@pytest.mark.parametrize("code", FAIL_AT_ONCE)
def test_permanent_errors_fail_the_job_at_once(job: dict[str, Any], code: ExitCode) -> None:
    assert action(job, code) == "FailJob"


@pytest.mark.parametrize("code", RETRY)
def test_a_stopped_job_is_retried_four_times(job: dict[str, Any], code: ExitCode) -> None:
    assert action(job, code) == "Count"
    assert action(job, code, disrupted=True) == "Ignore"
    assert job["backoffLimit"] == 4 * job["completions"]  # all pods end when one does


def test_every_host_has_a_pod_at_the_same_time(job: dict[str, Any]) -> None:
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    assert job["podReplacementPolicy"] == "Failed"


def environment(pod: dict[str, Any], index: int) -> dict[str, str]:
    """The variables of the pod with this index, as Kubernetes sets them."""
    labels = {
        "metadata.labels['batch.kubernetes.io/job-name']": JOB,
        "metadata.labels['batch.kubernetes.io/job-completion-index']": str(index),
    }
    values: dict[str, str] = {}
    for entry in pod["containers"][0]["env"]:
        if "value" in entry:
            value = entry["value"]
            for name, known in values.items():  # those above it
                value = value.replace(f"$({name})", known)
        else:
            value = labels[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        values[entry["name"]] = value
    return values


def test_pods_meet_at_the_first_one(job: dict[str, Any], pod: dict[str, Any]) -> None:
    for index in range(job["completions"]):
        values = environment(pod, index)
        assert set(values) <= job_variables()
        hosts = hosts_of(
            values["NLIJOB_HOSTS"],
            values["NLIJOB_HOST_RANK"],
            values["NLIJOB_RENDEZVOUS"],
            float(values["NLIJOB_RENDEZVOUS_TIMEOUT"]),
            {},
        )
        assert hosts is not None
        assert (hosts.count, hosts.rank) == (job["completions"], index)
        assert hosts.address == f"{JOB}-0.nlijob-hosts"  # the name that Kubernetes gives pod 0


def test_the_service_gives_pods_their_names_before_they_are_ready(
    documents: dict[str, Any], job: dict[str, Any], pod: dict[str, Any]
) -> None:
    service = documents["Service"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == job["template"]["metadata"]["labels"]


def test_only_the_pods_reach_each_other(documents: dict[str, Any], job: dict[str, Any]) -> None:
    labels = {"matchLabels": job["template"]["metadata"]["labels"]}
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == labels
    assert policy["ingress"] == [{"from": [{"podSelector": labels}]}]


def test_pods_on_several_nodes_can_mount_the_runs(
    documents: dict[str, Any], pod: dict[str, Any]
) -> None:
    claim = documents["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {m["mountPath"]: volumes[m["name"]] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts["/runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "emptyDir" in mounts["/cache"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"


def test_pods_run_without_privileges_and_have_time_to_stop(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["terminationGracePeriodSeconds"] > STOP_GRACE_S + 5
