"""What nvidia-smi and NVML may print, return and raise, and the figures that are left."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nlijob.hardware import gpu_process
from nlijob.hardware.gpu_process import MIB, answer, read_gputil, read_nvml
from tests.unit.hardware.conftest import NVML, ROW, Install

FIELDS = ROW.split(", ")


def by_gputil() -> dict[str, Any]:
    return answer(read_gputil, "[]")


def by_nvml(known: str = "[]") -> dict[str, Any]:
    return answer(read_nvml, known)


def row(**changes: str) -> str:
    """The row of a GPU with some columns changed, by their number."""
    values = {int(key.removeprefix("column_")): value for key, value in changes.items()}
    return ", ".join(values.get(index, field) for index, field in enumerate(FIELDS))


@pytest.fixture(autouse=True)
def _no_stand_in_stays() -> Iterator[None]:
    from GPUtil import GPUtil

    before = GPUtil.Popen
    yield
    GPUtil.Popen = before
    gpu_process.NvidiaSmi.fault = ""


# ---------------------------------------------------------------- nvidia-smi


def test_gputil_gives_load_memory_and_temperature(nvidia_smi: Install) -> None:
    nvidia_smi(f"echo '{ROW}'")
    (gpu,) = by_gputil()["gpus"]
    assert gpu == {
        "uuid": "GPU-1",
        "load": 0.37,
        "memory_used_bytes": 100 * MIB,
        "temperature_c": 41.0,
    }


@pytest.mark.parametrize("missing", ["[N/A]", "ERR!", "[Unknown Error]", "", "nan", "-1", "inf"])
def test_a_figure_that_nvidia_smi_does_not_give_is_none(nvidia_smi: Install, missing: str) -> None:
    nvidia_smi(f"echo '{row(column_2=missing, column_4=missing, column_11=missing)}'")
    (gpu,) = by_gputil()["gpus"]
    assert (gpu["load"], gpu["memory_used_bytes"], gpu["temperature_c"]) == (None, None, None)


def test_a_comma_in_the_name_leaves_load_and_memory(nvidia_smi: Install) -> None:
    nvidia_smi(f"echo '{row(column_7='NVIDIA A100, 80GB', column_8='0324018045603')}'")
    (gpu,) = by_gputil()["gpus"]
    assert (gpu["load"], gpu["memory_used_bytes"]) == (0.37, 100 * MIB)
    assert gpu["temperature_c"] is None


def test_one_lost_gpu_does_not_hide_the_others(nvidia_smi: Install) -> None:
    lost = "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error"
    nvidia_smi(f"echo '{ROW}'; echo '{lost}'; exit 15")
    assert [gpu["uuid"] for gpu in by_gputil()["gpus"]] == ["GPU-1"]


def test_a_warning_below_the_table_changes_nothing(nvidia_smi: Install) -> None:
    nvidia_smi(f"echo '{ROW}'; echo 'WARNING: infoROM is corrupted at gpu 0000:00:1E.0'")
    assert len(by_gputil()["gpus"]) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Unknown Error'; exit 1", "ended with status 1 and printed: Unknown Error"),
        ("echo 'No devices were found' >&2; exit 6", "status 6 and printed: No devices were found"),
        ("exit 9", "ended with status 9 and printed: nothing"),
        ("echo '0, GPU-1, 37, 81559'", "ended with status 0 and printed: 0, GPU-1, 37, 81559"),
        ("printf '\\377\\376\\000'", "ended with status 0 and printed: "),
        ("kill -9 $$", "ended with status -9"),
        (f"echo '{row(column_1='[Unknown Error]')}'", "printed: 0, [Unknown Error], 37"),
    ],
)
def test_the_reason_for_no_figures_is_what_nvidia_smi_said(
    nvidia_smi: Install, script: str, reason: str
) -> None:
    nvidia_smi(script)
    assert reason in by_gputil()["fault"]


def test_a_missing_nvidia_smi_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    assert by_gputil() == {"fault": "it cannot be started: No such file or directory"}


def test_endless_output_is_cut_off(nvidia_smi: Install) -> None:
    nvidia_smi("exec yes garbage")
    assert "printed: garbage" in by_gputil()["fault"]


# ---------------------------------------------------------------- NVML


def test_nvml_gives_every_figure(pynvml: Install) -> None:
    pynvml(NVML)
    (gpu,) = by_nvml()["gpus"]
    assert gpu == {
        "uuid": "GPU-1",
        "load": 0.5,
        "memory_used_bytes": 200,
        "temperature_c": 60.0,
        "power_w": 300.0,
        "energy_j": 5.0,
    }


FIGURES = {
    "nvmlDeviceGetUtilizationRates": "load",
    "nvmlDeviceGetMemoryInfo": "memory_used_bytes",
    "nvmlDeviceGetTemperature": "temperature_c",
    "nvmlDeviceGetPowerUsage": "power_w",
    "nvmlDeviceGetTotalEnergyConsumption": "energy_j",
}


@pytest.mark.parametrize("function", FIGURES)
@pytest.mark.parametrize(
    "replacement",
    [
        "{name} = None",
        "del {name}",
        "def {name}(*_): raise NVMLError('Not Supported')",
        "def {name}(*_): return 'ERR!'",
        "def {name}(*_): return float('nan')",
    ],
)
def test_a_figure_that_nvml_does_not_give_costs_no_other(
    pynvml: Install, function: str, replacement: str
) -> None:
    pynvml(f"{NVML}    {replacement.format(name=function)}\n")
    (gpu,) = by_nvml()["gpus"]
    assert [name for name, value in gpu.items() if value is None] == [FIGURES[function]]


def test_one_lost_gpu_does_not_hide_the_others_from_nvml(pynvml: Install) -> None:
    pynvml(
        NVML
        + """
    def nvmlDeviceGetCount(): return 3
    def nvmlDeviceGetHandleByIndex(index):
        if index == 1: raise NVMLError("GPU is lost")
        return index
    def nvmlDeviceGetUUID(handle): return f"GPU-{handle}".encode()
