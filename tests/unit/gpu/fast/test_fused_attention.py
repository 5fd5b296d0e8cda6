"""What attention's own kernels are asked to take."""

from __future__ import annotations

import dataclasses

import torch

from nlijob.gpu.fast import fused_attention as attention
from nlijob.gpu.fast.fused_attention import Pack


def pack(head: int, half: int, longest: int) -> Pack:
    none = torch.empty(0)
    return Pack(torch.empty(0, half), none, none, longest, head, 1.0, none)


def test_phi_2s_rows_of_128_tokens_fit_into_the_shared_memory_of_any_gpu() -> None:
    phi_2 = pack(80, 16, 128)
    forward = attention._shared_bytes(phi_2, attention._shared_values(phi_2, 32))
    back = attention._shared_bytes(phi_2, attention._shared_values_back(phi_2))
    assert (forward, back) == (96_480, 91_136)
    assert max(forward, back) <= attention.MOST_SHARED_BYTES


def test_wider_heads_take_shorter_rows() -> None:
    needed = [
        attention._shared_bytes(wide, attention._shared_values_back(wide))
        for wide in (pack(128, 16, 80), pack(128, 16, 128))
    ]
    assert needed[0] < attention.MOST_SHARED_BYTES < needed[1]


def test_a_block_has_a_warp_for_each_tile_of_the_longest_rows_own_queries() -> None:
    warps = [
        attention._threads(pack(80, 16, longest)) // attention.WARP for longest in (20, 64, 65, 128)
    ]
    assert warps == [4, 4, 5, 6]
    behind = dataclasses.replace(pack(80, 16, 90), shared=28)
    assert (
        attention._threads(behind) // attention.WARP == 5
    )  # of six tiles the first is another row's
