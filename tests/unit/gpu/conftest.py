"""The demo's model, loaded as in a job, for tests that need a real model."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from nlijob.config import JobConfig, load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.gpu import session as gpu_session
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel, add_adapter, read_tokenizer
from nlijob.gpu.writer import Writer
from nlijob.records.job import Example
from tests.loading import Loader, MetaBuilder

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def demo() -> JobConfig:
    """The demo recipe with no dropout, so that numbers can be compared."""
    config = load_config("demo", {"lora.dropout": 0.0, "model.residual_dropout": 0.0})
    return dataclasses.replace(config, model=dataclasses.replace(config.model, device="cpu"))


@pytest.fixture(scope="session")
def tokenizer(demo: JobConfig) -> Any:
    return read_tokenizer(demo, MODEL_DIR)


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    rows = read_file(DATA_DIR / "validation.jsonl").rows
    labelled = [(i, row) for i, row in enumerate(rows) if row["label"] >= 0]
    return [Example(i, r["premise"], r["hypothesis"], r["label"]) for i, r in labelled[:24]]


@pytest.fixture(scope="session")
def load_model() -> Loader:
    return Loader()


@pytest.fixture(scope="module")
def written_at_once() -> Iterator[None]:
    """Checkpoints are written at once, and a short model is loaded once for each configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "do", lambda writer, write: write())
        patch.setattr(gpu_session, "load", Loader(layers=1))
        patch.setattr(gpu_session, "meta_model", MetaBuilder())
        patch.setattr(os, "fsync", lambda descriptor: None)  # nobody pulls the plug
        yield


@pytest.fixture(scope="session")
def new_model(demo: JobConfig, tokenizer: Any, load_model: Loader) -> Callable[..., LoadedModel]:
    """The demo model as just loaded, by the recipe or by a changed one."""

    def new(config: JobConfig = demo) -> LoadedModel:
        return load_model(config, MODEL_DIR, tokenizer, CPU)

    return new


@pytest.fixture(scope="session")
def load_short_model() -> Loader:
    """A fixture of its own, as `new_short_model` is made again for each parameter where a file
    replaces it by one with parameters."""
    return Loader(layers=2)


@pytest.fixture(scope="session")
def new_short_model(
    demo: JobConfig, tokenizer: Any, load_short_model: Loader
) -> Callable[..., LoadedModel]:
    """The same with two layers, for tests in which it matters what is done, and how often."""

    def new(config: JobConfig = demo) -> LoadedModel:
        return load_short_model(config, MODEL_DIR, tokenizer, CPU)

    return new


@pytest.fixture(scope="session")
def new_llama(demo: JobConfig, tokenizer: Any) -> Callable[[], LoadedModel]:
    """Make a small Llama afresh, the same every time: fewer keys than queries, adapters on some
    layers, not quantised. Heads as narrow as its own are not fused."""

    def new() -> LoadedModel:
        torch.manual_seed(0)
        shape = LlamaConfig(
            vocab_size=4096,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=4,
        )
        lora = dataclasses.replace(demo.lora, target_modules=("q_proj", "v_proj", "down_proj"))
        adapted = add_adapter(
            dataclasses.replace(demo, lora=lora), LlamaForCausalLM(shape), (), lora.target_modules
        )
        return LoadedModel(adapted, tokenizer, CPU, torch.float32, 2048)

    return new


@pytest.fixture(scope="session")
def new_small_phi(demo: JobConfig, tokenizer: Any) -> Callable[..., LoadedModel]:
    """Make a small Phi, the same every time; with its adapters, layers are fused on a CPU too.

    Threads draw from one generator, so the first of each kind must be made by the tests' own.
    """

    @functools.cache
    def new(
        dropout: float = 0.0,
        residual: float = 0.0,
        layers: int = 2,
        targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "dense"),
        dtype: torch.dtype = torch.float32,
    ) -> LoadedModel:
        torch.manual_seed(0)
        shape = PhiConfig(
            vocab_size=4096,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=2,
            resid_pdrop=residual,
            embd_pdrop=0.0,
            partial_rotary_factor=1.0,
        )
        lora = dataclasses.replace(demo.lora, target_modules=targets, dropout=dropout)
        job = dataclasses.replace(demo, lora=lora)
        adapted = add_adapter(job, PhiForCausalLM(shape).to(dtype), (), targets)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.1)
        return LoadedModel(adapted, tokenizer, CPU, dtype, 2048)

    return lambda **model: copy.deepcopy(new(**model))


@pytest.fixture(scope="session")
def head(demo: JobConfig, tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, demo.prompt, 128, examples)


@pytest.fixture(scope="session")
def rows(head: CausalHead, examples: list[Example]) -> list[Encoded]:
    return [*head.encode("validation", examples)]
