"""The elsewhere stage: reads what is asked for beside the run's own rows.

These are the further test sets, general texts (`nlijob.data.texts`) and tasks of
lm-evaluation-harness (`nlijob.data.tasks`). A set is read as the test split of a data set is, by
the same readers and with the same checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class SetConfig(DataConfig):
    """A further test set as a data set whose test split it is. Messages name keys as its table."""

    def key(self, name: str) -> str:
        """See `DataConfig.key`."""
        if name in ("split_column", "annotator_columns"):
            return ""
        _, _, last = name.rpartition("_")
        return last if last in ("split", "size", "stride") else name

    def setting(self, name: str, value: str) -> str:
        """See `DataConfig.setting`."""
        text = value if value[:1] in ("{", "[") else json.dumps(value)
        return f"{self.key(name)} = {text}"

    def size_option(self, split: str) -> str:
        """See `DataConfig.size_option`."""
        return "size"

    def split_name(self, split: str) -> str:
        """See `DataConfig.split_name`."""
        return self.test_split


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
        warnings=tuple(
            f"{one.name}: {text.removeprefix('test: ')}" for text in (*warnings, *taken.warnings)
        ),
    )
    return ReadSet(manifest, taken.examples)


def data_of(one: TransferConfig, run_data: DataConfig) -> SetConfig:
    """A further test set as a data set whose test split it is, with the labels of the run."""
    takes_all = one.stride is None and one.size is None
    return SetConfig(
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
    """Say of an error in the block that it is in the set."""
    try:
        yield
    except NotAvailableError as error:
        hint = f"[[transfer]] {one.name}: {error.hint}" if error.hint else ""
        raise NotAvailableError(f"transfer set {one.name}: {error.message}", hint) from error
