"""Small products beside a large one: a second stream of the device."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


class Beside:
    """What is done within `with` runs beside what follows on the stream in use, up to `join`.

    It sees everything done before it. Tensors made within it may be used after `join`, and be
    freed whenever: the next work beside waits for all that came before on the stream in use.
    Does nothing on a CPU.
    """

    def __init__(self, tensor: Tensor) -> None:
        """`tensor`: one of the device in question."""
        self._side: Any = _side_stream(tensor.device) if tensor.is_cuda else None
        self._context: Any = None

    def __enter__(self) -> None:
        if self._side:
            self._side.wait_stream(torch.cuda.current_stream(self._side.device))
            self._context = torch.cuda.stream(self._side)
            self._context.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._side:
            self._context.__exit__(*error)

    def join(self) -> None:
        """What follows sees what was done beside it."""
        if self._side:
            torch.cuda.current_stream(self._side.device).wait_stream(self._side)


@functools.cache
def _side_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
