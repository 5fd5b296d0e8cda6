"""Generates a complete run folder from a seed, without torch, for the tests of the report.

run = build_run(tmp_path, Spec(gpu=False, head="sequence-classification"))
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nlijob.analysis.cases import shown_indices
from nlijob.analysis.outcome import build_results
from nlijob.analysis.selection import select
from nlijob.config import (
    DataConfig,
    EvalConfig,
    JobConfig,
    LoraConfig,
    ModelConfig,
    PromptConfig,
    ReportConfig,
    TrainConfig,
)
from nlijob.data.further import column_names
from nlijob.data.overlap import measure_overlaps, measure_repetition
from nlijob.data.texts import read_texts, texts_stamp
from nlijob.fingerprints import settings_of, stage_inputs
from nlijob.gpu.reporting import WHOLE, Part, checkpoint, optimizer_steps, scoring
from nlijob.heads import HeadName
from nlijob.records.forgetting import GeneralText, TextLoss
from nlijob.records.job import (
    SPLITS,
    Environment,
    EpochResult,
    Example,
    Generation,
    GpuInfo,
    GpuSample,
    HardwareSample,
    Inputs,
    Manifest,
    Memory,
    OccludedWord,
    Occlusion,
    ParameterCounts,
    Plan,
    Prediction,
    PromptRecord,
    RunRecord,
    ScoreResult,
    Split,
    SplitManifest,
    SplitScore,
    Timing,
    TrainResult,
    TrainStep,
)
from nlijob.records.outcome import Results
from nlijob.records.serialization import read
from nlijob.records.transfer import Elsewhere
from nlijob.rundir import RunDir, epoch_marker, write_record, write_records, write_text
from nlijob.stages import STAGES

LABELS = ("entailment", "neutral", "contradiction")
TEMPLATE = """Instruct: Does the premise entail the hypothesis?
Answer 0 for entailment, 1 for neutral, 2 for contradiction.
Premise: {premise}
Hypothesis: {hypothesis}
Output:"""
UUID = "f3a1c2d4-0b5e-4c6f-8a97-1b2c3d4e5f60"
STARTED = 1_760_000_000.0
GIB = 2**30
STAMPS = {
    "data": "made-up rows",
    "model": "made-up model",
    "elsewhere": json.dumps({"[texts]": texts_stamp("general")}),
}
"""Identity of the files outside the run that its stages are marked with."""

PEOPLE = ("A man", "Two women", "A child in a red coat", "The old guitarist", "Three cyclists")
DOINGS = ("is sleeping", "are waiting for a bus", "plays in the snow", "is not working", "run")
PLACES = ("outside a café", "on the beach", "near a fountain", "in an empty hall", "at a market")

HOSTILE = (
    ("<script>throw new Error('row ran')</script>", '<img src=x onerror="throw 1">'),
    ("</script><style>body{display:none}</style>", "{{ 7 * 7 }} {% raw %} & <b>bold</b>"),
    ("رجل يقرأ كتابا في الحديقة", "الرجل نائم 🙂👩‍👩‍👧"),
    ("\u202egnirts desrever\u202c", "tab\there, newline\nthere, null-ish \u0001 and \ufffd"),
    ("W" * 400, "https://example.invalid/" + "a" * 300),
    ("''\"\"`` ${alert(1)}", "javascript:alert(1)"),
    ("So many words stand here. " * 400, "Few words <i>stand</i> here."),
)
HOSTILE_COLUMNS = (
    *("<b>genre</b>", "\u202egenre", "نوع", "a\nb", "V" * 90, "{{ x }} ${y}", "=1+1"),
)


@dataclass(frozen=True)
class Spec:
    """The kind of run to generate."""

    gpu: bool = True
    gpus: int = 1
    """Number of GPUs, if it has any."""
    head: HeadName = "causal"
    resumed: bool = False
    """The first attempt was killed while epoch 3 was training."""
    demo: bool = False
    hostile: bool = False
    further: bool = False
    """The source has further columns and the labels of single annotators."""
    rows: int = 98
    """Number of test rows, and of validation rows."""
    train_rows: int = 400
    epochs: int = 5
    base_skill: float = 0.25
    tuned_skill: float = 2.6
    """Added to the logit of the gold label."""
    base_habit: float = 2.4
    """Added to the base model's logit of "neutral"."""
    base_validation: bool = True
    test_each_epoch: bool = True
    generations: bool = True
    word_importance: bool = True
    blank_premise: bool = True
    few_shot: int = 3
    weights: bool = False
    """Each epoch has a file in the place of its adapter."""
    forgets: float | None = 0.02
    """Mean rise of the loss on general text, in nats; None where it was not measured."""
    samples: bool = True
    energy: bool = True
    report: ReportConfig = field(default_factory=ReportConfig)
    seed: int = 11
    training_seed: int | None = None
    """A seed for another adapter on the same rows and base model."""
    run_id: str = "20260102-030405-synthetic"
    recipe: str = ""
    """Name of the recipe; "" for the one that matches `demo`."""
    created_at: str = "2026-01-02T03:04:05+00:00"
    lora_r: int = 32


