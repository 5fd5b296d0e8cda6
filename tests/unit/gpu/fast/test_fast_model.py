"""The fast model compared with the plain loop on a CPU, in float32 unless stated otherwise."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from torch.nn import functional

from nlijob.config import JobConfig, TrainConfig, load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR
from nlijob.errors import DivergedError
from nlijob.gpu import checkpoints
from nlijob.gpu import training as plain_trainer
from nlijob.gpu.fast import steps as fast_steps
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.model import FastModel, check_features, shape_of
from nlijob.gpu.fast.packing import view
from nlijob.gpu.fast.stacks.phi import FastPhiModel
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.recompute import repeated_layers
from nlijob.gpu.training import PlainTrainer, Trainer, TrainingSchedule
from nlijob.records.job import Example
from tests import tolerance

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-3, schedule="cosine")
STEPS = 8
"""Of these two epochs of 13 rows: the last step of each has one row."""
LOGITS = tolerance.rounding(torch.float32, tolerance.DEMO_OPERATIONS)
GRADIENTS = tolerance.rounding(torch.float32, 2 * tolerance.DEMO_OPERATIONS)
"""A gradient comes through the model twice, there and back."""

NewModel = Callable[..., LoadedModel]
ATTENTION = ("q_proj", "k_proj", "v_proj", "dense")
"""With adapters on exactly these layers, a Phi model's layers are fused."""


@pytest.fixture(params=["library layers", "fused layers"])
def new_short_model(
    demo: JobConfig, new_short_model: NewModel, request: pytest.FixtureRequest
) -> NewModel:
    together = request.param == "fused layers"

    def new(config: JobConfig = demo) -> LoadedModel:
        chosen = config.lora.target_modules != demo.lora.target_modules
        lora = dataclasses.replace(config.lora, target_modules=ATTENTION)
        return new_short_model(
            dataclasses.replace(config, lora=lora) if together and not chosen else config
        )

    return new


@pytest.fixture(scope="module")
def rows(rows: list[Encoded]) -> list[Encoded]:
    return rows[:13]


@pytest.fixture(scope="module")
def alike(demo: JobConfig, tokenizer: Any, rows: list[Encoded]) -> list[Encoded]:
    """Rows with a shared prefix, which a pack holds once."""
    task = "A text is given and a claim is made. Say whether the text shows the claim to be true."
    prompt = dataclasses.replace(demo.prompt, template=f"{task}{demo.prompt.template}")
    examples = [row.example for row in rows]
    return [*CausalHead(tokenizer, prompt, 128, examples).encode("validation", examples)]


@pytest.fixture(params=["rows", "alike"])
def either(request: pytest.FixtureRequest) -> list[Encoded]:
    """Rows without a shared prefix, and rows with one."""
    chosen: list[Encoded] = request.getfixturevalue(request.param)
    return chosen


def pairwise(name: str, one: object, other: object) -> pytest.MarkDecorator:
    """Every pair of model, rows and value of `name` at least once, in half of all combinations."""
    combinations = [
        ("library layers", "rows", one),
        ("library layers", "alike", other),
        ("fused layers", "rows", other),
        ("fused layers", "alike", one),
    ]
    names = ("new_short_model", "either", name)
    return pytest.mark.parametrize(names, combinations, indirect=names[:2])


