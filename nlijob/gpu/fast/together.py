"""Work that all processes of a group complete, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.group import Group
from nlijob.gpu.training import reason
from nlijob.memory import is_out_of_memory


@contextlib.contextmanager
def all_or_none(group: Group) -> Iterator[None]:
    """Work that may fail in one process alone: every process then raises.

    A process that has failed raises its own error. The others raise torch.OutOfMemoryError where
    memory ran out there, and Unsupported otherwise; the message names the process and its reason.
    """
    if not group.is_shared:
        yield
        return
    try:
        yield
    except Exception as error:
        group.gather((reason(error), is_out_of_memory(error)))
        raise
    for process, failure in enumerate(group.gather(None)):
        if failure is None:
            continue
        why, is_memory = failure
        if is_memory:
            raise torch.OutOfMemoryError(f"process {process} ran out of memory: {why}")
        raise Unsupported(f"process {process} failed: {why}")
