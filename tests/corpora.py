"""Small made-up rows in the files, columns and spellings of well-known NLI corpora."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

THREE = ("entailment", "neutral", "contradiction")
PLACES = ("pier", "market", "station", "bridge", "garden", "museum", "harbour", "library")


class Made(NamedTuple):
    """A row, before it is written in the form of a corpus."""

    premise: str
    hypothesis: str
    label: int


def made(split: str, count: int = 6, labels: int = 3) -> list[Made]:
    """Rows of a split, `labels` for each premise; a text has a quote, as the corpora have them."""
    return [
        Made(
            f'At the {PLACES[i % 8]} a "{split}" guide tells story {i}.',
            f"Somebody {('speaks', 'is paid', 'sings alone')[label]} at place {i}.",
            label,
        )
        for i in range(count)
        for label in range(labels)
    ]


Row = Mapping[str, Any]
Form = Callable[[Made, int], Row]
"""A row of a corpus from a made one and its number."""
Write = Callable[[Path, Sequence[Row]], None]


def json_lines(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def json_array(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def unquoted(path: Path, rows: Sequence[Row]) -> None:
    """Tabs, a header and no quoting."""
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def without_header(path: Path, rows: Sequence[Row]) -> None:
    lines = ("\t".join(map(str, row.values())) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def short_rows(path: Path, rows: Sequence[Row]) -> None:
    """Without the empty fields at the ends of lines, as MultiNLI has its training rows."""
    unquoted(path, rows)
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip("\t") for line in text.split("\n")), encoding="utf-8")


def quoted(separator: str) -> Write:
    """As the csv module writes it, with quotes where they are needed."""

    def write(path: Path, rows: Sequence[Row]) -> None:
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)

    return write


def parquet(names: Sequence[str] = ()) -> Write:
    """With the names of the labels in the metadata, as the library `datasets` writes it."""

    def write(path: Path, rows: Sequence[Row]) -> None:
        table = pyarrow.Table.from_pylist(list(rows))
        if names:
            label = {"_type": "ClassLabel", "names": list(names)}
            info = json.dumps({"info": {"features": {"label": label}}})
            table = table.replace_schema_metadata({"huggingface": info})
        pyarrow.parquet.write_table(table, path)

    return write


def compressed(write: Write) -> Write:
    """What another function writes, compressed as the name of the file says."""

    def write_compressed(path: Path, rows: Sequence[Row]) -> None:
        plain = path.with_suffix("")
        write(plain, rows)
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        else:
            with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
                stream.write(plain.read_bytes())
        plain.unlink()

    return write_compressed


@dataclass(frozen=True)
class Corpus:
    """A corpus in one of the forms in which it is distributed."""

    name: str
    files: Mapping[str, Sequence[str]]
    """File -> the splits whose rows it holds."""
    form: Form
    write: Write
    labels: int = 3
    """Labels of each premise."""
    unlabelled: Sequence[str] = ()
    """Further files, whose rows have no labels."""

    def make(self, folder: Path) -> None:
        """Write the files into a folder."""
        for name, splits in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [self.form(row, i) for i, row in enumerate(self._rows(splits, name))]
            self.write(path, rows)
        for name in self.unlabelled:
            rows = [self.form(row, i) for i, row in enumerate(made(name, 12, self.labels))]
            self.write(folder / name, [dict([*row.items()][:-1]) for row in rows])

    def _rows(self, splits: Sequence[str], name: str) -> Iterator[Made]:
        for split in splits:
            yield from made(split + ("" if len(splits) > 1 else Path(name).stem), 12, self.labels)


def of_files(form: str, *splits: str) -> dict[str, Sequence[str]]:
    """One file for each split: "snli_1.0_{}.txt"."""
    return {form.format(split): (split,) for split in splits}


def _of_nyu(with_annotators: int) -> Form:
    def row(one: Made, number: int) -> Row:
        name = THREE[one.label] if number % 9 != 8 else "-"
        return {
            "gold_label": name,
            "sentence1_binary_parse": f"( {one.premise} )",
            "sentence2_binary_parse": f"( {one.hypothesis} )",
            "sentence1": one.premise,
            "sentence2": one.hypothesis,
            "pairID": f"{number}n",
            **{f"label{i}": name if i <= with_annotators else "" for i in range(1, 6)},
        }

    return row


def _hans(one: Made, number: int) -> Row:
    return {
        "gold_label": ("entailment", "non-entailment")[one.label],
        "sentence1": one.premise,
        "sentence2": one.hypothesis,
        "pairID": f"ex{number}",
        "heuristic": "lexical_overlap",
    }


def _named(premise: str, hypothesis: str, label: str, spellings: Sequence[Any]) -> Form:
    return lambda one, number: {
        premise: one.premise,
        hypothesis: one.hypothesis,
        label: spellings[one.label],
    }


def _numbered(premise: str, hypothesis: str, label: str, spellings: Sequence[Any]) -> Form:
    return lambda one, number: {
        "index": number,
        premise: one.premise,
        hypothesis: one.hypothesis,
        label: spellings[one.label],
    }


def _sick(one: Made, number: int) -> Row:
    split = next(s for s in ("train", "trial", "test") if f'"{s}"' in one.premise)
    return {
        "pair_ID": number,
        "sentence_A": one.premise,
        "sentence_B": one.hypothesis,
        "entailment_label": THREE[one.label].upper(),
        "relatedness_score": 4.5,
        "SemEval_set": split.upper(),
    }


def _anli(one: Made, number: int) -> Row:
    return {
        "uid": str(number),
        "context": one.premise,
        "hypothesis": one.hypothesis,
        "label": "enc"[one.label],
        "reason": "",
    }


def _esnli(one: Made, number: int) -> Row:
    return {
        "pairID": number,
        "gold_label": THREE[one.label],
        "Sentence1": one.premise,
        "Sentence2": one.hypothesis,
        "Explanation_1": 'It says "so",\nin two lines.',
    }


def _breaking(one: Made, number: int) -> Row:
    return {
        "sentence1": one.premise,
        "sentence2": one.hypothesis,
        "gold_label": THREE[one.label],
        "category": "places",
        "annotator_labels": [THREE[one.label]] * 3,
        "pairID": number,
    }


USUAL = ("train", "dev", "test")
TWO = ("entailment", "not_entailment")
CORPORA = (
    Corpus("SNLI 1.0, .txt", of_files("snli_1.0_{}.txt", *USUAL), _of_nyu(1), unquoted),
    Corpus("SNLI 1.0, .jsonl", of_files("snli_1.0_{}.jsonl", *USUAL), _of_nyu(5), json_lines),
    Corpus(
        "SNLI, hub's files",
        of_files("plain_text/{}-00000-of-00001.parquet", "train", "validation", "test"),
        _named("premise", "hypothesis", "label", (0, 1, 2)),
        parquet(THREE),
    ),
    Corpus(
        "MultiNLI 1.0, .txt",
        of_files("multinli_1.0_{}.txt", "train", "dev_matched", "dev_mismatched"),
        _of_nyu(1),
        short_rows,
    ),
    Corpus(
        "MultiNLI 1.0, .jsonl, compressed",
        of_files("multinli_1.0_{}.jsonl.gz", "train", "dev_matched", "dev_mismatched"),
        _of_nyu(5),
        compressed(json_lines),
    ),
    Corpus(
        "HANS, .txt",
        of_files("heuristics_{}_set.txt", "train", "evaluation"),
        _hans,
        unquoted,
        labels=2,
    ),
    Corpus("ANLI, a round", of_files("R2/{}.jsonl", "train", "dev", "test"), _anli, json_lines),
    Corpus("SICK, one file", {"SICK.txt": ("train", "trial", "test")}, _sick, unquoted),
    Corpus(
        "SICK, SemEval 2014",
        of_files("SICK_{}.txt", "train", "trial", "test_annotated"),
        _named("sentence_A", "sentence_B", "entailment_judgment", [n.upper() for n in THREE]),
        unquoted,
    ),
    Corpus(
        "SciTail, .tsv",
        of_files("scitail_1.0_{}.tsv", "train", "dev", "test"),
        _named("premise", "hypothesis", "label", ("entails", "neutral")),
        without_header,
        labels=2,
    ),
    Corpus(
        "SciTail, SNLI's form",
        of_files("scitail_1.0_{}.txt", "train", "dev", "test"),
        _named("sentence1", "sentence2", "gold_label", ("entailment", "neutral")),
        json_lines,
        labels=2,
    ),
    Corpus(
        "RTE of GLUE",
        of_files("{}.tsv", "train", "dev"),
        _numbered("sentence1", "sentence2", "label", TWO),
        unquoted,
        labels=2,
        unlabelled=("test.tsv",),
    ),
    Corpus(
        "QNLI of GLUE",
        of_files("{}.tsv", "train", "dev"),
        _numbered("sentence", "question", "label", TWO),
        unquoted,
        labels=2,
        unlabelled=("test.tsv",),
    ),
    Corpus(
        "MNLI of GLUE",
        of_files("{}.tsv", "train", "dev_matched", "dev_mismatched"),
        _numbered("sentence1", "sentence2", "gold_label", THREE),
        unquoted,
        unlabelled=("test_matched.tsv", "test_mismatched.tsv"),
    ),
    Corpus(
        "WNLI of GLUE",
        of_files("{}.tsv", "train", "dev"),
        _numbered("sentence1", "sentence2", "label", (1, 0)),
        unquoted,
        labels=2,
        unlabelled=("test.tsv",),
    ),
    Corpus(
        "CB of SuperGLUE",
        of_files("{}.jsonl", "train", "val"),
        _named("premise", "hypothesis", "label", THREE),
        json_lines,
        unlabelled=("test.jsonl",),
    ),
    Corpus(
        "CB, hub's files",
        of_files("cb/{}-00000-of-00001.parquet", "train", "validation"),
        _named("premise", "hypothesis", "label", (0, 2, 1)),
        parquet(("entailment", "contradiction", "neutral")),
    ),
    Corpus(
        "XNLI, machine-translated",
        {"multinli.train.de.tsv": ("train",), "xnli.dev.tsv": ("dev",), "xnli.test.tsv": ("test",)},
        _named("sentence1", "sentence2", "gold_label", ("entailment", "neutral", "contradictory")),
        unquoted,
    ),
    Corpus(
        "WANLI",
        of_files("{}.jsonl", "train", "test"),
        _named("premise", "hypothesis", "gold", THREE),
        json_lines,
    ),
    Corpus(
        "e-SNLI",
        {f"esnli_{part}.csv": (part,) for part in ("train_1", "train_2", "dev", "test")},
        _esnli,
        quoted(","),
    ),
    Corpus(
        "FarsTail",
        of_files("{}-word.csv", "Train", "Val", "Test"),
        _named("premise", "hypothesis", "label", "enc"),
        quoted("\t"),
    ),
    Corpus("Breaking-NLI, one file", {"dataset.jsonl": ("all",)}, _breaking, json_lines),
)
