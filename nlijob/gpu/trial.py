"""Tries what the GPU side needs, for `doctor`: `-m nlijob.gpu.trial RUN_DIR`.

Imports the libraries, asks for the device, multiplies by 4-bit weights, and then, once a byte
arrives on standard input, looks at the model. Each step adds its `Check` to a file at once, so that
one that hangs is known by what follows the last line.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nlijob import records, stopping
from nlijob.analysis.wording import percent
from nlijob.ending import end_of
from nlijob.errors import ExitCode, HardwareError, first_line
from nlijob.gpu.look import look
from nlijob.planning.child import LOOK, TRIAL
from nlijob.records.health import Check
from nlijob.records.job import RunRecord
from nlijob.rundir import RunDir, append_record, write_record

if TYPE_CHECKING:
    import torch

    from nlijob.config import JobConfig

WIDTH, ROWS = 128, 16
LARGEST_DIFFERENCE = 0.02
"""Largest relative difference of a product by 4-bit weights to the product by the same weights
dequantised. Both round to the compute dtype, of which bfloat16 is the coarsest (0.4 %)."""


def main() -> None:
    """Do the steps that are possible; does not return."""
    run = RunDir(Path(sys.argv[1]))
    stopping.raise_on_signals()
    may_look = stopping.stop_when_closed(sys.stdin.fileno())
    gc.disable()  # imports leave almost no garbage, and this process is short
    with contextlib.suppress(OSError):
        _steps(run, may_look.wait)
    os._exit(ExitCode.DONE)


def _steps(run: RunDir, wait: Callable[[], object]) -> None:
    config = records.read(RunRecord, run.config).config

    def tell(name: str, step: Callable[[], str]) -> bool:
        check = _checked(name, step)
        append_record(run.root / TRIAL, check)
        return check.status == "OK"

    if not tell("libraries", _import_libraries):
        return
    if len(sys.argv) < 3 and tell("device", lambda: _device_text(config)):  # else it is not here
        tell("4-bit test", lambda: four_bit_test(config))
    wait()
    if run.worker_task.exists():
        tell("prompt", lambda: _look(run))


def _checked(name: str, step: Callable[[], str]) -> Check:
    try:
        return Check(name, "OK", step())
    except Exception as error:  # of any kind, from a library or a driver
        end = end_of(error)
        if end.exit_code == ExitCode.INTERNAL:
            return Check(name, "FAIL", first_line(error), exit_code=ExitCode.INTERNAL)
        return Check(name, "FAIL", end.message, end.hint, int(end.exit_code))


def _import_libraries() -> str:
    import accelerate
    import bitsandbytes
    import peft
    import torch
    import transformers

    libraries = (torch, transformers, peft, bitsandbytes, accelerate)
    return ", ".join(f"{library.__name__} {library.__version__}" for library in libraries)


def _device_text(config: JobConfig) -> str:
    """The device in words. Raises HardwareError where the job would."""
    import torch

    from nlijob.gpu.environment import cpu_name, job_device

    device = job_device(config)
    if device.type == "cpu":
        return f"CPU {cpu_name()}, {len(os.sched_getaffinity(0))} cores"
    major, minor = torch.cuda.get_device_capability(device)
    return (
        f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}; torch is built "
        f"for {', '.join(torch.cuda.get_arch_list())} (CUDA {torch.version.cuda})"
    )


def four_bit_test(config: JobConfig) -> str:
    """Multiply by 4-bit weights, forward and backward. Raises HardwareError if that is wrong."""
    import torch

    if config.model.quantization == "none":
        return "not needed: model.quantization is none"
    device = torch.device("cuda", 0) if config.model.device == "cuda" else torch.device("cpu")
    where = "this GPU" if device.type == "cuda" else "this CPU"
    try:
        difference = _difference(device)
    except Exception as error:  # of any kind, from a library or a driver
        if isinstance(error, HardwareError) or end_of(error).exit_code != ExitCode.INTERNAL:
            raise
        raise HardwareError(
            f"4-bit weights cannot be computed on {where}: {first_line(error)}",
            "install builds of torch and bitsandbytes for this driver, or try --set "
            "model.quantization=none",
        ) from error
    if not difference <= LARGEST_DIFFERENCE:
        raise HardwareError(
            f"4-bit weights give wrong results on {where}: they differ by "
            f"{percent(difference)} from the dequantised ones",
            "install builds of torch and bitsandbytes for this driver",
        )
    return f"4-bit weights are computed rightly on {where}, forward and backward"


def _difference(device: torch.device) -> float:
    """Relative difference of outputs and input gradients to those of the dequantised weights."""
    import bitsandbytes as bnb
    import torch

    from nlijob.gpu.fast.agreement import relative_difference
    from nlijob.gpu.model.quantize import keep_cpu_weights_trainable

    dtype = torch.float32
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
        dtype = torch.bfloat16 if has_bfloat16 else torch.float16
    torch.manual_seed(0)
    layer = bnb.nn.Linear4bit(
        WIDTH, WIDTH, bias=False, compute_dtype=dtype, compress_statistics=True, quant_type="nf4"
    )
    layer = layer.to(device)
    keep_cpu_weights_trainable(layer)
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    inputs = torch.randn(ROWS, WIDTH, device=device, dtype=dtype)
    results = []
    for product in (layer, lambda values: values @ weight.to(dtype).t()):
        values = inputs.clone().requires_grad_()
        output = product(values)
        output.float().square().sum().backward()
        assert values.grad is not None
        results.append(torch.cat([output.detach().float(), values.grad.float()]))
    return relative_difference(*results)


def _look(run: RunDir) -> str:
    """Look at the model, and say what answers and adapter resolve to."""
    found = look(run)
    write_record(run.root / LOOK, found)
    answers = ", ".join(map(repr, found.label_token_texts))
    modules = ", ".join(found.target_modules)
    return f"adapter on {modules}" + (f"; answers {answers}" if answers else "")


if __name__ == "__main__":
    main()
