"""A merged model, loaded by transformers alone, computes what the model with its adapter does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

from nlijob.config import load_config
from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError
from nlijob.gpu.heads import Head, head_class
from nlijob.gpu.merging import save_merged, stored_dtype
from nlijob.gpu.model import LoadedModel, load, read_tokenizer
from nlijob.records.job import Example

CPU = torch.device("cpu")
ROUNDING = 1e-5
"""Largest relative difference: some hundred float32 sums (6e-8 each) in another order."""


def trained(model: Any) -> Any:
    """The model with weights of adapter and head that change every answer."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
            elif "modules_to_save" in name:
                weight.normal_(std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A small GPT-2, whose layers hold their weights [in, out], some of them square."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    shape = transformers.GPT2Config(
        vocab_size=4096, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_adapter(model: Any, *targets: str) -> Any:
    """The model with LoRA on these modules."""
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=[*targets]))


def difference(tuned: Any, merged: Any, head: Head, examples: list[Example]) -> float:
    """Relative difference of the logits on some rows."""
    batch = head.collate(head.encode("test", examples), CPU)

    @torch.no_grad()
    def logits(model: Any) -> Tensor:
        return head.logits(model, batch)

    expected = logits(tuned)
    return float((logits(merged) - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["causal", "sequence-classification"])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_merged_model_gives_the_same_logits(
    new_model: Callable[..., LoadedModel],
    examples: list[Example],
    tmp_path: Path,
    name: str,
    quantization: str,
) -> None:
    config = load_config(
        "demo",
        {
            "model.head": name,
            "model.quantization": quantization,
            "model.device": "cpu",
            "model.compute_dtype": "float32",
            "data.label_names": ["yes", "no", "perhaps"],
        },
    )
    loaded = new_model(config)
    tuned = trained(loaded.model)
    save_merged(tuned, MODEL_DIR, torch.float32, tmp_path)
    kind = head_class(name)
    merged, info = kind.auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert (info["missing_keys"], info["unexpected_keys"]) == (set(), set())
    assert not hasattr(merged.config, "quantization_config")
    if kind.trains_head:
        assert merged.config.id2label == {0: "yes", 1: "no", 2: "perhaps"}
    head = kind(loaded.tokenizer, config.prompt, 128, examples)
    assert difference(tuned, merged.eval(), head, examples[:4]) < ROUNDING


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_an_adapted_output_embedding_is_no_longer_tied_to_the_input(
    head: Head, examples: list[Example], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=4096,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    original = transformers.LlamaForCausalLM(shape)
    original.save_pretrained(tmp_path / "original")
    tuned = trained(with_adapter(original, "q_proj", "lm_head"))
    save_merged(tuned, tmp_path / "original", torch.float32, tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert difference(tuned, merged.eval(), head, examples[:4]) < ROUNDING


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_layers_that_hold_their_weights_transposed_are_merged_so(
    gpt2: Path, examples: list[Example], tmp_path: Path, quantization: str
) -> None:
    changes = {"model.name": "gpt2", "model.device": "cpu", "model.quantization": quantization}
    config = load_config("demo", {**changes, "lora.target_modules": ["c_attn", "c_proj"]})
    tokenizer = read_tokenizer(config, gpt2)
    loaded = load(config, gpt2, tokenizer, CPU)
    tuned = trained(loaded.model)
    save_merged(tuned, gpt2, torch.float32, tmp_path)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    head = head_class("causal")(tokenizer, config.prompt, 128, examples)
    assert difference(tuned, merged.eval(), head, examples[:4]) < ROUNDING


def test_a_model_with_code_of_its_own_is_refused_with_what_can_be_had(tmp_path: Path) -> None:
    shape = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    place = {"__module__": "transformers_modules.own.modeling"}
    own = type("OwnModel", (transformers.LlamaForCausalLM,), place)(shape)
    with pytest.raises(NotAvailableError, match="OwnModel is computed by code") as told:
        save_merged(with_adapter(own, "q_proj"), tmp_path, torch.float32, tmp_path)
    assert "--adapter" in told.value.hint


@pytest.mark.parametrize(
    ("computed", "stored"),
    [("bfloat16", "bfloat16"), ("float16", "float32"), ("float32", "float32")],
)
def test_weights_are_stored_in_a_data_type_in_which_attention_does_not_overflow(
    computed: str, stored: str
) -> None:
    assert stored_dtype(getattr(torch, computed)) is getattr(torch, stored)
