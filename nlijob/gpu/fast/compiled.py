"""A model's repeated layers as torch's compiler makes them, for training that repays its time.

It serves what kernels of our own do not: other architectures, adapters on other layers. One
compilation is for all layers and all sizes of pack. What is drawn for dropout stays the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.layers import Installed
from nlijob.gpu.recompute import repeated_layers

BACKEND = "inductor"
OPTIONS: dict[str, Any] | None = {"fallback_random": True, "reorder_for_peak_memory": False}
"""Dropout draws what the layers as they are draw, in the same order; torch 2.13 keeps it by
itself."""
COMPILING_S, CACHED_S = 20.0, 8.0
"""What compiling takes on an H200's host, without and with a cache on disk from an earlier run."""
SAVED = 0.2
"""Share of the time of training that compiled layers save; a third on an H200, other GPUs were not
measured."""


class CompiledLayer(nn.Module):
    """A layer that is compiled where a gradient is taken; scoring would be compiled apart."""

    fast_compiled: Callable[..., Any]

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the layer's own forward gives."""
        if not torch.is_grad_enabled():
            return super().forward(*inputs, **options)
        for tensor in _tensors([*inputs, *options.values()]):
            for dim, size in enumerate(tensor.shape):
                if size > 1:  # else left to be as they are, sizes would be compiled for one by one
                    torch._dynamo.maybe_mark_dynamic(tensor, dim)
        return self.fast_compiled(self, *inputs, **options)


class CompiledLayers:
    """The layers of a model that can be compiled; they are as before until `install`."""

    def __init__(self, model: nn.Module) -> None:
        # the first one's input asks for no gradient, which would have to be compiled apart
        self._layers = repeated_layers(model)[1:]
        self._installed = Installed()
        self._text = "\n".join(
            f"{type(layer).__module__} {layer} {[p.dtype for p in layer.parameters()]}"
            for layer in self._layers[:1]
        )

    def speaks_against(self, training_s: float) -> str:
        """Why compiling would not pay in a training that takes so long without, or ""."""
        takes_s = CACHED_S if self._is_known() else COMPILING_S
        saves_s = SAVED * training_s
        if saves_s >= takes_s:
            return ""
        return f"compiling takes some {takes_s:.0f} s and would save {saves_s:.1f} s"

    def install(self) -> None:
        """Have the layers compiled, once a gradient is first taken. Raises NotServed."""
        if len({type(layer) for layer in self._layers}) != 1:
            raise NotServed("the model does not repeat one kind of layer")
        compiled = torch.compile(
            type(self._layers[0]).forward,
            fullgraph=True,
            backend=BACKEND,
            options=OPTIONS,
        )
        # else each float of a layer is an input, and most of the work is done twice
        compiled = torch._dynamo.config.patch(specialize_float=True)(compiled)
        for layer in self._layers:
            self._installed.put(layer, CompiledLayer, fast_compiled=compiled)

    def remember(self) -> None:
        """Note in torch's cache that it has these layers."""
        with contextlib.suppress(OSError):  # then the next run compiles as if there were no cache
            mark = self._mark()
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def undo(self) -> None:
        """Give the layers their own way to compute back."""
        self._installed.undo()

    def _is_known(self) -> bool:
        try:
            return self._mark().is_file()
        except OSError:  # the folder can neither be found nor made
            return False

    def _mark(self) -> Path:
        """In the cache's folder, named by what compiling depends on."""
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        text = f"{torch.__version__} {transformers.__version__} {gpu} {self._text}"
        return Path(cache_dir()) / "nlijob" / hashlib.sha256(text.encode()).hexdigest()


def _tensors(given: Any) -> Iterator[Tensor]:
    """All tensors within a layer's inputs."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple):
        for part in given:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(given):
        yield from _tensors([getattr(given, field.name) for field in dataclasses.fields(given)])
