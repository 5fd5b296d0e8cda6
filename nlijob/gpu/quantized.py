"""A copy of the quantised base model, so that the next job need not quantise it again.

A third of the bytes are read, and nothing is computed: that matters on a CPU, which takes most of a
minute to quantise phi-2, and where a cold disk is slow. It is written where loading took long
enough for that to pay, beside what the hub's client keeps (HF_HOME); one a model, as it is large.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants

from nlijob.config import JobConfig
from nlijob.errors import HardwareError
from nlijob.gpu.heads import head_class
from nlijob.rundir import sync

PAYS_S = 5.0
"""Loading that takes less is not worth a copy."""
VERSIONS = ("bitsandbytes", "torch", "transformers")


class QuantizedCopy:
    """What the base model is as this job holds it, on disk; there, or yet to be made."""

    def __init__(
        self,
        config: JobConfig,
        stamp: str,
        dtype: torch.dtype,
        device: torch.device,
        timed: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """`stamp`: tells the model's files from others. `timed`: measures the part so named."""
        model = config.model
        content = [
            stamp,
            [model.head, model.quantization, model.double_quantization],
            # a new head is initialised from the seed, and is part of what is loaded
            [config.train.seed, config.data.label_names] if head_class(model.head).is_new else [],
            [str(dtype), device.type],
            [importlib.metadata.version(name) for name in VERSIONS],
        ]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        self._model_folder = Path(constants.HF_ASSETS_CACHE) / "nlijob" / _slug(model.name)
        self.folder = self._model_folder / name
        self._timed = timed
        self._unsealed: Path | None = None

    @property
    def is_written(self) -> bool:
        """Whether there is something to seal."""
        return self._unsealed is not None

    def read(self, read: Callable[[Path], Any]) -> Any:
        """What `read` makes of the copy's folder; None where there is no copy, or a broken one."""
        if not self.folder.is_dir():
            return None
        try:
            with self._timed("read from its 4-bit copy"):
                return read(self.folder)
        except HardwareError:
            raise
        except Exception:  # whatever is wrong with it, the model itself is there
            shutil.rmtree(self.folder, ignore_errors=True)
            return None

    def made(self, make: Callable[[], Any]) -> Any:
        """The model that `make` gives, written where that took long; `seal` makes it a copy.

        Where it cannot be written (a cache that is read-only, a full disk) there will be none.
        """
        started = time.monotonic()
        model = make()
        if time.monotonic() - started >= PAYS_S:
            # libraries refuse to write for many reasons of their own, and the job needs no copy
            with self._timed("4-bit copy written"), contextlib.suppress(Exception):
                self._unsealed = self._written(model)
        return model

    def seal(self) -> None:
        """Have what was written safe on disk, and be the model's only copy."""
        if self._unsealed is None:
            return
        with contextlib.suppress(OSError):  # another job may have sealed its own, or cleared ours
            for file in self._unsealed.iterdir():
                sync(file)
            self._unsealed.replace(self.folder)
            sync(self._model_folder)
        with contextlib.suppress(OSError):
            for other in self._model_folder.iterdir():
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)

    def _written(self, model: Any) -> Path | None:
        """The folder that the model was written to; None where it would take half the disk."""
        self._model_folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._model_folder).free < 2 * model.get_memory_footprint():
            return None
        folder = Path(tempfile.mkdtemp(prefix="unsealed-", dir=self._model_folder))
        try:
            model.save_pretrained(folder)
            folder.chmod(0o755)
            for file in folder.iterdir():
                file.chmod(0o644)  # a cache may serve several users, as the hub's client's does
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder


def _slug(name: str) -> str:
    """A hub id or path as the name of a folder."""
    return re.sub(r"[^\w.-]+", "--", name).strip("-.")[-100:] or "model"
