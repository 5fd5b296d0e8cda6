"""Where rows come from: a hub data set, a folder with files for the splits, or one file."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from nlijob.analysis.wording import listed
from nlijob.config import DataConfig
from nlijob.data.csv_file import SeparatedRows
from nlijob.data.features import class_labels, folder_class_labels
from nlijob.data.json_lines import JsonRows
from nlijob.data.labels import meaning
from nlijob.data.layout import (
    ALIASES,
    ALL_ALIASES,
    FORMATS,
    NOT_READ,
    SHOWN_FILES,
    Group,
    find_groups,
    listed_files,
    not_read,
    readable,
    split_names,
    words_of,
)
from nlijob.data.parquet_file import ArrowRows, LibraryRows, ParquetRows
from nlijob.data.table import ClassLabels, Part, Reader, Survey, Table
from nlijob.data.text import COMPRESSIONS, first_text, format_of
from nlijob.demo import DATA_DIR
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub, folder_stamp, local_folder
from nlijob.records.job import SPLITS, Split

NO_HEADER = ("premise", "hypothesis", "label")
"""Columns of SciTail's .tsv files, whose first line is a row."""


class Source(Protocol):
    """A data set, before its rows are read."""

    def names(self) -> Sequence[str]:
        """The names of its splits."""

    def candidates(self, split: Split) -> list[str]:
        """The names that may be a split of the usual name, best first; empty if it is missing."""

    def whole(self) -> str:
        """The name of its only part, if that holds the rows of all splits; or ""."""

    def open(self, split: Split, name: str, survey: Survey) -> Table:
        """A split by its name, all of it checked. Raises NotAvailableError."""

    def missing(self, split: Split, name: str) -> NotAvailableError:
        """The fault of a split that is not there."""

    def unread(self, split: Split) -> bool:
        """Whether it seems to have a split in a form that is not read."""


def source_of(data: DataConfig, hub: Hub) -> Source:
    """The source that the configuration names. Raises NotAvailableError if it is not there."""
    place = local_place(data)
    return HubSource(data, hub) if place is None else LocalSource(data, place)


def source_stamp(data: DataConfig) -> str:
    """Return a stamp of the names and contents of a local source's files; "" for a hub data set."""
    place = local_place(data)
    if place is None:
        return ""
    source = LocalSource(data, place)
    files = {file.relative_to(source.folder) for group in source.used() for file in group.files}
    stamp = folder_stamp(source.folder, [glob.escape(str(file)) for file in sorted(files)])
    names = folder_class_labels(source.folder, data)
    return f"{stamp}|{json.dumps(names)}" if names else stamp


def read_file(path: Path, columns: Sequence[str] = (), survey: Survey | None = None) -> Table:
    """The rows of a file, all of it checked. `columns` names them where its first line does not.

    Raises NotAvailableError if the content does not have the format that the name says.
    """
    return Table.of(readable(Path(path.name)), _reader(path, columns), survey)


def local_place(data: DataConfig) -> Path | None:
    """Return the local folder or file of the data set, or None for a hub id.

    Raises NotAvailableError if there is no such folder, or if its name is not UTF-8.
    """
    if data.dataset == "demo":
        return DATA_DIR
    if any("\ud800" <= letter <= "\udfff" for letter in data.dataset):  # bytes that are not UTF-8
        raise NotAvailableError(
            f"data set {readable(Path(data.dataset))}: the name is not UTF-8, so records cannot "
            "state it",
            "rename the folder, or give a link to it whose name is UTF-8",
        )
    file = Path(data.dataset).expanduser() if data.dataset.startswith("~") else Path(data.dataset)
    if _is_file(file):
        if format_of(file) not in FORMATS:
            raise NotAvailableError(
                f"data set {file}: this file cannot be read", f"files may be {_formats()}"
            )
        return file.resolve()
    return local_folder(data.dataset, "data set", data.key("dataset"))


