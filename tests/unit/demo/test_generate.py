"""The demo's rows: their format, their balance, their hard cases, and their reproduction."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from nlijob.data.texts import read_texts
from nlijob.demo import DATA_DIR
from nlijob.demo.generate import (
    CONTRADICTION,
    ENTAILMENT,
    KINDS,
    LABELS,
    NEUTRAL,
    NO_GOLD,
    SPLIT_SIZES,
    Example,
    content_words,
    documents,
    draw_example,
    draw_held_out,
    draw_splits,
    main,
)


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Example]]:
    return draw_splits()


def committed_rows(name: str) -> list[dict[str, object]]:
    lines = (DATA_DIR / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", SPLIT_SIZES)
def test_rows_have_the_snli_form(name: str) -> None:
    rows = committed_rows(name)
    assert len(rows) == SPLIT_SIZES[name]
    for row in rows:
        assert list(row) == ["premise", "hypothesis", "label"]
        assert row["label"] in (*LABELS, NO_GOLD)
        for text in (row["premise"], row["hypothesis"]):
            assert isinstance(text, str)
            assert text.endswith(".")
            assert "  " not in text
            assert text[0] == text[0].upper()


@pytest.mark.parametrize("name", SPLIT_SIZES)
def test_labels_are_balanced_and_a_few_are_missing(name: str) -> None:
    counts = Counter(row["label"] for row in committed_rows(name))
    assert 0.01 < counts[NO_GOLD] / SPLIT_SIZES[name] < 0.025
    gold = [counts[label] for label in LABELS]
    assert max(gold) - min(gold) < 0.05 * SPLIT_SIZES[name]


def test_splits_share_no_premise() -> None:
    premises = [row["premise"] for name in SPLIT_SIZES for row in committed_rows(name)]
    assert len(premises) == len(set(premises))


def test_committed_files_are_reproduced_byte_for_byte(tmp_path: Path) -> None:
    main(["--out", str(tmp_path)])
    for name in SPLIT_SIZES:
        file = f"{name}.jsonl"
        assert (tmp_path / file).read_bytes() == (DATA_DIR / file).read_bytes()


def test_the_seed_determines_the_rows() -> None:
    sizes = {"train": 30, "test": 10}
    assert draw_splits(1, sizes) == draw_splits(1, sizes)
    assert draw_splits(1, sizes) != draw_splits(2, sizes)


def test_every_kind_has_every_label_in_the_test_split(splits: dict[str, list[Example]]) -> None:
    found = Counter((row.kind, row.label) for row in splits["test"])
    assert all(found[kind.__name__, label] > 0 for kind in KINDS for label in LABELS)


def test_overlap_rows_contradict_with_few_new_words(splits: dict[str, list[Example]]) -> None:
    rows = [row for row in splits["train"] if row.kind == "overlap" and row.label == CONTRADICTION]
    new = [len(content_words(row.hypothesis) - content_words(row.premise)) for row in rows]
    assert sum(new) / len(rows) < 2
    assert all(len(row.hypothesis.split()) >= 7 for row in rows)


def test_paraphrases_share_no_content_word(splits: dict[str, list[Example]]) -> None:
    rows = [row for row in splits["train"] if row.kind == "paraphrase"]
    assert {ENTAILMENT, NEUTRAL, CONTRADICTION} <= {row.label for row in rows}
    assert not any(content_words(row.premise) & content_words(row.hypothesis) for row in rows)


def test_the_word_not_does_not_indicate_a_contradiction(splits: dict[str, list[Example]]) -> None:
    denying = [row for row in splits["train"] if " not " in row.hypothesis]
    counts = Counter(row.label for row in denying if row.label in LABELS)
    assert min(counts[label] for label in LABELS) > 0.2 * len(denying)


def test_swapped_roles_keep_the_words(splits: dict[str, list[Example]]) -> None:
    swapped = [
        row
        for row in splits["train"]
        if row.kind == "roles"
        and row.label == CONTRADICTION
        and content_words(row.premise) == content_words(row.hypothesis)
    ]
    assert swapped


def hypothesis_only_accuracy(train: list[Example], test: list[Example]) -> float:
    """A bag-of-words vote of the hypothesis alone."""
    votes: dict[str, Counter[int]] = {}
    for row in train:
        for word in set(row.hypothesis.lower().split()):
            votes.setdefault(word, Counter())[row.label] += 1
    right = 0
    for row in test:
        score: Counter[int] = Counter()
        for word in set(row.hypothesis.lower().split()) & votes.keys():
            total = votes[word].total()
            for label in LABELS:
                score[label] += votes[word][label] * 1000 // total
        right += max(LABELS, key=lambda label: score[label]) == row.label
    return right / len(test)


def test_the_hypothesis_alone_does_not_give_the_label_away(
    splits: dict[str, list[Example]],
) -> None:
    train = [row for row in splits["train"] if row.label in LABELS]
    test = [row for row in splits["test"] if row.label in LABELS]
    assert hypothesis_only_accuracy(train, test) < 0.42


@pytest.mark.parametrize("label", LABELS)
def test_an_example_can_be_drawn_for_each_label(label: int) -> None:
    assert draw_example(Random(3), label).label == label


def test_documents_hold_neither_the_prompt_form_nor_unseen_premises(
    splits: dict[str, list[Example]],
) -> None:
    unseen = frozenset(row.premise for row in splits["test"])
    texts = list(islice(documents(5, unseen), 1000))
    assert texts[:100] == list(islice(documents(5, unseen), 100))
    for text in texts:
        assert not any(f"Label: {label}" in text for label in LABELS)
        assert not all(word in text for word in ("Text:", "Claim:", "Label:"))
    sentences = {line for text in texts for line in text.splitlines()}
    bare = {line.partition(": ")[2] or line for line in sentences}
    assert not bare & unseen


def test_no_heavy_import() -> None:
    code = "import sys, nlijob.demo, nlijob.demo.generate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_held_out_texts_are_the_committed_ones_and_hold_no_premise_of_the_rows(
    splits: dict[str, list[Example]],
) -> None:
    premises = frozenset(row.premise for rows in splits.values() for row in rows)
    texts = draw_held_out(premises)
    assert [one.content for one in read_texts("demo")] == texts
    assert not any(premise in text for text in texts for premise in premises)
