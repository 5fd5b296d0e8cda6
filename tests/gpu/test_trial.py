"""What `doctor` tries on a GPU."""

from __future__ import annotations

import pytest
import torch

from nlijob.config import load_config
from nlijob.gpu import trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def test_four_bit_weights_are_computed_rightly_on_this_gpu() -> None:
    config = load_config("phi2", {"model.device": "cuda"})
    assert "computed rightly on this GPU" in trial.four_bit_test(config)


def test_the_device_is_named_with_its_capability_and_what_torch_is_built_for() -> None:
    text = trial._device_text(load_config("phi2", {"model.device": "cuda"}))
    assert "compute capability" in text
    assert "sm_" in text
