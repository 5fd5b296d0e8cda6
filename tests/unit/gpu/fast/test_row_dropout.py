"""Dropout by row, in torch's operations on a CPU; tests/gpu compares the kernel with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.config import TrainConfig
from nlijob.gpu.fast import model as fast_model
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.model import FastModel, ids_of
from nlijob.gpu.fast.packing import SHARED, PackShape, pack, packed_tokens, rounded, view
from nlijob.gpu.fast.row_dropout import RowMasks, philox
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.shares import Share, shares_of_batch
from nlijob.gpu.training import TrainingSchedule
from tests import broken_compilers, tolerance
from tests import philox as reference
from tests.checkpointing import restore, written
from tests.in_threads import outcomes

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
ONES = (0xFFFFFFFF,) * 4
PI = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344
NewModel = Callable[..., LoadedModel]
NewTrainer = Callable[..., tuple[FastTrainer, LoadedModel]]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (ONES, ONES[:2], (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_the_generator_gives_the_known_answers_of_its_authors(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    assert tuple(int(word) for word in philox(counter, key)) == words
    assert reference.philox(counter, key) == words


def masks_of(
    rows: list[int], positions: list[int], seed: int = 42_000_127_000_003, step: int = 7
) -> RowMasks:
    masks = RowMasks(CPU, torch.float32)
    masks.start(seed, step)
    ends = [i for i, row in enumerate(rows) if i + 1 == len(rows) or rows[i + 1] != row]
    parts = (torch.tensor(part, dtype=torch.int32) for part in (rows, positions, ends))
    masks.place(*parts)
    return masks


def number(call: int) -> Tensor:
    return torch.tensor(call, dtype=torch.int32)


ROWS, POSITIONS = [SHARED, SHARED, 3, 3, 3, 70_000], [0, 1, 2, 3, 4, 2]


def calls(count: int) -> Tensor:
    """The numbers of the first calls."""
    return torch.arange(count, dtype=torch.int32)


@pytest.mark.parametrize("width", [16, 13])
def test_masks_are_those_of_the_reference(width: int) -> None:
    masks = masks_of(ROWS, POSITIONS)
    values = torch.empty(len(ROWS), width)
    together = masks.masks(values, calls(3), 0.3)
    for call in range(3):
        expected = reference.kept(42_000_127_000_003, 7, call, ROWS, POSITIONS, width, 0.3)
        assert together[call].tolist() == expected.tolist()
        assert masks.kept(values, number(call), 0.3).tolist() == expected.astype(bool).tolist()  # type: ignore[union-attr]


def test_masks_may_be_those_of_any_calls() -> None:
    masks, values = masks_of(ROWS, POSITIONS), torch.empty(len(ROWS), 16)
    numbers = torch.tensor([4, 1], dtype=torch.int32)
    assert torch.equal(
        masks.masks(values, numbers, 0.3), masks.masks(values, calls(5), 0.3)[[4, 1]]
    )


def test_values_of_the_rows_ends_have_the_places_of_their_tokens() -> None:
    masks = masks_of(ROWS, POSITIONS)
    all_kept = masks.kept(torch.empty(6, 8), number(1), 0.5)
    at_ends = masks.kept(torch.empty(3, 8), number(1), 0.5)
    assert all_kept is not None
    assert at_ends is not None
    assert torch.equal(at_ends, all_kept[[1, 4, 5]])


def test_values_of_unknown_places_are_left_to_others() -> None:
    assert masks_of(ROWS, POSITIONS).kept(torch.empty(5, 8), number(1), 0.5) is None


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_mask_drops_its_share_and_differs_by_call_row_position_seed_and_step(
    share: float,
) -> None:
    one = masks_of([1] * 300, list(range(300)))
    others = [
        masks_of([2] * 300, list(range(300))),
        masks_of([1] * 300, list(range(1, 301))),
        masks_of([1] * 300, list(range(300)), seed=43),
        masks_of([1] * 300, list(range(300)), step=8),
    ]
    values = torch.empty(300, 400)
    first, second = one.masks(values, calls(2), share).float()
    error = 5 * (share * (1 - share) / values.numel()) ** 0.5  # five standard deviations
    for other in (second, *(each.masks(values, calls(1), share)[0].float() for each in others)):
        assert 1 - other.mean() == pytest.approx(share, abs=error)
        assert ((first == 0) & (other == 0)).float().mean() == pytest.approx(share**2, abs=error)


def test_each_step_draws_anew_and_a_start_repeats_it() -> None:
    masks, values = masks_of(ROWS, POSITIONS), torch.empty(len(ROWS), 64)
    first = masks.masks(values, calls(1), 0.5)
    masks.next_step()
    assert torch.equal(
        masks.masks(values, calls(1), 0.5),
        masks_of(ROWS, POSITIONS, step=8).masks(values, calls(1), 0.5),
    )
    masks.start(42_000_127_000_003, 7)
    assert torch.equal(masks.masks(values, calls(1), 0.5), first)


def test_a_pack_numbers_its_tokens_by_row() -> None:
    shape = PackShape(tokens=16, rows=3, longest=6, prefix=2)
    rows = [[1, 2, 11, 12], [1, 2, 21], [1, 2, 31, 32]]
    packed = view(torch.tensor(pack(rows, [5, 6, 7], shape, 9, [4, 0, 8])), shape)
    assert packed.row_numbers.tolist() == [SHARED, SHARED, 4, 4, 0, 8, 8, *[SHARED] * 9]


@pytest.fixture
def by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout goes by row on a CPU too."""
    monkeypatch.setattr(fast_model, "drops_by_row", lambda device: True)


