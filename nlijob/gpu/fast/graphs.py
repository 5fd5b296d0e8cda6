"""CUDA graphs: work captured once and replayed with a single launch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

WARM_UP = 2


class Graphs:
    """Captures pieces of work that run one after the other, never at the same time.

    They share one memory pool. On a CPU nothing is captured, and the work itself is returned.
    """

    def __init__(
        self,
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        is_shared: bool = False,
    ) -> None:
        """`generators`: random generators that the work uses besides the default one.

        `is_shared`: whether other processes do the same, and values are exchanged with them.
        """
        self._device = device
        self._generators = generators
        # NCCL's own threads may call CUDA during a capture; this concerns our thread alone
        self._errors_of = "thread_local" if is_shared else "global"
        self._warm_up = WARM_UP
        if device.type == "cuda":
            self._pool: Any = torch.cuda.graph_pool_handle()
            self._side = _side_stream(device)

    def capture(self, work: Callable[[], None], exchanges: bool = False) -> Callable[[], None]:
        """Return a function that replays the work; the work itself has run by then, with effect.

        Every tensor it reads or writes must stay at its address for as long as the graph is used.
        `exchanges`: the work exchanges values with other processes, so it must run equally often in
        all, whatever each has captured before.
        """
        if self._device.type != "cuda":
            return work
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            for _ in range(WARM_UP if exchanges else self._warm_up):
                work()
        torch.cuda.current_stream(self._device).wait_stream(self._side)
        self._warm_up = 1  # libraries are loaded by now; only kernels for other sizes may be new
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._side, capture_error_mode=self._errors_of
        ):
            work()
        replay: Callable[[], None] = graph.replay
        return replay


def captured(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A function that replays work that allocates nothing; it has run once by then."""
    side = _side_stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(side):
        work()  # libraries load kernels at their first use
        # without `torch.cuda.graph`, which collects garbage and frees memory first
        graph.capture_begin(capture_error_mode="thread_local")
        work()
        graph.capture_end()
    torch.cuda.current_stream(device).wait_stream(side)
    replay: Callable[[], None] = graph.replay
    return replay


@functools.cache
def _side_stream(device: torch.device) -> Any:
    """The stream that all work on a device is captured on.

    Libraries allocate a workspace for each stream (cuBLAS on a Hopper GPU 32 MiB for each of two
    threads) and never free it, so there is only one.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
