"""Dropout that does not depend on how rows are split between the processes of a group.

One process draws for all rows of a micro-batch together. In a group each process does the same, and
uses what is drawn for its own rows; so all generators stay alike, and no row's dropout depends on
who computes it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nlijob.gpu.fast.dropout import mask
from nlijob.gpu.fast.packing import packed_tokens
from nlijob.gpu.shares import Share


class DrawnForAll(TorchFunctionMode):
    """A context in which dropout draws for all rows of a micro-batch."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers: dict[Any, Callable[..., Tensor]] = {
            functional.dropout: self._dropped,
            mask: self._mask,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        return self._handlers.get(func, func)(*args, **(kwargs or {}))

    def _dropped(
        self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not (training and p):
            return values
        drawn = functional.dropout(values.new_ones(self.shape_for_all(values)), p)
        return values * self.own(drawn, values)

    def _mask(self, values: Tensor, share: float, *copies: int, **options: Any) -> Tensor:
        drawn = mask(values.new_empty(self.shape_for_all(values)), share, *copies, **options)
        return self.own(drawn, values)

    @abstractmethod
    def shape_for_all(self, values: Tensor) -> list[int]:
        """The shape that these values would have in one process."""

    @abstractmethod
    def own(self, drawn: Tensor, values: Tensor) -> Tensor:
        """What is drawn for these values, among what is drawn for all."""


class DrawnForRows(DrawnForAll):
    """For values [rows, ...] of padded rows."""

    def __init__(self, share: Share, device: torch.device) -> None:
        """`share`: the rows of the values, and the micro-batch that they belong to."""
        super().__init__()
        self._handlers[functional.scaled_dot_product_attention] = self._attention
        self._rows, self._all = len(share.places), len(share.rows)
        self._places = torch.tensor(share.places, device=device)
        # for each row of the micro-batch a row of the values, which stands in where it is another's
        stands_in = [share.places.index(i) if i in share.places else 0 for i in range(self._all)]
        self._stands_in = torch.tensor(stands_in, device=device)

    def shape_for_all(self, values: Tensor) -> list[int]:
        """See `DrawnForAll`; values that all rows share are drawn by every process alike."""
        shape = [*values.shape]
        if self._is_by_row(values):
            shape[0] = shape[0] // self._rows * self._all
        return shape

    def own(self, drawn: Tensor, values: Tensor) -> Tensor:
        """See `DrawnForAll`."""
        if not self._is_by_row(values):
            return drawn
        by_row = drawn.view(self._all, -1, *values.shape[1:])
        return by_row[self._places].view(values.shape)

    def _is_by_row(self, values: Tensor) -> bool:
        return values.dim() > 0 and len(values) % self._rows == 0

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **options: Any
    ) -> Tensor:
        """Attention of all rows where it drops values, as it draws them itself."""
        attend = functional.scaled_dot_product_attention
        if not options.get("dropout_p"):
            return attend(query, key, value, attn_mask, **options)
        query, key, value = (part[self._stands_in] for part in (query, key, value))
        if attn_mask is not None and len(attn_mask) == self._rows:
            attn_mask = attn_mask[self._stands_in]
        return attend(query, key, value, attn_mask, **options)[self._places]


class DrawnForPack(DrawnForAll):
    """For values [..., tokens, width] of a pack, or [rows, width] of its rows."""

    def __init__(self, share: Share, prefix: int, tokens: int, all_tokens: int, rows: int) -> None:
        """`tokens`: of the pack; `all_tokens`: of the pack that one process would compute.

        `prefix`: tokens that all rows share, which both packs hold once. `rows`: those that either
        pack has places for.
        """
        super().__init__()
        self._all_tokens = all_tokens
        lengths = [row.length for row in share.rows]
        held = list(range(prefix))
        for place in share.places:
            end = packed_tokens(lengths[: place + 1], prefix)
            held += range(end - lengths[place] + prefix, end)
        # filling has no effect, whatever it draws
        self._held = torch.tensor(held + [0] * (tokens - len(held)))
        self._places = torch.tensor([*share.places, *[0] * (rows - len(share.places))])

    def shape_for_all(self, values: Tensor) -> list[int]:
        """See `DrawnForAll`; packs have equally many places for rows."""
        if self._is_by_row(values):
            return [*values.shape]
        *others, _, width = values.shape
        return [*others, self._all_tokens, width]

    def own(self, drawn: Tensor, values: Tensor) -> Tensor:
        """See `DrawnForAll`."""
        if self._is_by_row(values):
            return drawn[self._places]
        return drawn.index_select(-2, self._held)

    def _is_by_row(self, values: Tensor) -> bool:
        return values.dim() == 2 and len(values) == len(self._places) != len(self._held)
