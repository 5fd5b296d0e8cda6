"""Weights that a checkpoint lacks, has too many of, or has for another head."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, RobertaConfig

from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.gpu import checkpoints, quantized
from nlijob.gpu.model import LoadedModel, load, read_model_config
from nlijob.gpu.model.configuration import source_labels
from nlijob.gpu.parameters import count_parameters
from nlijob.gpu.quantized import QuantizedCopy
from nlijob.records.job import HeadOrigin

CPU = torch.device("cpu")
NLI_NAMES = ("contradiction", "entailment", "neutral")
"""In another order than the job's."""
SMALL = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}

Weights = dict[str, Tensor]
Loader = Callable[..., LoadedModel]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo's model, to be changed."""
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


@pytest.fixture
def classify(demo: JobConfig) -> JobConfig:
    return of_model(demo, head="sequence-classification")


@pytest.fixture
def encoder(classify: JobConfig) -> JobConfig:
    """The classification job for a model whose layers are called as BERT's."""
    lora = dataclasses.replace(classify.lora, target_modules=("query", "value"))
    return dataclasses.replace(classify, lora=lora)


@pytest.fixture
def read(tokenizer: Any) -> Loader:
    def new(config: JobConfig, folder: Path, copy: QuantizedCopy | None = None) -> LoadedModel:
        return load(config, folder, tokenizer, CPU, copy)

    return new


def of_model(config: JobConfig, **changes: Any) -> JobConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def change(folder: Path, by: Callable[[Weights], object]) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    by(weights)
    save_file(weights, file, {"format": "pt"})


def configure(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")


def save(folder: Path, model: Any) -> Path:
    """Write a model of random weights."""
    model.save_pretrained(folder)
    return folder


def name_labels(folder: Path, *names: str) -> None:
    configure(folder, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})


def origin(loaded: LoadedModel) -> HeadOrigin:
    assert loaded.head is not None
    return loaded.head


def weight(loaded: LoadedModel, end: str) -> Tensor:
    """The base model's weight whose name ends so."""
    named = {n: p for n, p in loaded.model.named_parameters() if "modules_to_save" not in n}
    (found,) = (p for n, p in named.items() if n.replace(".original_module", "").endswith(end))
    assert isinstance(found, Tensor)
    return found.detach()


# ---------------------------------------------------------------- what must be there


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "lm_head.bias",
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.3.mlp.fc1.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.final_layernorm.bias",
    ],
)
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_missing_weight_is_an_error_that_names_it(
    demo: JobConfig, folder: Path, read: Loader, name: str, quantization: str
) -> None:
    change(folder, lambda weights: weights.pop(name))
    with pytest.raises(NotAvailableError, match="missing") as caught:
        read(of_model(demo, quantization=quantization), folder)
    assert f"1 tensor ({name}) missing" in caught.value.message


def test_of_many_missing_weights_five_are_named_and_all_are_counted(
    demo: JobConfig, folder: Path, read: Loader
) -> None:
    change(folder, lambda weights: [weights.pop(n) for n in list(weights) if ".layers.2." in n])
    with pytest.raises(NotAvailableError) as caught:
        read(demo, folder)
    assert caught.value.message.count("model.layers.2.") == 5
    assert "14 tensors (" in caught.value.message


def test_a_layer_that_the_configuration_does_not_know_is_an_error(
    demo: JobConfig, folder: Path, read: Loader
) -> None:
    configure(folder, num_hidden_layers=3)
    with pytest.raises(NotAvailableError, match=r"14 tensors .* not part of such a model"):
        read(demo, folder)


def test_a_weight_of_another_shape_is_an_error_that_names_both_shapes(
    demo: JobConfig, folder: Path, read: Loader
) -> None:
    def cut(weights: Weights) -> None:
        weights["model.layers.1.mlp.fc1.bias"] = weights["model.layers.1.mlp.fc1.bias"][:100]

    change(folder, cut)
    with pytest.raises(NotAvailableError, match=r"fc1\.bias \(\[100\] instead of \[512\]\)"):
        read(demo, folder)


