"""The elsewhere stage: reads what is asked for beside the run's own rows.

These are the further test sets, general texts (`nlijob.data.texts`) and tasks of
lm-evaluation-harness (`nlijob.data.tasks`). A set is read as the test split of a data set is, by
the same readers and with the same checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nlijob import records
from nlijob.analysis.wording import listed, plural
from nlijob.config import DataConfig, JobConfig, TransferConfig
from nlijob.data.overlap import rows_in_training
from nlijob.data.set_labels import labels_of_set
from nlijob.data.sources import source_stamp
from nlijob.data.splits import label_values, label_warnings, open_test_split
from nlijob.data.subset import take_split
from nlijob.data.tasks import fetch_tasks, task_list, tasks_stamp
from nlijob.data.texts import read_texts, texts_stamp
from nlijob.errors import NotAvailableError
from nlijob.files import remove
from nlijob.hub import Hub
from nlijob.records.job import Example
from nlijob.records.transfer import Elsewhere, TransferManifest
from nlijob.rundir import RunDir, write_record, write_records

SPELLINGS = (
    (re.compile(r"--set 'data\.([^']*)'"), r"\1"),
    (re.compile(r"--set data\.(\S+)"), r"\1"),
    (
        re.compile(r"data\.train_split, data\.\w+ and data\.\w+ to the files' names without their"),
        "split to a file's name without its",
    ),
    (re.compile(r"without its endings"), "without its ending"),
    (re.compile(r", or data\.split_column to another column"), ""),
    (re.compile(r"data\.(?:train|validation|test)_(split|stride|size)"), r"\1"),
    (re.compile(r"--test-(size)"), r"\1"),
    (re.compile(r"data\.(\w+)"), r"\1"),
)
"""How messages about a test split name a setting -> how the table of a further test set does."""


class ReadSet(NamedTuple):
    """A further test set, as far as it is taken."""

    manifest: TransferManifest
    examples: list[Example]
    """With the set's own labels."""


def read_elsewhere(config: JobConfig, run: RunDir, hub: Hub) -> tuple[Elsewhere, list[Path]]:
    """Write elsewhere/<name>.jsonl for each set and the texts, then elsewhere/manifest.json.

    The training rows must have been written. Returns what was read and the files that were written.
    Raises NotAvailableError if a set, the file of the texts or the data of a task are not available
    or cannot be used, and ConfigurationError if a set's labels do not fit those of the run or a
    task is not known.
    """
    remove(run.elsewhere_manifest.parent)  # sets that are not asked for any more
    training = [*records.read_lines(Example, run.subset("train"))] if config.transfer else []
    sets = []
    for one in config.transfer:
        read = read_set(one, config.data, hub, training)
        write_records(run.elsewhere(one.name), read.examples)
        sets.append(read.manifest)
    files = [run.elsewhere(one.name) for one in sets]
    if texts := read_texts(config.forgetting.texts):
        write_records(run.texts, texts)
        files.append(run.texts)
    if config.forgetting.tasks:
        write_record(run.tasks, task_list(config.forgetting))
        fetch_tasks(run.tasks, hub.is_offline)
        files.append(run.tasks)
    found = Elsewhere(tuple(sets), len(texts), config.forgetting.tasks)
    write_record(run.elsewhere_manifest, found)
    return found, [run.elsewhere_manifest, *files]


def read_set(
    one: TransferConfig, run_data: DataConfig, hub: Hub, training: Sequence[Example] = ()
) -> ReadSet:
    """The rows of a further test set. `run_data`: the settings of the run's own data.

    Raises as `read_elsewhere`.
    """
    data = data_of(one, run_data)
    with of_set(one):
        opened = open_test_split(data, hub)
        warnings = label_warnings(data, {"test": opened})
        found = {str(value) for value in label_values({"test": opened})}
        labels = labels_of_set(one, run_data.label_names, found)
        data = dataclasses.replace(data, label_names=labels.names, label_map=labels.label_map)
        taken = take_split(data, "test", opened)
    manifest = TransferManifest(
        name=one.name,
        dataset=one.dataset,
        revision=one.revision,
        config_name=one.config_name,
        source_split=one.split,
        label_names=labels.names,
        answers=labels.answers,
        rows=dataclasses.replace(taken.manifest, indices=()),
        in_training=rows_in_training(taken.examples, training),
        warnings=tuple(_told_of(one, text) for text in (*warnings, *taken.warnings)),
    )
    return ReadSet(manifest, taken.examples)


def data_of(one: TransferConfig, run_data: DataConfig) -> DataConfig:
    """A further test set as a data set whose test split it is, with the labels of the run."""
    takes_all = one.stride is None and one.size is None
    return DataConfig(
        dataset=one.dataset,
        revision=one.revision,
        config_name=one.config_name,
        test_stride=one.stride,
        test_size=0 if takes_all else one.size,
        train_split=one.split,  # so that only the files of this split count
        validation_split=one.split,
        test_split=one.split,
        premise_column=one.premise_column,
        hypothesis_column=one.hypothesis_column,
        label_column=one.label_column,
        columns=one.columns,
        label_names=run_data.label_names,
        label_map=one.label_map,
        annotator_columns=(),
    )


def elsewhere_stamp(config: JobConfig) -> str:
    """A stamp of the local files that are read; "" where there are none."""
    texts, tasks = texts_stamp(config.forgetting.texts), tasks_stamp(config.forgetting)
    stamps = {"[texts]": texts, "[tasks]": tasks}  # no set has such a name
    for one in config.transfer:
        with of_set(one):
            stamps[one.name] = source_stamp(data_of(one, config.data))
    local = {name: stamp for name, stamp in stamps.items() if stamp}
    return json.dumps(local, sort_keys=True) if local else ""


def said_of(found: Elsewhere) -> str:
    """What was read, in a line."""
    sets = [
        f"{one.name}: {plural(one.rows.rows, 'row')}, {listed([*one.label_names])}"
        + (
            f"; {one.rows.unlabelled_dropped:,} unlabelled dropped"
            * bool(one.rows.unlabelled_dropped)
        )
        for one in found.transfer
    ]
    texts = [plural(found.texts, "general text")] if found.texts else []
    tasks = [f"tasks {listed([*found.tasks])}"] if found.tasks else []
    return "; ".join([*sets, *texts, *tasks]) or "none"


@contextlib.contextmanager
def of_set(one: TransferConfig) -> Iterator[None]:
    """Say of an error in the block that it is in the set, and name settings as its table does."""
    try:
        yield
    except NotAvailableError as error:
        hint = _in_words_of(one, error.hint)
        if hint != error.hint:  # it names settings
            hint = f"in the recipe's [[transfer]] table of {one.name}: {hint}"
        message = f"transfer set {one.name}: {_in_words_of(one, error.message)}"
        raise NotAvailableError(message, hint) from error


def _told_of(one: TransferConfig, warning: str) -> str:
    """A warning about a test split as one about the set."""
    return f"{one.name}: {_in_words_of(one, warning.removeprefix('test: '))}"


def _in_words_of(one: TransferConfig, text: str) -> str:
    """A message about a test split as one about the set."""
    text = text.replace(", split test:", f", split {one.split}:")
    for pattern, new in SPELLINGS:
        text = pattern.sub(new, text)
    return text
