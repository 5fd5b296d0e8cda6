"""What all GPU stages of an attempt share: the model, loaded once, and the rows as model input."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

import torch

from nlijob import __version__, records
from nlijob.analysis.wording import plural
from nlijob.config import JobConfig, PromptConfig, seeds_of, with_settings
from nlijob.errors import NotAvailableError, all_or_every_fault
from nlijob.fingerprints import inputs_of, stage_inputs
from nlijob.gpu import checkpoints, reporting, scoring
from nlijob.gpu.engine import Engine
from nlijob.gpu.environment import environment, job_device
from nlijob.gpu.forgetting import Tokens, text_losses
from nlijob.gpu.further import encode_set
from nlijob.gpu.generation import generate
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import Encoded, EncodedRows, Head, head_class
from nlijob.gpu.model import (
    FirstWeights,
    LoadedModel,
    MetaModel,
    compute_dtype,
    load,
    max_length,
    meta_model,
    read_model_config,
    read_tokenizer,
    replace_adapter,
    vocabulary_size,
)
from nlijob.gpu.orders import Orders
from nlijob.gpu.out_of_memory import free_memory
from nlijob.gpu.prompt_record import dropped_rows, prompt_notes, prompt_record
from nlijob.gpu.quantized import QuantizedCopy
from nlijob.gpu.reporting import Part, Reporter
from nlijob.gpu.sharded import ShardedEngine, check_sharding, shard, sharding
from nlijob.gpu.training import Trainer, never
from nlijob.gpu.words import head_text, prompt_line
from nlijob.gpu.writer import Writer
from nlijob.prompts import few_shot_examples
from nlijob.records.forgetting import TextLoss
from nlijob.records.job import (
    SPLITS,
    Example,
    Machine,
    Plan,
    Prediction,
    PromptRecord,
    RunRecord,
    Split,
    SplitScore,
    TrainStep,
    WorkerTask,
)
from nlijob.records.search import Winner
from nlijob.records.use import AdapterRecord, shared_config
from nlijob.rundir import RunDir, append_to_log, write_record
from nlijob.sweep import Candidate, resolved, shape_of
from nlijob.trials import Trial

Share = Literal["trials", "steps", "none"]
"""How the processes of a group train; see `Plan.share`."""
RowsOf = str | Sequence[Encoded]
"""Rows to score: the name of a split or of a further test set, or the rows themselves."""
FEW_SHOT = "few-shot"
OWN = "own"


class Session:
    """One attempt's model, rows and reporter; each is made at its first use.

    In a group of processes each has a session. The lead's methods tell the others to do the same
    (see `nlijob.gpu.following`).
    """

    def __init__(self, run: RunDir, group: Group = ALONE, is_elsewhere: bool = False) -> None:
        self.is_elsewhere = is_elsewhere
        """Whether the run's folder here is not that of the lead (see `nlijob.gpu.folders`)."""
        self.orders = Orders(group, lambda: self.loaded.model)
        """The processes that work together, and what the lead has them do."""
        self._sharding = sharding()
        """How the weights are divided between the processes; None where they are not."""
        if self._sharding:
            check_sharding(group)
            group.in_step = True
        self.run = run
        """The run's folder, as the training in hand sees it (see `of_trial`)."""
        self.task = records.read(WorkerTask, run.worker_task)
        self.config: JobConfig = records.read(RunRecord, run.config).config
        """That of the training in hand: the run's but for the seed, and for what a search tries."""
        self.inputs = self.task.inputs
        """What the run's stages and those of the training in hand are made from."""
        self.reporter = Reporter(
            run, self.task.attempt, is_silent=not group.is_lead, process=group.rank
        )
        self._whole = self.run, self.config
        self.share: tuple[Share, str] = ("none", "")
        """How the processes train, and why."""
        self._trainer: Trainer | None = None
        self._prepared: tuple[JobConfig, JobConfig] | None = None
        self._shape: Any = None
        """For what shape of trainings model and engine are made; None before that."""
        self._targets_of: Any = self.config.lora.target_modules
        """The lora.target_modules whose modules `meta` names."""
        self._drawn_for: int | None = None
        """Seed for which the weights in the model are those of a training's beginning."""
        self._first_weights = FirstWeights()
        self.writer = Writer()
        """Writes checkpoints in parallel with training."""
        self.copy_writer = Writer()
        """Writes the 4-bit copy; a job that is stopped does not wait for it."""

    @property
    def whole_config(self) -> JobConfig:
        """The configuration of the run, with all its trainings."""
        return self._whole[1]

    def of_trial(self, trial: Trial | None) -> None:
        """Work for one training of the run from here on; None: for the run as a whole."""
        run, config = self._whole
        self.run = run.of_trial(trial) if trial else run
        self.config = trial.config if trial else config
        self.inputs = inputs_of(self.task.inputs, trial) if trial else self.task.inputs
        self.reporter.trial = trial.name if trial and trial.folder else ""

    def of_candidate(self, candidate: Candidate) -> None:
        """Work for a candidate of the search from here on; no training's folder is its own."""
        self.config = candidate.config
        self.prepare()

    def adopt_winner(self) -> None:
        """Take on the settings that the search has found: they are those of all trainings."""
        run, config = self._whole
        found = resolved(config, records.read(Winner, run.winner))
        if found != config:
            record = dataclasses.replace(records.read(RunRecord, run.config), config=found)
            write_record(run.config, record)
            inputs = stage_inputs(found, self.task.stamps)
            self.task = dataclasses.replace(self.task, inputs=inputs)
            self._whole = run, found
        self.of_trial(None)

    # ------------------------------------------------------------ training

    def begin_training(self) -> Trainer:
        """Set the weights that the training in hand begins with; returns a trainer for it."""
        trainer = self._choose_trainer()
        model, seed = self.loaded.model, self.config.train.seed
        if self._drawn_for != seed:
            first = self._first_weights.of(model, self.loaded.head, seed, self._shape)
            checkpoints.set_trained_weights(model, first)
        self._drawn_for = None
        self.orders.weights_change()
        seeds = seeds_of(self.whole_config.train)
        if seed in seeds[:-1]:  # drawn while this training runs
            self._first_weights.begin(model, seeds[seeds.index(seed) + 1], self._shape)
        return trainer

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Continue a training from a state; the weights are set before."""
        if self._trainer:
            weights = checkpoints.on_host(checkpoints.trained_weights(self.loaded.model))
            self.orders.give("restore", state, weights)
        trainer.restore(state)

    def train_epoch(
        self, trainer: Trainer, epoch: int, done: int = 0, pause: Callable[[], bool] = never
    ) -> Iterator[TrainStep]:
        """See `Trainer.epoch`."""
        if self._trainer:
            self.orders.give_with_weights("epoch", epoch, done)
        else:
            self.orders.weights_change()
        yield from trainer.epoch(epoch, done, pause)

    def load_adapter(self, epoch: int) -> None:
        """Take the weights of an epoch of the training in hand."""
        self._drawn_for = None
        self.orders.weights_change()
        checkpoints.load_adapter(self.loaded.model, self.run.epoch(epoch))

    def plan(self) -> Plan:
        """The execution mode, and how the processes share the work."""
        plan = self.engine.plan()
        share, reason = self.share
        return dataclasses.replace(
            plan,
            processes=self.orders.size,
            share=share,
            share_reason=reason,
            processes_reason=self.task.processes_reason,
        )

    # ------------------------------------------------------------ the group

    @property
    def group(self) -> Group:
        """The processes that work together now."""
        return self.orders.group

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Work without the other processes, and report: for what each does by itself."""
        silent, self.reporter.is_silent = self.reporter.is_silent, False
        try:
            with self.orders.alone():
                yield
        finally:
            self.reporter.is_silent, self._prepared = silent, None
            self.of_trial(None)

    def take(self, whole: JobConfig, config: JobConfig, task: WorkerTask) -> None:
        """Work with the lead's configuration: the run's, and that of the training in hand."""
        self._whole = self._whole[0], whole
        own = self.task
        if task.model_stamp != own.model_stamp:
            raise NotAvailableError(
                f"the model of the lead's host ({task.model_dir}) and that of {gethostname()} "
                f"({own.model_dir}) differ: {task.model_stamp} and {own.model_stamp}",
                "give all hosts the same files, or the same revision of a model on the hub",
            )
        self.task = dataclasses.replace(task, model_dir=own.model_dir)
        self.config, self.inputs = config, task.inputs

    def share_trainer(self, is_open: bool) -> tuple[Share, str]:
        """Make a trainer that trains together with the other processes; all call this.

        Returns whether they should use it, and why. `is_open`: whether that is to be found out.
        """
        self._trainer = self.engine.trainer(self.config.train, self.group)
        share: Share
        share, reason = "steps", "machine.share=steps"
        if is_open:
            share, reason = self.engine.worth_sharing(self._trainer, self.group)
        note = self.engine.why_dropout_depends_on_processes() if share == "steps" else ""
        return share, f"{reason}; {note}" if note else reason

    @property
    def trainer(self) -> Trainer:
        """The trainer that trains together with the other processes."""
        assert self._trainer is not None
        return self._trainer

    def _choose_trainer(self) -> Trainer:
        """The trainer of the training in hand: of all processes together, or of this one."""
        self._trainer = None
        if not self.group.is_shared:
            return self.engine.trainer(self.config.train)
        wanted = "auto" if self.group.in_step else self.whole_config.machine.share
        rows = self.config.train.batch_size
        if wanted in ("none", "trials"):
            self.share = "none", f"machine.share={wanted}"
        elif wanted == "auto" and rows < self.group.size and not self.group.in_step:
            self.share = "none", f"a step has {plural(rows, 'row')}, fewer than there are processes"
        else:
            is_open = wanted == "auto"
            self.orders.give("begin", self.config, is_open)
            self.share = self.share_trainer(is_open)
            if self.share[0] == "steps":
                return self.trainer
            self._trainer = None
        return self.engine.trainer(self.config.train)

    def prepare(self) -> None:
        """Encode the rows, then load the model: cheap checks come before the weights are read."""
        if self._prepared == (self.whole_config, self.config):
            return
        self.orders.give("prepare", self.whole_config, self.config, self.task)
        self._prepared = self.whole_config, self.config
        _ = self.rows, self.further_rows
        if self.config.eval.few_shot:
            _ = self.few_shot
        _ = self._searched_targets
        _ = self.loaded
        self._take_shape()
        self.engine.agree(self.group)

    # ------------------------------------------------------------ model and rows, made once

    @cached_property
    def device(self) -> torch.device:
        """The device that the configuration asks for. Raises HardwareError where it is missing."""
        return job_device(self.config)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The one model of the job, with its adapter."""
        dtype = compute_dtype(self.config.model, self._model_config, self.device)
        # what is to be divided need not fit a GPU before
        place = torch.device("cpu") if self._sharding else self.device
        copy = QuantizedCopy(
            self._whole[1],
            self.task.model_stamp,
            dtype,
            place,
            lambda part: self.reporter.timed("load", Part(part)),
            may_write=self.group.local_rank == 0,
        )
        with self.reporter.timed("load"):
            config = self._whole[1]
            loaded = load(config, self._model_dir, self.tokenizer, place, copy, self.meta, dtype)
            self._drawn_for, self._shape = config.train.seed, shape_of(config)
            where = environment(dataclasses.replace(loaded, device=self.device))
            gpus = tuple(gpu for own in self.group.gather(where.gpus) for gpu in own)
            if self.group.is_lead:
                write_record(self.run.environment, dataclasses.replace(where, gpus=gpus))
                append_to_log(self.run.machines, Machine(self.task.attempt, gpus))
            if self._sharding:
                loaded = shard(loaded, self.group, self._sharding)
        if loaded.head and loaded.head.reason:
            self.reporter.say("start", head_text(loaded.head))
        if copy.is_written:
            self.reporter.say("start", f"4-bit copy of the model for the next run: {copy.folder}")
            self.copy_writer.do(copy.seal)
        return loaded

    def _take_shape(self) -> None:
        """Give the model the adapter that the configuration in hand asks for, if it has another."""
        shape = shape_of(self.config)
        if shape == self._shape:
            return
        self.forget_shape()
        with self.reporter.timed("load", Part("adapter replaced")):
            if self.config.lora.target_modules != self._targets_of:  # finding them takes a while
                self.meta = meta_model(self.config, self._model_config)
                self._targets_of = self.config.lora.target_modules
            self.loaded = replace_adapter(self.loaded, self.config, self.meta.targets)
        self._drawn_for, self._shape = None, shape

    def forget_shape(self) -> None:
        """Give up what was made for trainings of the shape in hand, and free its memory."""
        if "engine" in vars(self):
            self.engine.close()
            del self.engine
        self._shape = None
        free_memory()

    @cached_property
    def meta(self) -> MetaModel:
        """The model without its weights."""
        return meta_model(self.config, self._model_config)

    @cached_property
    def _searched_targets(self) -> list[MetaModel]:
        """The model with each of the target modules that a search tries.

        So one that the model does not have is an error before anything is trained.
        """
        key, config = "lora.target_modules", self.whole_config
        return [
            meta_model(with_settings(config, {key: value}), self._model_config)
            for value in config.sweep.space.get(key, ())
        ]

    @cached_property
    def engine(self) -> Engine:
        """The execution mode in which the model is scored and trained."""
        loaded, train = self.loaded, self.rows["train"]
        with self.reporter.timed("plan"):
            if self._sharding:
                return ShardedEngine(loaded, self.head, self.config, train, self._sharding)
            return Engine(loaded, self.head, self.config, train)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return read_tokenizer(self.config, self._model_dir)

    @cached_property
    def examples(self) -> dict[Split, list[Example]]:
        """The subset's rows."""
        return {s: list(records.read_lines(Example, self.run.subset(s))) for s in SPLITS}

    @cached_property
    def head(self) -> Head:
        """The task head. Making it checks the configuration against model and tokenizer."""
        _, head = all_or_every_fault(
            lambda: self.meta,
            lambda: self.new_head(self.config.prompt, self._max_length),
        )
        return head

    @cached_property
    def rows(self) -> dict[Split, EncodedRows]:
        """Every row as model input."""
        drops = self.config.model.too_long == "drop"
        with self.reporter.timed("encode"):
            rows = {s: self.head.encode(s, e, drops) for s, e in self.examples.items()}
        self._tell_prompt(rows)
        return rows

    @cached_property
    def further_rows(self) -> dict[str, EncodedRows]:
        """Name of each further test set -> its rows as model input."""
        if not self.config.transfer:
            return {}
        drops = self.config.model.too_long == "drop"
        with self.reporter.timed("encode"):
            return {
                one.name: encode_set(self.run, one.name, self.head, drops, self.reporter)
                for one in self.config.transfer
            }

    @property
    def dropped(self) -> dict[str, tuple[int, ...]]:
        """Split -> the numbers of its rows that are too long, where there are any."""
        return dropped_rows(self.examples, self.rows)

    def kept_examples(self, split: Split) -> list[Example]:
        """The subset's rows that are model input: all, or those that are not too long."""
        return [*self.rows[split].examples]

    @cached_property
    def few_shot(self) -> tuple[Head, str]:
        """The head of the few-shot control, and the text before its prompt; "" without one."""
        labels, shots = len(self.config.data.label_names), self.config.eval.few_shot
        return self.head.few_shot(few_shot_examples(self.kept_examples("train"), labels, shots))

    def new_head(self, prompt: PromptConfig, longest: int) -> Head:
        """The job's kind of head, reading rows through `prompt`, at most `longest` tokens."""
        head = head_class(self.config.model.head)
        size = vocabulary_size(self._model_config)
        names = self.config.data.label_names
        return head(self.tokenizer, prompt, longest, self.examples["train"], size, names)

    # ------------------------------------------------------------ scoring

    def score(
        self, stage: str, splits: Sequence[Split], epoch: int | None = None
    ) -> tuple[dict[str, SplitScore], list[Prediction]]:
        """Scores and predictions of the model as it is now on whole splits."""
        scores: dict[str, SplitScore] = {}
        predictions: list[Prediction] = []
        for split in splits:
            part = reporting.scoring(split, epoch)
            scores[split], of_split = self.score_rows(
                stage, part, split, self.head, self.rows[split]
            )
            predictions += of_split
        return scores, predictions

    def score_rows(
        self, stage: str, part: Part, split: Split, head: Head, rows: Sequence[Encoded]
    ) -> tuple[SplitScore, list[Prediction]]:
        """Score and predictions of the model as it is now on `rows`, encoded by `head`."""
        counter = self.reporter.counter(stage, part, len(rows), "rows")
        size = self.config.eval.batch_size
        with self.reporter.timed(stage, part, len(rows)):
            name = OWN if head is self.head else FEW_SHOT
            self.orders.give_with_weights(
                "score", self.orders.is_base, split, name, self._name_of(rows)
            )
            forward = self.engine.forward(head)
            scored = scoring.score(forward, head, split, rows, size, counter, self.group)
        scoring.check_finite(stage, self.config.model, scored[1])
        return scored

    def score_share(self, split: Split, head: Head, rows: Sequence[Encoded]) -> None:
        """Score this process's share of rows that the lead scores."""
        forward = self.engine.forward(head)
        scoring.score_share(forward, head, rows, self.config.eval.batch_size, self.group)

    def text_losses(
        self, encoded: Sequence[Tokens], on_batch: Callable[[int], object]
    ) -> list[TextLoss]:
        """The losses of the model as it is now on general texts."""
        self.orders.give_with_weights("texts", self.orders.is_base, encoded)
        return text_losses(self.loaded, encoded, on_batch, self.group)

    def write(self, prompts: Sequence[Sequence[int]]) -> tuple[list[str], list[str]]:
        """What the base and the tuned model write after these prompts (token ids)."""
        self.orders.give_with_weights("write", prompts)
        return self.write_share(prompts)

    def write_share(self, prompts: Sequence[Sequence[int]]) -> tuple[list[str], list[str]]:
        """As `write`, of which each process does a part; all call this.

        A model's texts are written in one process: its batches are then the same in any group.
        Processes that work in step write all of them.
        """
        config, written = self.config.eval, dict[str, list[str]]()
        for number, name in enumerate(("tuned", "base")):
            if self.group.in_step or number % self.group.size == self.group.rank:
                with self.orders.base_model() if name == "base" else contextlib.nullcontext():
                    written[name] = generate(
                        self.loaded,
                        prompts,
                        config.generate_tokens,
                        config.batch_size,
                        may_halve=not self.group.in_step,
                    )
        for own in self.group.gather(written):
            written |= own
        return written["base"], written["tuned"]

    def head_of(self, name: str) -> Head:
        """The head that an order names."""
        return self.few_shot[0] if name == FEW_SHOT else self.head

    def rows_of(self, rows: RowsOf) -> Sequence[Encoded]:
        """The rows that an order names, or holds."""
        if not isinstance(rows, str):
            return rows
        return self._known_rows[rows]

    @property
    def _known_rows(self) -> dict[str, EncodedRows]:
        further = {f"further {name}": rows for name, rows in self.further_rows.items()}
        return {**{str(split): rows for split, rows in self.rows.items()}, **further}

    def _name_of(self, rows: Sequence[Encoded]) -> RowsOf:
        """The name by which the other processes know these rows; else the rows themselves."""
        if not self.group.is_shared:
            return rows
        known = (name for name, own in self._known_rows.items() if own is rows)
        return next(known, rows)

    @property
    def prompt_record(self) -> PromptRecord:
        """How the rows become model input."""
        few_shot = self.few_shot[1] if self.config.eval.few_shot else ""
        longest = self.loaded.max_length
        return prompt_record(self.head, self.tokenizer, self.rows, self.dropped, longest, few_shot)

    @property
    def adapter_record(self) -> AdapterRecord:
        """How the adapter is used without the run; the hash of its weights is left open."""
        return AdapterRecord(
            config=shared_config(self.config),
            model_stamp=self.task.model_stamp,
            label_tokens=self.head.label_tokens,
            adapter_sha256="",
            nlijob_version=__version__,
        )

    # ------------------------------------------------------------ detail

    @cached_property
    def _model_config(self) -> Any:
        return read_model_config(self.config, self._model_dir, self.tokenizer)

    @property
    def _max_length(self) -> int:
        """The longest input in tokens."""
        return max_length(self.config.model, self._model_config, self.tokenizer)

    @property
    def _model_dir(self) -> Path:
        return Path(self.task.model_dir)

    def _tell_prompt(self, rows: dict[Split, EncodedRows]) -> None:
        """Say what the prompt was resolved to, and how many rows it does not serve."""
        for line in (prompt_line(self.head.prompt), *prompt_notes(self.head, rows)):
            self.reporter.say("start", line)
        dropped = dropped_rows(self.examples, rows)
        for split in (split for split in SPLITS if split in dropped):
            share = f"{len(dropped[split]):,} of {plural(len(self.examples[split]), 'row')}"
            longest = f"{self._max_length:,} tokens"
            self.reporter.say("start", f"{split}: {share} longer than {longest}, left out")
