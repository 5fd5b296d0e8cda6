from __future__ import annotations

from collections.abc import Callable

import pytest

from nlijob.gpu import generation
from nlijob.gpu.generation import generate
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel

pytestmark = pytest.mark.arithmetic


@pytest.fixture(scope="module")
def loaded(new_model: Callable[..., LoadedModel]) -> LoadedModel:
    return new_model()


def test_prompts_of_different_length_are_continued_as_each_would_be_alone(
    loaded: LoadedModel, rows: list[Encoded]
) -> None:
    prompts = [row.features["input_ids"] for row in rows[:5]]
    together = generate(loaded, prompts, 6, 5)
    assert together == [generate(loaded, [prompt], 6, 1)[0] for prompt in prompts]


def test_output_follows_the_prompt_without_it(loaded: LoadedModel, rows: list[Encoded]) -> None:
    prompt = rows[0].features["input_ids"]
    (text,) = generate(loaded, [prompt], 6, 1)
    assert text
    assert not text.startswith(loaded.tokenizer.decode(prompt))
    assert len(loaded.tokenizer(text)["input_ids"]) <= 8


def test_prompts_that_do_not_fit_into_memory_at_once_are_continued_in_parts(
    loaded: LoadedModel,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = [row.features["input_ids"] for row in rows[:5]]
    expected = generate(loaded, prompts, 4, 5)
    whole, sizes = generation._generate_batch, []

    def small(model: LoadedModel, count: int, batch: list[list[int]]) -> list[str]:
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        sizes.append(len(batch))
        return whole(model, count, batch)

    monkeypatch.setattr(generation, "_generate_batch", small)
    assert generate(loaded, prompts, 4, 5) == expected
    assert sizes == [2, 1, 2]