def test_a_vocabulary_beyond_all_memory_is_refused_before_it_is_made(
    demo: JobConfig, folder: Path, read: Loader
) -> None:
    configure(folder, vocab_size=10**12)
    with pytest.raises(NotAvailableError, match=r"embed_tokens\.weight \(\[2048, 192\] instead of"):
        read(demo, folder)


@pytest.mark.parametrize("key", ["id2label", "label2id"])
def test_label_names_are_read_in_the_order_of_the_outputs(folder: Path, key: str) -> None:
    names = {"id2label": {"1": "b", "0": "a"}, "label2id": {"b": 1, "a": 0}}
    configure(folder, **{key: names[key]})
    assert source_labels(folder) == ["a", "b"]


def test_a_4_bit_weight_of_another_shape_than_its_layer_is_an_error(
    demo: JobConfig, folder: Path, read: Loader
) -> None:
    biases = {f"model.layers.{n}.mlp.fc1.bias": torch.zeros(256) for n in range(4)}
    change(folder, lambda weights: weights.update(biases))
    configure(folder, intermediate_size=256)
    with pytest.raises(NotAvailableError, match="8 tensors") as caught:
        read(demo, folder)
    assert "fc1.weight ([512, 192] instead of [256, 192])" in caught.value.message


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.bias", "model.rotary_emb.inv_freq"])
def test_buffers_that_older_checkpoints_hold_are_no_fault(
    demo: JobConfig, folder: Path, read: Loader, name: str
) -> None:
    change(folder, lambda weights: weights.update({name: torch.ones(4)}))
    read(demo, folder)


def test_tied_weights_need_not_be_stored_twice(
    demo: JobConfig, tmp_path: Path, read: Loader
) -> None:
    shape = LlamaConfig(**SMALL, tie_word_embeddings=True, eos_token_id=0, bos_token_id=0)
    folder = save(tmp_path, transformers.LlamaForCausalLM(shape))
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    lora = dataclasses.replace(demo.lora, target_modules=("q_proj",))
    model = read(dataclasses.replace(demo, lora=lora), folder).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model.layers.3.mlp.fc2.weight", "lm_head.bias"])
def test_weights_that_are_not_finite_are_named_with_their_file(
    demo: JobConfig, folder: Path, read: Loader, name: str, value: float
) -> None:
    change(folder, lambda weights: weights[name].view(-1)[-1:].fill_(value))
    with pytest.raises(NotAvailableError, match="NaN or infinite") as caught:
        read(demo, folder)
    assert f"{name} in model.safetensors" in caught.value.message


def test_a_weight_that_the_task_does_not_use_may_be_anything(
    classify: JobConfig, folder: Path, read: Loader
) -> None:
    change(folder, lambda weights: weights["lm_head.weight"].fill_(float("nan")))
    assert origin(read(classify, folder)).unused == ("lm_head",)


# ---------------------------------------------------------------- heads


def test_a_head_that_the_checkpoint_lacks_is_new_and_the_other_head_is_told(
    classify: JobConfig, folder: Path, read: Loader
) -> None:
    assert origin(read(classify, folder)) == HeadOrigin(
        modules=("score",),
        new=("score",),
        reason="the checkpoint has no classification head",
        unused=("lm_head",),
    )


def test_a_language_models_head_is_its_own(demo: JobConfig, folder: Path, read: Loader) -> None:
    assert origin(read(demo, folder)) == HeadOrigin(("lm_head",), (), "", ())


@pytest.fixture
def made_for_nli(folder: Path) -> Path:
    """The demo's model with a classification head, whose outputs are in another order."""
    head = torch.arange(3 * 192, dtype=torch.float16).view(3, 192) / 1000
    change(folder, lambda weights: weights.update({"score.weight": head}))
    change(folder, lambda weights: [weights.pop(f"lm_head.{part}") for part in ("weight", "bias")])
    name_labels(folder, *NLI_NAMES)
    return folder


