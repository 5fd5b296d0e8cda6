"""The list of fused stacks: each is tried in order, and used or refused with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig
from nlijob.gpu.fast import served
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import PackView
from nlijob.gpu.fast.stacks.phi import PhiStack
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel

NewModel = Callable[..., LoadedModel]


@pytest.fixture
def fusible(demo: JobConfig) -> JobConfig:
    """A configuration with adapters on exactly the layers that Phi's stack supports."""
    lora = dataclasses.replace(demo.lora, target_modules=("q_proj", "k_proj", "v_proj", "dense"))
    return dataclasses.replace(demo, lora=lora)


class Other(PhiStack):
    """A new stack: it computes what Phi's does, and records that it was used."""

    used: list[str] = []  # noqa: RUF012 (shared, as the list of candidates holds classes)

    def inputs(self, packed: PackView, prefix: int) -> dict[str, Any]:
        self.used.append("inputs")
        return super().inputs(packed, prefix)

    def cost(self, tokens: int) -> float:
        return 7.0 * tokens


class Refusing(PhiStack):
    """A stack that is meant for the model but cannot be used."""

    @staticmethod
    def groups(model: Any, device: torch.device, dtype: torch.dtype) -> list[list[Any]]:
        raise Unsupported("widths of 3 are too narrow")


class Foreign(PhiStack):
    """A stack for models of another kind."""

    @staticmethod
    def groups(model: Any, device: torch.device, dtype: torch.dtype) -> list[list[Any]]:
        return []


def test_the_first_candidate_that_fits_the_model_is_used(
    fusible: JobConfig,
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = FastModel(new_model(fusible), head, True).score_rows(rows[:4])
    monkeypatch.setattr(served, "CANDIDATES", [Foreign, Refusing, Other, PhiStack])
    fast = FastModel(new_model(fusible), head, True)
    assert (fast.kind, fast.refused) == ("Other, dequantized, kept", "")
    assert torch.equal(fast.score_rows(rows[:4]), expected)
    assert Other.used == ["inputs"]
    assert fast.cost(2) == 14.0


def test_a_candidate_that_cannot_be_used_is_refused_with_its_reason(
    fusible: JobConfig,
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served, "CANDIDATES", [Foreign, Refusing])
    fast = FastModel(new_model(fusible), head, True)
    assert fast.kind.startswith("the library's layers")
    assert fast.refused == "widths of 3 are too narrow"
    assert len(fast.score_rows(rows[:4])) == 4


def test_models_that_no_candidate_is_meant_for_are_not_refused(
    new_llama: NewModel, head: CausalHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CANDIDATES", [Foreign, PhiStack])
    fast = FastModel(new_llama(), head, True)
    assert fast.kind.startswith("the library's layers")
    assert fast.refused == ""
