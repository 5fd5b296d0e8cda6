"""The GPU side's work: load the model once, then baseline -> train -> select -> evaluate.

It reads the records of the parent and writes its own.
"""

from __future__ import annotations

import functools
import shutil
import time
import traceback
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.analysis.cases import shown_indices
from nlijob.analysis.selection import select
from nlijob.config import JobConfig, PromptConfig
from nlijob.errors import ExitCode, JobError, all_or_every_fault
from nlijob.gpu import checkpoints, evidence, scoring
from nlijob.gpu.engine import Engine
from nlijob.gpu.environment import environment, job_device, memory, reset_peak_memory
from nlijob.gpu.generation import generate
from nlijob.gpu.heads import Encoded, Head, head_class
from nlijob.gpu.model import (
    LoadedModel,
    compute_dtype,
    load,
    max_length,
    quiet_libraries,
    read_model_config,
    read_tokenizer,
    skeleton,
)
from nlijob.gpu.parameters import count_parameters
from nlijob.gpu.quantized import QuantizedCopy
from nlijob.gpu.reporting import Reporter
from nlijob.gpu.shortage import ran_out
from nlijob.gpu.training import Trainer
from nlijob.gpu.writer import Writer
from nlijob.heads import describe
from nlijob.prompts import few_shot_prefix, prompt_text, with_prefix
from nlijob.records import (
    EpochResult,
    Example,
    Generation,
    Machine,
    Occlusion,
    Prediction,
    PromptRecord,
    RunRecord,
    ScoreResult,
    Selection,
    Split,
    SplitScore,
    TrainResult,
    TrainStep,
    WorkerOutcome,
    WorkerTask,
)
from nlijob.rundir import RunDir, append_record, write_record, write_records