def tuned(loaded: LoadedModel) -> LoadedModel:
    """The model with an adapter that changes its output."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return loaded


def losses(trainer: Trainer) -> list[float]:
    return [step.loss for step in trainer.epoch(1)]


@torch.no_grad()
def plain_logits(loaded: LoadedModel, head: Head, rows: list[Encoded]) -> torch.Tensor:
    loaded.model.eval()
    return head.logits(loaded.model, head.collate(rows, CPU))


def trainers(
    new_short_model: NewModel,
    head: Head,
    rows: list[Encoded],
    config: TrainConfig = CONFIG,
    dense: bool = True,
    recomputes: bool = False,
) -> tuple[tuple[PlainTrainer, LoadedModel], tuple[FastTrainer, LoadedModel]]:
    plain, other = new_short_model(), new_short_model()
    schedule = TrainingSchedule(config, rows)
    model = FastModel(other, head, dense, recomputes)
    fast = FastTrainer(other, model, schedule, config.micro_batch_size)
    return (PlainTrainer(plain, head, schedule), plain), (fast, other)


def test_a_shared_prefix_is_computed_once(
    new_short_model: NewModel, head: CausalHead, alike: list[Encoded]
) -> None:
    shape = shape_of(alike)
    assert shape.prefix > 20
    assert shape.tokens < sum(row.length for row in alike) - shape.prefix * (len(alike) - 2)
    _, (fast, _) = trainers(new_short_model, head, alike)
    assert fast.prefix == shape.prefix


@pytest.mark.parametrize("dense", [True, False])
def test_logits_of_packed_rows_equal_those_of_the_plain_loop(
    new_short_model: NewModel, head: CausalHead, either: list[Encoded], dense: bool
) -> None:
    loaded = tuned(new_short_model())
    expected = plain_logits(loaded, head, either[:6])
    fast = FastModel(loaded, head, dense)
    assert tolerance.distance(fast.score_rows(either[:6]), expected) < LOGITS


def test_layers_are_fused_where_that_is_supported(
    demo: JobConfig, new_short_model: NewModel, head: CausalHead
) -> None:
    loaded = new_short_model()
    targets = loaded.model.peft_config["default"].target_modules
    FastModel(loaded, head, True)
    assert isinstance(loaded.model.get_base_model().model, FastPhiModel) == (
        set(targets) == set(ATTENTION)
    )


def test_with_the_adapter_disabled_the_base_model_is_scored(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    base = plain_logits(new_short_model(), head, rows[:4])
    loaded = tuned(new_short_model())
    fast = FastModel(loaded, head, True)
    with loaded.model.disable_adapter():
        assert tolerance.distance(fast.score_rows(rows[:4]), base) < LOGITS


def test_close_restores_the_model(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    loaded = tuned(new_short_model())
    before = plain_logits(loaded, head, rows[:4])
    classes = [type(module) for module in loaded.model.modules()]
    FastModel(loaded, head, True).close()
    assert [type(module) for module in loaded.model.modules()] == classes
    assert torch.equal(plain_logits(loaded, head, rows[:4]), before)


@pairwise("dtype", "float32", "bfloat16")
def test_losses_equal_the_plain_loops_in_the_dtypes_of_a_cpu(
    demo: JobConfig, new_short_model: NewModel, head: CausalHead, either: list[Encoded], dtype: str
) -> None:
    config = load_config("demo", {"model.compute_dtype": dtype, "lora.dropout": 0.0})
    of_dtype = functools.partial(new_short_model, dataclasses.replace(demo, model=config.model))
    (plain, _), (fast, loaded) = trainers(of_dtype, head, either)
    assert loaded.compute_dtype is getattr(torch, dtype)
    expected = losses(plain)
    bound = tolerance.training(STEPS)
    if dtype == "bfloat16":  # its rounding outweighs all else; in a mean over a batch it averages
        bound = tolerance.rounding(torch.bfloat16, tolerance.DEMO_STORED) / CONFIG.batch_size**0.5
    assert losses(fast) == pytest.approx(expected, rel=bound)
    assert expected[-1] < 0.9 * expected[0]


@pytest.mark.parametrize(("dense", "recomputes"), [(True, False), (False, False), (False, True)])
def test_gradients_equal_those_of_peft(
    new_short_model: NewModel,
    head: CausalHead,
    either: list[Encoded],
    dense: bool,
    recomputes: bool,
) -> None:
    plain, other = tuned(new_short_model()), tuned(new_short_model())
    logits = head.logits(plain.model, head.collate(either[:5], CPU))
    functional.cross_entropy(logits, head.targets(either[:5], CPU)).backward()  # type: ignore[no-untyped-call]
    fast = FastModel(other, head, dense, recomputes)
    other.model.train(recomputes)  # activations are recomputed in training mode only
    shape = shape_of(either[:5])
    packed = view(fast.to_device(either[:5], shape, 5), shape)
    fast.adapter.add_gradient(
        functional.cross_entropy(fast.logits(packed, shape), packed.targets.long())
    )
    got = dict(other.model.named_parameters())
    compared = 0
    for name, parameter in plain.model.named_parameters():
        if parameter.requires_grad:
            assert tolerance.distance(got[name].grad, parameter.grad) < GRADIENTS, name
            compared += 1
    assert compared == len(fast.adapter.parameters)


@pytest.mark.parametrize("dense", [True, False])
def test_gradients_with_dropout_equal_finite_differences_of_the_loss(
    demo: JobConfig, new_short_model: NewModel, head: CausalHead, either: list[Encoded], dense: bool
) -> None:
    lora = dataclasses.replace(demo.lora, dropout=0.3)
    loaded = tuned(new_short_model(dataclasses.replace(demo, lora=lora)))
    loaded.model.train()
    fast = FastModel(loaded, head, dense)
    shape = shape_of(either[:5])
    packed = view(fast.to_device(either[:5], shape, 5), shape)
    adapter = fast.adapter

    def loss() -> torch.Tensor:
        torch.manual_seed(3)  # drop the same values every time
        adapter.refresh()
        return functional.cross_entropy(fast.logits(packed, shape), packed.targets.long())

    adapter.add_gradient(loss())
    start = adapter.master.clone()
    torch.manual_seed(4)
    for part in (adapter.parameters[0], adapter.parameters[-1], adapter.master):
        step = 2e-3 * torch.randn_like(part)
        with torch.no_grad():
            ahead = (part.add_(step), loss())[1]
            behind = (part.sub_(2 * step), loss())[1]
            grad = adapter.gradient if part is adapter.master else part.grad
            assert grad is not None
            adapter.master.copy_(start)
        # the third derivative makes a difference of some percent; rounding, of 1e-6 of a loss
        assert ahead - behind == pytest.approx(2 * float((grad * step).sum()), rel=3e-2, abs=1e-5)


@pairwise("micro", None, 3)
def test_training_takes_the_steps_of_the_plain_loop(
    new_short_model: NewModel, head: CausalHead, either: list[Encoded], micro: int | None
) -> None:
    config = dataclasses.replace(CONFIG, micro_batch_size=micro)
    (plain, plain_model), (fast, fast_model) = trainers(new_short_model, head, either, config)
    start = checkpoints.adapter_weights(new_short_model().model)
    for epoch in (1, 2):
        for expected, got in zip(plain.epoch(epoch), fast.epoch(epoch), strict=True):
            assert got.loss == pytest.approx(expected.loss, rel=tolerance.training(STEPS))
            assert got.grad_norm == pytest.approx(expected.grad_norm, rel=tolerance.UPDATES)
            assert (got.step, got.examples) == (expected.step, expected.examples)
            assert got.learning_rate == expected.learning_rate
    weights = checkpoints.adapter_weights(fast_model.model)
    for name, weight in checkpoints.adapter_weights(plain_model.model).items():
        assert tolerance.distance(weights[name], weight, start[name]) < tolerance.updates(name), (
            name
        )


@pairwise("dropout", 0.0, 0.3)
def test_recomputed_layers_train_like_others(
    demo: JobConfig,
    new_short_model: NewModel,
    head: CausalHead,
    either: list[Encoded],
    dropout: float,
) -> None:
    lora = dataclasses.replace(demo.lora, dropout=dropout)
    model = dataclasses.replace(demo.model, residual_dropout=dropout)
    job = dataclasses.replace(demo, lora=lora, model=model)
    (_, (kept, _)), (_, (again, _)) = (
        trainers(lambda: new_short_model(job), head, either, dense=False, recomputes=recomputes)
        for recomputes in (False, True)
    )
    assert losses(again) == losses(kept)


def test_recomputed_layers_keep_fewer_activations(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    def kept(recomputes: bool) -> int:
        """Bytes that are kept for the backward pass."""
        loaded = tuned(new_short_model())
        fast = FastModel(loaded, head, False, recomputes)
        loaded.model.train()
        shape = shape_of(rows)
        packed = view(fast.to_device(rows, shape, len(rows)), shape)
        held: dict[int, int] = {}

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            logits = fast.logits(packed, shape)
        assert logits.requires_grad
        return sum(held.values())

    assert kept(True) < kept(False) / 2


def test_close_stops_gradient_checkpointing(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    loaded = new_short_model()
    FastModel(loaded, head, False, recomputes=True).close()
    assert not any(layer.gradient_checkpointing for layer in repeated_layers(loaded.model))


def test_losses_follow_the_plain_loops_over_many_steps(
    new_short_model: NewModel, head: CausalHead
) -> None:
    labelled = [
        (i, r) for i, r in enumerate(read_file(DATA_DIR / "train.jsonl").rows) if r["label"] >= 0
    ]
    some = [Example(i, r["premise"], r["hypothesis"], r["label"]) for i, r in labelled[:40]]
    config = dataclasses.replace(CONFIG, batch_size=1)
    (plain, _), (fast, _) = trainers(new_short_model, head, [*head.encode("train", some)], config)
    losses = [torch.tensor([step.loss for step in way.epoch(1)]) for way in (plain, fast)]
    assert len(losses[0]) == 40
    assert ((losses[1] - losses[0]).abs() / losses[0]).max() < tolerance.training(40)


def test_a_saved_adapter_scores_the_same_with_peft_alone(
    demo: JobConfig,
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    tmp_path: Path,
) -> None:
    _, (fast, model) = trainers(new_short_model, head, rows)
    list(fast.epoch(1))
    checkpoints.save_adapter(model.model, tmp_path, demo.model)
    other = new_short_model()
    checkpoints.load_adapter(other.model, tmp_path)
    fast._fast.adapter.refresh()
    model.model.eval()
    expected = plain_logits(other, head, rows[:6])
    assert tolerance.distance(fast._fast.score_rows(rows[:6]), expected) < LOGITS


@pytest.mark.parametrize(
    ("new_short_model", "begins", "resumes"),
    [
        ("library layers", "plain", "fast"),
        ("library layers", "fast", "fast"),
        ("fused layers", "fast", "plain"),
    ],
    indirect=["new_short_model"],
)
def test_either_trainer_resumes_from_the_others_state(
    demo: JobConfig,
    new_short_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    tmp_path: Path,
    begins: str,
    resumes: str,
) -> None:
    def pick(kind: str) -> tuple[Trainer, LoadedModel]:
        plain, fast = trainers(new_short_model, head, rows)
        return plain if kind == "plain" else fast

    first, model = pick(begins)
    list(first.epoch(1))
    checkpoints.save_adapter(model.model, tmp_path, demo.model)
    checkpoints.save_state(first.state(), tmp_path / "state.pt")
    expected = list(first.epoch(2))
    second, other = pick(resumes)
    checkpoints.load_adapter(other.model, tmp_path)
    second.restore(checkpoints.load_state(tmp_path / "state.pt"))
    for a, b in zip(second.epoch(2), expected, strict=True):
        assert (
            (a.loss == b.loss)
            if begins == resumes
            else a.loss == pytest.approx(b.loss, rel=tolerance.training(STEPS))
        )
        assert (a.step, a.learning_rate) == (b.step, b.learning_rate)


def test_a_nan_loss_stops_training_and_names_its_step(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    _, (fast, _model) = trainers(new_short_model, head, rows)
    steps = fast.epoch(1)
    next(steps)
    with torch.no_grad():
        fast._fast.adapter.master.fill_(float("nan"))
        fast._fast.adapter.refresh()
    with pytest.raises(DivergedError, match="epoch 1, step 2: loss nan"):
        list(steps)


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss scaling as in float16, which CPUs do not train in; the first scale overflows."""
    scaler = functools.partial(
        torch.amp.GradScaler, "cpu", init_scale=2.0**127, backoff_factor=2.0**-10, growth_interval=3
    )
    for module in (fast_steps, plain_trainer):
        monkeypatch.setattr(module, "loss_scaler", lambda loaded: scaler())


