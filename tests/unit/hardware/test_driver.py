"""Whatever the driver does, the job learns how many GPUs answer, within a time limit."""

from __future__ import annotations

import pytest

from nlijob.hardware import driver as driver_module
from nlijob.hardware import driver_fault, driver_version, gpu_count, wake_driver
from nlijob.hardware.driver import may_have_gpus
from tests.unit.hardware.conftest import NVML, Install

HANGS = "    def nvmlInit():\n        import threading; threading.Event().wait()\n"
FOUR = NVML + "    def nvmlDeviceGetCount(): return 4\n"
BROKEN = {
    "no library": NVML + "    def nvmlInit(): raise NVMLError('Library not found')\n",
    "another error": NVML + "    def nvmlInit(): raise OSError('version mismatch')\n",
    "no count": NVML + "    def nvmlDeviceGetCount(): raise NVMLError('Unknown error')\n",
    "a count of nothing": NVML + "    def nvmlDeviceGetCount(): return None\n",
    "functions missing": "",
    "not a module": "def",
    "an exit": NVML + "    def nvmlInit(): raise SystemExit(3)\n",
}


@pytest.mark.usefixtures("driver")
def test_gpus_are_those_that_the_driver_shows() -> None:
    assert gpu_count() == 1
    assert driver_version() == "580.65.06"
    assert may_have_gpus()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_are_hidden_from_cuda_are_none(
    monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpu_count() == 0
    assert not may_have_gpus()


@pytest.mark.parametrize(
    ("shown", "number"),
    [
        (None, 4),
        ("1", 1),
        ("2, 0", 2),
        ("0,1,2,3", 4),
        ("0,-1,2", 1),
        ("1,4,2", 1),
        ("4", 0),
        ("1,1", 0),
        ("GPU-8f2c,GPU-11aa", 2),
        ("none", 0),
        (",1", 0),
    ],
)
def test_the_gpus_that_cuda_is_shown_are_counted(shown: str | None, number: int) -> None:
    assert driver_module.visible(4, shown) == number


def test_a_list_of_visible_gpus_is_heeded(pynvml: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    pynvml(FOUR)
    assert gpu_count() == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert gpu_count() == 2


def test_divided_gpus_count_as_one(pynvml: Install) -> None:
    pynvml(FOUR + "    def nvmlDeviceGetMigMode(handle): return [int(handle == 2), 0]\n")
    assert gpu_count() == 1


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_a_driver_that_fails_in_any_way_has_no_gpus(pynvml: Install, source: str) -> None:
    pynvml(source)
    assert gpu_count() == 0


def test_a_driver_that_hangs_has_no_gpus(pynvml: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "LIMIT_S", 0.2)
    pynvml(NVML + HANGS)
    assert gpu_count() == 0
    assert driver_version() is None
    assert driver_fault() == "NVML gave no answer within 0 s"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (NVML, ""),
        (BROKEN["no library"], "NVML: NVMLError: Library not found"),
        (BROKEN["another error"], "NVML: OSError: version mismatch"),
    ],
)
def test_the_reason_why_no_gpu_is_found_is_known(pynvml: Install, source: str, fault: str) -> None:
    pynvml(source)
    assert driver_fault() == fault


def test_a_version_that_cannot_be_read_is_none(pynvml: Install) -> None:
    pynvml(NVML + "    def nvmlSystemGetDriverVersion(): raise NVMLError\n")
    assert driver_version() is None


def test_figures_are_asked_for_where_only_nvidia_smi_is_there(
    nvidia_smi: Install, pynvml: Install
) -> None:
    pynvml(BROKEN["another error"])
    nvidia_smi("exit 9")
    assert may_have_gpus()


@pytest.mark.parametrize("hidden", [None, "-1"])
def test_the_driver_is_woken_unless_its_gpus_are_hidden(
    monkeypatch: pytest.MonkeyPatch, hidden: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    started: list[object] = []
    monkeypatch.setattr(driver_module, "start", started.append)
    wake_driver()
    assert started == ([] if hidden else [driver_module._count])