def gradient(
    fast: FastModel, rows: list[Encoded], numbers: list[int], prefix: int, filling: int = 0
) -> Tensor:
    """The gradient of the sum of the rows' losses, computed as one pack."""
    tokens = rounded(packed_tokens([row.length for row in rows], prefix)) + filling
    shape = PackShape(tokens, len(rows), max(row.length for row in rows), prefix)
    packed = view(fast.to_device(rows, shape, 1, numbers), shape)
    fast.adapter.gradient.zero_()
    losses = functional.cross_entropy(
        fast.logits(packed, shape), packed.targets.long(), reduction="sum"
    )
    fast.adapter.add_gradient(losses)
    return fast.adapter.gradient.clone()


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize(
    ("dense", "recomputes"),
    [(True, False), (False, False), (False, True)],
    ids=["fused", "library layers", "recomputed"],
)
@pytest.mark.usefixtures("by_row")
def test_a_rows_dropout_does_not_depend_on_its_pack(
    new_small_phi: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    dense: bool,
    recomputes: bool,
    prefix: int,
) -> None:
    loaded = new_small_phi(dropout=0.4)
    fast = FastModel(loaded, head, dense, recomputes)
    assert fast.is_fused == dense
    loaded.model.train()
    fast.seed(5)
    whole = gradient(fast, rows[:5], [0, 1, 2, 3, 4], prefix)
    some = [rows[place] for place in (1, 4)], [rows[place] for place in (0, 2, 3)]
    torch.manual_seed(9)  # nothing is drawn by torch's generator
    parts = gradient(fast, some[0], [1, 4], prefix, filling=32)
    parts += gradient(fast, some[1], [0, 2, 3], prefix)
    assert tolerance.distance(parts, whole) < tolerance.UPDATES
    fast.next_step()
    assert tolerance.distance(gradient(fast, rows[:5], [0, 1, 2, 3, 4], prefix), whole) > 0.1
    assert ids_of(rows[0])[:2] == ids_of(rows[4])[:2]


@pytest.fixture
def new_trainer(
    by_row: None,
    new_small_phi: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> NewTrainer:
    """Make a trainer for a fresh model that splits rows as on a GPU, over the whole batch."""

    def shares(trainer: FastTrainer, rows: list[Encoded], group: Group) -> list[Share]:
        return shares_of_batch(rows, trainer._size, group, trainer.prefix)

    monkeypatch.setattr(FastTrainer, "_shares", shares)
    new_small_phi(dropout=0.4)  # by this thread, as others draw from the same generator

    def new(at_once: int | None = None, group: Group = ALONE) -> tuple[FastTrainer, LoadedModel]:
        loaded = new_small_phi(dropout=0.4)
        config = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-3)
        schedule = TrainingSchedule(config, rows[:ALL_ROWS])
        fast = FastModel(loaded, head, True)
        return FastTrainer(loaded, fast, schedule, at_once, group=group), loaded

    return new


