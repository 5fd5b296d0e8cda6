"""Every parameter figure of the reference recipes, from phi-2's configuration alone."""

from __future__ import annotations

import pytest
import torch
from transformers import PhiConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from nlijob.config import JobConfig, load_config
from nlijob.gpu.model import add_adapter, meta_model, quantization_config
from nlijob.gpu.parameters import count_parameters
from nlijob.records.job import ParameterCounts

ATTENTION = ("q_proj", "k_proj", "v_proj", "dense")
# recipe: trainable, total logical, total packed; as published, or derived by hand from the shapes
FIGURES = {
    "phi2": (20_971_520, 2_800_655_360, 1_542_364_160),
    "reference-0": (18_350_080, 2_798_033_920, 1_539_742_720),
    "reference-1": (20_971_520, 2_800_655_360, 1_542_364_160),
    "reference-2": (20_971_520, 2_800_655_360, 1_542_364_160),
    "reference-3": (17_448_960, 2_797_132_800, 1_538_841_600),
    "reference-4": (18_357_760, 2_666_926_080, 1_408_634_880),
}


def phi2_config(labels: int = 3) -> PhiConfig:
    """phi-2's published shape."""
    return PhiConfig(
        vocab_size=51_200,
        hidden_size=2_560,
        intermediate_size=10_240,
        num_hidden_layers=32,
        num_attention_heads=32,
        partial_rotary_factor=0.4,
        num_labels=labels,
        pad_token_id=50_256,
    )


def count_on_meta(config: JobConfig, model_config: PhiConfig) -> ParameterCounts:
    """Count the parameters of a model on the meta device, without weights or memory."""
    meta = meta_model(config, model_config)
    quantization = quantization_config(config.model, torch.bfloat16, meta.head_modules)
    model = replace_with_bnb_linear(
        meta.model, list(meta.head_modules), quantization_config=quantization
    )
    with torch.device("meta"):
        adapted = add_adapter(config, model, meta.head_modules, meta.targets)
    return count_parameters(adapted, meta.targets)


@pytest.fixture(scope="module", params=sorted(FIGURES))
def counted(request: pytest.FixtureRequest) -> tuple[str, ParameterCounts]:
    return request.param, count_on_meta(load_config(request.param), phi2_config())


def test_trainable_and_both_totals_are_exact(counted: tuple[str, ParameterCounts]) -> None:
    recipe, counts = counted
    assert (counts.trainable, counts.total_logical, counts.total_packed) == FIGURES[recipe]


def test_every_target_matches_in_each_of_the_32_layers(
    counted: tuple[str, ParameterCounts],
) -> None:
    recipe, counts = counted
    wanted = load_config(recipe).lora.target_modules
    targets = ATTENTION if wanted == "attention" else wanted
    assert counts.matched_modules == {t: 1 if t == "lm_head" else 32 for t in targets}


def test_every_linear_module_but_the_head_is_quantised(
    counted: tuple[str, ParameterCounts],
) -> None:
    assert counted[1].quantized_modules == 32 * 6


def test_only_the_classification_recipe_trains_a_head(
    counted: tuple[str, ParameterCounts],
) -> None:
    recipe, counts = counted
    assert counts.head_parameters == (7_680 if recipe == "reference-4" else 0)
