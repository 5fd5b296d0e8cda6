"""The processes that read the GPUs' figures: they answer, they end, and nothing of them stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nlijob.hardware import gpus
from nlijob.hardware.gpus import GpuProcess, gpu_samples
from nlijob.hardware.reader import ReaderError
from tests.unit.hardware.conftest import NVML, Install

LIMIT_S = 60.0


@pytest.fixture
def process() -> Iterator[GpuProcess]:
    process = GpuProcess("gputil")
    yield process
    process.close()


def wait_for(path: Path) -> int:
    """The process id that a script wrote to a file."""
    deadline = time.monotonic() + LIMIT_S
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def asking(process: GpuProcess) -> threading.Thread:
    """A thread that asks and is left without an answer."""

    def ask() -> None:
        with pytest.raises(ReaderError):
            process.read()

    return threading.Thread(target=ask, daemon=True)


def gone(pid: int) -> bool:
    """Whether a process ends."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def is_reader(process: psutil.Process) -> bool:
    """Whether a process reads GPUs; those of other tests may be ending."""
    try:
        return "gpu_process.py" in str(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.usefixtures("driver")
def test_one_process_answers_every_question(process: GpuProcess) -> None:
    first, second = process.read(), process.read()
    assert first == second
    assert first[0]["load"] == 0.37
    assert len([p for p in psutil.Process().children() if is_reader(p)]) == 1


def test_a_fault_is_an_error_with_its_reason(process: GpuProcess, nvidia_smi: Install) -> None:
    nvidia_smi("exit 9")
    with pytest.raises(ReaderError, match="status 9"):
        process.read()


def test_a_crash_within_the_driver_is_an_error_and_the_next_question_starts_anew(
    pynvml: Install,
) -> None:
    process = GpuProcess("nvml")
    crash = (  # another thread may take the signal, so this one waits for its effect
        "    def nvmlDeviceGetCount():\n"
        "        import os, time; os.kill(os.getpid(), 11); time.sleep(60)\n"
    )
    pynvml(NVML + crash)
    with pytest.raises(ReaderError, match="the process that reads it ended"):
        process.read()
    pynvml(NVML)
    assert process.read()[0]["power_w"] == 300.0
    process.close()


@pytest.mark.parametrize("hang", ["exec sleep 1000", "sleep 1000", "sleep 1000 & wait"])
def test_ending_a_question_ends_a_hanging_nvidia_smi(
    process: GpuProcess, nvidia_smi: Install, tmp_path: Path, hang: str
) -> None:
    pid_file = tmp_path / "pid"
    nvidia_smi(f"echo $$ > {pid_file}\n{hang}")
    question = asking(process)
    question.start()
    pid = wait_for(pid_file)
    children = psutil.Process(pid).children()
    process.end()
    question.join(LIMIT_S)
    assert not question.is_alive()
    assert all(gone(one) for one in (pid, *(child.pid for child in children)))


def test_what_a_library_prints_is_no_answer(pynvml: Install) -> None:
    process = GpuProcess("nvml")
    pynvml(NVML + "    print('hello', flush=True)\n    import os\n    os.write(1, b'there\\n')\n")
    assert [process.read()[0]["power_w"] for _ in range(2)] == [300.0, 300.0]
    process.close()


def test_no_process_is_started_after_closing(process: GpuProcess) -> None:
    process.close()
    with pytest.raises(ReaderError):
        process.read()
    assert process._process is None


def test_the_process_ends_itself_and_nvidia_smi_when_its_input_is_closed(
    process: GpuProcess, nvidia_smi: Install, tmp_path: Path
) -> None:
    # as when the parent is killed
    pid_file = tmp_path / "pid"
    nvidia_smi(f"echo $$ > {pid_file}\nexec sleep 1000")
    asking(process).start()
    pid = wait_for(pid_file)
    started = process._process
    assert started is not None
    gpus._input(started).close()
    assert gone(pid)
    assert started.wait(LIMIT_S) == -9


# ---------------------------------------------------------------- both together


GPUTIL = {"uuid": "GPU-1", "load": 0.4, "memory_used_bytes": 10, "temperature_c": 40.0}
BY_NVML = {
    "uuid": "gpu-1",
    "load": 0.5,
    "memory_used_bytes": 20,
    "temperature_c": 50.0,
    "power_w": 300.0,
    "energy_j": 5.0,
}


def test_load_and_memory_are_gputils_and_the_rest_is_nvmls() -> None:
    (gpu,) = gpu_samples([GPUTIL], [BY_NVML])
    assert (gpu.uuid, gpu.load, gpu.memory_used_bytes) == ("GPU-1", 0.4, 10)
    assert (gpu.temperature_c, gpu.power_w, gpu.energy_j) == (50.0, 300.0, 5.0)


def test_nvml_fills_in_what_gputil_has_not() -> None:
    (gpu,) = gpu_samples([{**GPUTIL, "load": None, "memory_used_bytes": None}], [BY_NVML])
    assert (gpu.load, gpu.memory_used_bytes) == (0.5, 20)


def test_nvml_alone_gives_all_figures() -> None:
    (gpu,) = gpu_samples([], [BY_NVML])
    assert (gpu.load, gpu.memory_used_bytes, gpu.energy_j) == (0.5, 20, 5.0)


def test_gputil_alone_gives_what_it_has() -> None:
    (gpu,) = gpu_samples([GPUTIL], [])
    assert (gpu.load, gpu.temperature_c, gpu.power_w, gpu.energy_j) == (0.4, 40.0, None, None)


def test_a_load_of_0_is_a_figure() -> None:
    (gpu,) = gpu_samples([{**GPUTIL, "load": 0.0}], [BY_NVML])
    assert gpu.load == 0.0
