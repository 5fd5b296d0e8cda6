"""The machine as the job sees it: its GPUs, and samples of its use while the job runs.

GPU load and memory come from GPUtil (nvidia-smi); NVML adds power, energy and temperature, and
load and memory where GPUtil has none; everything else comes from psutil. Every source may fail or
hang without stopping the job or losing the figures of another source.
"""

from nlijob.hardware.driver import (
    driver_fault,
    driver_version,
    gpu_count,
    gpu_name,
    wake_driver,
)
from nlijob.hardware.sampler import Sampler

__all__ = ["Sampler", "driver_fault", "driver_version", "gpu_count", "gpu_name", "wake_driver"]
