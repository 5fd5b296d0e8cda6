"""compose.gpu.yml: valid Compose file, one GPU, nothing open to the network."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from nlijob.launch import STOP_GRACE_S
from tests.deploy.files import ROOT, job_variables, read_yaml

FILE = ROOT / "compose.gpu.yml"


@pytest.fixture
def services() -> dict[str, Any]:
    services: dict[str, Any] = read_yaml(FILE)[0]["services"]
    return services


def test_file_is_valid_by_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, str(FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_job_reserves_a_gpu(services: dict[str, Any]) -> None:
    (device,) = services["job"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_reports_reserve_no_gpu(services: dict[str, Any]) -> None:
    assert "deploy" not in services["reports"]
    assert services["reports"]["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_only_the_job_starts_by_default(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if not service.get("profiles")] == ["job"]


@pytest.mark.parametrize("name", ["job", "reports"])
def test_nothing_restarts_automatically(services: dict[str, Any], name: str) -> None:
    assert services[name]["restart"] == "no"


@pytest.mark.parametrize("name", ["job", "reports"])
def test_services_are_confined(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_job_can_write_only_to_runs_cache_and_tmp(services: dict[str, Any]) -> None:
    writable = [v["target"] for v in services["job"]["volumes"] if not v.get("read_only")]
    assert [*writable, *services["job"]["tmpfs"]] == ["/runs", "/cache", "/tmp"]


def test_job_has_more_shared_memory_than_dockers_64_mb(services: dict[str, Any]) -> None:
    assert services["job"]["shm_size"] == "2gb"


def test_job_has_time_to_stop_cleanly(services: dict[str, Any]) -> None:
    assert float(services["job"]["stop_grace_period"].removesuffix("s")) > STOP_GRACE_S + 5


def test_environment_names_options_of_the_job(services: dict[str, Any]) -> None:
    names = {name for name in services["job"]["environment"] if name.startswith("NLIJOB_")}
    assert names
    assert names <= job_variables()


def test_reports_are_served_read_only_to_this_machine_only(services: dict[str, Any]) -> None:
    (volume,) = services["reports"]["volumes"]
    assert (volume["target"], volume["read_only"]) == ("/runs", True)
    assert [port.rpartition(":")[0] for port in services["reports"]["ports"]] == ["127.0.0.1:8000"]
