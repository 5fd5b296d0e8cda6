"""Models and tokenizers that cannot be used: what is told, and with which exit code."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import ConfigurationError, DivergedError, JobError, NotAvailableError
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded
from nlijob.gpu.model import load, meta_model, read_model_config, read_tokenizer
from nlijob.gpu.scoring import check_finite
from nlijob.gpu.words import head_text
from nlijob.records.job import Example, HeadOrigin, Prediction

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo's model, to be changed."""
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


def configure(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")


def with_padding(folder: Path, token: str) -> None:
    """Give the tokenizer a padding token that it did not know, and the model has no place for."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": token})
    tokenizer.save_pretrained(folder)


def test_a_padding_token_that_the_model_does_not_know_is_replaced(
    demo: JobConfig, folder: Path, head: CausalHead, rows: list[Encoded], examples: list[Example]
) -> None:
    with_padding(folder, "[PAD]")
    configure(folder, pad_token_id=2048)
    tokenizer = read_tokenizer(demo, folder)
    assert 0 <= tokenizer.pad_token_id < 2048
    loaded = load(demo, folder, tokenizer, CPU)
    padded = CausalHead(tokenizer, demo.prompt, 128, examples).collate(rows[:4], CPU)
    expected = head.collate(rows[:4], CPU)
    with torch.no_grad():
        model = loaded.model.eval()
        assert torch.equal(head.logits(model, padded), head.logits(model, expected))


def test_a_padding_token_that_the_model_knows_is_kept(demo: JobConfig, folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(7)
    tokenizer.save_pretrained(folder)
    assert read_tokenizer(demo, folder).pad_token_id == 7


def test_a_padding_token_of_the_configuration_comes_before_the_end_of_text(
    demo: JobConfig, folder: Path
) -> None:
    settings = folder / "tokenizer_config.json"
    values = json.loads(settings.read_text("utf-8"))
    values.pop("pad_token", None)
    settings.write_text(json.dumps(values), "utf-8")
    configure(folder, pad_token_id=9)
    assert read_tokenizer(demo, folder).pad_token_id == 9


def test_a_token_beyond_the_embeddings_is_named_with_its_row(
    demo: JobConfig, tokenizer: Any, examples: list[Example]
) -> None:
    rows = ClassificationHead(tokenizer, demo.prompt, 128).encode("train", examples)
    largest = max(token for row in rows for token in row.features["input_ids"])
    head = ClassificationHead(tokenizer, demo.prompt, 128, (), largest)
    with pytest.raises(NotAvailableError, match=r"train row \d+ has the token '.*' \(number") as e:
        head.encode("train", examples)
    assert f"embeddings for {largest:,} tokens only" in e.value.message
    ClassificationHead(tokenizer, demo.prompt, 128, (), largest + 1).encode("train", examples)


def test_a_label_token_beyond_the_embeddings_is_named(
    demo: JobConfig, tokenizer: Any, examples: list[Example]
) -> None:
    with pytest.raises(NotAvailableError, match="a label has the token"):
        CausalHead(tokenizer, demo.prompt, 128, examples, 5)


def test_a_tokenizer_that_knows_no_word_is_refused(
    demo: JobConfig, examples: list[Example]
) -> None:
    bare = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_of_one_word("zebra"), unk_token="<unk>", pad_token="<unk>"
    )
    with pytest.raises(NotAvailableError, match="knows no word of the test rows"):
        ClassificationHead(bare, demo.prompt, 128).encode("test", examples)


def test_a_tokenizer_that_makes_nothing_of_a_row_is_refused(
    demo: JobConfig, tokenizer: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = ClassificationHead(tokenizer, demo.prompt, 128)
    nothing: dict[str, list[list[int]]] = {"input_ids": [[] for _ in examples]}
    monkeypatch.setattr(head, "_tokenize", lambda some: nothing)
    with pytest.raises(NotAvailableError, match="makes no tokens of row 0"):
        head.encode("test", examples)


@pytest.mark.parametrize("content", ["{}", '{"model": {"type": "BPE"}}', "[]"])
def test_a_broken_tokenizer_is_told(demo: JobConfig, folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content, "utf-8")
    with pytest.raises(NotAvailableError, match="tokenizer of demo cannot be read"):
        read_tokenizer(demo, folder)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"model_type": "no-such-model"}, "does not know the model type 'no-such-model'"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"hidden_size": -4}, "config.json"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told(
    demo: JobConfig, folder: Path, values: dict[str, object], told: str
) -> None:
    configure(folder, **values)
    with pytest.raises(NotAvailableError) as caught:
        meta_model(demo, read_model_config(demo, folder, read_tokenizer(demo, folder)))
    assert told in caught.value.message


def test_code_that_comes_with_a_model_is_never_run(demo: JobConfig, folder: Path) -> None:
    configure(folder, model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    (folder / "configuration_own.py").write_text("raise SystemExit('run')\n", "utf-8")
    with pytest.raises(NotAvailableError, match="does not know the model type 'own'"):
        read_tokenizer(demo, folder)


def test_a_kind_of_model_without_the_jobs_head_is_a_fault_of_the_configuration(
    demo: JobConfig, tokenizer: Any
) -> None:
    config = dataclasses.replace(
        demo, model=dataclasses.replace(demo.model, head="sequence-classification")
    )
    shape = transformers.MambaConfig(vocab_size=2048, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(ConfigurationError, match="no mamba model with a classification head"):
        meta_model(config, shape)


def prediction(loss: float, index: int = 0) -> Prediction:
    return Prediction("test", index, 0, 0, (0.5, 0.3, 0.2), None, loss, 9)


@pytest.mark.parametrize(
    ("stage", "kind"), [("baseline", NotAvailableError), ("train", DivergedError)]
)
@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_answers_that_are_not_numbers_end_the_job(
    demo: JobConfig, stage: str, kind: type[JobError], loss: float
) -> None:
    rows = [prediction(1.0), prediction(loss, 7), prediction(loss, 8)]
    check_finite(stage, demo.model, rows[:1])
    with pytest.raises(kind, match=r"NaN or infinite for 2 rows of 3 \(first: test row 7\)"):
        check_finite(stage, demo.model, rows)


def test_the_console_says_that_a_head_is_new() -> None:
    origin = HeadOrigin(("score",), ("score",), "the checkpoint has no classification head", ())
    assert head_text(origin) == (
        "head: score new, drawn from the seed: the checkpoint has no classification head"
    )


def _of_one_word(word: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, word: 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
