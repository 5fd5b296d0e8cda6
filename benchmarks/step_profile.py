"""Time of each kernel in a training step, for `benchmarks.bench --profile`."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from nlijob.gpu.training import Trainer

GROUPS = {
    "matrix products": ("nvjet", "gemm", "cutlass", "cublas", "splitk", "::mm", "::addmm", "::bmm"),
    "attention": ("attend", "flash", "attention"),
    "GELU, layer norms, residuals": ("gelu", "norm_backward", "residual_norm", "layer_norm"),
    "dropout": ("drop", "add_kept", "bernoulli", "distribution"),
    "AdamW": ("adam", "fusedoptimizer"),
}
"""Group -> parts of its kernels' lower-case names; the first group that matches counts."""
OTHERS = "copies, sums, clipping, rest"
SHOWN = 40


def table(trainer: Trainer, epoch: int, device: torch.device) -> str:
    """Milliseconds per step in an epoch, by group and by kernel; on a CPU by operation."""
    on_gpu = device.type == "cuda"
    steps = 0
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as taken:
        for _ in trainer.epoch(epoch):
            steps += 1
        if on_gpu:
            torch.cuda.synchronize()
    rows = [
        (_own_ms(event, on_gpu) / steps, event.count / steps, event.key)
        for event in taken.key_averages()
    ]
    rows.sort(reverse=True)
    groups: dict[str, float] = {}
    for ms, _, name in rows:
        groups[_group(name)] = groups.get(_group(name), 0.0) + ms
    by_group = sorted(((ms, name) for name, ms in groups.items()), reverse=True)
    return "\n".join(
        [
            f"{sum(groups.values()):8.3f} ms a step, mean of {steps}",
            "",
            *(f"{ms:8.3f} ms  {name}" for ms, name in by_group),
            "",
            *(f"{ms:8.3f} ms {calls:7.1f} times  {name[:100]}" for ms, calls, name in rows[:SHOWN]),
            "",
        ]
    )


def _own_ms(event: Any, on_gpu: bool) -> float:
    own_us: float = event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return own_us / 1000


def _group(kernel: str) -> str:
    name = kernel.lower()
    return next((group for group, parts in GROUPS.items() if any(p in name for p in parts)), OTHERS)
