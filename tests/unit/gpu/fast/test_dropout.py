from __future__ import annotations

import pytest
import torch

from nlijob.gpu.fast import dropout

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_mask_drops_its_share_evenly_and_differently_in_each_copy(share: float) -> None:
    torch.manual_seed(0)
    mask = dropout.mask(torch.empty(300, 401), share, 3)
    assert mask.shape == (3, 300, 401)
    assert set(mask.flatten().tolist()) == {0.0, 1.0}
    error = 5 * (share * (1 - share) / 300 / 401) ** 0.5  # five standard deviations
    for part in (*mask, mask[:, :, ::4], mask[:, :, 1::4], mask[:, :, 2::4], mask[:, :, 3::4]):
        assert 1 - part.mean() == pytest.approx(share, abs=error)
    both = ((mask[0] == 0) & (mask[1] == 0)).float().mean()
    assert both == pytest.approx(share**2, abs=error)


def test_masks_are_reproducible_from_the_seed() -> None:
    values = torch.empty(7, 9)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout.mask(values, 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_values_are_scaled_up(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out, kept = dropout.dropped(torch.full((50, 50), 3.0, dtype=dtype), 0.25)
    assert out.dtype == dtype
    torch.testing.assert_close(out, kept * 4.0)


def test_a_layer_drops_values_and_their_gradients_only_in_training() -> None:
    layer = dropout.HostDropout()
    layer.p = 0.25
    values = torch.full((50, 50), 3.0, requires_grad=True)
    out = layer(values)
    (gradient,) = torch.autograd.grad(out.sum(), values)
    torch.testing.assert_close(out, 3 * gradient)
    assert sorted(set(out.flatten().tolist())) == [0.0, 4.0]
    assert layer.eval()(values) is values