def build_run(root: Path, spec: Spec | None = None) -> RunDir:
    """Write every record of a run below `root` that is finished but for its report."""
    return _Builder(RunDir(root), spec or Spec()).build()


def mark_stages(run: RunDir) -> None:
    """Mark every stage but the report and every epoch as complete, with its files as they are."""
    config = read(RunRecord, run.config).config
    inputs = stage_inputs(config, STAMPS)
    outputs = {
        "subset": [run.manifest, *map(run.subset, SPLITS)],
        "elsewhere": [*run.elsewhere_manifest.parent.iterdir()],
        "baseline": [
            *(run.baseline_predictions, run.few_shot_predictions),
            *(run.baseline_result, run.prompt, run.baseline_texts),
            *run.baseline_result.parent.glob("transfer/*"),
        ],
        "train": [run.train_result, run.train_log, run.plan],
        "select": [run.selection],
        "evaluate": [
            *(run.evaluate_predictions, run.evaluate_result, run.evaluate_texts),
            *run.evaluate_result.parent.glob("transfer/*"),
        ],
        "explain": [
            *(run.blank_premise_predictions, run.generations, run.occlusion),
            run.environment,
        ],
    }
    for epoch in range(1, config.train.epochs + 1):
        files = [*run.epoch(epoch).iterdir()]
        _mark(run, epoch_marker(epoch), inputs["train"], files)
    for stage, files in outputs.items():
        _mark(run, stage, inputs[stage], files)


def finish(run: RunDir) -> Results:
    """Write results.json as the report stage does, without the page, and mark the stage."""
    results = build_results(run)
    write_record(run.results, results)
    explain = run.read_marker("explain")
    assert explain is not None
    (stage,) = (stage for stage in STAGES if stage.name == "report")
    settings = settings_of(results.run.config, stage)
    run.mark_complete(
        "report", Inputs(settings, {"explain": explain.fingerprint}, ""), [run.results]
    )
    return results


def _mark(run: RunDir, stage: str, inputs: Inputs, files: Iterable[Path]) -> None:
    run.mark_complete(stage, inputs, [file for file in files if file.is_file()])


