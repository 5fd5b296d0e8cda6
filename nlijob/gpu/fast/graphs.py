"""CUDA graphs: work captured once and replayed without its launches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

WARM_UP = 2


class Graphs:
    """Captures pieces of work that run one after the other, never side by side.

    They share one pool of memory. On a CPU nothing is captured: the work itself is given back.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator] = ()) -> None:
        """`generators`: those that the work draws from beside the default one."""
        self._device = device
        self._generators = generators
        self._warm_up = WARM_UP
        if device.type == "cuda":
            self._pool: Any = torch.cuda.graph_pool_handle()
            self._side = _side_stream(device)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Work as a graph. It has run once or more when this returns; what it computed counts.

        Every tensor it reads or writes must stay where it is for as long as the graph is used.
        """
        if self._device.type != "cuda":
            return work
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            for _ in range(self._warm_up):
                work()
        torch.cuda.current_stream(self._device).wait_stream(self._side)
        self._warm_up = 1  # libraries are loaded by now; only kernels of another size may be new
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._side):
            work()
        replay: Callable[[], None] = graph.replay
        return replay


@functools.cache
def _side_stream(device: torch.device) -> Any:
    """The one stream that work is captured on.

    Libraries take working memory of their own for each stream (cuBLAS on a Hopper 32 MiB for each
    of two threads) and never give it back.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