ALL_ROWS, STEPS = 11, 3
"""Rows, and steps of an epoch."""


def losses(trainer: FastTrainer, epoch: int, done: int = 0, until: int = STEPS) -> list[float]:
    pauses = iter([step == until for step in range(done + 1, STEPS + 1)])
    return [step.loss for step in trainer.epoch(epoch, done, lambda: next(pauses))]


def both_epochs(trainer: FastTrainer) -> list[float]:
    return [*losses(trainer, 1), *losses(trainer, 2)]


def test_dropout_depends_neither_on_the_micro_batch_nor_on_the_number_of_processes(
    new_trainer: NewTrainer,
) -> None:
    expected = pytest.approx(both_epochs(new_trainer()[0]), rel=tolerance.training(2 * STEPS))
    assert both_epochs(new_trainer(at_once=2)[0]) == expected
    for got in outcomes(3, lambda group: both_epochs(new_trainer(group=group)[0])):
        assert got == expected


def test_a_training_that_resumes_within_an_epoch_drops_the_same_values(
    new_trainer: NewTrainer, tmp_path: Path
) -> None:
    unbroken, begun, resumed = (new_trainer() for _ in range(3))
    expected = [losses(unbroken[0], 1), losses(unbroken[0], 2)]
    assert losses(begun[0], 1) == expected[0]
    done = losses(begun[0], 2, until=1)
    assert len(done) == 1
    restore(resumed, written(begun, tmp_path / "state.pt"))
    torch.manual_seed(9)  # a state of an older version holds nothing else of dropout
    assert [*done, *losses(resumed[0], 2, done=1)] == expected[1]


@pytest.mark.parametrize(
    ("model", "compiles", "why"),
    [
        ({"dropout": 0.4}, True, ""),
        ({}, False, ""),
        ({"dropout": 0.4}, False, "the adapters' dropout differs with the number of processes"),
        ({"residual": 0.1}, True, "the model's own dropout differs with the number of processes"),
    ],
)
def test_it_is_said_where_dropout_depends_on_the_processes(
    new_small_phi: NewModel,
    head: CausalHead,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, float],
    compiles: bool,
    why: str,
) -> None:
    def made(device: torch.device, dtype: torch.dtype) -> RowMasks:
        if not compiles:
            raise Unsupported("CUDA kernels cannot be compiled")
        return RowMasks(CPU, dtype)

    monkeypatch.setattr(fast_model, "RowMasks", made)
    monkeypatch.setattr(fast_model, "drops_by_row", lambda device: True)
    fast = FastModel(new_small_phi(**model), head, False)
    assert fast.why_dropout_depends_on_processes() == ""
    fast._loaded = dataclasses.replace(fast._loaded, device=torch.device("cuda"))
    assert fast.why_dropout_depends_on_processes() == why


@pytest.mark.slow
@pytest.mark.usefixtures("by_row")
def test_one_compilation_drops_by_row_in_all_layers_and_packs(
    new_small_phi: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    broken_compilers.use("aot_eager", monkeypatch)
    broken_compilers.attend_as_on_a_gpu(monkeypatch)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(fast_model, "choose", lambda *_: (None, [], ""))  # no fused layers
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    loaded = new_small_phi(dropout=0.4, layers=3)
    fast = FastModel(loaded, head, True)
    loaded.model.train()
    fast.seed(5)
    longest = max(rows, key=lambda row: row.length)
    some = [[longest, *rows[:count]] for count in (5, 9, 7)]
    expected = [gradient(fast, part, list(range(len(part))), 0) for part in some]
    layers: Any = fast.compilable
    layers.install()
    for part, value in zip(some, expected, strict=True):
        got = gradient(fast, part, list(range(len(part))), 0)
        assert tolerance.distance(got, value) < tolerance.UPDATES
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()
