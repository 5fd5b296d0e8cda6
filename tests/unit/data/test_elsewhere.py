"""Further test sets: which rows are read, with which labels, and what does not fit."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.config import DataConfig, ForgettingConfig, JobConfig, TransferConfig, load_config
from nlijob.data.elsewhere import elsewhere_stamp, read_elsewhere, read_set, said_of
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.hub import Hub
from nlijob.records.forgetting import GeneralText
from nlijob.records.job import Example
from nlijob.records.transfer import Elsewhere, TransferManifest
from nlijob.rundir import RunDir, write_records
from tests.corpora import CORPORA, Corpus

HUB = Hub(True, print)
DEMO = load_config("demo", {"forgetting.texts": ""})
RUN = DEMO.data
TWO = replace(RUN, label_names=("entailment", "not_entailment"))
THREE_WAY = ("entailment", "neutral", "contradiction")


def write(path: Path, labels: Sequence[Any], **more: Any) -> Path:
    """A JSON Lines file with a row for each label."""
    lines = (
        json.dumps({"premise": f"p{i}", "hypothesis": f"h{i}", "label": label, **more})
        for i, label in enumerate(labels)
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(
    place: Path, run_data: DataConfig = RUN, **settings: Any
) -> tuple[TransferManifest, list[Example]]:
    return read_set(TransferConfig("far", str(place), **settings), run_data, HUB)


def labels_of(examples: Sequence[Example]) -> list[int]:
    return [example.label for example in examples]


def message(error: pytest.ExceptionInfo[Any]) -> str:
    return f"{error.value.message}\n{error.value.hint}"


# ---------------------------------------------------------------- rows


def test_all_rows_of_a_file_are_the_set(tmp_path: Path) -> None:
    manifest, examples = read(write(tmp_path / "far.jsonl", [0, 1, 2, -1] * 5))
    assert (manifest.rows.rows, manifest.rows.unlabelled_dropped) == (15, 5)
    assert labels_of(examples) == [0, 1, 2] * 5


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [({"size": 3}, [0, 3, 6]), ({"stride": 4}, [0, 4, 8]), ({"size": 0}, list(range(9)))],
)
def test_rows_are_chosen_as_those_of_a_test_split_are(
    tmp_path: Path, settings: dict[str, Any], numbers: list[int]
) -> None:
    _, examples = read(write(tmp_path / "far.jsonl", [0, 1, 2] * 3), **settings)
    assert [example.index for example in examples] == numbers


@pytest.mark.parametrize(
    ("file", "split"),
    [("test", "test"), ("dev", "validation"), ("round-3", "round-3"), ("train", "train")],
)
def test_a_split_of_a_folder_is_found_by_its_name(tmp_path: Path, file: str, split: str) -> None:
    write(tmp_path / "other.jsonl", [0, 1])
    write(tmp_path / f"{file}.jsonl", [2, 2, 2])
    assert labels_of(read(tmp_path, split=split)[1]) == [2, 2, 2]


def test_a_column_tells_the_split_of_a_row(tmp_path: Path) -> None:
    far = write(tmp_path / "far.jsonl", [0, 1], split="train")
    more = write(tmp_path / "more.jsonl", [2, 2, 2], split="dev").read_text("utf-8")
    far.write_text(far.read_text("utf-8") + more, "utf-8")
    assert labels_of(read(far, split="validation")[1]) == [2, 2, 2]


def test_further_columns_are_kept_for_slices(tmp_path: Path) -> None:
    far = write(tmp_path / "far.jsonl", [0, 1], heuristic="constituent")
    more = write(tmp_path / "more.jsonl", [0, 1], heuristic="subsequence").read_text("utf-8")
    far.write_text(far.read_text("utf-8") + more, "utf-8")
    manifest, examples = read(far)
    assert manifest.rows.further_columns == ("heuristic",)
    assert [e.columns["heuristic"] for e in examples] == ["constituent"] * 2 + ["subsequence"] * 2


def test_rows_that_stand_in_training_are_counted(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    training = [Example(0, "p0 ", "h0", 2), Example(1, "p1", "another", 0)]
    write_records(run.subset("train"), training)
    config = with_sets(write(tmp_path / "far.jsonl", [0, 1, 2]))
    (manifest,) = read_elsewhere(config, run, HUB)[0].transfer
    assert (manifest.in_training.rows_with_premise, manifest.in_training.whole_rows) == (2, 1)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("found", "run_data", "names", "gold", "answers"),
    [
        (THREE_WAY, RUN, THREE_WAY, [0, 1, 2], (0, 1, 2)),
        ((2, 0, 1), RUN, THREE_WAY, [2, 0, 1], (0, 1, 2)),
        # two labels, where every other answer counts for the second
        (("entailment", "non-entailment"), RUN, TWO.label_names, [0, 1], (0, 1, 1)),
        (("neutral", "entails"), RUN, ("entailment", "neutral"), [1, 0], (0, 1, 1)),
        # a model that answers fewer labels than the set has
        (THREE_WAY, TWO, TWO.label_names, [0, 1, 1], (0, 1)),
        (("not_entailment", "entailment"), TWO, TWO.label_names, [1, 0], (0, 1)),
        (("neutral", "entails"), TWO, ("entailment", "neutral"), [1, 0], (0, 1)),
    ],
)
def test_labels_that_are_known_need_no_settings(
    tmp_path: Path,
    found: Sequence[Any],
    run_data: DataConfig,
    names: tuple[str, ...],
    gold: list[int],
    answers: tuple[int, ...],
) -> None:
    manifest, examples = read(write(tmp_path / "far.jsonl", found), run_data)
    assert (manifest.label_names, manifest.answers) == (names, answers)
    assert labels_of(examples) == gold


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_every_known_corpus_can_be_a_set(tmp_path: Path, corpus: Corpus) -> None:
    corpus.make(tmp_path)
    with contextlib.suppress(NotAvailableError):  # it has no labelled test split
        _has_labels_of(corpus, tmp_path, "test")
        return
    _has_labels_of(corpus, tmp_path, "validation")


def _has_labels_of(corpus: Corpus, place: Path, split: str) -> None:
    for run_data, most in ((RUN, 3), (TWO, 2)):
        manifest, examples = read(place, run_data, split=split)
        assert len(manifest.label_names) == min(corpus.labels, most)
        assert manifest.label_names[0] == "entailment"
        assert 0 < labels_of(examples).count(0) <= len(examples) / corpus.labels + 2


def test_several_answers_may_count_for_one_label_of_the_set(tmp_path: Path) -> None:
    answers = {"entailment": "yes", "neutral": "no", "contradiction": "no"}
    far = write(tmp_path / "far.jsonl", ["no", "yes", "no"])
    manifest, examples = read(far, answers=answers)
    assert (manifest.label_names, manifest.answers) == (("yes", "no"), (0, 1, 1))
    assert labels_of(examples) == [1, 0, 1]


def test_several_spellings_may_stand_for_one_label(tmp_path: Path) -> None:
    spellings = {"supports": 0, "partly": 1, "no evidence": 1, "refutes": 2, "?": -1}
    far = write(tmp_path / "far.jsonl", ["partly", "supports", "?", "no evidence", "refutes"])
    manifest, examples = read(far, label_map=spellings)
    assert (manifest.label_names, labels_of(examples)) == (THREE_WAY, [1, 0, 1, 2])


def test_labels_of_the_set_may_be_given_in_any_order(tmp_path: Path) -> None:
    names = ("contradiction", "entailment", "neutral")
    manifest, examples = read(write(tmp_path / "far.jsonl", [0, 1, 2]), label_names=names)
    assert (labels_of(examples), manifest.answers) == ([0, 1, 2], (1, 2, 0))


@pytest.mark.parametrize(
    ("labels", "settings", "told"),
    [
        ([0, 1], {}, 'something else, name both: label_names = ["...", "..."]'),
        ([0, 1, 1], {}, "far: no row is labelled contradiction"),
        ([0, 1, 2], {"size": 9}, "far: 9 rows were requested, but the split has 3"),
        ([0, 1, 2] * 60, {"stride": 9}, "far: every 9th row is 20 of 180; size takes more"),
    ],
)
def test_warnings_name_the_set_and_its_settings(
    tmp_path: Path, labels: Sequence[int], settings: dict[str, Any], told: str
) -> None:
    manifest, _ = read(write(tmp_path / "far.jsonl", labels), **settings)
    assert any(told in warning for warning in manifest.warnings)
    assert all(warning.startswith("far: ") for warning in manifest.warnings)


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"label_names": ("yes", "no")},
            "nothing says for which of them the model's entailment, neutral and contradiction "
            "count\nname for each of the model's labels the one of the set's for which it counts,"
            ' such as answers = {"entailment" = "yes", "neutral" = "no", "contradiction" = "no"}',
        ),
        (
            {"answers": {"entailed": "yes", "neutral": "no", "contradiction": "no"}},
            "answers: the run has no label entailed; it has entailment, neutral and contradiction",
        ),
        (
            {"label_names": (*THREE_WAY, "both")},
            "no answer of the model counts for the set's both",
        ),
        ({"label_map": {"yes": 0, "no": 3}}, "label_map.no: 3 is not a label number (-1 to 2)"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_what_would_serve(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(write(tmp_path / "far.jsonl", ["yes", "no"]), **settings)
    assert "transfer set far" in message(caught)
    assert told in message(caught)


def test_an_unknown_label_is_named_with_the_settings_of_the_set(tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError) as caught:
        read(write(tmp_path / "far.jsonl", ["entailment", "perhaps"]))
    assert "transfer set far: " in message(caught)
    assert "'perhaps'" in message(caught)
    assert "[[transfer]] far: " in message(caught)
    assert "map others with label_map, or name them with label_names" in message(caught)
    assert "data." not in message(caught)


@pytest.mark.parametrize("split", ["test", "validation", "elsewhere"])
def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, split: str) -> None:
    write(tmp_path / "one.jsonl", [0])
    write(tmp_path / "two.jsonl", [0])
    with pytest.raises(NotAvailableError) as caught:
        read(tmp_path, split=split)
    assert f"no file of split {split}; it has one.jsonl, two.jsonl" in message(caught)
    assert "set split to a file's name without its ending" in message(caught)


def test_a_hint_is_a_line_of_the_sets_table(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "test.jsonl", [0, 1])
    with pytest.raises(NotAvailableError) as caught:
        read(tmp_path)
    assert message(caught).endswith('[[transfer]] far: choose one of them: config_name = "a"')
    with pytest.raises(NotAvailableError) as caught:
        read(write(tmp_path / "one.jsonl", [0]), split="mine")
    assert "split is mine, but the file has no column" in message(caught)
    assert "leave split out" in message(caught)


def test_a_column_that_names_no_splits_is_told_what_it_may_be(tmp_path: Path) -> None:
    lines = (
        json.dumps({"premise": "a", "hypothesis": "b", "label": 0, "split": str(number)})
        for number in range(2_000)
    )
    file = tmp_path / "far.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(NotAvailableError) as caught:
        read(file)
    assert "column split has more than" in message(caught)
    assert message(caught).endswith("[[transfer]] far: give the column another name")


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [-1, -1])
    write(tmp_path / "train.jsonl", [0, 1])
    with pytest.raises(NotAvailableError, match="test has no labels; there are test and train"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"name": "../up"}, "transfer[0].name: '../up' is no name of a file"),
        ({"size": 1, "stride": 2}, "transfer[0].stride, transfer[0].size: give at most one"),
        ({"stride": 0}, "transfer[0].stride: 0 is below 1"),
        ({"label_names": ["one"]}, "transfer[0].label_names: at least two labels are needed"),
        ({"splits": "test"}, "transfer[0].splits: unknown key; did you mean 'split'?"),
        (
            {"label_names": ["a", "b"], "answers": {"neutral": "c"}},
            "transfer[0].answers.neutral: 'c' is none of the set's labels (a, b)",
        ),
    ],
)
def test_faults_of_the_table_are_found_before_anything_is_read(
    tmp_path: Path, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(recipe(tmp_path, {"name": "far", "dataset": "demo", **settings}))
    assert fault in message(caught)


def test_two_sets_may_not_share_a_name(tmp_path: Path) -> None:
    tables = [{"name": name, "dataset": "demo"} for name in ("far", "Far")]
    with pytest.raises(ConfigurationError, match="Far is the name of two sets"):
        load_config(recipe(tmp_path, *tables))


def test_a_recipes_own_sets_replace_those_of_the_one_it_extends(tmp_path: Path) -> None:
    recipe(tmp_path, {"name": "near", "dataset": "demo"})
    child = tmp_path / "child.toml"
    child.write_text('extends = "parent.toml"\n[[transfer]]\nname = "far"\ndataset = "demo"\n')
    assert [one.name for one in load_config(str(child)).transfer] == ["far"]


# ---------------------------------------------------------------- the stage's files


def recipe(folder: Path, *tables: Mapping[str, Any]) -> str:
    """A recipe with these tables of further test sets."""
    lines = ['extends = "demo"']
    for table in tables:
        lines += ["[[transfer]]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    file = folder / "parent.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def with_sets(*places: Path) -> JobConfig:
    sets = tuple(TransferConfig(place.stem, str(place)) for place in places)
    return replace(DEMO, transfer=sets)


def test_the_sets_that_are_asked_for_are_written_and_no_others(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_records(run.subset("train"), [])
    near, far = (write(tmp_path / f"{name}.jsonl", [0, 1, 2]) for name in ("near", "far"))
    read_elsewhere(with_sets(near, far), run, HUB)
    found, files = read_elsewhere(with_sets(far), run, HUB)
    assert files == [run.elsewhere_manifest, run.elsewhere("far")]
    assert sorted(run.elsewhere_manifest.parent.iterdir()) == sorted(files)
    assert records.read(Elsewhere, run.elsewhere_manifest) == found
    assert labels_of([*records.read_lines(Example, run.elsewhere("far"))]) == [0, 1, 2]


def test_without_a_set_no_rows_are_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found, files = read_elsewhere(DEMO, run, HUB)
    assert (found, files) == (Elsewhere(), [run.elsewhere_manifest])


def test_general_texts_are_read_beside_the_sets(tmp_path: Path) -> None:
    run, file = RunDir(tmp_path / "run"), tmp_path / "own.txt"
    file.write_text("One text.\n\nAnother.\n", encoding="utf-8")
    config = replace(DEMO, forgetting=ForgettingConfig(str(file)))
    found, files = read_elsewhere(config, run, HUB)
    assert (found, files) == (Elsewhere((), 2), [run.elsewhere_manifest, run.texts])
    assert said_of(found) == "2 general texts"
    assert [one.content for one in records.read_lines(GeneralText, run.texts)] == [
        "One text.",
        "Another.",
    ]


def test_the_stamp_is_also_of_the_general_texts(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    config = replace(DEMO, forgetting=ForgettingConfig(str(file)))
    file.write_text("One text.", encoding="utf-8")
    before = elsewhere_stamp(config)
    file.write_text("Another.", encoding="utf-8")
    assert elsewhere_stamp(config) != before != elsewhere_stamp(DEMO) == ""


def test_the_stamp_is_of_the_local_files_that_are_read(tmp_path: Path) -> None:
    far = write(tmp_path / "test.jsonl", [0, 1, 2])
    config = with_sets(tmp_path)
    before = elsewhere_stamp(config)
    write(tmp_path / "train.jsonl", [0])
    assert elsewhere_stamp(config) == before != elsewhere_stamp(DEMO) == ""
    write(far, [0, 1, 1])
    assert elsewhere_stamp(config) != before


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match="transfer set far: data set"):
        elsewhere_stamp(with_sets(tmp_path / "nowhere" / "far"))