def test_overflows_are_skipped_as_in_the_plain_loop(
    scaled: None, new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    (plain, plain_model), (fast, fast_model) = trainers(new_short_model, head, rows)
    start = checkpoints.adapter_weights(new_short_model().model)
    expected, got = ([s for e in (1, 2) for s in t.epoch(e)] for t in (plain, fast))
    assert [step.grad_norm is None for step in got] == [s.grad_norm is None for s in expected]
    assert got[0].grad_norm is None
    assert got[-1].grad_norm is not None
    bound = tolerance.training(STEPS)
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=bound)
    assert fast.state()["scaler"] == plain.state()["scaler"]
    weights = checkpoints.adapter_weights(fast_model.model)
    for name, weight in checkpoints.adapter_weights(plain_model.model).items():
        assert tolerance.distance(weights[name], weight, start[name]) < tolerance.updates(name), (
            name
        )


@pytest.mark.parametrize(
    ("new_short_model", "resumes"),
    [("library layers", "plain"), ("fused layers", "fast")],
    indirect=["new_short_model"],
)
def test_either_trainer_restores_the_loss_scale_of_the_other(
    scaled: None, new_short_model: NewModel, head: CausalHead, rows: list[Encoded], resumes: str
) -> None:
    plain, fast = (trainer for trainer, _ in trainers(new_short_model, head, rows))
    first, second = (fast, plain) if resumes == "plain" else (plain, fast)
    list(first.epoch(1))
    next(second.epoch(1))
    state = first.state()
    assert state["scaler"] != second.state()["scaler"]
    first.restore(state)
    second.restore(state)
    assert second.state()["scaler"] == state["scaler"]


