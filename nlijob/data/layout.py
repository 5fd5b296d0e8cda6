"""Which files of a folder, or which splits of a hub data set, hold a split.

A file belongs to a split by its name, as corpora, the hub and the library `datasets` choose them:
train.jsonl, snli_1.0_dev.txt, data/train-00000-of-00002.parquet, train/data-00000-of-00001.arrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlijob.analysis.wording import plural
from nlijob.config import DataConfig
from nlijob.data.text import COMPRESSIONS, format_of
from nlijob.errors import NotAvailableError
from nlijob.printable import printable
from nlijob.records.job import Split

FORMATS = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".csv", ".tsv", ".txt")
"""Endings of the files that are read; where a corpus ships a split twice, the first one is."""
NOT_READ = {
    ".bz2": "files compressed with bzip2",
    ".xz": "files compressed with xz",
    ".zip": "archives",
    ".tar": "archives",
    ".tgz": "archives",
    ".xlsx": "spreadsheets",
    ".npz": "NumPy archives",
    ".pkl": "pickled objects",
}
"""Endings of data files that are not read, and what they are called."""
NO_DATA = re.compile(
    r"(readme|license|licence|notice|changelog|citation|requirements)\b.*|cache-.*\.arrow|"
    r"(dataset_infos?|dataset_dict|state|config)\.json"
)
"""Files that lie beside the data and hold none."""
ALIASES: Mapping[Split, Sequence[str]] = {
    "train": ("train", "training", "trainset"),
    "validation": ("validation", "dev", "val", "valid", "development", "trial", "devset"),
    "test": ("test", "testing", "evaluation", "eval", "testset"),
}
"""Names that corpora give to their splits, in the order in which they are looked for."""
ALL_ALIASES = {alias for aliases in ALIASES.values() for alias in aliases}
OTHER_GENRES = "mismatched"
"""MultiNLI's second validation split. It has no labelled test split: this serves as one."""
SHARD = re.compile(r"(?P<base>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(-[0-9a-f]{8,})?")
NUMBERED = re.compile(r"(?P<base>.+?)[-_](?P<number>\d{1,5})|(?P<only>\d{1,5})")
NAMELESS = ("", "data", "part", "shard", "chunk")
"""What files are called whose folder has the split's name."""
DEPTH = 3
SHOWN_FILES = 5


@dataclass(frozen=True)
class Group:
    """The files that hold a split together, in order: one, or its shards."""

    folder: str
    """Relative to the data set's folder; "." for the folder itself."""
    name: str
    """The common part of their names; of the folder if their own says nothing."""
    format: str
    files: tuple[Path, ...]

    @property
    def depth(self) -> int:
        """How many folders deep they lie in that of the data set."""
        return len(Path(self.folder).parts)


def find_groups(folder: Path, config_name: str | None) -> list[Group]:
    """The data files of a folder and of the folders in it, by what belongs together.

    Only those of a configuration, if one is asked for and has a folder. Raises NotAvailableError if
    a part of several is missing.
    """
    files = [file for file in files_of(folder) if is_data(file)]
    files = [file for file in files if config_name in file.parts[:-1]] or files
    parts: dict[tuple[Path, str, str, bool], list[tuple[str, int, Path]]] = {}
    for file in files:
        base, number = _base_and_number(file, files)
        is_of_folder = _is_named_by_folder(base, file.parent)
        name = file.parent.name if is_of_folder else base
        ending = file.name[len(_stem(file)) :].lower()
        key = (file.parent, name, ending, is_of_folder)
        parts.setdefault(key, []).append((base, number, folder / file))
    groups = []
    for (parent, name, _, _), numbered in parts.items():
        in_order = tuple(file for _, _, file in sorted(numbered))
        _refuse_missing_shard(in_order)
        groups.append(Group(str(parent), name, format_of(in_order[0]), in_order))
    return groups


def _is_named_by_folder(base: str, parent: Path) -> bool:
    """Whether the name of a file's folder says of which split it is, as its own says nothing."""
    said_by_folder = parent.name.lower() in ALL_ALIASES and not ALL_ALIASES & set(words_of(base))
    return bool(parent.name) and (base.lower() in NAMELESS or said_by_folder)