class LocalSource:
    """A folder with data files, or one file."""

    def __init__(self, data: DataConfig, place: Path) -> None:
        self._data = data
        if place.is_dir():
            self.folder = place
            self._groups = find_groups(place, data.config_name)
        else:
            self.folder = place.parent
            self._groups = [Group(".", place.name, format_of(place), (place,))]
        self._is_file = not place.is_dir()

    def names(self) -> Sequence[str]:
        """The names of its splits."""
        return [group.name for group in self._groups]

    def candidates(self, split: Split) -> list[str]:
        """The names that may be a split, of the files that lie least deep in the folder."""
        for depth in sorted({group.depth for group in self._groups}):
            names = [group.name for group in self._groups if group.depth == depth]
            if found := split_names(split, split, names, self._data):
                return found
        return []

    def whole(self) -> str:
        """The name of the only file, if it is not that of a split, or a column divides it."""
        if len(self._groups) != 1:
            return ""
        name = self._groups[0].name
        asked = {getattr(self._data, f"{split}_split") for split in SPLITS}
        of_split = name in asked or not ALL_ALIASES.isdisjoint(words_of(name))
        return name if self._is_file or self._data.split_column or not of_split else ""

    def used(self) -> list[Group]:
        """The files that may be read for any of the splits."""
        if self.whole():
            return self._groups
        names: set[str] = set()
        for split in SPLITS:
            asked = getattr(self._data, f"{split}_split")
            names |= set(self.candidates(split) if asked == split else asked.split("+"))
        return [group for group in self._groups if group.name in names]

    def open(self, split: Split, name: str, survey: Survey) -> Table:
        """A split by its name, all of it checked. Raises NotAvailableError."""
        files = [file for one in name.split("+") for file in self._group(split, one).files]
        parts = []
        for file in files:
            reader = _reader(file, self._data.columns)
            shown_name = readable(file.relative_to(self.folder))
            parts.append(Part(shown_name, reader, reader.check(survey)))
        described = folder_class_labels(self.folder, self._data)
        for part in parts:
            described = {**described, **part.content.class_labels}
        _refuse_different_labels(self.folder, parts)
        return Table(parts, described)

    def missing(self, split: Split, name: str) -> NotAvailableError:
        """The fault of a split that is not there."""
        return NotAvailableError(
            f"{self.folder} contains no file of split {name}; {listed_files(self.folder, name)}",
            self._how_to_give(split),
        )

    def unread(self, split: Split) -> bool:
        """Whether a file of the split's name has a form that is not read."""
        return bool(self._unread(split))

    def _unread(self, split: Split) -> list[Path]:
        names = {getattr(self._data, f"{split}_split"), *ALIASES[split]}
        return [file for file in not_read(self.folder) if names & set(words_of(file.name))]

    def _how_to_give(self, split: Split) -> str:
        if files := self._unread(split):
            kinds = sorted({NOT_READ[file.suffix.lower()] for file in files})
            return (
                f"{' and '.join(kinds)} are not read: unpack or convert "
                f"{', '.join(map(readable, files[:SHOWN_FILES]))}; files may be {_formats()}"
            )
        keys = [*dict.fromkeys(self._data.key(f"{one}_split") for one in SPLITS)]
        names = "the files' names without their endings"
        if len(keys) == 1:
            names = "a file's name without its ending"
        return f"set {listed(keys)} to {names}; files may be {_formats()}"

    def _group(self, split: Split, name: str) -> Group:
        """The one group of files with this name. Raises NotAvailableError."""
        found = [group for group in self._groups if group.name == name]
        if not found:
            raise self.missing(split, name)
        depth = min(group.depth for group in found)
        found = [group for group in found if group.depth == depth]
        folders = list(dict.fromkeys(group.folder for group in found))
        if len(folders) > 1:
            raise NotAvailableError(
                f"{self.folder} has split {name} in several folders: {', '.join(folders)}",
                f"choose one of them: {self._data.setting('config_name', Path(folders[0]).name)}",
            )
        if len(found) > 1 and not self._is_shipped_twice(folders[0]):
            files = sorted(found, key=_preference)
            raise NotAvailableError(
                f"{self.folder} contains split {name} more than once: "
                f"{', '.join(group.files[0].name for group in files)}",
                "keep only one of them",
            )
        return min(found, key=_preference)

    def _is_shipped_twice(self, folder: str) -> bool:
        """Whether all splits are there in the same formats, as SNLI and MultiNLI are."""
        formats: dict[str, set[str]] = {}
        for group in self._groups:
            if group.folder == folder:
                formats.setdefault(group.name, set()).add(group.files[0].name[len(group.name) :])
        return len(formats) > 1 and len(set(map(frozenset, formats.values()))) == 1


