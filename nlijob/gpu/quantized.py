"""A copy of the quantised base model on disk, so that the next job need not quantise it again.

Reading the copy takes a third of the bytes and no computation. That matters on a CPU, which takes
most of a minute to quantise phi-2, and on a cold disk. A copy is written only if loading took long
enough to be worth it. It lies in the hub client's cache (HF_HOME); there is one per model, because
copies are large.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nlijob import records
from nlijob.cache import cache_folder
from nlijob.config import JobConfig
from nlijob.errors import HardwareError
from nlijob.files import sync
from nlijob.gpu.heads import head_class
from nlijob.records.job import HeadOrigin

WORTH_A_COPY_S = 5.0
"""Loading time from which a copy is written."""
ABANDONED_AFTER_S = 24 * 3600.0
"""Age of an unsealed copy of another machine from which its writer is taken for dead."""
FORMAT = 3
"""Rises when a copy's content changes."""
VERSIONS = ("bitsandbytes", "torch", "transformers")


HEAD_FILE = "head.json"
"""The file of a copy that says where its head comes from."""


@dataclass(frozen=True)
class BaseModel:
    """The quantised base model without an adapter."""

    model: Any
    head: HeadOrigin


class QuantizedCopy:
    """The base model on disk, as this job holds it in memory; it may not exist yet."""

    def __init__(
        self,
        config: JobConfig,
        stamp: str,
        dtype: torch.dtype,
        device: torch.device,
        timed: Callable[[str], AbstractContextManager[None]],
        may_write: bool = True,
    ) -> None:
        """`stamp` identifies the model's files. `timed(part)` measures how long a part takes.

        `may_write`: whether a copy is written if it is worth it; one process of a host is enough.
        """
        model = config.model
        content = [
            stamp,
            [model.head, model.quantization, model.double_quantization],
            # a new head is initialised from the seed, another's is put into the order of the labels
            [config.train.seed, config.data.label_names, config.data.label_map]
            if head_class(model.head).trains_head
            else [],
            FORMAT,
            [str(dtype), device.type],
            [importlib.metadata.version(name) for name in VERSIONS],
        ]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        self._model_folder = cache_folder() / _slug(model.name)
        self.folder = self._model_folder / name
        self._timed = timed
        self._may_write = may_write
        self._unsealed: Path | None = None

    @property
    def is_written(self) -> bool:
        """Whether there is a new copy to seal."""
        return self._unsealed is not None

    def read(self, read: Callable[[Path], BaseModel]) -> BaseModel | None:
        """Return the model that `read` loads from the copy, or None if there is no usable copy."""
        with contextlib.suppress(OSError):  # the folder may not exist, or belong to another user
            for unsealed in filter(_is_abandoned, self._model_folder.glob("unsealed-*")):
                shutil.rmtree(unsealed, ignore_errors=True)
        if not self.folder.is_dir():
            return None
        try:
            with self._timed("read from its 4-bit copy"):
                return read(self.folder)
        except HardwareError:
            raise
        except Exception:  # the copy is broken in some way; the original model still loads
            shutil.rmtree(self.folder, ignore_errors=True)
            return None

    def create(self, make: Callable[[], BaseModel]) -> BaseModel:
        """Return the model that `make` loads; if that took long, also write it, for `seal`.

        Without a writable cache, or on a full disk, there will be no copy.
        """
        started = time.monotonic()
        base = make()
        if self._may_write and time.monotonic() - started >= WORTH_A_COPY_S:
            # saving fails for many reasons inside the libraries, and the job can do without a copy
            with self._timed("4-bit copy written"), contextlib.suppress(Exception):
                self._unsealed = self._written(base)
        return base

    def seal(self) -> None:
        """Flush the written copy to disk and make it the model's only one."""
        if self._unsealed is None:
            return
        with contextlib.suppress(OSError):  # another job may have sealed its own or removed ours
            for file in self._unsealed.iterdir():
                sync(file)
            self._unsealed.replace(self.folder)
            sync(self._model_folder)
        with contextlib.suppress(OSError):
            for other in self._model_folder.iterdir():
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)

    def _written(self, base: BaseModel) -> Path | None:
        """Write the model and return its folder; None if it would take half of the free space."""
        self._model_folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._model_folder).free < 2 * base.model.get_memory_footprint():
            return None
        folder = Path(tempfile.mkdtemp(prefix=_unsealed_prefix(), dir=self._model_folder))
        try:
            base.model.save_pretrained(folder)
            (folder / HEAD_FILE).write_text(records.dump(base.head), encoding="utf-8")
            folder.chmod(0o755)
            for file in folder.iterdir():
                file.chmod(0o644)  # several users may share the cache, as with the hub client's
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder


def _unsealed_prefix() -> str:
    """First part of the name of a copy that this process writes."""
    return f"unsealed-{socket.gethostname()}-{os.getpid()}-"


def _is_abandoned(unsealed: Path) -> bool:
    """Whether the process that began to write a copy is gone; of another machine, only old ones."""
    _, _, writer = unsealed.name.partition("-")
    host, _, pid = writer.rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
        return True
    return time.time() - unsealed.stat().st_mtime > ABANDONED_AFTER_S


def _slug(name: str) -> str:
    """Turn a hub id or path into a folder name."""
    return re.sub(r"[^\w.-]+", "--", name).strip("-.")[-100:] or "model"