def test_the_classification_head_is_trained_too(
    demo: JobConfig, tokenizer: Any, new_short_model: NewModel, rows: list[Encoded]
) -> None:
    model = dataclasses.replace(demo.model, head="sequence-classification")
    prompt = dataclasses.replace(demo.prompt, verbalizers=())
    config = dataclasses.replace(demo, model=model, prompt=prompt)
    head = ClassificationHead(tokenizer, prompt, 128)
    pairs = [*head.encode("train", [row.example for row in rows])]
    (plain, _), (fast, _) = trainers(lambda: new_short_model(config), head, pairs)
    for expected, got in zip(plain.epoch(1), fast.epoch(1), strict=True):
        assert got.loss == pytest.approx(expected.loss, rel=tolerance.training(STEPS))


def test_dequantised_weights_equal_those_that_the_4_bit_layer_uses(
    new_short_model: NewModel, head: CausalHead
) -> None:
    loaded = new_short_model()
    layers = [m for m in loaded.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    used = [layer(torch.eye(layer.in_features)) for layer in layers]
    FastModel(loaded, head, True)
    for layer, values in zip(layers, used, strict=True):
        if hasattr(layer, "fast_weight"):
            with torch.no_grad():
                got = torch.nn.functional.linear(
                    torch.eye(layer.in_features), layer.fast_weight, layer.bias
                )
            assert torch.equal(got, values)


def test_an_architecture_with_fewer_keys_than_queries_is_supported(
    new_llama: NewModel, head: CausalHead, either: list[Encoded]
) -> None:
    (plain, _), (fast, _) = trainers(new_llama, head, either)
    for expected, got in zip(plain.epoch(1), fast.epoch(1), strict=True):
        # a smaller model than the demo's
        assert got.loss == pytest.approx(expected.loss, rel=tolerance.training(STEPS))
        assert got.grad_norm == pytest.approx(expected.grad_norm, rel=tolerance.UPDATES)


def test_unsupported_models_are_refused(
    new_short_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    loaded = new_short_model()
    half = dataclasses.replace(loaded, compute_dtype=torch.float16)
    with pytest.raises(Unsupported, match="quantised from"):
        FastModel(half, head, True)
    with pytest.raises(Unsupported, match="entity_ids"):
        check_features([dataclasses.replace(rows[0], features={"entity_ids": [0]})])
    loaded.model.get_base_model().model.layers[0].self_attn.is_causal = False
    with pytest.raises(Unsupported, match="not causal"):
        FastModel(loaded, head, False).score_rows(rows[:2])