class HubSource:
    """A data set of a hub."""

    def __init__(self, data: DataConfig, hub: Hub) -> None:
        self._data = data
        self._asked = (data.dataset, data.config_name, data.revision)
        self._divides = bool(data.split_column)
        self._hub = hub
        self._names = hub.split_names(*self._asked)

    def names(self) -> Sequence[str]:
        """The names of its splits."""
        return self._names

    def candidates(self, split: Split) -> list[str]:
        """The names that may be a split, best first."""
        return split_names(split, split, self._names, self._data)

    def whole(self) -> str:
        """The only split, if the configuration has a column that divides it."""
        return self._names[0] if self._divides and len(self._names) == 1 else ""

    def open(self, split: Split, name: str, survey: Survey) -> Table:
        """A split by its name. Raises NotAvailableError."""
        parts: list[Part] = []
        for one in name.split("+"):
            files, features = self._hub.csv_files(*self._asked, one)
            for file in files:
                reader: Reader = SeparatedRows(file)
                content = reader.check(survey)
                content = dataclasses.replace(content, class_labels=class_labels(features))
                parts.append(Part(file.name, reader, content))
            if not files:
                reader = LibraryRows(self._hub.load_split(*self._asked, one))
                parts.append(Part(one, reader, reader.check(survey)))
        labels: ClassLabels = {}
        for part in parts:
            labels = {**labels, **part.content.class_labels}
        _refuse_different_labels(Path(self._asked[0]), parts)
        return Table(parts, labels)

    def missing(self, split: Split, name: str) -> NotAvailableError:
        """The fault of a split that is not there."""
        return NotAvailableError(
            f"data set {self._asked[0]} has no split {name}; it has {listed([*self._names])}",
            f"set {self._data.key(f'{split}_split')} to one of them, or check "
            f"{self._data.key('config_name')}",
        )

    def unread(self, split: Split) -> bool:
        """The library reads all that a hub data set has."""
        return False


def _reader(path: Path, columns: Sequence[str]) -> Reader:
    readers: dict[str, Callable[[Path], Reader]] = {
        ".jsonl": JsonRows,
        ".ndjson": JsonRows,
        ".json": JsonRows,
        ".parquet": ParquetRows,
        ".arrow": ArrowRows,
    }
    kind = format_of(path)
    if kind in readers:
        return readers[kind](path)
    if kind == ".txt" and first_text(path).startswith(("{", "[{")):  # SciTail in SNLI's form
        return JsonRows(path)
    return SeparatedRows(path, tuple(columns) or _columns_without_header(path))


def _columns_without_header(path: Path) -> tuple[str, ...]:
    """The columns of a file whose first line is a row that ends with a label; () for others."""
    fields = first_text(path).split("\t")
    is_row = len(fields) == len(NO_HEADER) and len(fields[-1]) > 1 and meaning(fields[-1])
    return NO_HEADER if is_row else ()


def _refuse_different_labels(place: Path, parts: Sequence[Part]) -> None:
    """Raise NotAvailableError if the integers of a column mean different labels in two files."""
    named = [part for part in parts if part.content.class_labels]
    for part in named[1:]:
        if part.content.class_labels != named[0].content.class_labels:
            raise NotAvailableError(
                f"{place}: {named[0].name} and {part.name} name their labels differently",
                "read them as separate splits, or convert the labels to names",
            )


def _preference(group: Group) -> int:
    return FORMATS.index(group.format)


def _formats() -> str:
    return f"{', '.join(FORMATS)}, also with {' or '.join(COMPRESSIONS)}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
