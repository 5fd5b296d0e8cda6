"""The three splits of a source: by their names, by a column, or taken from the training rows."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlijob.analysis.wording import count, listed, plural
from nlijob.config import DEFAULT_LABELS, DataConfig, JobConfig, check
from nlijob.data.corpora import no_columns
from nlijob.data.labels import two_way, whole_number
from nlijob.data.layout import split_names
from nlijob.data.sources import Source, source_of
from nlijob.data.survey import SourceSurvey, divided
from nlijob.data.table import Table
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Split

HELD_OUT_SPLITS: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class OpenedSplit:
    """A split whose source was checked, and from which rows can be taken."""

    table: Table
    survey: SourceSurvey
    """Of the whole source, where a source has several splits."""
    origin: str = ""
    """How the rows were found, in words; "" where they are those of the split's own name."""


Opened = Mapping[Split, OpenedSplit]


def open_splits(data: DataConfig, hub: Hub) -> Opened:
    """All splits, read once to check them and to learn what they hold.

    Raises NotAvailableError if one is not available or a file is malformed.
    """
    source = source_of(data, hub)
    if whole := source.whole():
        return _divided_source(data, source, whole)
    if data.split_column:
        raise NotAvailableError(
            f"{data.dataset}: data.split_column is {data.split_column}, but not one file or split "
            f"holds all rows; there are {listed([*source.names()])}",
            "give the one file as data.dataset, or leave data.split_column out",
        )
    found: dict[Split, OpenedSplit] = {}
    why: dict[Split, str] = {}
    for split in HELD_OUT_SPLITS:
        opened, why[split] = _held_out(data, source, split)
        if opened:
            found[split] = opened
    missing = [split for split in HELD_OUT_SPLITS if split not in found]
    survey = SourceSurvey(data, hashes=array("Q") if missing else None)
    name, origin = _train_name(data, source)
    table = _opened(source, "train", name, survey)
    found["train"] = OpenedSplit(table, survey, origin)
    if missing:
        found |= _taken_from(data, found["train"], missing, why)
    return {split: found[split] for split in SPLITS}


def open_test_split(data: DataConfig, hub: Hub) -> OpenedSplit:
    """The split that is named as the test split, alone; of a file that no column divides, all rows.

    Where it is named "train" or "validation", the names that corpora use for these are found too.
    Raises NotAvailableError if it is not available, has no labels, or a file is malformed.
    """
    source = source_of(data, hub)
    split: Split = next((usual for usual in SPLITS if usual == data.test_split), "test")
    if whole := source.whole():
        return _split_of_file(data, source, whole, split)
    if not _names(data, source, split):
        raise source.missing(split, data.test_split)
    opened, why = _held_out(data, source, split)
    if opened is None:
        raise NotAvailableError(
            f"{data.dataset}: {why}; there are {listed([*source.names()])}",
            f"set {data.key('test_split')} to one that has labels",
        )
    return opened


def takes_labels_of_data(data: DataConfig) -> bool:
    """Whether the labels may be named by the data, as the configuration says nothing of them."""
    return data.label_names == DEFAULT_LABELS and not data.label_map


def with_label_names(data: DataConfig, opened: Opened) -> DataConfig:
    """The settings with the names of a known set of two labels, if the data have these alone.

    Names that the configuration gives, and those of data with other labels, stay.
    """
    if not takes_labels_of_data(data):
        return data
    found = two_way(map(str, label_values(opened)))
    return dataclasses.replace(data, label_names=found) if found else data


def label_warnings(data: DataConfig, opened: Opened) -> list[str]:
    """A warning if the data have the numbers 0 and 1 alone, and nothing says what these mean."""
    if not takes_labels_of_data(data) or {str(v) for v in label_values(opened)} != {"0", "1"}:
        return []
    zero, one, *_ = data.label_names
    naming = data.setting("label_names", '["...", "..."]')
    return [
        f"the labels of the data are 0 and 1 alone, and were read as {zero} and {one}; if they "
        f"mean something else, name both: {naming}"
    ]


