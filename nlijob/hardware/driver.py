"""What this process asks the NVIDIA driver itself, each time with a time limit."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from nlijob.errors import first_line

T = TypeVar("T")

LIMIT_S = 10.0
"""Longest time that a driver may take to answer. It loads itself first, which takes seconds on a
machine with many GPUs."""


def wake_driver() -> None:
    """Have the driver load itself meanwhile; who asks it later waits for the rest of that only."""
    if not _are_hidden():
        start(_count)


def gpu_count() -> int:
    """Number of GPUs that a job can use: the driver answers, and CUDA_VISIBLE_DEVICES shows them.

    One where GPUs are divided (MIG): CUDA shows a process one part of one GPU.
    """
    number = 0 if _are_hidden() else visible(_answer(_count) or 0, _shown())
    return 1 if number > 1 and _answer(_is_divided) else number


def visible(gpus: int, shown: str | None) -> int:
    """How many of the machine's GPUs CUDA shows if CUDA_VISIBLE_DEVICES is `shown`.

    As CUDA reads it (CUDA C++ Programming Guide, "CUDA Environment Variables"): the list ends at
    the first name that no GPU has, and a list with a name twice shows nothing. Whether a GPU has a
    certain UUID is not checked.
    """
    if shown is None or not gpus:
        return gpus
    names: list[str] = []
    for name in map(str.strip, shown.split(",")):
        if not (name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < gpus)):
            break
        names.append(name)
    if len({*names}) < len(names):
        return 0
    return len(names)


def driver_fault() -> str:
    """Why the NVIDIA driver does not say how many GPUs there are; "" where it does."""
    try:
        start(_count).result(LIMIT_S)
    except TimeoutError:
        return f"NVML gave no answer within {LIMIT_S:.0f} s"
    except Exception as error:
        return f"NVML: {first_line(error)}"
    return ""


def may_have_gpus() -> bool:
    """Whether it is worth asking for the figures of GPUs, even if the driver does not answer."""
    return not _are_hidden() and (shutil.which("nvidia-smi") is not None or gpu_count() > 0)


def driver_version() -> str | None:
    """Version of the NVIDIA driver, or None where it does not tell."""
    return _answer(_version)


def gpu_name(number: int) -> str:
    """The driver's name of a GPU of this process, by its number for CUDA; "" if it is not told."""
    shown = [name.strip() for name in (_shown() or "").split(",")]
    index = shown[number] if shown[0] and number < len(shown) else str(number)
    return _answer(lambda: _name(index)) or ""


def _are_hidden() -> bool:
    shown = _shown()
    return shown is not None and shown.split(",")[0].strip() in ("", "-1")


def _shown() -> str | None:
    """The GPUs that this process's user lets CUDA see; None for all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _count() -> int:
    import pynvml

    pynvml.nvmlInit()
    return max(0, int(pynvml.nvmlDeviceGetCount()))


def _is_divided() -> bool:
    """Whether a GPU is divided into instances (MIG). Raises where the driver does not know of it.

    A driver or GPU that has no such mode raises, and so counts as undivided.
    """
    import pynvml

    pynvml.nvmlInit()
    handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(_count()))
    return any(pynvml.nvmlDeviceGetMigMode(handle)[0] for handle in handles)


def _version() -> str:
    import pynvml

    pynvml.nvmlInit()
    return _text(pynvml.nvmlSystemGetDriverVersion())


def _name(index: str) -> str:
    """The name of a GPU, by its number for the driver or by its UUID."""
    import pynvml

    pynvml.nvmlInit()
    if index.isdecimal():
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(index))
    else:
        handle = pynvml.nvmlDeviceGetHandleByUUID(index)
    return _text(pynvml.nvmlDeviceGetName(handle))


def _text(answer: bytes | str) -> str:
    """A text of the driver's, which older versions of pynvml give as bytes."""
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _answer(ask: Callable[[], T]) -> T | None:
    """The value of `ask`; None if it fails in any way or takes longer than `LIMIT_S`."""
    answer = start(ask)
    try:
        return answer.result(LIMIT_S)
    except Exception:  # also what a broken or foreign pynvml raises
        return None


def start(ask: Callable[[], T]) -> Future[T]:
    """Call `ask` in a thread of its own, which does not keep the process alive."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)
        except BaseException as error:  # such as a library that exits: it must not end the job
            answer.set_exception(RuntimeError(repr(error)))

    try:
        threading.Thread(target=work, name="hardware reader", daemon=True).start()
    except RuntimeError as error:  # no more threads for this user
        answer.set_exception(error)
    return answer
