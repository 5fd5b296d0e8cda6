"""The GPU's context, which is created while the libraries are imported.

The driver needs up to seconds for it, most on a machine with many GPUs, and Python can import
meanwhile. The context is the one that torch then finds and uses: a device has one primary context
in a process. Whatever fails here fails again in torch, which says what is wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import time
from collections.abc import MutableMapping

DRIVER = "libcuda.so.1"


class EarlyContext:
    """Creates the context of this process's GPU in a thread."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """`environment`: this process's, which says which GPU is its own.

        It is given what torch sets before it asks the driver for anything.
        """
        self.duration_s: float | None = None
        """How long it took; None where it has not been created, or not yet."""
        environment.setdefault("CUDA_MODULE_LOADING", "LAZY")
        number = int(environment.get("LOCAL_RANK", "0"))
        self._thread = threading.Thread(target=self._create, args=(number,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is created, or has failed.

        So call it before the environment is changed: the driver reads it, and C libraries do not
        protect one thread's reading from another's changes.
        """
        self._thread.join()

    def _create(self, number: int) -> None:
        started_s = time.monotonic()
        with contextlib.suppress(OSError, AttributeError):  # there is no driver
            driver = ctypes.CDLL(DRIVER)
            device, context = ctypes.c_int(), ctypes.c_void_p()
            if (
                driver.cuInit(0) == 0
                and driver.cuDeviceGet(ctypes.byref(device), number) == 0
                and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
            ):
                self.duration_s = time.monotonic() - started_s


@functools.cache
def early_context() -> EarlyContext:
    """The context of this process, which begins at the first call: the launcher's, if it has one.

    Not to be called where the work is done on a CPU.
    """
    return EarlyContext(os.environ)