class _Builder:
    def __init__(self, run: RunDir, spec: Spec) -> None:
        self.run = run
        self.spec = spec
        self.random = random.Random(spec.seed)
        self.examples = {split: self._examples(split) for split in SPLITS}

    def build(self) -> RunDir:
        """Write every record in the order in which a job writes them."""
        run, spec = self.run, self.spec
        write_record(run.config, self._record())
        write_record(run.environment, self._environment())
        for split in SPLITS:
            write_records(run.subset(split), self.examples[split])
        write_record(run.manifest, self._manifest())
        write_record(run.elsewhere_manifest, Elsewhere())
        write_record(run.prompt, self._prompt())
        base = self._predictions(spec.base_skill, spec.base_habit, mass=0.31)
        write_records(run.baseline_predictions, base)
        splits: tuple[Split, ...] = ("validation", "test") if spec.base_validation else ("test",)
        write_record(
            run.baseline_result,
            ScoreResult("base", None, {s: _score(base, s) for s in splits}, self._memory(1.71)),
        )
        write_records(run.train_log, self._steps())
        if spec.training_seed is not None:
            self.random = random.Random(spec.training_seed)
        epochs, predictions = self._epochs()
        write_record(run.train_result, TrainResult(self._parameters(), tuple(epochs)))
        write_record(run.plan, self._plan())
        selection = select(epochs)
        write_record(run.selection, selection)
        tuned = predictions[selection.epoch]
        write_records(run.evaluate_predictions, tuned)
        write_record(
            run.evaluate_result,
            ScoreResult(
                "tuned", selection.epoch, {"test": _score(tuned, "test")}, self._memory(1.75)
            ),
        )
        if spec.generations:
            write_records(run.generations, self._generations(base, tuned))
        timings = list(self._timings())
        write_records(run.timings, timings)
        if spec.samples:
            write_records(run.hardware, self._samples(timings))
        if self._shots:
            few_shot = self._predictions(1.0, 0.5, mass=0.88)
            write_records(run.few_shot_predictions, (p for p in few_shot if p.split == "test"))
        if spec.blank_premise:
            blank = self._predictions(0.9, 0.4, mass=0.98)
            write_records(run.blank_premise_predictions, (p for p in blank if p.split == "test"))
        if spec.word_importance:
            write_records(run.occlusion, self._occlusions(base, tuned))
        if spec.forgets is not None and spec.head == "causal":
            self._write_texts(spec.forgets)
        mark_stages(run)
        return run

    # ------------------------------------------------------------ configuration

    def _record(self) -> RunRecord:
        return RunRecord(
            run_id=self.spec.run_id,
            recipe=self.spec.recipe or ("demo" if self.spec.demo else "phi2"),
            config=self._config(),
            command=("entrypoint.py", "run", "--recipe", "phi2"),
            created_at=self.spec.created_at,
            nlijob_version="0.1.0",
        )

    def _config(self) -> JobConfig:
        spec = self.spec
        causal = spec.head == "causal"
        return JobConfig(
            description="a made-up run",
            data=DataConfig(
                dataset="demo" if spec.demo else "stanfordnlp/snli",
                revision=None if spec.demo else "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
                config_name="plain_text",
                train_stride=550,
                validation_stride=100,
                test_stride=100,
            ),
            model=ModelConfig(
                name="demo" if spec.demo else "microsoft/phi-2",
                revision=None if spec.demo else "ef382358ec9e382308935a992d908de099b64c23",
                head=spec.head,
                residual_dropout=0.0,
            ),
            prompt=PromptConfig(TEMPLATE, (" 0", " 1", " 2")) if causal else PromptConfig(),
            lora=LoraConfig(r=spec.lora_r, alpha=64),
            train=TrainConfig(epochs=spec.epochs),
            eval=EvalConfig(
                test_each_epoch=spec.test_each_epoch,
                word_importance=spec.word_importance,
                blank_premise=spec.blank_premise,
                few_shot=self._shots,
            ),
            report=spec.report,
        )

    def _environment(self) -> Environment:
        gpus = [
            GpuInfo("NVIDIA H200", uuid_of(place), "9.0", 140 * GIB, "580.65.06")
            for place in range(self.spec.gpus)
        ]
        return Environment(
            device="cuda" if self.spec.gpu else "cpu",
            gpus=tuple(gpus) if self.spec.gpu else (),
            platform="Linux-6.8-x86_64",
            python_version="3.12.4",
            packages={
                "torch": "2.13.0",
                "transformers": "5.23.0",
                "peft": "0.21.0",
                "bitsandbytes": "0.50.0",
                "accelerate": "1.15.0",
            },
            cuda_version="13.0" if self.spec.gpu else None,
            cpu_name="A processor of 16 cores",
            cpu_count=16,
            ram_bytes=128 * GIB,
            compute_dtype="bfloat16" if self.spec.gpu else "float32",
            attention="sdpa",
        )

    @property
    def _shots(self) -> int:
        return self.spec.few_shot if self.spec.head == "causal" else 0

    # ------------------------------------------------------------ data

    def _examples(self, split: Split) -> list[Example]:
        rows = self.spec.train_rows if split == "train" else self.spec.rows
        stride = 550 if split == "train" else 100
        return [self._example(split, position, stride) for position in range(rows)]

    def _example(self, split: Split, position: int, stride: int) -> Example:
        pick = self.random.choice
        premise = f"{pick(PEOPLE)} {pick(DOINGS)} {pick(PLACES)}."
        hypothesis = f"{pick(PEOPLE)} {pick(DOINGS)}."
        if self.spec.hostile and split == "test":
            premise, hypothesis = HOSTILE[position % len(HOSTILE)]
        row = Example(position * stride, premise, hypothesis, self.random.randrange(3))
        return self._with_more(row) if self.spec.further and split == "test" else row

    def _with_more(self, row: Example) -> Example:
        """The row with further columns and the labels of five annotators."""
        choose = random.Random(f"{self.spec.seed} {row.index}")  # leaves the run's own draws alone
        columns = {
            "genre": choose.choice(("fiction", "telephone", "travel")),
            "subcase": f"s{choose.randrange(12):02}",
        }
        if self.spec.hostile:
            columns = {
                name: choose.choice(texts)
                for name, texts in zip(HOSTILE_COLUMNS, HOSTILE, strict=True)
            }
        given = [row.label if choose.random() < 0.85 else choose.randrange(3) for _ in range(5)]
        return replace(
            row, columns=columns, votes=tuple(given.count(label) for label in range(len(LABELS)))
        )

    def _manifest(self) -> Manifest:
        return Manifest(
            dataset="demo" if self.spec.demo else "stanfordnlp/snli",
            revision=None if self.spec.demo else "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
            config_name="plain_text",
            label_names=LABELS,
            splits={split: self._split_manifest(split) for split in SPLITS},
            shared_premises={"train+validation": 0, "train+test": 3, "validation+test": 0},
            warnings=("train+test: 3 premises stand in both splits",),
            overlaps=measure_overlaps(self.examples),
        )

    def _split_manifest(self, split: Split) -> SplitManifest:
        rows = self.examples[split]
        lines = (
            json.dumps([row.premise, row.hypothesis, row.label], ensure_ascii=False) + "\n"
            for row in rows
        )
        return SplitManifest(
            split=split,
            source_rows=550_152 if split == "train" else 10_000,
            rule="every 550th row" if split == "train" else "every 100th row",
            selected=len(rows) + 2,
            unlabelled_dropped=2,
            rows=len(rows),
            class_counts=tuple(sum(row.label == label for row in rows) for label in range(3)),
            rows_sha256=hashlib.sha256("".join(lines).encode()).hexdigest(),
            indices=tuple(row.index for row in rows),
            labels_read="the source names no labels; 0, 1 and 2 were read as "
            "entailment, neutral and contradiction",
            blank_lines=1 if split == "test" else 0,
            fields_over_lines=0,
            repetition=measure_repetition(rows),
            further_columns=column_names(rows),
            annotator_columns=("annotator_labels",) if any(row.votes for row in rows) else (),
            file_sha256=self.run.sha256_of(self.run.subset(split)),
        )

    def _prompt(self) -> PromptRecord:
        causal = self.spec.head == "causal"
        first = self.examples["test"][0]
        template = TEMPLATE if causal else ""
        text = TEMPLATE.format(premise=first.premise, hypothesis=first.hypothesis)
        pieces = re.findall(r"\s?\S+|\s", text if causal else f"{first.premise} {first.hypothesis}")
        return PromptRecord(
            template=template,
            label_tokens=(657, 352, 362) if causal else (),
            label_token_texts=(" 0", " 1", " 2") if causal else (),
            example_prompt=text if causal else f"{first.premise} {first.hypothesis}",
            example_tokens=tuple(range(1000, 1000 + len(pieces))),
            longest_tokens={"train": 131, "validation": 104, "test": 98},
            mean_tokens={"train": 71.4, "validation": 70.9, "test": 72.0},
            max_length=2048,
            few_shot_prefix="Premise: A dog runs.\nHypothesis: It runs.\nAnswer: 0\n\n"
            if self._shots
            else "",
            verbalizers=(" 0", " 1", " 2") if causal else (),
            answer_style="recipe" if causal else "",
            is_chat=False,
            example_token_texts=tuple(pieces),
        )

    # ------------------------------------------------------------ models

    def _predictions(self, skill: float, habit: float, mass: float) -> list[Prediction]:
        return [
            self._prediction(split, example, skill, habit, mass)
            for split in SPLITS[1:]
            for example in self.examples[split]
        ]

    def _prediction(
        self, split: Split, example: Example, skill: float, habit: float, mass: float
    ) -> Prediction:
        logits = [self.random.gauss(0, 1) for _ in LABELS]
        logits[example.label] += skill
        logits[1] += habit
        probabilities = _softmax(logits)
        return Prediction(
            split=split,
            index=example.index,
            label=example.label,
            predicted=max(range(3), key=probabilities.__getitem__),
            probabilities=probabilities,
            label_mass=mass if self.spec.head == "causal" else None,
            loss=-math.log(probabilities[example.label]),
            tokens=40 + len(example.premise.split()) + len(example.hypothesis.split()),
        )

    def _epochs(self) -> tuple[list[EpochResult], dict[int, list[Prediction]]]:
        epochs, predictions = [], {}
        for epoch in range(1, self.spec.epochs + 1):
            share = min(1.0, 0.45 + 0.2 * epoch)
            rows = self._predictions(self.spec.tuned_skill * share, 0.0, mass=0.99)
            overfit = 0.06 * max(0, epoch - 3)
            rows = [
                replace(row, loss=row.loss + overfit) if row.split == "validation" else row
                for row in rows
            ]
            epochs.append(
                EpochResult(
                    epoch=epoch,
                    steps=self.spec.train_rows // 8,
                    examples=self.spec.train_rows,
                    train_loss=0.9 * 0.55**epoch + 0.05,
                    duration_s=41.3 + 0.2 * epoch,
                    validation=_score(rows, "validation"),
                    test=_score(rows, "test") if self.spec.test_each_epoch else None,
                    memory=self._memory(3.02),
                )
            )
            predictions[epoch] = [row for row in rows if row.split == "test"]
            write_records(self.run.epoch_predictions(epoch), rows)
            if self.spec.weights:
                write_text(self.run.epoch(epoch) / "adapter_model.safetensors", f"epoch {epoch}")
        return epochs, predictions

    def _steps(self) -> Iterator[TrainStep]:
        per_epoch = self.spec.train_rows // 8
        total = per_epoch * self.spec.epochs
        for step in range(1, total + 1):
            progress = step / total
            yield TrainStep(
                epoch=1 + (step - 1) // per_epoch,
                step=step,
                loss=max(0.01, 1.1 * math.exp(-4 * progress) + self.random.gauss(0.06, 0.08)),
                grad_norm=abs(self.random.gauss(1.2, 0.4)),
                learning_rate=2e-4 * (1 - progress),
                examples=8,
                duration_s=0.82,
            )

    def _parameters(self) -> ParameterCounts:
        head = 0 if self.spec.head == "causal" else 7_680
        return ParameterCounts(
            trainable=20_971_520 + head,
            total_logical=2_800_655_360 + head,
            total_packed=1_542_364_160 + head,
            lora_parameters=20_971_520,
            head_parameters=head,
            matched_modules={"q_proj": 32, "k_proj": 32, "v_proj": 32, "dense": 32},
            quantized_modules=192,
            base_memory_bytes=int(1.66 * GIB),
        )

    def _plan(self) -> Plan:
        if not self.spec.gpu:
            reason = "the fastest mode that this model, this machine and its free memory support"
            return Plan("packed", reason, "dequantized", 8, (), 3.7e-7, (240, 256, 272), 0.1)
        return Plan(
            way="graph",
            reason="the fastest mode that this model, this machine and its free memory support",
            base_weights="as loaded",
            micro_batch_size=8,
            refused=(
                "CUDA graphs, dequantised weights, micro-batch of 8: "
                "the weights need 5.2 GiB, and 4.1 GiB are free",
            ),
            logits_difference=0.0021,
            token_counts=(448, 512),
            warm_up_s=6.4,
            processes=self.spec.gpus,
        )

    def _memory(self, gib: float) -> Memory:
        if not self.spec.gpu:
            return Memory(None, None)
        return Memory(int(gib * GIB), int(1.15 * gib * GIB))

    def _generations(
        self, base: Sequence[Prediction], tuned: Sequence[Prediction]
    ) -> Iterator[Generation]:
        examples = {example.index: example for example in self.examples["test"]}
        answers = {row.index: row.predicted for row in tuned}
        for index in shown_indices(base, tuned, per_kind=12).all:
            example = examples[index]
            prompt = TEMPLATE.format(premise=example.premise, hypothesis=example.hypothesis)
            rambling = " 1\n\nExercise 2: <b>Rewrite</b> the sentence above, then explain why"
            yield Generation(index, prompt, rambling, f" {answers[index]}")

    def _write_texts(self, rise: float) -> None:
        """Losses of both models on the project's own texts, and hostile ones where asked for."""
        # leaves the run's own draws alone
        draw = random.Random(f"{self.spec.seed} texts")
        trained = random.Random(f"{self.spec.seed} {self.spec.training_seed} texts")
        texts = read_texts("general")[::3]
        if self.spec.hostile:
            hostile = enumerate(HOSTILE, start=1)
            texts = [GeneralText(number, text, mark) for number, (text, mark) in hostile]
        base, tuned = [], []
        for one in texts:
            tokens, loss = 60 + draw.randrange(120), 2.4 + draw.gauss(0, 0.3)
            base.append(TextLoss(one.text, tokens, loss))
            tuned.append(TextLoss(one.text, tokens, loss + rise + trained.gauss(0, 0.05)))
        write_records(self.run.texts, texts)
        write_records(self.run.baseline_texts, base)
        write_records(self.run.evaluate_texts, tuned)

    def _occlusions(
        self, base: Sequence[Prediction], tuned: Sequence[Prediction]
    ) -> Iterator[Occlusion]:
        examples = {example.index: example for example in self.examples["test"]}
        for index in shown_indices(base, tuned, per_kind=12).all:
            example = examples[index]
            words = [
                OccludedWord(
                    "premise" if name == "premise" else "hypothesis",
                    *word.span(),
                    self.random.gauss(0, 0.1),
                    self.random.gauss(0.05, 0.3),
                )
                for name, text in (("premise", example.premise), ("hypothesis", example.hypothesis))
                for word in list(re.finditer(r"\w+", text))[:60]
            ]
            yield Occlusion(index, tuple(words), 0)

    # ------------------------------------------------------------ time and hardware

    def _timings(self) -> Iterator[Timing]:
        if not self.spec.resumed:
            yield from self._attempt(1, STARTED, range(1, self.spec.epochs + 1), done=False)
            return
        # Killed hard in epoch 3: no "job", no whole "train".
        killed = list(self._attempt(1, STARTED, range(1, 3), done=False))
        lost = {("job", ""), ("train", ""), ("select", ""), ("evaluate", ""), ("report", "")}
        yield from (t for t in killed if (t.stage, t.part) not in lost and t.stage != "evaluate")
        yield from self._attempt(2, STARTED + 7_200, range(3, self.spec.epochs + 1), done=True)

    def _attempt(
        self, attempt: int, started: float, epochs: Sequence[int], done: bool
    ) -> Iterator[Timing]:
        """Timings of one attempt; with `done`, subset and baseline are already complete."""
        clock = started

        def timing(
            stage: str, part: Part, seconds: float, examples: int | None = None, after: float = 0.0
        ) -> Timing:
            return Timing(
                attempt,
                stage,
                part.name,
                clock + after,
                seconds,
                examples,
                part.kind,
                part.epoch,
                part.split,
                _monotonic(attempt, clock + after),
            )

        before = [("fetch", 2.2)] + ([] if done else [("subset", 1.4)])
        for stage, seconds in [*before, ("start", 9.7), ("load", 14.2)]:
            yield timing(stage, WHOLE, seconds)
            clock += seconds
        if not done:
            yield timing("baseline", scoring("validation"), 3.1, self.spec.rows)
            yield timing("baseline", scoring("test"), 3.0, self.spec.rows, after=3.1)
            yield timing("baseline", WHOLE, 6.4)
            clock += 6.4
        train_started = clock
        for epoch in epochs:
            parts = (
                (optimizer_steps(epoch), 42.0, self.spec.train_rows),
                (scoring("validation", epoch), 3.1, self.spec.rows),
                (scoring("test", epoch), 3.0, self.spec.rows),
                (checkpoint(epoch), 0.8, None),
            )
            for part, seconds, examples in parts:
                yield timing("train", part, seconds, examples)
                clock += seconds
        yield replace(
            timing("train", WHOLE, clock - train_started),
            started_at_s=train_started,
            started_monotonic_s=_monotonic(attempt, train_started),
        )
        yield timing("select", WHOLE, 0.01)
        yield timing("evaluate", scoring("test"), 3.0, self.spec.rows, after=0.01)
        yield timing("evaluate", Part("free output"), 21.5, 30, after=3.01)
        yield timing("evaluate", WHOLE, 25.2, after=0.01)
        clock += 25.2
        yield replace(
            timing("job", WHOLE, clock - started + 4.4),
            started_at_s=started,
            started_monotonic_s=_monotonic(attempt, started),
        )
        yield timing("report", WHOLE, 2.9)

    def _samples(self, timings: Sequence[Timing]) -> Iterator[HardwareSample]:
        for attempt in sorted({timing.attempt for timing in timings}):
            own = [t for t in timings if t.attempt == attempt and t.stage != "job"]
            first = min(t.started_at_s for t in own)
            last = max(t.started_at_s + t.duration_s for t in own)
            energy = 5.0e6 * attempt
            for second in range(0, int(last - first) + 1, 2):
                stage = _stage_at(own, first + second)
                sample = self._sample(attempt, first + second, stage, energy)
                energy += 2 * (sample.gpus[0].power_w or 0.0) if sample.gpus else 0.0
                yield sample

    def _sample(self, attempt: int, time_s: float, stage: str, energy: float) -> HardwareSample:
        busy = stage in ("baseline", "train", "evaluate")
        jitter = self.random.random()
        gpu = GpuSample(
            uuid=f"GPU-{UUID.upper()}",
            load=(0.9 + 0.1 * jitter) if busy else 0.02 * jitter,
            memory_used_bytes=int((4.1 if busy else 0.6) * GIB + jitter * GIB / 10),
            temperature_c=35 + (25 if busy else 0) + 3 * jitter,
            power_w=(430 if busy else 75) + 30 * jitter,
            energy_j=energy if self.spec.energy else None,
        )
        return HardwareSample(
            attempt=attempt,
            time_s=time_s,
            stage=stage,
            cpu_load=0.08 + 0.1 * jitter if self.spec.gpu else 0.85 + 0.1 * jitter,
            ram_used_bytes=int((3.1 + jitter) * GIB),
            disk_free_bytes=310 * GIB,
            gpus=tuple(_of_place(gpu, place) for place in range(self.spec.gpus))
            if self.spec.gpu
            else (),
            monotonic_s=_monotonic(attempt, time_s),
        )


