"""A model's repeated layers compiled with torch.compile, if training is long enough.

This is for models that no fused stack supports: other architectures, adapters on other layers. One
compilation covers all layers and all pack sizes. Dropout draws the same numbers as before.
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

from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.layers import LayerPatches
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.recompute import repeated_layers

BACKEND = "inductor"
OPTIONS: dict[str, Any] | None = {"fallback_random": True, "reorder_for_peak_memory": False}
"""`fallback_random` makes dropout draw what uncompiled layers draw, in the same order; torch 2.13
keeps that order without it."""
COMPILING_S, CACHED_S = 20.0, 8.0
"""Seconds to compile on an H200's host, without and with an earlier run's cache on disk."""
SAVED = 0.2
"""Assumed fraction of training time that compiled layers save. On an H200 they saved a third; other
GPUs were not measured."""


class CompiledLayer(nn.Module):
    """A layer compiled for training only; scoring would need a compilation of its own."""

    fast_compiled: Callable[..., Any]
    fast_masks: RowMasks | None

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Output of the layer's own forward."""
        if not torch.is_grad_enabled():
            return super().forward(*inputs, **options)
        places = [self.fast_masks.rows, self.fast_masks.positions] if self.fast_masks else []
        for tensor in _tensors([*inputs, *options.values(), *places]):
            for dim, size in enumerate(tensor.shape):
                if size > 1:  # otherwise every size would be compiled separately
                    torch._dynamo.maybe_mark_dynamic(tensor, dim)
        return self.fast_compiled(self, *inputs, **options)


class CompiledLayers:
    """The layers of a model that can be compiled; `install` compiles them, `undo` restores them."""

    def __init__(self, model: nn.Module, row_masks: RowMasks | None = None) -> None:
        """`row_masks`: where dropout goes by row."""
        self._row_masks = row_masks
        # the first layer's input needs no gradient, which would be a compilation of its own
        self._layers = repeated_layers(model)[1:]
        self._patches = LayerPatches()
        self._text = "\n".join(
            f"{type(layer).__module__} {layer} {[p.dtype for p in layer.parameters()]}"
            for layer in self._layers[:1]
        )

    def why_not_worth_it(self, training_s: float) -> str:
        """Why compiling would not pay off in a training of this duration, or ""."""
        takes_s = CACHED_S if self._is_cached() else COMPILING_S
        saves_s = SAVED * training_s
        if saves_s >= takes_s:
            return ""
        return f"compiling takes about {takes_s:.0f} s and would save {saves_s:.1f} s"

    def install(self) -> None:
        """Compile the layers when a gradient is first computed. Raises Unsupported."""
        if len({type(layer) for layer in self._layers}) != 1:
            raise Unsupported("the model does not repeat one kind of layer")
        compiled = torch.compile(
            type(self._layers[0]).forward,
            fullgraph=True,
            backend=BACKEND,
            options=OPTIONS,
        )
        # otherwise each float attribute becomes an input, and most of the work is done twice
        compiled = torch._dynamo.config.patch(specialize_float=True)(compiled)
        for layer in self._layers:
            parts = {"fast_compiled": compiled, "fast_masks": self._row_masks}
            self._patches.apply(layer, CompiledLayer, **parts)

    def mark_cached(self) -> None:
        """Leave a marker in torch's cache folder that these layers were compiled."""
        with contextlib.suppress(OSError):  # the next run then assumes that there is no cache
            mark = self._cache_marker()
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def undo(self) -> None:
        """Restore the layers' own forward."""
        self._patches.undo()

    def _is_cached(self) -> bool:
        try:
            return self._cache_marker().is_file()
        except OSError:  # the folder does not exist and cannot be made
            return False

    def _cache_marker(self) -> Path:
        """Path of the marker; its name is a hash of everything that compiling depends on."""
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        text = f"{torch.__version__} {transformers.__version__} {gpu} {self._text}"
        return Path(cache_dir()) / "nlijob" / hashlib.sha256(text.encode()).hexdigest()


def _tensors(given: Any) -> Iterator[Tensor]:
    """All tensors in a layer's inputs, nested ones included."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple):
        for part in given:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(given):
        yield from _tensors([getattr(given, field.name) for field in dataclasses.fields(given)])
