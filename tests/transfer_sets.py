"""Made-up further test sets, with both models' answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nlijob import records
from nlijob.config import JobConfig, TransferConfig
from nlijob.data.further import column_names
from nlijob.records.job import Choice, Example, RunRecord, SplitManifest
from nlijob.records.transfer import (
    Elsewhere,
    RowsInTraining,
    TransferManifest,
    TransferPrediction,
)
from nlijob.rundir import RunDir, write_record, write_records
from nlijob.trials import trials_of
from tests.synthetic import LABELS, mark_stages

TWO = ("entailment", "not_entailment")


@dataclass(frozen=True)
class MadeSet:
    """A set, and how many of its rows each model labels correctly, from the first row on."""

    name: str = "far"
    rows: int = 60
    base: int = 20
    tuned: int = 40
    """The training whose adapter is kept."""
    others: Mapping[int, int] = field(default_factory=dict)
    """Seed of each other training -> its correct rows."""
    label_names: Sequence[str] = LABELS
    answers: Sequence[int] = (0, 1, 2)
    rows_a_premise: int = 1
    values: Sequence[str] = ()
    """Values of a further column, in turn."""
    too_long: int = 0
    """Rows at the end without an answer."""
    seen: int = 0
    """Rows that stand in training."""

    def examples(self) -> list[Example]:
        """The rows; labels take turns."""
        return [
            Example(
                index=i,
                premise=f"premise {i // self.rows_a_premise} of {self.name}",
                hypothesis=f"hypothesis {i}",
                label=i % len(self.label_names),
                columns={"heuristic": self.values[i % len(self.values)]} if self.values else {},
            )
            for i in range(self.rows)
        ]

    def answered(self, correct: int) -> list[TransferPrediction]:
        """The answers of a model that is right on so many rows."""
        return [
            TransferPrediction(row.index, self._probabilities(row, row.index < correct), 30)
            for row in self.examples()[: self.rows - self.too_long]
        ]

    def manifest(self) -> TransferManifest:
        """What the job writes about the set."""
        rows, labels = self.examples(), range(len(self.label_names))
        return TransferManifest(
            name=self.name,
            dataset=f"{self.name}.jsonl",
            revision=None,
            config_name=None,
            source_split="test",
            label_names=tuple(self.label_names),
            answers=tuple(self.answers),
            rows=SplitManifest(
                split="test",
                source_rows=self.rows,
                rule="all rows",
                selected=self.rows,
                unlabelled_dropped=0,
                rows=self.rows,
                class_counts=tuple(sum(row.label == label for row in rows) for label in labels),
                rows_sha256="0",
                indices=(),
                further_columns=column_names(rows),
            ),
            in_training=RowsInTraining(self.seen, self.seen),
            warnings=(),
        )

    def _probabilities(self, row: Example, is_right: bool) -> tuple[float, ...]:
        """Of the model's labels: 0.8 for the last one that counts for what is answered."""
        wanted = row.label if is_right else (row.label + 1) % len(self.label_names)
        chosen = max(label for label, number in enumerate(self.answers) if number == wanted)
        return tuple(0.8 if label == chosen else 0.1 for label in range(len(self.answers)))


def config_with(config: JobConfig, *sets: MadeSet) -> JobConfig:
    """The configuration with these sets and all their trainings."""
    seeds = (config.train.seed, *(sets[0].others if sets else ()))
    train = replace(config.train, seeds=seeds if len(seeds) > 1 else 1)
    named = tuple(TransferConfig(one.name, f"{one.name}.jsonl") for one in sets)
    return replace(config, train=train, transfer=named)


def write_sets(run: RunDir, config: JobConfig, *sets: MadeSet) -> None:
    """Write the records of the sets; the first training is the one that is kept."""
    kept, *others = trials_of(config)
    if others:
        write_record(run.choice, Choice(kept.name, "made up", 1, 0.5, 1 + len(others)))
    write_record(run.elsewhere_manifest, Elsewhere(tuple(one.manifest() for one in sets)))
    for one in sets:
        write_records(run.elsewhere(one.name), one.examples())
        write_records(run.baseline_transfer(one.name), one.answered(one.base))
        correct = {config.train.seed: one.tuned, **one.others}
        for trial in (kept, *others):
            answers = one.answered(correct[trial.config.train.seed])
            write_records(run.of_trial(trial).evaluate_transfer(one.name), answers)


def add_sets(run: RunDir, *sets: MadeSet) -> RunDir:
    """A synthetic run with sets beside its own rows."""
    record = records.read(RunRecord, run.config)
    config = config_with(record.config, *sets)
    write_record(run.config, replace(record, config=config))
    write_sets(run, config, *sets)
    mark_stages(run)
    return run
