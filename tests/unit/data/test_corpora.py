"""Well-known corpora are read from their own files, without a setting, as docs/data.md lists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nlijob import records
from nlijob.config import DataConfig
from nlijob.data.splits import open_splits, with_label_names
from nlijob.data.subset import build_subset
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Example, Manifest
from nlijob.rundir import RunDir
from tests import markdown
from tests.corpora import CORPORA, Corpus
from tests.docs.pages import DOCS

PAGE = DOCS / "data.md"
SECTION = "Corpora that are recognised"
COLUMNS = ("corpus", "files", "columns", "labels", "validation rows", "test rows")


class Read:
    """What the job reads of a corpus."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        corpus.make(folder / "source")
        data = DataConfig(str(folder / "source"), train_size=0, validation_size=0, test_size=0)
        hub = Hub(True, print)
        opened = open_splits(data, hub)
        self.data = with_label_names(data, opened)
        self.run = RunDir(folder / "run")
        self.manifest: Manifest = build_subset(self.data, self.run, hub, opened)

    def examples(self) -> list[Example]:
        """The rows of all splits."""
        return [
            row for split in SPLITS for row in records.read_lines(Example, self.run.subset(split))
        ]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Read]:
    """Corpus -> what was read of it."""
    folder = tmp_path_factory.mktemp("corpora")
    return {
        corpus.name: Read(corpus, folder / str(number)) for number, corpus in enumerate(CORPORA)
    }


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_each_row_has_its_texts_and_the_meaning_of_its_label(
    corpus: Corpus, read: dict[str, Read]
) -> None:
    wrong = {"speaks": 0, "is paid": 1, "sings alone": 2}
    for row in read[corpus.name].examples():
        expected = next(label for words, label in wrong.items() if words in row.hypothesis)
        assert row.label == expected
        assert row.premise.startswith("At the ")
        assert ' a "' in row.premise


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_no_premise_is_in_two_splits_and_no_row_is_lost(
    corpus: Corpus, read: dict[str, Read]
) -> None:
    manifest = read[corpus.name].manifest
    kept = sum(split.rows + split.unlabelled_dropped for split in manifest.splits.values())
    assert kept == sum(12 * corpus.labels * len(splits) for splits in corpus.files.values())
    assert set(manifest.shared_premises.values()) == {0}
    assert not manifest.warnings


def test_the_table_in_the_documents_is_what_was_read(read: dict[str, Read]) -> None:
    expected = [[*_row(corpus, read[corpus.name].manifest)] for corpus in CORPORA]
    if os.environ.get("UPDATE_GOLDEN"):
        _rewrite(expected)
    assert markdown.table(markdown.section(PAGE, SECTION))[1:] == expected


def _row(corpus: Corpus, manifest: Manifest) -> tuple[str, ...]:
    splits = manifest.splits
    return (
        corpus.name,
        ", ".join(f"`{name}`" for name in (*corpus.files, *corpus.unlabelled)),
        ", ".join(f"`{name}`" for name in splits["train"].columns),
        ", ".join(f"`{name}`" for name in manifest.label_names),
        *(_origin(splits[split].origin) for split in ("validation", "test")),
    )


def _origin(origin: str) -> str:
    """How a split was found, shorter than in the manifest."""
    if "by a hash" in origin:
        return "of the training rows, by a hash"
    return origin.removeprefix("read from ") or "by its name"


def _rewrite(rows: list[list[str]]) -> None:
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    text = PAGE.read_text(encoding="utf-8")
    before, heading, after = text.partition(f"## {SECTION}\n")
    start = after.index("\n| ") + 1
    end = after.index("\n\n", start)
    PAGE.write_text(before + heading + after[:start] + "\n".join(lines) + after[end:], "utf-8")
