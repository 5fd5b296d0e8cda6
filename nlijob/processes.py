"""How many processes the GPU side has on this host: one for each GPU that the job uses."""

from __future__ import annotations

import os

from nlijob.config import JobConfig
from nlijob.errors import ConfigurationError
from nlijob.hardware import gpu_count


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