def label_values(opened: Opened) -> set[Any]:
    """All labels of the data but missing ones: names, or whole numbers that have no name."""
    values: set[Any] = set()
    for split in opened.values():
        label = split.survey.columns.label if split.survey.columns else ""
        if named := split.table.class_labels.get(label):
            values |= set(named.values())
        else:
            labels = (value for _, value in split.survey.labels if not _is_missing(value))
            values |= {
                value if (number := whole_number(value)) is None else number for value in labels
            }
    return values


def with_labels_of(config: JobConfig, opened: Opened) -> JobConfig:
    """The configuration with the names of labels that the data have; see `with_label_names`.

    Raises ConfigurationError if the prompt does not fit these labels.
    """
    data = with_label_names(config.data, opened)
    if data == config.data:
        return config
    config = dataclasses.replace(config, data=data)
    if faults := check(config):
        told = f"the labels of the data are {listed(data.label_names)}"
        raise ConfigurationError.from_faults(faults, told)
    return config


def _is_missing(value: object) -> bool:
    return value is None or str(value).strip() in ("", "-", "-1", "-1.0")


def _opened(source: Source, split: Split, name: str, survey: SourceSurvey) -> Table:
    table = source.open(split, name, survey)
    known = survey.known_class_labels()
    return dataclasses.replace(table, class_labels={**known, **table.class_labels})


def _names(data: DataConfig, source: Source, split: Split) -> list[str]:
    """The names in the source that may be a split, best first; empty if it is missing.

    Raises NotAvailableError if the configuration names another one, which is not there.
    """
    asked = getattr(data, f"{split}_split")
    if asked == split:
        return source.candidates(split)
    known = source.names()
    for one in asked.split("+"):
        if one.partition("[")[0] not in known:  # a hub data set can also give a slice: train[:10%]
            raise source.missing(split, one)
    return [asked]


def _train_name(data: DataConfig, source: Source) -> tuple[str, str]:
    names = _names(data, source, "train")
    if not names:
        raise source.missing("train", data.train_split)
    return names[0], _by_name(data, "train", names[0])


def _held_out(data: DataConfig, source: Source, split: Split) -> tuple[OpenedSplit | None, str]:
    """A validation or test split, or None and why it has to be taken from the training rows."""
    is_own = getattr(data, f"{split}_split") == split
    names = _names(data, source, split)
    if not names and source.unread(split):
        raise source.missing(split, split)
    unlabelled = []
    for name in names:
        survey = SourceSurvey(data)
        table = _opened(source, split, name, survey)
        if not is_own or not survey.is_unlabelled(table):
            return OpenedSplit(table, survey, _by_name(data, split, name)), ""
        unlabelled.append(name)
    if unlabelled:
        return None, f"{listed(unlabelled)} has no labels"
    return None, f"there is no {split} split"


def _by_name(data: DataConfig, split: Split, name: str) -> str:
    asked = getattr(data, f"{split}_split")
    return "" if name == asked else f"read from {name}"


def _taken_from(
    data: DataConfig, train: OpenedSplit, missing: Sequence[Split], why: Mapping[Split, str]
) -> dict[Split, OpenedSplit]:
    """The training split without the rows of the missing ones, and these."""
    hashes = train.survey.hashes
    assert hashes is not None
    if train.survey.columns is None and len(train.table):
        raise no_columns(data, "train", train.survey.names)
    before = train.table.numbers
    rows = divided(hashes, missing)
    if not all(rows.values()) and len(train.table):
        raise NotAvailableError(
            f"{data.dataset}: the training rows have too few premises to take {listed([*missing])} "
            f"from them ({'; '.join(why[split] for split in missing)})",
            "give a file for each split",
        )
    premises = {split: _different(hashes, numbers) for split, numbers in rows.items()}
    if before is not None:
        rows = {split: array("I", (before[i] for i in numbers)) for split, numbers in rows.items()}
    taken = {
        split: dataclasses.replace(
            train,
            table=dataclasses.replace(train.table, numbers=rows[split]),
            origin=f"taken from the training rows, as {why[split]}: all rows of "
            f"{count(premises[split])} of {plural(sum(premises.values()), 'premise')}, by a hash "
            "of the premise",
        )
        for split in missing
    }
    without = f"without the premises taken for {listed([*missing])}"
    origin = f"{train.origin}, {without}" if train.origin else without
    table = dataclasses.replace(train.table, numbers=rows["train"])
    return {"train": dataclasses.replace(train, table=table, origin=origin), **taken}


