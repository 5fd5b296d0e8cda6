from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.gpu.engine import Engine, bounded, halving
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.host import free_bytes
from nlijob.gpu.fast.layers import FastDense, LoRALinear
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import Batch, CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import PlainTrainer
from nlijob.memory import is_out_of_memory
from tests import tolerance

pytestmark = pytest.mark.arithmetic

NewModel = Callable[..., LoadedModel]
DENSE = "packed rows, dequantised weights, micro-batch of 8"
FOUR_BIT = "packed rows, weights as loaded, micro-batch of 8"


def lean(rows: int) -> str:
    return f"packed rows, weights as loaded, gradient checkpointing, micro-batch of {rows}"


def asks_for(speed: str, **train: object) -> JobConfig:
    changes = {f"train.{key}": value for key, value in train.items()}
    without_dropout = {"lora.dropout": 0.0, "model.residual_dropout": 0.0}
    return load_config(
        "demo", {"model.device": "cpu", "train.speed": speed, **without_dropout, **changes}
    )


@pytest.fixture(scope="module")
def plain_losses(new_short_model: NewModel, head: CausalHead, rows: list[Encoded]) -> list[float]:
    """Losses of the plain loop in its first epoch."""
    trainer = Engine(new_short_model(), head, asks_for("plain"), rows).trainer()
    return [step.loss for step in trainer.epoch(1)]


def failing(times: int, error: Exception) -> Callable[..., Callable[[], None]]:
    """A capture that fails this many times."""
    left = iter(range(times))

    def capture(self: Graphs, work: Callable[[], None], **_: bool) -> Callable[[], None]:
        if next(left, None) is not None:
            raise error
        return work

    return capture


