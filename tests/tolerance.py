"""How far two correct computations of one value may differ, from their arithmetic alone.

Two programs that add the same terms in another order (another instruction set, number of threads,
batch size or packing) round differently. Rounding errors of n operations behave like a random walk:
their relative size stays below k * sqrt(n) * u, with u half the distance of neighbouring numbers,
but for a probability of 2 exp(-k^2 / 2) (Higham and Mary, 2019), and below n * u always. The
difference of two such results has a k of 8, so that no seed and no processor exceeds it by chance.
Where a bound here is exceeded, the values differ by more than the order of operations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DEMO_OPERATIONS = 4 * (5 * 192 + 512 + 128 + 32) + 192
"""Terms of the sums that a value passes on its way through the demo's model: in each of four layers
the projections (192 wide, 512 within the MLP), attention over at most 128 tokens in heads of 32;
and the output layer."""
DEMO_STORED = 4 * 10 + 4
"""Values rounded to the compute dtype on that way; within an operation, sums are in float32."""


def rounding(dtype: torch.dtype, operations: int) -> float:
    """Largest relative difference of two results of so many rounded operations each."""
    worst, probable = 2 * operations, 8 * math.sqrt(operations)
    return min(worst, probable) * torch.finfo(dtype).eps / 2


def training(steps: int, dtype: torch.dtype = torch.float32) -> float:
    """Largest relative difference of two losses of the demo's model after so many steps.

    Each step adds its own rounding. A weight whose gradient is within rounding of zero may move the
    other way (AdamW's first steps move each weight by the learning rate, whatever its gradient's
    size), but the loss hardly depends on that weight: the gradient says so.
    """
    return (steps + 1) * rounding(dtype, 2 * DEMO_OPERATIONS)


UPDATES = 2 * math.sqrt(rounding(torch.float32, 2 * DEMO_OPERATIONS))
"""Largest difference of an adapter's B after some steps of AdamW in float32, relative to how far B
has moved. Gradients differ by a relative rounding r; among values spread around zero a share of
about r is smaller than its own rounding, and these weights may move the other way, by twice their
step: in all 2 sqrt(r) of the matrix's movement. A single weight has no such bound."""


def updates(name: str) -> float:
    """The same bound for the weight matrix of this name.

    The gradient of A is proportional to B, which starts at zero and differs by `UPDATES`; that is
    the rounding of A's gradient, and A differs accordingly.
    """
    return 2 * math.sqrt(UPDATES) if "lora_A" in name else UPDATES


def distance(got: Tensor, expected: Tensor, start: Tensor | float = 0.0) -> float:
    """Norm of the difference, relative to the norm of what is expected beyond `start`."""
    expected, got = expected.detach().double(), got.detach().double()
    return float((got - expected).norm() / (expected - start).norm())