def _different(hashes: Sequence[int], numbers: Sequence[int]) -> int:
    """How many different values there are at these positions; a set of a million is large."""
    import numpy as np

    return int(np.unique(np.asarray(hashes, np.uint64)[np.asarray(numbers, np.intp)]).size)


def _divided_source(data: DataConfig, source: Source, whole: str) -> Opened:
    """The splits of a file that holds all of them."""
    survey = SourceSurvey(data, hashes=array("Q"), has_all_splits=True)
    table = _opened(source, "train", whole, survey)
    if not survey.split_column:
        train = OpenedSplit(table, survey, f"read from {', '.join(table.files)}, the only file")
        why = dict.fromkeys(HELD_OUT_SPLITS, "one file holds all rows")
        return _in_order(_taken_from(data, train, HELD_OUT_SPLITS, why))
    return _in_order(_by_column(data, table, survey))


def _by_column(data: DataConfig, table: Table, survey: SourceSurvey) -> dict[Split, OpenedSplit]:
    """The splits that a column of a file names; a missing one is taken from the training rows."""
    found: dict[Split, OpenedSplit] = {}
    for split in SPLITS:
        if rows := _of_column(data, table, survey, split):
            found[split] = rows
        elif split == "train" or getattr(data, f"{split}_split") != split:
            raise _not_in_column(data, survey, split)
    missing = [split for split in HELD_OUT_SPLITS if split not in found]
    if missing:
        train = found["train"]
        numbers, hashes = train.table.numbers, survey.hashes
        assert numbers is not None
        assert hashes is not None
        of_train = dataclasses.replace(survey, hashes=array("Q", (hashes[i] for i in numbers)))
        column = survey.split_column
        why = {split: f"no row has {split} in column {column}" for split in missing}
        found |= _taken_from(data, dataclasses.replace(train, survey=of_train), missing, why)
    return found


def _of_column(
    data: DataConfig, table: Table, survey: SourceSurvey, split: Split
) -> OpenedSplit | None:
    """The rows of which a column says that they are of the split; None where there are none."""
    values, asked = list(survey.split_values), getattr(data, f"{split}_split")
    names = [name for one in asked.split("+") for name in split_names(split, one, values, data)[:1]]
    if not names:
        return None
    rows = dataclasses.replace(table, numbers=survey.rows_of(names))
    return OpenedSplit(rows, survey, f"the rows with {survey.split_column} {listed(names)}")


def _not_in_column(data: DataConfig, survey: SourceSurvey, split: Split) -> NotAvailableError:
    asked, column = getattr(data, f"{split}_split"), survey.split_column
    other = data.key("split_column")
    return NotAvailableError(
        f"{data.dataset}: no row has {asked} in column {column}; there are "
        f"{listed([*survey.split_values])}",
        f"set {data.key(f'{split}_split')} to one of them"
        + (f", or {other} to another column" if other else ""),
    )


def _split_of_file(data: DataConfig, source: Source, whole: str, split: Split) -> OpenedSplit:
    """The rows of a single file: all, or those of the split where a column tells."""
    survey = SourceSurvey(data, has_all_splits=True)
    table = _opened(source, "test", whole, survey)
    if survey.split_column:
        if rows := _of_column(data, table, survey, split):
            return rows
        raise _not_in_column(data, survey, split)
    if data.test_split != "test":
        raise NotAvailableError(
            f"{data.dataset}: {data.key('test_split')} is {data.test_split}, but the file has no "
            "column that says whose split a row is",
            f"leave {data.key('test_split')} out to take all rows of the file",
        )
    return OpenedSplit(table, survey)


def _in_order(splits: Mapping[Split, OpenedSplit]) -> Opened:
    return {split: splits[split] for split in SPLITS}


def found_labels(opened: Iterable[OpenedSplit]) -> list[str]:
    """The labels of all splits, for a message, the most frequent of the first split first."""
    return list(dict.fromkeys(text for split in opened for text in split.survey.label_texts()))