"""
    )
    assert [gpu["uuid"] for gpu in by_nvml()["gpus"]] == ["GPU-0", "GPU-2"]


def test_a_gpu_that_nvml_does_not_list_is_found_by_its_uuid(pynvml: Install) -> None:
    pynvml(
        NVML
        + """
    del nvmlDeviceGetHandleByIndex
    def nvmlDeviceGetHandleByUUID(uuid): return uuid
"""
    )
    assert "fault" in by_nvml()
    (gpu,) = by_nvml('["GPU-7"]')["gpus"]
    assert (gpu["uuid"], gpu["power_w"]) == ("GPU-7", 300.0)


def test_the_parts_of_a_divided_gpu_have_their_own_memory(pynvml: Install) -> None:
    pynvml(
        NVML
        + """
    def nvmlDeviceGetMaxMigDeviceCount(handle): return 2
    def nvmlDeviceGetMigDeviceHandleByIndex(handle, part):
        if part: raise NVMLError("Not Found")
        return "part"
    def nvmlDeviceGetUUID(handle): return "MIG-2" if handle == "part" else "GPU-1"
    def nvmlDeviceGetUtilizationRates(handle): raise NVMLError("Not Supported")
    def nvmlDeviceGetMemoryInfo(handle): return Record(used=30 if handle == "part" else 200)
"""
    )
    figures = [(gpu["uuid"], gpu["load"], gpu["memory_used_bytes"]) for gpu in by_nvml()["gpus"]]
    assert figures == [("GPU-1", None, 200), ("MIG-2", None, 30)]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("    def nvmlInit(): raise NVMLError('Driver/library version mismatch')\n", "mismatch"),
        ("    def nvmlDeviceGetCount(): raise NVMLError('Unknown')\n", "NVMLError: Unknown"),
        ("    def nvmlDeviceGetCount(): return 0\n", "lists no GPU"),
        ("    def nvmlDeviceGetCount(): return 'many'\n", "TypeError"),
        ("    def nvmlInit(): raise SystemExit\n", "SystemExit"),
    ],
)
def test_the_reason_why_nvml_gives_nothing_is_told(
    pynvml: Install, source: str, reason: str
) -> None:
    pynvml(NVML + source)
    assert reason in by_nvml()["fault"]


def test_a_reason_is_one_short_line() -> None:
    def fail(_: object) -> list[dict[str, Any]]:
        raise RuntimeError("line\n" * 1000)

    fault = answer(fail, "[]")["fault"]
    assert "\n" not in fault
    assert len(fault) < 200


def test_gputils_own_record_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from GPUtil import GPUtil

    gpu = SimpleNamespace(uuid="GPU-1", load=0.5, memoryUsed=100.0, temperature=60.0)
    monkeypatch.setattr(GPUtil, "getGPUs", lambda: [gpu])
    assert by_gputil()["gpus"][0]["load"] == 0.5
