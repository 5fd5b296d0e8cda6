"""The loss of base and tuned model on general text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional

from nlijob.analysis.forgetting import forgetting_sentence, forgetting_warnings, measure_forgetting
from nlijob.config import JobConfig
from nlijob.data.texts import read_texts
from nlijob.gpu import forgetting
from nlijob.gpu.engine import Engine
from nlijob.gpu.forgetting import Tokens, encode_texts, text_losses
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.records.forgetting import GeneralText, TextLoss

pytestmark = pytest.mark.arithmetic

TEXTS = read_texts("demo")[:12]


@pytest.fixture(scope="module")
def loaded(new_model: Callable[..., LoadedModel]) -> LoadedModel:
    return new_model()


def before_and_after(loaded: LoadedModel) -> tuple[list[TextLoss], list[TextLoss]]:
    encoded = encode_texts(loaded, TEXTS)
    with loaded.model.disable_adapter():
        base = text_losses(loaded, encoded)
    return base, text_losses(loaded, encoded)


def train(loaded: LoadedModel, rows: Sequence[Encoded], steps: int, rate: float) -> None:
    """Teach the adapter one answer to every row, far harder than a job would."""
    model: Any = loaded.model
    adapter = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapter, lr=rate)
    ids = torch.tensor([row.features["input_ids"][-20:] for row in rows if row.length >= 20])
    model.train()
    for _ in range(steps):
        logits = model(input_ids=ids, use_cache=False).logits[:, -1].float()
        loss = functional.cross_entropy(logits, torch.full((len(ids),), 5))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def test_the_loss_is_the_mean_of_the_librarys_own_over_the_tokens_of_each_text(
    loaded: LoadedModel,
) -> None:
    encoded = encode_texts(loaded, TEXTS)
    for one, found in zip(encoded, text_losses(loaded, encoded), strict=True):
        ids = torch.tensor([one.ids])
        with torch.no_grad():
            expected = float(loaded.model(input_ids=ids, labels=ids).loss)
        assert found.tokens == len(one.ids) - 1
        assert found.loss == pytest.approx(expected, rel=1e-4)  # batches sum in another order


def test_a_zero_adapter_forgets_exactly_nothing(new_model: Callable[..., LoadedModel]) -> None:
    base, tuned = before_and_after(new_model())  # an adapter begins with B = 0
    assert base == tuned
    found = measure_forgetting("demo", TEXTS, base, {"": tuned}, "")
    assert found is not None
    assert (found.change.difference, found.change.p) == (0, 1)
    assert "exactly the same" in forgetting_sentence(found)


def test_a_zero_adapter_forgets_exactly_nothing_in_faster_layers(
    new_model: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded], demo: JobConfig
) -> None:
    loaded = new_model()
    plain = before_and_after(loaded)[1]
    engine = Engine(loaded, head, demo, rows)
    assert engine.plan().way == "packed"
    base, tuned = before_and_after(loaded)
    assert base == tuned
    assert [one.loss for one in tuned] == pytest.approx([one.loss for one in plain], rel=1e-3)


def test_a_model_that_is_trained_until_it_forgets_is_told_with_a_warning(
    new_model: Callable[..., LoadedModel], rows: list[Encoded]
) -> None:
    loaded = new_model()
    train(loaded, rows[:8], steps=6, rate=1e-2)
    base, tuned = before_and_after(loaded)
    found = measure_forgetting("demo", TEXTS, base, {"": tuned}, "")
    assert found is not None
    assert found.worse == len(TEXTS)
    assert found.change.difference > 0.5
    (warning,) = forgetting_warnings(found)
    assert "the tuned model predicts such text worse than the base model" in warning.text


def test_a_text_is_read_up_to_the_models_context(loaded: LoadedModel) -> None:
    long = GeneralText(1, TEXTS[0].content * 30)
    assert len(encode_texts(loaded, [long])[0].ids) == forgetting.MOST_TOKENS
    small = dataclasses.replace(loaded, max_length=9)
    assert len(encode_texts(small, [long])[0].ids) == 9


def test_texts_in_which_nothing_is_predicted_are_left_out(loaded: LoadedModel) -> None:
    texts = [GeneralText(1, "a"), *TEXTS[1:3]]
    assert [one.text for one in encode_texts(loaded, texts)] == [2, 3]
    assert encode_texts(loaded, []) == []
    assert text_losses(loaded, []) == []


def test_texts_with_tokens_that_the_model_does_not_know_are_left_out(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    highest = max(max(one.ids) for one in encode_texts(loaded, TEXTS))
    monkeypatch.setattr(forgetting, "_vocabulary", lambda _: highest)
    encoded = encode_texts(loaded, TEXTS)
    assert 0 < len(encoded) < len(TEXTS)
    assert all(max(one.ids) < highest for one in encoded)


def test_what_a_tokenizer_adds_at_the_end_is_no_part_of_a_text(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = encode_texts(loaded, TEXTS)

    def ending(texts: str | Sequence[str], add_special_tokens: bool = True) -> dict[str, Any]:
        many = [texts] if isinstance(texts, str) else texts
        end = [0] if add_special_tokens else []
        rows = [loaded.tokenizer(text)["input_ids"] + end for text in many]
        return {"input_ids": rows[0] if isinstance(texts, str) else rows}

    assert encode_texts(dataclasses.replace(loaded, tokenizer=ending), TEXTS) == bare


def test_texts_that_do_not_fit_into_memory_at_once_are_measured_in_parts(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode_texts(loaded, TEXTS)
    whole, sizes, expected = forgetting._batch_losses, [], text_losses(loaded, encoded)

    def small(model: LoadedModel, batch: Sequence[Tokens]) -> dict[int, float]:
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        sizes.append(len(batch))
        return whole(model, batch)

    monkeypatch.setattr(forgetting, "_batch_losses", small)
    measured: list[int] = []
    found = text_losses(loaded, encoded, measured.append)
    assert sizes == [3, 3, 3, 3]
    assert measured == [12]
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.loss for one in found] == pytest.approx([one.loss for one in expected], rel=1e-4)


def test_a_text_that_does_not_fit_into_memory_alone_is_not_measured(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode_texts(loaded, TEXTS[:3])
    longest = max(encoded, key=lambda one: len(one.ids))
    whole = forgetting._batch_losses

    def small(model: LoadedModel, batch: Sequence[Tokens]) -> dict[int, float]:
        if longest in batch:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(model, batch)

    monkeypatch.setattr(forgetting, "_batch_losses", small)
    found = text_losses(loaded, encoded)
    assert [one.text for one in found if one.loss is None] == [longest.text]


def test_batches_hold_no_more_logits_than_allowed(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode_texts(loaded, TEXTS)
    monkeypatch.setitem(forgetting.LOGITS_AT_ONCE, "cpu", 250 * 2048)
    batches = forgetting._batches(loaded, encoded)
    assert sorted(one.text for batch in batches for one in batch) == [t.text for t in TEXTS]
    assert len(batches) > 1
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(one.ids) for one in batch) <= 250


class LooksAhead(torch.nn.Module):
    """A model whose logits depend on the tokens that follow, and so on padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 50)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        values = self.embedding(input_ids)
        return type("Output", (), {"logits": values + values.mean(1, keepdim=True)})


def test_a_model_that_sees_padding_gets_each_text_alone() -> None:
    model = LoadedModel(LooksAhead(), None, torch.device("cpu"), torch.float32, 100)
    texts = [Tokens(1, tuple(range(20))), Tokens(2, tuple(range(5, 40)))]
    assert forgetting._batches(model, texts) == [[texts[0]], [texts[1]]]


def test_a_loss_that_is_no_number_is_not_measured(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode_texts(loaded, TEXTS[:2])
    bad = {encoded[0].text: float("nan"), encoded[1].text: 2.0}
    monkeypatch.setattr(forgetting, "_batch_losses", lambda *_: bad)
    assert [one.loss for one in text_losses(loaded, encoded)] == [None, 2.0]
