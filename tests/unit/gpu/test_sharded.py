"""Weights that are divided between processes: a job's figures are those of one process."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate.commands import launch
from accelerate.utils.launch import prepare_multi_gpu_env
from bitsandbytes.nn import Linear4bit, Params4bit
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from nlijob import records
from nlijob.accelerate_file import fsdp_settings
from nlijob.config import JobConfig, MachineConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import HardwareError
from nlijob.gpu import checkpoints
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel, add_adapter, quiet_libraries, read_tokenizer
from nlijob.gpu.sharded import ShardedEngine, check_sharding, keep_constants, shard, sharding
from nlijob.gpu.training import PlainTrainer, TrainingSchedule
from nlijob.gpu.worker import do_job
from nlijob.launch import launch_command
from nlijob.records.forgetting import TextLoss
from nlijob.records.job import Example, Plan, Prediction, TrainStep
from nlijob.rundir import RunDir, write_text
from nlijob.surroundings import accelerate_config
from tests.groups import in_group
from tests.stages import configuration, given, new_run

SETTINGS: dict[str, Any] = {
    "train.speed": "plain",
    "train.epochs": 1,
    "train.batch_size": 11,  # of 12 rows: in the last step one process has none
    "train.checkpoint_every_s": 0,
    "eval.batch_size": 3,  # of 4 rows: one process has a batch more
    "eval.generate_tokens": 2,
    "lora.dropout": 0.1,
}
VARIABLES = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What `accelerate launch` makes of the configuration that comes with nlijob."""
TEXTS = "A dog runs over the field.\n\nTwo people cook.\n\nA child reads a book in the garden.\n"


def divided(group: Group, root: Path) -> None:
    """Do a job with divided weights."""
    os.environ.update(VARIABLES)
    quiet_libraries()
    do_job(RunDir(root), group)


@pytest.fixture(scope="module", params=["nf4", pytest.param("none", marks=pytest.mark.slow)])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[RunDir]:
    """A run of one process, and of two with divided weights."""
    folder = tmp_path_factory.mktemp("runs")
    texts = folder / "texts.txt"
    texts.write_text(TEXTS, encoding="utf-8")
    settings = {**SETTINGS, "model.quantization": request.param, "forgetting.texts": str(texts)}
    one, two = (new_run(folder / name) for name in ("alone", "divided"))
    for run in (one, two):
        given(run, **settings)
    do_job(one, ALONE)
    in_group(2, divided, two.root)
    return [one, two]


def test_losses_and_gradients_are_those_of_one_process(runs: list[RunDir]) -> None:
    one, two = ([*records.read_lines(TrainStep, run.train_log)] for run in runs)
    assert len(one) == 2
    # sums of float32 in another order
    assert [step.loss for step in two] == pytest.approx([step.loss for step in one], rel=1e-4)
    norms = [step.grad_norm for step in one]
    assert [step.grad_norm for step in two] == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize("stage", ["baseline_predictions", "evaluate_predictions"])
def test_predictions_are_those_of_one_process(runs: list[RunDir], stage: str) -> None:
    one, two = ([*records.read_lines(Prediction, getattr(run, stage))] for run in runs)
    assert [row.index for row in two] == [row.index for row in one]
    for mine, other in zip(two, one, strict=True):
        assert mine.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_texts_are_measured_and_written_as_by_one_process(runs: list[RunDir]) -> None:
    one, two = runs
    assert two.generations.read_bytes() == one.generations.read_bytes()
    for stage in ("baseline", "evaluate"):
        losses = [
            [row.loss for row in records.read_lines(TextLoss, run.root / stage / "texts.jsonl")]
            for run in runs
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_adapter_is_in_peft_s_format_as_that_of_one_process(runs: list[RunDir]) -> None:
    one, two = (load_file(run.root / "adapter" / "adapter_model.safetensors") for run in runs)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)


def test_the_plan_says_how_the_weights_are_held(runs: list[RunDir]) -> None:
    plan = records.read(Plan, runs[1].plan)
    assert (plan.way, plan.share, plan.processes) == ("sharded", "steps", 2)
    assert plan.activations == "recomputed"


@pytest.mark.slow
def test_a_trained_head_and_a_second_training_are_those_of_one_process(tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "model.head": "sequence-classification",
        "train.seeds": 2,
        "eval.generate_tokens": 0,
        "forgetting.texts": "",
    }
    one, two = (new_run(tmp_path / name) for name in ("alone", "divided"))
    for run in (one, two):
        given(run, **settings)
    do_job(one, ALONE)
    in_group(2, divided, two.root)
    for seed in (42, 43):
        mine, other = (
            [
                step.loss
                for step in records.read_lines(TrainStep, run.view(f"trials/seed-{seed}").train_log)
            ]
            for run in (two, one)
        )
        assert mine == pytest.approx(other, rel=1e-4)


# ---------------------------------------------------------------- the division itself

SHAPE = transformers.LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    use_cache=False,
)