def test_a_head_made_for_nli_is_kept_in_the_order_of_the_jobs_labels(
    classify: JobConfig, made_for_nli: Path, read: Loader
) -> None:
    stored = load_file(made_for_nli / "model.safetensors")["score.weight"].float()
    loaded = read(classify, made_for_nli)
    assert classify.data.label_names == ("entailment", "neutral", "contradiction")
    assert torch.equal(weight(loaded, "score.weight"), stored[[1, 2, 0]])
    assert origin(loaded).new == ()
    assert origin(loaded).reason.endswith(
        "with its labels mapped by name: contradiction, entailment, neutral"
    )
    trained = dict(loaded.model.named_parameters())
    (copy,) = (p for n, p in trained.items() if n.endswith("modules_to_save.default.weight"))
    assert copy.requires_grad
    assert torch.equal(copy, stored[[1, 2, 0]])


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), "the checkpoint does not name its labels"),
        (("yes", "maybe", "no"), "the checkpoint has labels of other names: yes, maybe, no"),
    ],
)
def test_a_head_with_other_labels_is_drawn_anew_from_the_seed(
    classify: JobConfig, made_for_nli: Path, read: Loader, names: tuple[str, ...], reason: str
) -> None:
    name_labels(made_for_nli, *names)
    stored = load_file(made_for_nli / "model.safetensors")["score.weight"].float()
    first, again = read(classify, made_for_nli), read(classify, made_for_nli)
    drawn = weight(first, "score.weight")
    assert (origin(first).new, origin(first).reason) == (("score",), reason)
    assert not (drawn[:, None] == stored[None]).all(-1).any()
    assert torch.equal(weight(again, "score.weight"), drawn)
    other = dataclasses.replace(classify, train=dataclasses.replace(classify.train, seed=7))
    assert not torch.equal(weight(read(other, made_for_nli), "score.weight"), drawn)


def test_a_head_for_another_number_of_labels_is_drawn_anew(
    classify: JobConfig, made_for_nli: Path, read: Loader
) -> None:
    change(made_for_nli, lambda weights: weights.update({"score.weight": torch.ones(2, 192)}))
    name_labels(made_for_nli, "entailment", "not_entailment")
    loaded = read(classify, made_for_nli)
    assert origin(loaded).new == ("score",)
    assert weight(loaded, "score.weight").shape == (3, 192)


def test_a_head_of_several_layers_is_never_half_loaded(
    encoder: JobConfig, tmp_path: Path, read: Loader
) -> None:
    shape = RobertaConfig(**SMALL, max_position_embeddings=512, num_labels=2)
    folder = save(tmp_path, transformers.RobertaForSequenceClassification(shape))
    stored = load_file(folder / "model.safetensors")["classifier.dense.weight"]
    loaded = read(encoder, folder)
    assert origin(loaded).new == ("classifier",)
    assert not torch.equal(weight(loaded, "classifier.dense.weight"), stored)


def test_a_head_that_lacks_a_part_is_an_error(
    encoder: JobConfig, tmp_path: Path, read: Loader
) -> None:
    shape = RobertaConfig(**SMALL, max_position_embeddings=512, num_labels=3)
    folder = save(tmp_path, transformers.RobertaForSequenceClassification(shape))
    name_labels(folder, *NLI_NAMES)
    change(folder, lambda weights: weights.pop("classifier.dense.weight"))
    with pytest.raises(NotAvailableError, match=r"1 tensor \(classifier\.dense\.weight\) missing"):
        read(encoder, folder)


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """A BERT for masked words, which has no pooler."""
    return save(tmp_path / "bert", BertForMaskedLM(BertConfig(**SMALL)))


