"""Reads the figures of all GPUs in a process of its own: `gpu_process.py gputil` or `nvml`.

A driver that hangs or crashes takes only this process with it. For each line on standard input, a
JSON list of GPUs' uuids that are known from elsewhere, one line goes to standard output: a JSON
object with `gpus` or with a `fault`. The process runs as a file and imports nothing of the job. It
leads a process group, and when its input is closed, it ends the group: itself and nvidia-smi.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

MIB = 1024 * 1024
COLUMNS = 12
"""Columns of the table that GPUtil asks nvidia-smi for; the name of a GPU may add some."""
MOST_BYTES = 1 << 20
"""More output of nvidia-smi than this is no table."""
HOTTEST_C = 200.0
LONGEST_TEXT = 160

Gpu = dict[str, Any]


class ReadingError(Exception):
    """The figures cannot be read, for a reason that a user can read."""


# ---------------------------------------------------------------- GPUtil


class NvidiaSmi:
    """Stands in for the `Popen` that GPUtil starts nvidia-smi with.

    GPUtil drops the status and fails on the whole table if one GPU has a message in place of its
    row. This passes it the rows alone and keeps the reason why there are none.
    """

    fault = ""

    def __init__(self, command: Sequence[str], stdout: int) -> None:
        self._command = command

    def communicate(self) -> tuple[bytes, None]:
        """The rows of the table, as GPUtil expects them."""
        try:
            status, text = _output(self._command)
        except OSError as error:
            type(self).fault = f"it cannot be started: {error.strerror}"
            return b"", None
        lines = [line for line in text.splitlines() if line.strip()]
        rows = [line for line in lines if _is_row(line)]
        said = lines[0] if lines else "nothing"
        type(self).fault = f"it ended with status {status} and printed: {said}"
        return "".join(f"{row}\n" for row in rows).encode(), None


def _is_row(line: str) -> bool:
    first, *others = line.split(", ")
    return first.isdecimal() and len(others) >= COLUMNS - 1


def _output(command: Sequence[str]) -> tuple[int, str]:
    """Status and output of a command. Raises OSError where it cannot be started."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        text = process.stdout.read(MOST_BYTES)
        if len(text) == MOST_BYTES:
            process.kill()
        return process.wait(), text.decode("utf-8", errors="replace")


def read_gputil(_: Sequence[str]) -> list[Gpu]:
    """Load, memory and temperature of each GPU. Raises ReadingError where there is none."""
    import setuptools  # noqa: F401  # GPUtil 1.4.0 needs its distutils since Python 3.12
    from GPUtil import GPUtil  # isort: skip

    GPUtil.Popen = NvidiaSmi
    found = [_gputil_figures(gpu) for gpu in GPUtil.getGPUs() if not gpu.uuid.startswith("[")]
    if not found:
        raise ReadingError(NvidiaSmi.fault)
    return found


def _gputil_figures(gpu: Any) -> Gpu:
    memory_mib = _within(gpu.memoryUsed, 0, math.inf)
    return {
        "uuid": gpu.uuid,
        "load": _within(gpu.load, 0, 1),
        "memory_used_bytes": None if memory_mib is None else int(memory_mib * MIB),
        # a comma in the GPU's name moves other columns to where the temperature should be
        "temperature_c": _within(gpu.temperature, 0, HOTTEST_C),
    }


# ---------------------------------------------------------------- NVML


def read_nvml(known: Sequence[str]) -> list[Gpu]:
    """Every figure of each GPU that NVML gives. Raises ReadingError where it has no GPU."""
    import pynvml

    pynvml.nvmlInit()
    gpus = {gpu["uuid"]: gpu for gpu in _listed_gpus(pynvml)}
    for uuid in known:
        if uuid not in gpus:
            with contextlib.suppress(Exception):
                gpus[uuid] = _nvml_figures(pynvml, uuid, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    if not gpus:
        pynvml.nvmlDeviceGetCount()  # raises the reason, if that is where it fails
        raise ReadingError("the driver lists no GPU whose figures can be read")
    return list(gpus.values())


def _listed_gpus(nvml: Any) -> Iterator[Gpu]:
    """The GPUs that NVML lists, and the instances of those that are divided (MIG)."""
    for index in range(_value(nvml, "nvmlDeviceGetCount") or 0):
        handle = _value(nvml, "nvmlDeviceGetHandleByIndex", index)
        if handle is None:
            continue
        if uuid := _uuid(nvml, handle):
            yield _nvml_figures(nvml, uuid, handle)
        for part in range(_value(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            instance = _value(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, part)
            if instance is not None and (uuid := _uuid(nvml, instance)):
                yield _nvml_figures(nvml, uuid, instance)


def _nvml_figures(nvml: Any, uuid: str, handle: Any) -> Gpu:
    load = _within(_member(_value(nvml, "nvmlDeviceGetUtilizationRates", handle), "gpu"), 0, 100)
    memory = _within(_member(_value(nvml, "nvmlDeviceGetMemoryInfo", handle), "used"), 0, math.inf)
    energy_mj = _within(_value(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle), 0, math.inf)
    power_mw = _within(_value(nvml, "nvmlDeviceGetPowerUsage", handle), 0, math.inf)
    core = getattr(nvml, "NVML_TEMPERATURE_GPU", 0)
    heat_c = _within(_value(nvml, "nvmlDeviceGetTemperature", handle, core), 0, HOTTEST_C)
    return {
        "uuid": uuid,
        "load": None if load is None else load / 100,
        "memory_used_bytes": None if memory is None else int(memory),
        "temperature_c": heat_c,
        "power_w": None if power_mw is None else power_mw / 1000,
        "energy_j": None if energy_mj is None else energy_mj / 1000,
    }


def _uuid(nvml: Any, handle: Any) -> str:
    uuid = _value(nvml, "nvmlDeviceGetUUID", handle)
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid or "")


def _value(nvml: Any, function: str, *arguments: Any) -> Any:
    """What a function of NVML returns; None where it fails or this pynvml lacks it."""
    try:
        return getattr(nvml, function)(*arguments)
    except Exception:
        return None


def _member(record: Any, name: str) -> Any:
    return getattr(record, name, None)


# ---------------------------------------------------------------- both


def _within(value: Any, low: float, high: float) -> float | None:
    """A figure as a number; None where it is no finite number between the two."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and low <= number <= high else None


def answer(read: Callable[[Sequence[str]], list[Gpu]], question: str) -> dict[str, Any]:
    """The answer to one line of input."""
    try:
        return {"gpus": read(json.loads(question))}
    except ReadingError as error:
        return {"fault": _short(str(error))}
    except BaseException as error:
        return {"fault": _short(f"{type(error).__name__}: {error}")}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."


def _serve(read: Callable[[Sequence[str]], list[Gpu]], questions: queue.SimpleQueue[str]) -> None:
    # What a library prints goes elsewhere: it would be taken for an answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        while True:
            answers.write(json.dumps(answer(read, questions.get())) + "\n")
            answers.flush()


def main() -> None:
    """Answer every line of input; does not return."""
    read = {"gputil": read_gputil, "nvml": read_nvml}[sys.argv[1]]
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_serve, args=(read, questions), daemon=True).start()
    for line in sys.stdin:
        questions.put(line)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
