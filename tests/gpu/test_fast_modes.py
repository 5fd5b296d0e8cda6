"""The fast execution modes compared with the plain loop, where that needs a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.errors import DivergedError
from nlijob.gpu import checkpoints
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast import kernels, recompute
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.layers import dequantized
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.recompute import repeated_layers
from nlijob.gpu.scoring import score
from nlijob.gpu.training import PlainTrainer, TrainingSchedule
from nlijob.records.job import Example, TrainStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
GPU = torch.device("cuda", 0)
EACH: dict[str, Any] = {}
TOGETHER: dict[str, Any] = {
    "lora__target_modules": ("q_proj", "k_proj", "v_proj", "dense"),
    "lora__r": 16,
}
"""With adapters on exactly these layers, the layers are fused, with kernels of this project."""
layers = pytest.mark.parametrize(
    "targets", [EACH, TOGETHER], ids=["library layers", "fused layers"]
)
# How far losses may part: a step's loss in bfloat16 (8 bits) has the rounding of some 50 stored
# values, averaged over the rows of a batch: sqrt(50) * 2^-8 / sqrt(8), 1e-2, of which a mean over
# steps stays below twice and the worst of 100 steps below ten times. float16 has an eighth of that
# and the steps' own growth (tests/tolerance.py), float32 that growth alone.
EXACT = {"lora.dropout": 0.0, "model.residual_dropout": 0.0, "model.device": "cuda"}


def config(**changes: Any) -> JobConfig:
    options = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config("demo", {**EXACT, "train.epochs": 8, **options})


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:101]


@pytest.fixture(scope="module")
def head(tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, config().prompt, 256, examples)


NewModel = Callable[[JobConfig], LoadedModel]


def steps(engine: Engine, epochs: int) -> list[TrainStep]:
    trainer = engine.trainer()
    return [step for epoch in range(1, epochs + 1) for step in trainer.epoch(epoch)]


def test_dequantised_weights_equal_those_that_4_bit_layers_use(
    new_model: NewModel, head: Head
) -> None:
    loaded = new_model(config())
    layers = [m for m in loaded.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    # the product with the identity matrix shows the weights that the layer uses
    eyes = [torch.eye(m.in_features, device=GPU, dtype=loaded.compute_dtype) for m in layers]
    biases = [0 if m.bias is None else m.bias for m in layers]
    with torch.no_grad():
        used = [m(eye) for m, eye in zip(layers, eyes, strict=True)]
        dense = [dequantized(m.weight.data, m.weight.quant_state) for m in layers]
    for values, weight, bias in zip(used, dense, biases, strict=True):
        assert torch.equal(values, weight.t() + bias)


@layers
@pytest.mark.parametrize(
    ("dtype", "each", "mean"), [("float32", 1e-2, 1e-3), ("bfloat16", 0.1, 1e-2)]
)
def test_losses_follow_the_plain_loops_over_100_steps(
    new_model: NewModel,
    head: Head,
    rows: list[Encoded],
    dtype: str,
    each: float,
    mean: float,
    targets: dict[str, Any],
) -> None:
    # in bfloat16, two plain loops with different micro-batches differ as much after 100 steps
    plain = config(train__speed="plain", model__compute_dtype=dtype, **targets)
    fast = config(train__speed="graph", model__compute_dtype=dtype, **targets)
    losses = [
        torch.tensor([step.loss for step in steps(Engine(new_model(job), head, job, rows), 8)])
        for job in (plain, fast)
    ]
    difference = (losses[1] - losses[0]).abs() / losses[0]
    assert len(difference) == 104
    assert difference.max() < each
    assert difference.mean() < mean


def test_micro_batches_do_not_change_losses(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    whole, parts = (config(train__speed="graph", train__micro_batch_size=m) for m in (None, 2))
    expected = steps(Engine(new_model(whole), head, whole, rows), 1)
    got = steps(Engine(new_model(parts), head, parts, rows), 1)
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=2e-2)


@layers
def test_a_saved_adapter_scores_the_same_with_peft_alone(
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    tmp_path: Path,
    targets: dict[str, Any],
) -> None:
    job = config(train__speed="graph", **targets)
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    assert engine.plan().way == "graph"
    steps(engine, 4)
    checkpoints.save_adapter(loaded.model, tmp_path, job.model)
    fast, _ = score(engine.forward(), head, "train", rows, 32, lambda done: None)
    other = new_model(job)
    checkpoints.load_adapter(other.model, tmp_path)
    alone = Engine(other, head, config(train__speed="plain", **targets), rows)
    plain, _ = score(alone.forward(), head, "train", rows, 32, lambda done: None)
    assert fast.loss == pytest.approx(plain.loss, rel=2e-2)
    assert abs(fast.correct - plain.correct) <= 2


@layers
def test_dropout_differs_between_steps_and_is_reproducible_from_the_seed(
    new_model: NewModel, head: Head, rows: list[Encoded], targets: dict[str, Any]
) -> None:
    job = config(train__speed="graph", lora__dropout=0.5, train__learning_rate=1e-9, **targets)
    loaded = new_model(job)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    one = [rows[0]] * 64  # the same row in every step: only dropout makes losses differ
    trainer = Engine(loaded, head, job, one).trainer()
    first, again = (torch.tensor([step.loss for step in trainer.epoch(1)]) for _ in range(2))
    assert (first - again).abs().max() < 1e-2 * first.mean()  # rounding
    assert (
        first.max() - first.min() > 2e-2 * first.mean()
    )  # eight steps, of which two may be close by chance


@layers
def test_a_training_resumed_from_disk_equals_an_uninterrupted_one(
    new_model: NewModel,
    head: Head,
    rows: list[Encoded],
    tmp_path: Path,
    targets: dict[str, Any],
) -> None:
    job = config(train__speed="graph", lora__dropout=0.1, **targets)
    loaded, other = new_model(job), new_model(job)
    trainer = Engine(loaded, head, job, rows).trainer()
    list(trainer.epoch(1))
    checkpoints.save_adapter(loaded.model, tmp_path, job.model)
    checkpoints.save_state(trainer.state(), tmp_path / "state.pt")
    expected = [step.loss for step in trainer.epoch(2)]
    resumed = Engine(other, head, job, rows).trainer()
    checkpoints.load_adapter(other.model, tmp_path)
    resumed.restore(checkpoints.load_state(tmp_path / "state.pt"))
    assert [s.loss for s in resumed.epoch(2)] == pytest.approx(expected, rel=1e-2, abs=1e-3)


def test_a_step_that_diverges_is_named(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    job = config(train__speed="graph")
    loaded = new_model(job)
    trainer = Engine(loaded, head, job, rows).trainer()
    with torch.no_grad():
        next(p for n, p in loaded.model.named_parameters() if "lora_A" in n).fill_(float("nan"))
    with pytest.raises(DivergedError, match="epoch 1, step 1: loss nan"):
        list(trainer.epoch(1))


def test_without_memory_for_graphs_the_plain_loop_trains_with_the_same_batch(
    new_model: NewModel, head: Head, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Graphs, "capture", full)
    job = config()
    engine = Engine(new_model(job), head, job, rows)
    trainer = engine.trainer()
    assert isinstance(trainer, PlainTrainer)
    assert engine.plan().way == "plain"
    refused = engine.plan().refused
    assert [text.partition(": ")[0] for text in refused] == [
        "CUDA graphs, dequantised weights, micro-batch of 8",
        "CUDA graphs, weights as loaded, micro-batch of 8",
        *(
            f"CUDA graphs, weights as loaded, gradient checkpointing, micro-batch of {n}"
            for n in (8, 4, 2, 1)
        ),
    ]
    reference = config(train__speed="plain")
    expected = steps(Engine(new_model(reference), head, reference, rows), 1)
    got = list(trainer.epoch(1))
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=1e-3)


def test_without_a_compiler_for_kernels_the_librarys_layers_are_captured(
    new_model: NewModel, head: Head, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise Unsupported("no compiler")

    job = config(train__speed="graph", **TOGETHER)
    expected = steps(Engine(new_model(job), head, job, rows), 1)
    monkeypatch.setattr(kernels.SOURCE, "compile", missing)
    engine = Engine(new_model(job), head, job, rows)
    got = steps(engine, 1)
    assert (engine.plan().way, engine.plan().base_weights) == ("graph", "dequantized")
    assert "no compiler" in engine.plan().refused[0]
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=0.1)


def test_the_classification_head_trains_in_graphs(
    tokenizer: Any, new_model: NewModel, examples: list[Example]
) -> None:
    job = config(
        model__head="sequence-classification", prompt__verbalizers=(), train__learning_rate=1e-3
    )
    head = ClassificationHead(tokenizer, job.prompt, 256)
    pairs = head.encode("train", examples)
    plain = dataclasses.replace(job, train=dataclasses.replace(job.train, speed="plain"))
    expected = steps(Engine(new_model(plain), head, plain, pairs), 2)
    engine = Engine(new_model(job), head, job, pairs)
    got = steps(engine, 2)
    assert engine.plan().way == "graph"
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=3e-2, abs=1e-2)


@pytest.mark.parametrize(
    ("dtype", "times", "options"),
    [  # each element type by each kind of layers; the rest once, in the type that a GPU trains in
        *(("float32", 1, options) for options in (EACH, TOGETHER)),
        *(("float16", 1, options) for options in (EACH, TOGETHER)),
        *(("bfloat16", 1, EACH), ("bfloat16", 6, TOGETHER)),
        ("bfloat16", 1, {"train__gradient_checkpointing": True}),
    ],
)
def test_rows_with_a_shared_prefix_train_as_in_the_plain_loop(
    tokenizer: Any,
    new_model: NewModel,
    examples: list[Example],
    dtype: str,
    times: int,
    options: dict[str, Any],
) -> None:
    task = " A text is given and a claim is made. Say whether the text shows the claim to be true."
    template = times * task + config().prompt.template
    ways = [
        config(train__speed=speed, model__compute_dtype=dtype, prompt__template=template, **options)
        for speed in ("plain", "graph")
    ]
    head = CausalHead(tokenizer, ways[0].prompt, 256, examples)
    alike = head.encode("train", examples)
    engines = [Engine(new_model(job), head, job, alike) for job in ways]
    expected, got = (torch.tensor([s.loss for s in steps(engine, 2)]) for engine in engines)
    assert engines[1].plan().way == "graph"
    assert engines[1].plan().shared_prefix > 20 * times
    difference = (got - expected).abs() / expected
    assert difference.mean() < (1e-3 if dtype == "float32" else 2e-2), difference


def test_a_resumed_run_keeps_its_pack_sizes(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    job = config(train__speed="graph", **TOGETHER)
    first = Engine(new_model(job), head, job, rows).trainer()
    list(first.epoch(1))
    state = checkpoints.on_host(first.state())
    more = [count + 16 for count in state["token_counts"]]
    loaded = new_model(job)
    second = Engine(loaded, head, job, rows).trainer()
    second.restore({**state, "token_counts": more})
    assert second.state()["token_counts"] == tuple(more)
    assert all(torch.isfinite(torch.tensor([s.loss for s in second.epoch(2)])))


@layers
@pytest.mark.parametrize(("begins", "resumes"), [(8, 2), (2, 8)])
def test_a_training_resumes_with_another_micro_batch(
    new_model: NewModel,
    head: Head,
    rows: list[Encoded],
    tmp_path: Path,
    targets: dict[str, Any],
    begins: int,
    resumes: int,
) -> None:
    jobs_of = [
        config(
            train__speed="graph",
            train__micro_batch_size=at_once,
            model__compute_dtype="float32",
            **targets,
        )
        for at_once in (begins, resumes)
    ]
    models = [new_model(job) for job in jobs_of]
    first, second = (
        Engine(loaded, head, job, rows).trainer()
        for loaded, job in zip(models, jobs_of, strict=True)
    )
    list(first.epoch(1))
    checkpoints.save_adapter(models[0].model, tmp_path, jobs_of[0].model)
    state = checkpoints.on_host(first.state())
    expected = [step.loss for step in first.epoch(2)]
    fresh = second.state()["token_counts"]
    checkpoints.load_adapter(models[1].model, tmp_path)
    second.restore(state)
    assert second.state()["token_counts"] == fresh
    # float32: in bfloat16 rounding grows over the steps, as between two plain loops
    assert [s.loss for s in second.epoch(2)] == pytest.approx(expected, rel=1e-2)


@layers
def test_training_resumes_with_new_pack_sizes_if_the_saved_ones_do_not_fit(
    new_model: NewModel,
    head: Head,
    rows: list[Encoded],
    targets: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = config(train__speed="graph", **targets)
    trainer = Engine(new_model(job), head, job, rows).trainer()
    state = checkpoints.on_host(trainer.state())
    expected = [step.loss for step in trainer.epoch(1)]
    second = Engine(new_model(job), head, job, rows).trainer()
    fresh = second.state()["token_counts"]  # chosen by measured time: not always the first one's
    capture, left = Graphs.capture, iter([True])

    def full(self: Graphs, work: Callable[[], None]) -> Callable[[], None]:
        def too_large() -> None:
            work()
            if torch.cuda.is_current_stream_capturing():
                raise torch.OutOfMemoryError("CUDA out of memory")

        return capture(self, work if next(left, False) else too_large)

    monkeypatch.setattr(Graphs, "capture", full)
    second.restore({**state, "token_counts": (fresh[0], fresh[-1] + 48)})
    assert second.state()["token_counts"] == fresh
    # other packs, other products: bfloat16 rounds otherwise, by 1 % in one of thirteen steps
    assert [s.loss for s in second.epoch(1)] == pytest.approx(expected, rel=2e-2)


@layers
def test_float16_losses_follow_the_plain_loops(
    new_model: NewModel, head: Head, rows: list[Encoded], targets: dict[str, Any]
) -> None:
    plain = config(train__speed="plain", model__compute_dtype="float16", **targets)
    fast = config(train__speed="graph", model__compute_dtype="float16", **targets)
    expected, got = (steps(Engine(new_model(job), head, job, rows), 4) for job in (plain, fast))
    assert [s.grad_norm is None for s in got] == [s.grad_norm is None for s in expected]
    losses = [torch.tensor([step.loss for step in of_way]) for of_way in (expected, got)]
    assert ((losses[1] - losses[0]).abs() / losses[0]).mean() < 1e-2


def test_an_overflow_in_float16_is_skipped_and_the_scale_backs_off(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    for speed in ("plain", "graph"):
        job = config(train__speed=speed, model__compute_dtype="float16")
        loaded = new_model(job)
        trainer = Engine(loaded, head, job, rows).trainer()
        state = trainer.state()
        first = trainer.epoch(1)
        next(first)
        state = checkpoints.on_host(trainer.state())
        state["scaler"]["scale"] = 2.0**40
        trainer.restore(state)
        before = {n: p.clone() for n, p in loaded.model.named_parameters() if p.requires_grad}
        step = next(trainer.epoch(2))
        assert step.grad_norm is None
        assert trainer.state()["scaler"]["scale"] < 2.0**40
        if speed == "plain":  # graphs are some steps ahead by now
            for name, parameter in loaded.model.named_parameters():
                if name in before:
                    assert torch.equal(parameter, before[name])


def test_recomputed_layers_have_the_losses_of_others(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    kept = new_model(config())
    schedule = TrainingSchedule(config().train, rows)
    expected = FastTrainer(kept, FastModel(kept, head, False), schedule, None).epoch(1)
    job = config(train__speed="graph", train__gradient_checkpointing=True)
    engine = Engine(new_model(job), head, job, rows)
    got = steps(engine, 1)
    plan = engine.plan()
    assert (plan.way, plan.base_weights, plan.activations) == ("graph", "as loaded", "recomputed")
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=1e-2)


def test_a_recomputed_layer_drops_the_same_values(
    new_model: NewModel, head: Head, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config(model__compute_dtype="float32", lora__dropout=0.5, model__residual_dropout=0.5)
    loaded = new_model(job)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    fast = FastModel(loaded, head, False, recomputes=True)
    trainer = FastTrainer(loaded, fast, TrainingSchedule(job.train, rows[:8]), None)
    (shape, vector, replay), *_ = trainer.steps._packs.values()
    vector.copy_(fast.to_device(rows[:8], shape, 8))
    loaded.model.train()
    gradient = fast.adapter.gradient

    def gradients(add: Callable[[], None]) -> list[torch.Tensor]:
        """Gradients of two passes, each with new dropout."""
        fast.seed(7)
        out = []
        for _ in range(2):
            gradient.zero_()
            add()
            out.append(gradient.clone())
        return out

    got = gradients(replay)

    # the same layers without recomputation: activations of the forward pass are kept
    def kept(layer: Any, *inputs: Any, context_fn: Any, **_: Any) -> Any:
        with context_fn()[0]:
            return layer(*inputs)

    monkeypatch.setattr(recompute, "checkpoint", kept)
    expected = gradients(lambda: trainer.steps._add(vector, shape))
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() / b.norm() < 1e-4
    assert (got[0] - got[1]).norm() / got[0].norm() > 0.1


def test_running_out_of_memory_in_a_recomputed_layer_leaves_the_model_intact(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    job = config(train__gradient_checkpointing=True, lora__dropout=0.1)
    loaded = new_model(job)
    calls = iter(range(1000))

    def full_after(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if loaded.model.training and next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    layers = repeated_layers(loaded.model)
    hook = layers[1].mlp.register_forward_pre_hook(full_after)
    engine = Engine(loaded, head, job, rows)
    got = steps(engine, 1)
    hook.remove()
    plan = engine.plan()
    assert (plan.way, plan.micro_batch_size, len(plan.refused)) == ("graph", 4, 1)
    expected = steps(Engine(new_model(job), head, job, rows), 1)
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=0.2)


def test_refused_modes_leave_no_memory_allocated(
    new_model: NewModel, head: Head, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[int] = []
    capture = Graphs.capture

    def full(self: Graphs, work: Callable[[], None]) -> None:
        before.append(torch.cuda.memory_allocated())
        capture(self, work)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Graphs, "capture", full)
    engine = Engine(new_model(config()), head, config(train__speed="auto"), rows)
    assert isinstance(engine.trainer(), PlainTrainer)
    assert len(before) == 6
    # the first capture allocates what libraries need once
    assert max(before[2:]) - before[1] < 2**20


def test_capturing_does_not_change_the_adapter(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    loaded = new_model(config())
    before = {name: p.clone() for name, p in loaded.model.named_parameters() if p.requires_grad}
    FastTrainer(loaded, FastModel(loaded, head, True), TrainingSchedule(config().train, rows), None)
    for name, parameter in loaded.model.named_parameters():
        if name in before:
            assert torch.equal(parameter, before[name])