class Worker:
    """The four GPU stages of one run; a stage that is complete is passed over."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.task = records.read(WorkerTask, run.worker_task)
        self.config: JobConfig = records.read(RunRecord, run.config).config
        self.reporter = Reporter(run, self.task.attempt)
        self._add_start("", self.task.given_at_s)
        self._add_start("start, from its launch on", self.task.launched_at_s)
        self.device = job_device(self.config)
        self.writer = Writer()
        self.copy_writer = Writer()

    def work(self) -> None:
        """Do what is not complete, in order."""
        with self.writer:
            self._work()

    def _work(self) -> None:
        for stage in (self.baseline, self.train, self.select, self.evaluate):
            name = stage.__name__
            fingerprint = self.task.fingerprints[name]
            if self.run.is_complete(name, fingerprint):
                self.reporter.say(name, "complete, skipped")
                continue
            self.run.unmark(name)
            reset_peak_memory(self.device)
            self._prepare()
            with self.reporter.timed(name):
                outputs = stage()
            self.run.mark_complete(name, fingerprint, outputs)
        self.copy_writer.wait()

    # ------------------------------------------------------------ stages

    def baseline(self) -> list[Path]:
        """Score the base model: the adapter is there, switched off."""
        with self.loaded.model.disable_adapter():
            scores, predictions = self._score("baseline", ("validation", "test"))
            few_shot = self._few_shot()
        write_records(self.run.baseline_predictions, predictions)
        write_records(self.run.few_shot_predictions, few_shot)
        write_record(
            self.run.baseline_result, ScoreResult("base", None, scores, memory(self.device))
        )
        self.reporter.say("baseline", _scores_text(scores))
        return [
            self.run.baseline_predictions,
            self.run.few_shot_predictions,
            self.run.baseline_result,
            self.run.prompt,
        ]

    def train(self) -> list[Path]:
        """Train epoch by epoch, from the last complete one where there is one."""
        with self.reporter.timed("train", "warm-up"):
            trainer = self.engine.trainer()
        epochs = self._resume(trainer)
        write_record(self.run.plan, self.engine.plan())
        for epoch in range(len(epochs) + 1, self.config.train.epochs + 1):
            epochs.append(self._train_epoch(trainer, epoch))
        write_record(self.run.plan, self.engine.plan())  # it may have stepped down since
        with self.reporter.timed("train", "last checkpoint completed"):
            self.writer.wait()
        parameters = count_parameters(self.loaded.model, self.config.lora.target_modules)
        write_record(self.run.train_result, TrainResult(parameters, tuple(epochs)))
        return [self.run.train_result, self.run.train_log, self.run.plan]

    def select(self) -> list[Path]:
        """Choose the checkpoint, on validation alone."""
        epochs = records.read(TrainResult, self.run.train_result).epochs
        selection = select(epochs)
        write_record(self.run.selection, selection)
        self.reporter.say(
            "select",
            f"epoch {selection.epoch} of {len(epochs)}: "
            f"validation accuracy {selection.validation_accuracy:.1%}",
        )
        return [self.run.selection]

    def evaluate(self) -> list[Path]:
        """Score the selected checkpoint as it stands on disk, and gather evidence for cases."""
        epoch = records.read(Selection, self.run.selection).epoch
        checkpoints.load_adapter(self.loaded.model, self.run.epoch(epoch))
        scores, predictions = self._score("evaluate", ("validation", "test"))
        write_records(self.run.evaluate_predictions, predictions)
        write_records(self.run.blank_premise_predictions, self._premise_blanked())
        write_records(self.run.generations, self._free_output(predictions))
        write_records(self.run.occlusion, self._word_importance(predictions))
        write_record(
            self.run.evaluate_result, ScoreResult("tuned", epoch, scores, memory(self.device))
        )
        checkpoints.copy_adapter(self.run.epoch(epoch), self.run.adapter)
        self.reporter.say("evaluate", _scores_text(scores))
        return [
            self.run.evaluate_predictions,
            self.run.blank_premise_predictions,
            self.run.generations,
            self.run.occlusion,
            self.run.evaluate_result,
            *self.run.adapter.glob("adapter_*"),
        ]

    # ------------------------------------------------------------ model and rows, once

    def _prepare(self) -> None:
        """Have rows encoded and the model loaded; cheap faults come before the weights are read."""
        _ = self.rows
        _ = self.engine

    @cached_property
    def loaded(self) -> LoadedModel:
        """The one model of the job."""
        model_config = read_model_config(self.config, self._model_dir, self.tokenizer)
        copy = QuantizedCopy(
            self.config,
            self.task.model_stamp,
            compute_dtype(self.config.model, model_config, self.device),
            self.device,
            functools.partial(self.reporter.timed, "load"),
        )
        with self.reporter.timed("load"):
            loaded = load(self.config, self._model_dir, self.tokenizer, self.device, copy)
            where = environment(loaded)
            write_record(self.run.environment, where)
            append_record(self.run.machines, Machine(self.task.attempt, where.gpus))
        if copy.is_written:
            self.reporter.say("start", f"4-bit copy of the model for the next run: {copy.folder}")
            self.copy_writer.do(copy.seal)  # not waited for by a job that is stopped
        return loaded

    @cached_property
    def engine(self) -> Engine:
        """How the model is scored and trained."""
        loaded = self.loaded
        with self.reporter.timed("plan"):
            return Engine(loaded, self.head, self.config, self.rows["train"])

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return read_tokenizer(self.config, self._model_dir)

    @cached_property
    def examples(self) -> dict[Split, list[Example]]:
        """The subset's rows."""
        return {s: list(records.read_lines(Example, self.run.subset(s))) for s in records.SPLITS}

    @cached_property
    def head(self) -> Head:
        """The task head; what the configuration asks of model and tokenizer is checked here."""
        model_config = read_model_config(self.config, self._model_dir, self.tokenizer)
        longest = max_length(self.config.model, model_config, self.tokenizer)
        _, head = all_or_every_fault(
            lambda: skeleton(self.config, model_config),
            lambda: self._new_head(self.config.prompt, longest),
        )
        return head

    @cached_property
    def rows(self) -> dict[Split, list[Encoded]]:
        """Every row as model input."""
        with self.reporter.timed("encode"):
            rows = {split: self.head.encode(split, e) for split, e in self.examples.items()}
        write_record(self.run.prompt, self._prompt_record(rows))
        return rows

    @property
    def _model_dir(self) -> Path:
        return Path(self.task.model_dir)

    # ------------------------------------------------------------ detail

    def _new_head(self, prompt: PromptConfig, longest: int) -> Head:
        head = head_class(self.config.model.head)
        return head(self.tokenizer, prompt, longest, self.examples["train"])

    def _add_start(self, part: str, since_s: float) -> None:
        self.reporter.add("start", part, since_s, time.time() - since_s, None)

    def _score(
        self, stage: str, splits: Sequence[Split], part: str = ""
    ) -> tuple[dict[str, SplitScore], list[Prediction]]:
        scores: dict[str, SplitScore] = {}
        predictions: list[Prediction] = []
        for split in splits:
            name = f"{part} {split}".strip()
            scores[split], of_split = self._score_rows(
                stage, name, split, self.head, self.rows[split]
            )
            predictions += of_split
        return scores, predictions

    def _score_rows(
        self, stage: str, part: str, split: Split, head: Head, rows: Sequence[Encoded]
    ) -> tuple[SplitScore, list[Prediction]]:
        counter = self.reporter.counter(stage, part, len(rows), "rows")
        size = self.config.eval.batch_size
        with self.reporter.timed(stage, part, len(rows)):
            return scoring.score(self.engine.forward(head), head, split, rows, size, counter)

    def _resume(self, trainer: Trainer) -> list[EpochResult]:
        """Results of the epochs that are complete, with trainer and model brought to that point."""
        complete = 0
        while self.run.is_complete(f"train-epoch-{complete + 1}", self._train_fingerprint):
            complete += 1
        while complete and not self._can_go_on_from(complete):
            complete -= 1
        for epoch in range(complete + 1, self.config.train.epochs + 1):
            self.run.unmark(f"train-epoch-{epoch}")
        if complete == 0:
            shutil.rmtree(self.run.train_log.parent, ignore_errors=True)
            return []
        results = [
            records.read(EpochResult, self.run.epoch_result(e)) for e in range(1, complete + 1)
        ]
        if complete < self.config.train.epochs:
            state = checkpoints.load_state(self.run.training_state(complete), self.device)
            checkpoints.load_adapter(self.loaded.model, self.run.epoch(complete))
            trainer.restore(state)
        steps = records.read_lines(TrainStep, self.run.train_log)
        write_records(self.run.train_log, [step for step in steps if step.epoch <= complete])
        self.reporter.say("train", f"epochs 1 to {complete} complete, going on from there")
        return results

    def _can_go_on_from(self, epoch: int) -> bool:
        last = epoch == self.config.train.epochs
        return last or self.run.training_state(epoch).is_file()

    @property
    def _train_fingerprint(self) -> str:
        return self.task.fingerprints["train"]

    def _train_epoch(self, trainer: Trainer, epoch: int) -> EpochResult:
        part = f"epoch {epoch}"
        steps = self._optimize_epoch(trainer, epoch, part)
        splits: tuple[Split, ...] = ("validation",)
        if self.config.eval.test_each_epoch:
            splits = ("validation", "test")
        scores, predictions = self._score("train", splits, part)
        examples = sum(step.examples for step in steps)
        result = EpochResult(
            epoch=epoch,
            steps=len(steps),
            examples=examples,
            train_loss=sum(step.loss * step.examples for step in steps) / examples,
            duration_s=sum(step.duration_s for step in steps),
            validation=scores["validation"],
            test=scores.get("test"),
            memory=memory(self.device),
        )
        with self.reporter.timed("train", f"{part} checkpoint"):
            self._keep(trainer, result, predictions)
        self.reporter.say(
            "train",
            f"{part}: loss {result.train_loss:.3f}, {_scores_text(scores)}, "
            f"{result.examples_per_s:.0f} examples/s",
        )
        return result

    def _optimize_epoch(self, trainer: Trainer, epoch: int, part: str) -> list[TrainStep]:
        total = len(self.rows["train"])
        show = self.reporter.counter("train", part, total, "rows")
        steps: list[TrainStep] = []
        done = 0
        with self.reporter.timed("train", part, total):
            for step in trainer.epoch(epoch):
                append_record(self.run.train_log, step)
                steps.append(step)
                done += step.examples
                show(done, f"loss {step.loss:.3f}")
        return steps

    def _keep(
        self, trainer: Trainer, result: EpochResult, predictions: Sequence[Prediction]
    ) -> None:
        """Write the epoch's checkpoint while the next epoch begins; none goes on from the last."""
        last = result.epoch == self.config.train.epochs
        state = None if last else checkpoints.on_host(trainer.state())
        weights = checkpoints.on_host(checkpoints.trained_weights(self.loaded.model))
        self.writer.do(lambda: self._write(weights, state, result, predictions))

    def _write(
        self,
        weights: dict[str, Any],
        state: dict[str, Any] | None,
        result: EpochResult,
        predictions: Sequence[Prediction],
    ) -> None:
        """Write a checkpoint; its marker, last, makes it one to go on from."""
        epoch = result.epoch
        folder = self.run.epoch(epoch)
        checkpoints.save_adapter(self.loaded.model, folder, self.config.model, weights)
        if state is not None:
            checkpoints.save_state(state, self.run.training_state(epoch))
        write_records(self.run.epoch_predictions(epoch), predictions)
        write_record(self.run.epoch_result(epoch), result)
        self.run.mark_complete(
            f"train-epoch-{epoch}", self._train_fingerprint, [self.run.epoch(epoch)]
        )
        self.run.training_state(epoch - 1).unlink(missing_ok=True)

    def _few_shot(self) -> list[Prediction]:
        """The base model's answers on test rows with training rows in its prompt, where asked."""
        if self.config.eval.few_shot == 0:
            return []
        prompt = with_prefix(self.config.prompt, self._few_shot_prefix)
        head = self._new_head(prompt, self.loaded.max_length)
        rows = head.encode("test", self.examples["test"])
        return self._score_rows("baseline", "few-shot test", "test", head, rows)[1]

    @property
    def _few_shot_prefix(self) -> str:
        return few_shot_prefix(
            self.config.prompt, self.examples["train"], self.config.eval.few_shot
        )

    def _premise_blanked(self) -> list[Prediction]:
        """The tuned model's answers on test rows without their premises, where asked."""
        if not self.config.eval.blank_premise:
            return []
        rows = self.head.encode("test", evidence.blank_premises(self.examples["test"]))
        return self._score_rows("evaluate", "premise blanked", "test", self.head, rows)[1]

    def _word_importance(self, tuned: Sequence[Prediction]) -> list[Occlusion]:
        """By how much each word of the shown cases carries both models' answers, where asked."""
        if not self.config.eval.word_importance:
            return []
        shown = self._shown(tuned)
        altered = {example.index: evidence.leave_one_out(example) for example in shown}
        rows = self.head.encode("test", [a.example for of_row in altered.values() for a in of_row])
        part = "word importance"
        _, after = self._score_rows("evaluate", f"{part}, tuned", "test", self.head, rows)
        with self.loaded.model.disable_adapter():
            _, before = self._score_rows("evaluate", f"{part}, base", "test", self.head, rows)
        tuned_answers = {row.index: row for row in records.of_split(tuned, "test")}
        whole = {row.index: (row, tuned_answers[row.index]) for row in self._base_on_test()}
        return evidence.word_importance(shown, altered, whole, zip(before, after, strict=True))

    def _free_output(self, tuned: Sequence[Prediction]) -> list[Generation]:
        """What both models write after the prompt of each case that the report shows."""
        count = self.config.eval.generate_tokens
        if count == 0 or not describe(self.config.model.head).writes_text:
            return []
        shown = self._shown(tuned)
        prompts = [prompt_text(self.config.prompt, example) for example in shown]
        size = self.config.eval.batch_size
        with self.reporter.timed("evaluate", "free output", 2 * len(prompts)):
            tuned_texts = generate(self.loaded, prompts, count, size)
            with self.loaded.model.disable_adapter():
                base_texts = generate(self.loaded, prompts, count, size)
        indices = [example.index for example in shown]
        columns = zip(indices, prompts, base_texts, tuned_texts, strict=True)
        return [Generation(*column) for column in columns]

    def _shown(self, tuned: Sequence[Prediction]) -> list[Example]:
        """The test rows that the report shows as cases."""
        indices = set(shown_indices(self._base_on_test(), tuned, self.config.eval.cases).all)
        return [example for example in self.examples["test"] if example.index in indices]

    def _base_on_test(self) -> list[Prediction]:
        predictions = records.read_lines(Prediction, self.run.baseline_predictions)
        return records.of_split(predictions, "test")

    def _prompt_record(self, rows: dict[Split, list[Encoded]]) -> PromptRecord:
        first = rows["test"][0]
        tokens = first.features["input_ids"]
        decode = self.tokenizer.decode
        lengths = {split: [row.length for row in of_split] for split, of_split in rows.items()}
        return PromptRecord(
            template=self.config.prompt.template,
            label_tokens=self.head.label_tokens,
            label_token_texts=tuple(decode([token]) for token in self.head.label_tokens),
            example_prompt=decode(tokens),
            example_tokens=tuple(tokens),
            longest_tokens={split: max(of_split) for split, of_split in lengths.items()},
            mean_tokens={s: sum(of_split) / len(of_split) for s, of_split in lengths.items()},
            max_length=self.loaded.max_length,
            few_shot_prefix=self._few_shot_prefix,
        )


def work(run: RunDir) -> WorkerOutcome:
    """Do the task in the run's folder; everything is written when this returns. Stopped passes."""
    quiet_libraries()
    try:
        Worker(run).work()
    except JobError as error:
        return WorkerOutcome(error.exit_code, error.message, error.hint)
    except Exception as error:
        traceback.print_exc()
        if ran_out(error):
            return WorkerOutcome(
                ExitCode.HARDWARE,
                f"out of memory: {str(error).splitlines()[0] if str(error) else 'no more RAM'}",
                "rows were tried one at a time: end what else uses the memory, or take a smaller "
                "model or a larger machine",
            )
        return WorkerOutcome(
            ExitCode.INTERNAL,
            f"the GPU side failed: {type(error).__name__}: {error}",
            f"the whole log is {run.worker_log}",
        )
    return WorkerOutcome(ExitCode.DONE, "", "")


def _scores_text(scores: dict[str, SplitScore]) -> str:
    return ", ".join(f"{split} {score.accuracy:.1%}" for split, score in scores.items())