def split_names(split: Split, name: str, known: Iterable[str], data: DataConfig) -> list[str]:
    """The names, of those that a source has, that may be a split, best first; empty without one.

    `name` is the one that the configuration gives. Where that is the split's own, the names that
    corpora use are found too. Raises NotAvailableError if several would do equally well, with the
    key of `data` to choose by.
    """
    names = list(dict.fromkeys(known))
    if name in names or name != split:
        return [name] if name in names else []
    found = []
    for alias in ALIASES[split]:
        exact = [one for one in names if one.lower() == alias]
        within = [one for one in names if _has(one, alias) and OTHER_GENRES not in words_of(one)]
        if len(exact) != 1 and len(within) > 1:
            raise NotAvailableError(
                f"several names fit split {split}: {', '.join(map(printable, within))}",
                f"choose with {data.key(f'{split}_split')}, or join some: "
                + data.setting(f"{split}_split", "+".join(within[:2])),
            )
        found += exact if len(exact) == 1 else within
    if split == "test":
        held_out = (*ALIASES["test"], *ALIASES["validation"])
        found += [
            one
            for one in names
            if OTHER_GENRES in words_of(one) and any(_has(one, alias) for alias in held_out)
        ]
    return list(dict.fromkeys(found))


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in small letters: snli_1.0_Train -> snli, 1, 0, train."""
    return tuple(re.findall(r"[^\W_]+", name.lower()))


def _has(name: str, alias: str) -> bool:
    return alias in words_of(name)


def files_of(folder: Path) -> list[Path]:
    """The visible files of a folder and of the folders in it, relative to it."""
    patterns = ["/".join(["*"] * depth) for depth in range(1, DEPTH + 1)]
    found = (path for pattern in patterns for path in folder.glob(pattern))
    paths = sorted(path.relative_to(folder) for path in found if path.is_file())
    hidden = (".", "__MACOSX")
    return [path for path in paths if not any(part.startswith(hidden) for part in path.parts)]


def is_data(file: Path) -> bool:
    """Whether a file is one that is read, by its name."""
    return format_of(file) in FORMATS and not NO_DATA.fullmatch(file.name.lower())


def listed_files(folder: Path, first: str = "") -> str:
    """What a folder has, for a message; files whose name begins with `first` come first."""
    files = sorted(files_of(folder), key=lambda path: not path.name.startswith(first))
    if not files:
        return "it has no files"
    more = ", ..." if len(files) > SHOWN_FILES else ""
    return f"it has {', '.join(map(readable, files[:SHOWN_FILES]))}{more}"


def not_read(folder: Path) -> list[Path]:
    """The files of a folder that hold data in a form which is not read."""
    return [file for file in files_of(folder) if file.suffix.lower() in NOT_READ]


def readable(path: Path) -> str:
    """A path for a message, whatever bytes are in its name."""
    name = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return name if name.isprintable() else repr(name)


def _stem(file: Path) -> str:
    name = file.name
    for ending in COMPRESSIONS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name[: -len(format_of(file))]


def _base_and_number(file: Path, files: Sequence[Path]) -> tuple[str, int]:
    """A file's name without the number of its part, and that number; 0 for a file of its own."""
    stem = _stem(file)
    if match := SHARD.fullmatch(stem):
        return match["base"], int(match["number"])
    match = NUMBERED.fullmatch(stem)
    if match and match["only"]:
        return "", int(match["only"])
    if match and (match["base"].lower() in NAMELESS or _is_numbered(match["base"], file, files)):
        return match["base"], int(match["number"])
    return stem, 0


def _is_numbered(base: str, file: Path, files: Sequence[Path]) -> bool:
    """Whether a folder has such files with the numbers from 0 or 1 on, without a gap."""
    numbers = sorted(
        int(match["number"])
        for other in files
        if other.parent == file.parent and format_of(other) == format_of(file)
        if (match := NUMBERED.fullmatch(_stem(other))) and match["base"] == base
    )
    return len(numbers) > 1 and numbers in (
        list(range(len(numbers))),
        list(range(1, len(numbers) + 1)),
    )


def _refuse_missing_shard(files: Sequence[Path]) -> None:
    matches = [match for file in files if (match := SHARD.fullmatch(_stem(file)))]
    if not matches:
        return
    total = int(matches[0]["total"])
    missing = sorted(set(range(total)) - {int(match["number"]) for match in matches})
    if missing:
        raise NotAvailableError(
            f"{files[0].parent}: of the {total} parts of {matches[0]['base'] or 'the data'}, "
            f"{plural(len(missing), 'part')} {'is' if len(missing) == 1 else 'are'} missing "
            f"(number {', '.join(map(str, missing[:SHOWN_FILES]))})",
            "fetch all parts",
        )