def test_a_pooler_that_the_checkpoint_lacks_is_part_of_the_new_head(
    encoder: JobConfig, masked: Path, read: Loader
) -> None:
    loaded = read(encoder, masked)
    assert origin(loaded).new == ("classifier", "bert.pooler")
    assert origin(loaded).unused == ("cls",)
    assert not isinstance(loaded.model.get_submodule(POOLER), bnb.nn.Linear4bit)
    counts = count_parameters(loaded.model, encoder.lora.target_modules)
    assert counts.head_parameters == 32 * 32 + 32 + 3 * 32 + 3
    assert counts.quantized_modules == 6


POOLER = "base_model.model.bert.pooler.modules_to_save.default.dense"


def test_a_new_pooler_is_saved_with_the_adapter_and_read_again(
    encoder: JobConfig, masked: Path, read: Loader, tmp_path: Path
) -> None:
    first, second = read(encoder, masked), read(encoder, masked)
    trained = first.model.get_submodule(POOLER).weight
    with torch.no_grad():
        trained.add_(1.0)
    checkpoints.save_adapter(first.model, tmp_path / "adapter", encoder.model)
    checkpoints.load_adapter(second.model, tmp_path / "adapter")
    assert torch.equal(second.model.get_submodule(POOLER).weight, trained)


def test_a_pooler_that_the_checkpoint_has_stays_frozen(
    encoder: JobConfig, tmp_path: Path, read: Loader
) -> None:
    folder = save(tmp_path, transformers.BertForSequenceClassification(BertConfig(**SMALL)))
    stored = load_file(folder / "model.safetensors")["bert.pooler.dense.weight"]
    loaded = read(encoder, folder)
    pooler = loaded.model.get_submodule("base_model.model.bert.pooler.dense").weight
    assert torch.equal(pooler, stored)
    assert not pooler.requires_grad


def test_a_model_read_from_its_4_bit_copy_has_the_same_head(
    encoder: JobConfig, masked: Path, read: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(quantized, "WORTH_A_COPY_S", 0.0)
    parts: list[str] = []

    @contextlib.contextmanager
    def timed(part: str) -> Any:
        parts.append(part)
        yield

    def loaded() -> LoadedModel:
        copy = QuantizedCopy(encoder, "stamp", torch.float32, CPU, timed)
        model = read(encoder, masked, copy)
        copy.seal()
        return model

    first, second = loaded(), loaded()
    assert parts == ["4-bit copy written", "read from its 4-bit copy"]
    assert origin(second) == origin(first)
    one, other = (checkpoints.trained_weights(m.model) for m in (first, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- checkpoints in 4 bits


@pytest.fixture
def in_4_bits(demo: JobConfig, folder: Path, tmp_path: Path) -> Path:
    settings = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings)
    return save(tmp_path / "4-bit", model)


def test_a_checkpoint_in_4_bits_is_read_with_a_new_head_outside_of_them(
    classify: JobConfig, in_4_bits: Path, read: Loader
) -> None:
    loaded = read(classify, in_4_bits)
    assert origin(loaded).new == ("score",)
    held = [m for m in loaded.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(held) == 4 * 6


def test_a_checkpoint_in_4_bits_that_lacks_a_weight_is_an_error(
    demo: JobConfig, in_4_bits: Path, read: Loader
) -> None:
    def drop(weights: Weights) -> None:
        for name in [n for n in weights if n.startswith("model.layers.1.mlp.fc1.weight")]:
            weights.pop(name)

    change(in_4_bits, drop)
    with pytest.raises(NotAvailableError, match=r"model\.layers\.1\.mlp\.fc1\.weight"):
        read(demo, in_4_bits)


def test_a_checkpoint_in_4_bits_cannot_be_held_without_quantisation(
    demo: JobConfig, in_4_bits: Path, tokenizer: Any
) -> None:
    with pytest.raises(ConfigurationError, match="holds 4-bit weights already"):
        read_model_config(of_model(demo, quantization="none"), in_4_bits, tokenizer)


def test_a_checkpoint_in_another_quantisation_is_refused(
    demo: JobConfig, folder: Path, tokenizer: Any
) -> None:
    configure(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(NotAvailableError, match="quantised already, by gptq"):
        read_model_config(demo, folder, tokenizer)
