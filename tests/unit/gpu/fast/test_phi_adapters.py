"""Phi's fused layers with adapters on any of their parts, compared with the library's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast import model as fast_model
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.served import choose
from nlijob.gpu.fast.stacks import phi
from nlijob.gpu.fast.stacks.function import timed_layers
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from tests import tolerance
from tests.phi_adapters import ALL, result, some

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
OPERATIONS = 2 * (2 * (5 * 32 + 64 + 60) + 32)
"""Terms of the sums that a gradient passes on its way through two layers of 32, there and back."""
NewModel = Callable[..., LoadedModel]


@pytest.fixture(autouse=True)
def _fuses_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phi, "fuses", lambda parts, device: True)


def both(
    new_small_phi: NewModel, head: CausalHead, rows: list[Encoded], prefix: int, **model: object
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Results of fused layers and of the library's."""
    results = []
    for dense in (True, False):
        loaded = new_small_phi(**model)
        fast = FastModel(loaded, head, dense)
        assert fast.is_fused == dense
        results.append(result(fast, loaded, rows, prefix))
    return results[0], results[1]


@some
@pytest.mark.parametrize("prefix", [0, 2])
def test_logits_and_gradients_equal_those_of_the_librarys_layers(
    new_small_phi: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    targets: tuple[str, ...],
    prefix: int,
) -> None:
    for got, expected in zip(
        *both(new_small_phi, head, rows[:5], prefix, targets=targets), strict=True
    ):
        assert tolerance.distance(got, expected) < tolerance.rounding(torch.float32, OPERATIONS)


@some
def test_dropout_by_row_drops_what_it_drops_in_the_librarys_layers(
    new_small_phi: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    targets: tuple[str, ...],
) -> None:
    monkeypatch.setattr(fast_model, "drops_by_row", lambda device: True)
    model = {"targets": targets, "dropout": 0.4}
    for got, expected in zip(*both(new_small_phi, head, rows[:5], 2, **model), strict=True):
        assert tolerance.distance(got, expected) < tolerance.rounding(torch.float32, OPERATIONS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_narrow_dtypes_round_about_as_much_as_in_the_librarys_layers(
    new_small_phi: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    dropout: float,
) -> None:
    monkeypatch.setattr(fast_model, "drops_by_row", lambda device: True)
    model = {"targets": ALL, "dropout": dropout}
    got, library = both(new_small_phi, head, rows[:5], 2, dtype=dtype, **model)
    _, exact = both(new_small_phi, head, rows[:5], 2, **model)
    for ours, theirs, expected in zip(got, library, exact, strict=True):
        assert tolerance.distance(ours, expected) < 2 * tolerance.distance(theirs, expected)


@pytest.mark.parametrize("targets", [ALL, ("q_proj", "v_proj", "fc2")], ids="-".join)
def test_with_dropout_of_torchs_generator_gradients_equal_finite_differences_of_the_loss(
    new_small_phi: NewModel, head: CausalHead, rows: list[Encoded], targets: tuple[str, ...]
) -> None:
    loaded = new_small_phi(targets=targets, dropout=0.4)
    fast = FastModel(loaded, head, True)
    master = fast.adapter.master
    result(fast, loaded, rows[:5])
    gradient = fast.adapter.gradient.clone()
    step = 2e-3 * torch.randn(len(master), generator=torch.Generator().manual_seed(4))

    def loss(by: Tensor) -> float:
        with torch.no_grad():
            master.add_(by)
        fast.adapter.refresh()
        logits, _ = result(fast, loaded, rows[:5])
        with torch.no_grad():
            master.sub_(by)
        targets = torch.tensor([head.target_class(row.example.label) for row in rows[:5]])
        return float(functional.cross_entropy(logits, targets))

    # the third derivative makes a difference of some percent; rounding, of 1e-6 of a loss
    slope = 2 * float((gradient * step).sum())
    assert loss(step) - loss(-step) == pytest.approx(slope, rel=3e-2, abs=1e-5)


@some
def test_without_the_adapter_the_base_model_is_scored(
    new_small_phi: NewModel, head: CausalHead, rows: list[Encoded], targets: tuple[str, ...]
) -> None:
    scores = []
    for dense in (True, False):
        loaded = new_small_phi(targets=targets)
        fast = FastModel(loaded, head, dense)
        loaded.model.eval()
        tuned = fast.score_rows(rows[:5])
        with loaded.model.disable_adapter():
            scores.append(fast.score_rows(rows[:5]))
        assert tolerance.distance(tuned, scores[-1]) > 1e-3
    assert tolerance.distance(*scores) < tolerance.rounding(torch.float32, OPERATIONS)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"target_modules": "model.layers.0.mlp.fc1"},
            "layers have adapters on different modules",
        ),
        (
            {"target_modules": ["q_proj", "fc1"], "rank_pattern": {"fc1": 16}},
            "adapters have different ranks: 8, 16",
        ),
        ({"target_modules": ["fc1"], "r": 4}, "the adapters' rank is no multiple of 8: 4"),
    ],
)
def test_adapters_that_layers_cannot_be_fused_with_are_named(
    new_small_phi: NewModel, options: dict[str, Any], why: str
) -> None:
    base = new_small_phi().model.unload()
    model = peft.get_peft_model(base, peft.LoraConfig(**{"r": 8, **options}))
    with pytest.raises(Unsupported, match=why):
        phi.PhiStack.groups(model, CPU, torch.float32)
    assert choose(model, CPU, torch.float32)[2] == why


@pytest.mark.parametrize(
    ("tokens", "layers", "timed"),
    [(16, 32, 4), (512, 32, 4), (1_024, 32, 2), (1_088, 32, 1), (6_400, 32, 1), (16, 2, 2)],
)
def test_with_more_tokens_fewer_layers_are_timed(tokens: int, layers: int, timed: int) -> None:
    assert timed_layers(tokens, layers) == timed