@pytest.mark.parametrize(
    ("times", "refused", "weights", "activations", "at_once"),
    [
        (0, [], "dequantized", "kept", 8),
        (1, [DENSE], "as loaded", "kept", 8),
        (2, [DENSE, FOUR_BIT], "as loaded", "recomputed", 8),
        (4, [DENSE, FOUR_BIT, lean(8), lean(4)], "as loaded", "recomputed", 2),
    ],
)
def test_without_memory_to_capture_a_leaner_mode_gives_the_same_losses(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    plain_losses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    refused: list[str],
    weights: str,
    activations: str,
    at_once: int,
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has 1 GiB.")
    monkeypatch.setattr(Graphs, "capture", failing(times, full))
    engine = Engine(new_short_model(), head, asks_for("auto"), rows)
    trainer = engine.trainer()
    assert isinstance(trainer, FastTrainer)
    plan = engine.plan()
    why = "CUDA out of memory. Tried to allocate 2 GiB"
    assert plan.refused == tuple(f"{mode}: {why}" for mode in refused)
    assert (plan.base_weights, plan.activations) == (weights, activations)
    assert (plan.way, plan.micro_batch_size) == ("packed", at_once)
    assert [step.loss for step in trainer.epoch(1)] == pytest.approx(
        plain_losses, rel=tolerance.training(3)
    )


def test_dequantised_weights_that_do_not_fit_rule_out_no_leaner_mode(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_large(self: Engine) -> None:
        raise Unsupported("the weights need 4.7 GiB, and 1.2 GiB are free")

    monkeypatch.setattr(Engine, "_check_dequantized_fits", too_large)
    full = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(Graphs, "capture", failing(2, full))
    engine = Engine(new_short_model(), head, asks_for("auto"), rows)
    engine.trainer()
    assert [text.partition(": ")[0] for text in engine.plan().refused] == [DENSE, FOUR_BIT, lean(8)]
    assert engine.plan().micro_batch_size == 4


def test_only_a_lack_of_memory_leads_to_a_smaller_micro_batch(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Graphs, "capture", failing(9, RuntimeError("not permitted")))
    engine = Engine(new_short_model(), head, asks_for("auto"), rows)
    assert isinstance(engine.trainer(), PlainTrainer)
    refused = [f"{mode}: not permitted" for mode in (DENSE, FOUR_BIT, lean(8))]
    assert engine.plan().refused == tuple(refused)


@pytest.mark.parametrize(
    ("error", "at_once", "tried"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 8, [32, 16]),
        (RuntimeError("not permitted"), 32, [32]),
    ],
)
def test_smaller_micro_batches_come_before_activations_are_recomputed(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    at_once: int,
    tried: list[int],
) -> None:
    monkeypatch.setattr(Graphs, "capture", failing(len(tried), error))
    many = [rows[number % len(rows)] for number in range(32)]
    engine = Engine(new_short_model(), head, asks_for("auto", batch_size=32), many)
    engine.trainer()
    plan = engine.plan()
    dense = "packed rows, dequantised weights, micro-batch of"
    assert plan.refused == tuple(f"{dense} {size}: {error}" for size in tried)
    assert (plan.activations, plan.micro_batch_size) == ("kept", at_once)
    is_dense = plan.base_weights == "dequantized"
    assert is_dense == (at_once == 8)  # another error would end all of them


def test_gradient_checkpointing_starts_with_the_leanest_modes(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    config = asks_for("auto", gradient_checkpointing=True)
    engine = Engine(new_short_model(config), head, config, rows)
    plan = engine.plan()
    assert (plan.base_weights, plan.activations, plan.refused) == ("as loaded", "recomputed", ())


def test_the_plan_says_that_the_plain_loop_stepped_down_in_training(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(new_short_model(), head, asks_for("plain"), rows)
    trainer = engine.trainer()
    assert engine.plan().activations == "kept"
    whole = head.collate

    def collate(some: Sequence[Encoded], device: torch.device) -> object:
        if len(some) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(some, device)

    monkeypatch.setattr(head, "collate", collate)
    next(trainer.epoch(1))
    plan = engine.plan()
    assert plan.refused == (
        "plain loop, micro-batch of 8: CUDA out of memory",
        "plain loop, gradient checkpointing, micro-batch of 8: CUDA out of memory",
    )
    assert (plan.way, plan.activations, plan.micro_batch_size) == ("plain", "recomputed", 4)


def test_a_lack_of_memory_is_recognised_behind_the_error_that_hides_it() -> None:
    covering = RuntimeError("capture was broken off")
    assert not is_out_of_memory(covering)
    covering.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(covering)
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))


def test_a_cpu_uses_packed_rows(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    engine = Engine(new_short_model(), head, asks_for("auto"), rows)
    trainer = engine.trainer()
    assert isinstance(trainer, FastTrainer)
    plan = engine.plan()
    assert (plan.way, plan.base_weights, plan.micro_batch_size) == ("packed", "dequantized", 8)
    assert plan.token_counts == trainer.token_counts
    assert plan.logits_difference is not None
    assert plan.logits_difference < tolerance.rounding(torch.float32, tolerance.DEMO_OPERATIONS)
    assert plan.refused == ()


def noisy(share: float) -> Callable[[FastModel, Sequence[Encoded]], torch.Tensor]:
    """Scoring with a relative error of `share`."""
    exact = FastModel.score_rows
    return lambda model, some: exact(model, some) * (1 + share)


def test_differing_logits_are_detected_at_the_start(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FastModel, "score_rows", noisy(0.1))
    engine = Engine(new_short_model(), head, asks_for("auto"), rows)
    plan = engine.plan()
    assert plan.way == "plain"
    assert "logits differ by 10.0 % from those in float32, and the plain" in plan.refused[0]
    assert isinstance(engine.trainer(), PlainTrainer)


@pytest.mark.parametrize(("off", "way"), [(0.11, "packed"), (-0.11, "packed"), (0.13, "plain")])
def test_a_difference_that_the_plain_loop_has_by_itself_is_rounding(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    off: float,
    way: str,
) -> None:
    exact, plain_off = head.logits, [1.08]

    def rounded(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Plain logits, off by 8 % but in float32; the fast model does not call it."""
        is_fast = any(isinstance(module, FastDense | LoRALinear) for module in model.modules())
        assert way == "plain" or not is_fast
        return exact(model, batch) * plain_off[-1]

    @contextlib.contextmanager
    def without_rounding(_: torch.nn.Module) -> Iterator[None]:
        plain_off.append(1.0)
        yield
        plain_off.pop()

    monkeypatch.setattr("nlijob.gpu.engine.in_float32", without_rounding)
    monkeypatch.setattr(head, "logits", rounded)
    monkeypatch.setattr(FastModel, "score_rows", noisy(off))
    plan = Engine(new_short_model(), head, asks_for("auto"), rows).plan()
    assert (plan.way, bool(plan.refused)) == (way, way == "plain")
    if way == "packed":
        assert plan.logits_difference == pytest.approx(abs(off - 0.08) / 1.08, rel=1e-3)


def test_speed_plain_uses_the_libraries_own_layers(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    engine = Engine(new_short_model(), head, asks_for("plain"), rows)
    assert isinstance(engine.trainer(), PlainTrainer)
    plan = engine.plan()
    assert (plan.way, plan.base_weights, plan.micro_batch_size) == ("plain", "as loaded", 8)
    assert plan.reason == "train.speed=plain"
    assert plan.logits_difference is None


def test_without_memory_for_dequantised_weights_they_stay_in_4_bits(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nlijob.gpu.engine.free_bytes", lambda device: 1)
    plan = Engine(new_short_model(), head, asks_for("auto"), rows).plan()
    assert (plan.way, plan.base_weights) == ("packed", "as loaded")
    assert "0.0 GiB are free" in plan.refused[0]


@pytest.mark.parametrize("free", [1 << 60, 1])
def test_the_plain_loop_is_sped_up_on_a_cpu_that_cannot_use_packed_rows(
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    plain_losses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    free: int,
) -> None:
    def unserved(*_: object) -> None:
        raise Unsupported("not causal")

    monkeypatch.setattr("nlijob.gpu.engine.FastModel", unserved)
    monkeypatch.setattr("nlijob.gpu.engine.free_bytes", lambda device: free)
    loaded = new_short_model()
    engine = Engine(loaded, head, asks_for("auto"), rows)
    plan = engine.plan()
    fits = free > 1
    assert (plan.way, plan.base_weights) == ("plain", "dequantized" if fits else "as loaded")
    assert len(plan.refused) == (3 if fits else 4)
    dense = [module for module in loaded.model.modules() if isinstance(module, FastDense)]
    assert bool(dense) == fits
    assert [s.loss for s in engine.trainer().epoch(1)] == pytest.approx(
        plain_losses, rel=tolerance.training(3)
    )


def test_a_containers_limit_bounds_the_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("nlijob.gpu.fast.host.MEMORY_LIMIT", limit)
    cpu = torch.device("cpu")
    # what other processes use meanwhile changes nothing
    memory = SimpleNamespace(available=2**40)
    monkeypatch.setattr("nlijob.gpu.fast.host.psutil.virtual_memory", lambda: memory)
    limit.write_text("max\n")
    assert free_bytes(cpu) == 2**40
    limit.write_text("1000\n")
    assert free_bytes(cpu) < 0


def test_the_free_memory_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/meminfo")

    monkeypatch.setattr("nlijob.gpu.fast.host.MEMORY_LIMIT", Path("missing"))
    monkeypatch.setattr("nlijob.gpu.fast.host.psutil.virtual_memory", fail)
    assert free_bytes(torch.device("cpu")) > 0


def test_speed_graph_without_a_gpu_is_an_error(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    with pytest.raises(ConfigurationError, match="need an NVIDIA GPU"):
        Engine(new_short_model(), head, asks_for("graph"), rows)


def test_a_scoring_batch_that_does_not_fit_into_memory_is_split(rows: list[Encoded]) -> None:
    sizes: list[int] = []

    def forward(some: Sequence[Encoded]) -> torch.Tensor:
        if len(some) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(some))
        return torch.tensor([[row.example.index] for row in some])

    logits = halving(forward)(rows)
    assert logits[:, 0].tolist() == [row.example.index for row in rows]
    assert sizes == [3] * 8


def test_to_save_memory_a_batch_is_scored_in_parts_of_few_tokens(
    rows: list[Encoded],
) -> None:
    sizes: list[int] = []

    def forward(some: Sequence[Encoded]) -> torch.Tensor:
        sizes.append(len(some))
        return torch.tensor([[row.example.index] for row in some])

    longest = max(row.length for row in rows)
    logits = bounded(forward, 10 * longest)(rows)
    assert logits[:, 0].tolist() == [row.example.index for row in rows]
    assert sizes == [10, 10, 4]
    bounded(forward, longest - 1)(rows[:2])
    assert sizes[3:] == [1, 1]


def test_a_row_that_does_not_fit_into_memory_is_an_error(rows: list[Encoded]) -> None:
    def forward(some: Sequence[Encoded]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        halving(forward)(rows)