def adapted(**changes: Any) -> LoadedModel:
    """A tiny Llama with an adapter and weights drawn from a seed."""
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(**{**SHAPE.to_dict(), **changes})
    base = transformers.LlamaForCausalLM(shape)
    model = add_adapter(configuration(), base, (), ["q_proj", "v_proj"])
    return LoadedModel(model, None, torch.device("cpu"), torch.float32, 16)


def held(group: Group, tied: bool) -> tuple[dict[str, int], Sequence[float]]:
    """The elements that this process holds of each weight, and the logits of some tokens."""
    os.environ.update(VARIABLES)
    settings = sharding()
    assert settings
    loaded = shard(adapted(tie_word_embeddings=tied), group, settings)
    elements = {name: own(weight).numel() for name, weight in loaded.model.named_parameters()}
    return elements, logits(loaded)


def own(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight


@torch.no_grad()
def logits(loaded: LoadedModel) -> list[float]:
    found: Tensor = loaded.model(torch.arange(7)[None]).logits
    return found[0, -1].tolist()


@pytest.mark.parametrize("tied", [False, True])
def test_each_process_holds_a_half_of_the_weights_and_the_whole_adapter(tied: bool) -> None:
    whole = adapted(tie_word_embeddings=tied)
    sizes = {name: weight.numel() for name, weight in whole.model.named_parameters()}
    ends = ("embed_tokens.weight", "lm_head.weight") if tied else ()
    for elements, found in in_group(2, held, tied):
        assert found == pytest.approx(logits(whole), abs=1e-5)
        for name, count in elements.items():
            is_whole = ".lora_" in name or name.endswith(("model.norm.weight", *ends))
            assert count == (sizes[name] if is_whole else sizes[name] // 2), name


def test_the_bytes_of_4_bit_weights_are_divided_as_numbers_that_fsdp_copies_as_they_are() -> None:
    layer = Linear4bit(64, 32, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = Params4bit(torch.randn(32, 64), requires_grad=False, quant_type="nf4").to("cpu")
    before = layer.weight.data.clone()
    keep_constants(layer)
    assert layer.weight.data.dtype is torch.float32
    assert torch.equal(layer.weight.data.view(-1).view(torch.uint8), before.view(-1))


Epoch = tuple[dict[str, Any], dict[str, Tensor], list[float]]
"""A trainer's state and the trained weights after an epoch, and the losses of the next one."""


def an_epoch_and_another(group: Group) -> Epoch:
    """Train two epochs with divided weights."""
    os.environ.update(VARIABLES)
    settings = sharding()
    assert settings
    config, head, rows = beginning()
    loaded = shard(adapted(vocab_size=len(head._tokenizer)), group, settings)
    trainer = ShardedEngine(loaded, head, config, rows, settings).trainer(config.train, group)
    list(trainer.epoch(1))
    state = checkpoints.on_host(trainer.state())
    weights = checkpoints.on_host(checkpoints.trained_weights(loaded.model))
    return state, weights, [step.loss for step in trainer.epoch(2)]


def beginning() -> tuple[JobConfig, CausalHead, list[Encoded]]:
    """What a training of a tiny model begins with: configuration, head and rows."""
    config = configuration(train__batch_size=3)
    examples = [Example(i, f"A man has {i} dogs.", "A man has a dog.", i % 3) for i in range(7)]
    head = CausalHead(read_tokenizer(config, MODEL_DIR), config.prompt, 256, examples)
    return config, head, head.encode("train", examples)


def test_one_process_goes_on_with_a_training_of_divided_weights() -> None:
    (state, weights, losses), (_, others, _) = in_group(2, an_epoch_and_another)
    config, head, rows = beginning()
    loaded = adapted(vocab_size=len(head._tokenizer))
    checkpoints.set_trained_weights(loaded.model, weights)
    trainer = PlainTrainer(loaded, head, TrainingSchedule(config.train, rows))
    trainer.restore(state)
    assert [step.loss for step in trainer.epoch(2)] == pytest.approx(losses, rel=1e-4)
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def test_accelerate_launch_makes_these_variables_of_the_job_s_configuration(
    tmp_path: Path,
) -> None:
    fsdp = fsdp_settings(MachineConfig(accelerate_config="fsdp"), 2)
    run = RunDir(tmp_path)
    write_text(run.accelerate_config, json.dumps(accelerate_config(False, 2, fsdp)))
    _python, _m, _launcher, *arguments = launch_command(run, "cuda", processes=2, uses_fsdp=True)
    parsed = launch.launch_command_parser().parse_args(arguments)
    arguments, *_ = launch._validate_launch_command(parsed)
    variables = prepare_multi_gpu_env(arguments)
    assert variables.items() >= VARIABLES.items()


def test_accelerate_s_variables_say_whether_and_how_weights_are_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sharding({}) is None
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    settings = sharding()
    assert settings
    assert (settings.fsdp_version, settings.reshard_after_forward) == (2, True)
    assert settings.activation_checkpointing


def test_a_single_process_has_nobody_to_divide_weights_with() -> None:
    with pytest.raises(HardwareError, match="there is one") as caught:
        check_sharding(ALONE)
    assert "--gpus" in caught.value.hint
