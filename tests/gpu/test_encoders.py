"""Encoders with a classification head in graphs, compared with the plain loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.config import JobConfig, load_config
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast.attention import AttentionKind, attend
from nlijob.gpu.heads import ClassificationHead, Encoded
from nlijob.gpu.model import LoadedModel, load, read_tokenizer
from nlijob.gpu.scoring import score
from nlijob.records.job import Example
from tests.families import FAMILIES, Family, save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
GPU = torch.device("cuda", 0)
PACKED = {
    family.name: family
    for family in FAMILIES
    if family.name.startswith(("BERT", "RoBERTa", "ELECTRA", "DistilBERT", "ALBERT", "ModernBERT"))
}
NAMES = pytest.mark.parametrize("name", PACKED)
# a step's loss in bfloat16 has the rounding of some 50 stored values; see test_fast_modes.py
MEAN = {"float32": 1e-3, "float16": 3e-3, "bfloat16": 2e-2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


class Tried:
    """A tiny encoder with a configuration, and rows for it."""

    def __init__(self, folders: Path, family: Family, examples: list[Example], **options: Any):
        folder = folders / family.name.replace(" ", "-")
        if not folder.exists():
            save_model(family, folder)
        changes = {key.replace("__", "."): value for key, value in options.items()}
        self.config: JobConfig = load_config(
            "demo",
            {
                "model.name": str(folder),
                "model.head": "sequence-classification",
                "model.device": "cuda",
                "prompt.template": "",
                "lora.target_modules": "attention",
                "lora.dropout": 0.0,
                "train.learning_rate": 1e-3,
                **changes,
            },
        )
        self.tokenizer = read_tokenizer(self.config, folder)
        self.folder = folder
        self.head = ClassificationHead(self.tokenizer, self.config.prompt, 200, examples)
        self.rows: Sequence[Encoded] = self.head.encode("train", examples)

    def load(self) -> LoadedModel:
        return load(self.config, self.folder, self.tokenizer, GPU)

    def engine(self, **train: Any) -> Engine:
        changed = dataclasses.replace(self.config.train, **train)
        config = dataclasses.replace(self.config, train=changed)
        return Engine(self.load(), self.head, config, self.rows)


def losses(engine: Engine) -> Tensor:
    trainer = engine.trainer()
    return torch.tensor([step.loss for epoch in (1, 2) for step in trainer.epoch(epoch)])


def check_alike(tried: Tried, **train: Any) -> None:
    plain, graph = tried.engine(speed="plain"), tried.engine(speed="graph", **train)
    expected, got = losses(plain), losses(graph)
    assert graph.plan().way == "graph"
    assert all("compiled layers" in why for why in graph.plan().refused)
    difference = (got - expected).abs() / expected
    assert difference.mean() < MEAN[tried.config.model.compute_dtype], difference
    scores = [
        score(engine.forward(), tried.head, "train", tried.rows, 32, lambda done: None)[0]
        for engine in (plain, graph)
    ]
    assert scores[1].loss == pytest.approx(scores[0].loss, rel=3e-2)


@NAMES
@pytest.mark.parametrize("dtype", MEAN)
def test_an_encoder_trains_in_graphs_as_in_the_plain_loop(
    folders: Path, labelled: list[Example], name: str, dtype: str
) -> None:
    check_alike(Tried(folders, PACKED[name], labelled[:61], model__compute_dtype=dtype))


def test_an_encoder_trains_with_gradient_checkpointing_as_in_the_plain_loop(
    folders: Path, labelled: list[Example]
) -> None:
    family = PACKED["BERT"]
    tried = Tried(folders, family, labelled[:61], model__compute_dtype="bfloat16")
    check_alike(tried, gradient_checkpointing=True)


@pytest.mark.parametrize("recomputes", [False, True])
def test_dropout_of_an_encoder_and_its_attention_is_another_one_in_each_step(
    folders: Path, labelled: list[Example], recomputes: bool
) -> None:
    dropped = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.4}

    def config() -> Any:
        made = PACKED["BERT"].config()
        for key, value in dropped.items():
            setattr(made, key, value)
        return made

    family = dataclasses.replace(PACKED["BERT"], name="BERT that drops", config=config)
    still = {"train__learning_rate": 1e-9, "train__gradient_checkpointing": recomputes}
    tried = Tried(folders, family, labelled[:1] * 64, **still)
    trainer = tried.engine(speed="graph").trainer()
    first, again = (torch.tensor([step.loss for step in trainer.epoch(1)]) for _ in range(2))
    rounding = (first - again).abs().max()
    assert rounding < 1e-2 * first.mean()
    assert first.max() - first.min() > 10 * rounding
    assert len({*first.tolist()}) == len(first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "kind",
    [
        AttentionKind(dropout=0.3),
        AttentionKind(is_causal=False, dropout=0.3),
        AttentionKind(is_causal=False, window=4, dropout=0.3),
    ],
    ids=["causal", "both ways", "window"],
)
def test_a_graph_drops_the_same_weights_of_attention_in_both_directions_of_a_pass(
    kind: AttentionKind, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 48, 4, 32, device=GPU).to(dtype).unbind()
    upstream = torch.randn(48, 4, 32, device=GPU).to(dtype)
    bounds = torch.tensor([0, 20, 23, 48, 48], dtype=torch.int32, device=GPU)
    value = value.detach().requires_grad_()
    out, gradient = (torch.empty_like(upstream) for _ in range(2))

    def work() -> None:
        attended = attend(query, key, value, bounds, 25, None, None, kind)
        out.copy_(attended.detach())
        gradient.copy_(torch.autograd.grad(attended, value, upstream)[0])

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    outputs = []
    for _ in range(3):
        graph.replay()
        # attention is linear in the values: with the same weights, these products are equal
        ahead = (out.double() * upstream.double()).sum()
        back = (value.detach().double() * gradient.double()).sum()
        size = (out.double() * upstream.double()).norm()
        assert (ahead - back).abs() < 0.05 * size
        outputs.append(out.clone())
    assert not torch.equal(outputs[0], outputs[1])
    whole = attend(query, key, value, bounds, 25, None, None, dataclasses.replace(kind, dropout=0))
    assert 0.1 < (outputs[0] - whole).norm() / whole.norm() < 2