def uuid_of(place: int) -> str:
    """The UUID of a GPU by its place in the machine."""
    return UUID if not place else f"{UUID[:-2]}{place:02}"


def _of_place(first: GpuSample, place: int) -> GpuSample:
    """The sample of another GPU, which is less busy than the first."""
    if not place:
        return first
    share = 1 - place / 20
    return replace(
        first,
        uuid=f"GPU-{uuid_of(place).upper()}",
        load=None if first.load is None else share * first.load,
        power_w=None if first.power_w is None else share * first.power_w,
        energy_j=None if first.energy_j is None else share * first.energy_j,
    )


def _monotonic(attempt: int, time_s: float) -> float:
    """A moment on the monotonic clock of an attempt's machine; the second has just started."""
    return time_s - STARTED + (50_000 if attempt == 1 else -7_150)


def _softmax(logits: Sequence[float]) -> tuple[float, ...]:
    exponentials = [math.exp(logit) for logit in logits]
    return tuple(value / sum(exponentials) for value in exponentials)


def _score(predictions: Sequence[Prediction], split: Split) -> SplitScore:
    rows = [row for row in predictions if row.split == split]
    return SplitScore(
        split=split,
        rows=len(rows),
        correct=sum(row.predicted == row.label for row in rows),
        loss=sum(row.loss for row in rows) / len(rows),
        duration_s=3.0,
    )


def _stage_at(timings: Sequence[Timing], time_s: float) -> str:
    running = [t for t in timings if t.started_at_s <= time_s < t.started_at_s + t.duration_s]
    return running[-1].stage if running else ""
