"""What each process of a group does in `test_shared_steps`, on a GPU of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nlijob.config import load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.errors import DivergedError
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.group import Group
from nlijob.gpu.heads import CausalHead
from nlijob.gpu.model import load, read_tokenizer
from nlijob.gpu.training import PlainTrainer, TrainingSchedule
from nlijob.records.job import Example

ROWS, BATCH, EPOCHS = 101, 8, 2
STEPS = 26


@dataclass(frozen=True)
class Trained:
    """What a process knows after a training."""

    losses: list[float]
    norms: list[float | None]
    weights: list[float]
    """All weights of the adapter."""
    tokens: tuple[int, ...]
    """Sizes of its packs."""


@dataclass(frozen=True)
class Findings:
    """All that a process finds; it imports the libraries only once for it."""

    trained: dict[str, Trained]
    """By mode."""
    timed: Trained
    """Of the first mode, with a step timed before the training."""
    without_memory: str
    diverging: tuple[str, float]


def find(group: Group, modes: Mapping[str, dict[str, Any]]) -> Findings:
    """Do everything that is tested."""
    first = next(iter(modes.values()))
    return Findings(
        {name: train(group, settings) for name, settings in modes.items()},
        train(group, first, times=True),
        without_memory(group, first),
        diverging(group, {**first, "train.batch_size": 2}),
    )


def made(group: Group, settings: dict[str, Any]) -> tuple[Any, Any]:
    """A trainer for a fresh demo model, and the model; dropout has a large effect on it."""
    fixed = {"model.device": "cuda", "model.residual_dropout": 0.0, "train.learning_rate": 1e-4}
    sizes = {"train.epochs": EPOCHS, "train.batch_size": BATCH}
    given = {**fixed, **sizes, **settings}
    mode = given.pop("mode", {"dense": True})
    job = load_config("demo", given)
    tokenizer = read_tokenizer(job, MODEL_DIR)
    device = torch.device("cuda", group.local_rank)
    torch.cuda.set_device(device)
    loaded = load(job, MODEL_DIR, tokenizer, device)
    torch.manual_seed(0)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    found = [row for row in read_file(DATA_DIR / "train.jsonl").rows if row["label"] >= 0][:ROWS]
    examples = [
        Example(i, row["premise"], row["hypothesis"], row["label"]) for i, row in enumerate(found)
    ]
    head = CausalHead(tokenizer, job.prompt, 256, examples)
    schedule = TrainingSchedule(job.train, head.encode("train", examples))
    if not mode:
        return PlainTrainer(loaded, head, schedule, group=group), loaded
    fast = FastModel(loaded, head, **mode)
    size = job.train.micro_batch_size
    return FastTrainer(loaded, fast, schedule, size, compiles=False, group=group), loaded


def train(group: Group, settings: dict[str, Any], times: bool = False) -> Trained:
    """Do a whole training; `times`: time a step before it."""
    trainer, loaded = made(group, settings)
    if times:
        found = trainer.step_times()
        assert found.alone_s > 0
        assert found.shared_s > 0
        assert group.gather(found) == [found] * group.size
    steps = [step for epoch in range(1, EPOCHS + 1) for step in trainer.epoch(epoch)]
    weights = [p.detach().flatten() for p in loaded.model.parameters() if p.requires_grad]
    return Trained(
        [step.loss for step in steps],
        [step.grad_norm for step in steps],
        [value for part in weights for value in part.tolist()],
        getattr(trainer, "token_counts", ()),
    )


def without_memory(group: Group, settings: dict[str, Any]) -> str:
    """The error of a training that one process has too little memory for."""

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    before = Graphs.capture
    if group.rank == 1:
        Graphs.capture = full  # type: ignore[method-assign]
    try:
        made(group, settings)
    except torch.OutOfMemoryError as error:
        return str(error)
    finally:
        Graphs.capture = before  # type: ignore[method-assign]
    return ""


def diverging(group: Group, settings: dict[str, Any]) -> tuple[str, float]:
    """The error of a training that diverges in one process, and a sum of ones after it."""
    trainer, loaded = made(group, settings)
    if group.rank == 1:
        with torch.no_grad():
            next(p for n, p in loaded.model.named_parameters() if "lora_A" in n).fill_(float("nan"))
    try:
        list(trainer.epoch(1))
    except DivergedError as error:
        ones = torch.ones((), device=group.device)
        group.sum(ones)
        return str(error), float(ones)
    return "", 0.0
