"""How many processes the GPU side has on this host: one for each GPU that the job uses."""

from __future__ import annotations

import os

from nlijob.config import JobConfig
from nlijob.errors import ConfigurationError
from nlijob.hardware import gpu_count
from nlijob.hardware.driver import LIMIT_S, start


def processes_of(config: JobConfig) -> int:
    """The number of processes for a configuration whose device is known.

    Raises ConfigurationError where it asks for more than this host has.
    """
    wanted = config.machine.gpus
    if wanted in ("auto", 1):
        return 1
    if config.model.device == "cpu":
        there, of = len(os.sched_getaffinity(0)), "cores of this CPU"
    else:
        there, of = gpu_count(), "GPUs that this process may use"
    if not isinstance(wanted, int) or not 1 <= wanted <= there:
        raise ConfigurationError(
            f"machine.gpus = {wanted}: there are {there} {of}", "give --gpus auto, or fewer"
        )
    return wanted


def gpu_name(number: int) -> str:
    """The driver's name of a GPU of this process, by its number for CUDA; "" if it is not told."""
    shown = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    index = shown[number] if shown[0] and number < len(shown) else str(number)
    try:
        return start(lambda: _name(index)).result(LIMIT_S)
    except Exception:  # of any kind, from a library or a driver
        return ""


def _name(index: str) -> str:
    import pynvml

    pynvml.nvmlInit()
    if index.isdecimal():
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(index))
    else:
        handle = pynvml.nvmlDeviceGetHandleByUUID(index)
    name = pynvml.nvmlDeviceGetName(handle)
    return name.decode() if isinstance(name, bytes) else str(name)
