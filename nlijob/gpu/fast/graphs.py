"""CUDA graphs: work captured once and replayed without its launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WARM_UP = 2


class Graphs:
    """Captures pieces of work that run one after the other, never side by side.

    They share one pool of memory. On a CPU nothing is captured: the work itself is given back.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._warm_up = WARM_UP

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Work as a graph. It has run once or more when this returns; what it computed counts.

        Every tensor it reads or writes must stay where it is for as long as the graph is used.
        """
        if self._device.type != "cuda":
            return work
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(self._warm_up):
                work()
        torch.cuda.current_stream(self._device).wait_stream(side)
        self._warm_up = 1  # libraries are loaded by now; only kernels of another size may be new
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        replay: Callable[[], None] = graph.replay
        return replay
