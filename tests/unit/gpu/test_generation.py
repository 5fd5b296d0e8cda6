from __future__ import annotations

from collections.abc import Callable

import pytest

from nlijob.config import JobConfig
from nlijob.gpu import generation
from nlijob.gpu.generation import generate
from nlijob.gpu.model import LoadedModel
from nlijob.prompts import prompt_text
from nlijob.records.job import Example

pytestmark = pytest.mark.arithmetic


@pytest.fixture(scope="module")
def loaded(new_model: Callable[..., LoadedModel]) -> LoadedModel:
    return new_model()


def test_prompts_of_different_length_are_continued_as_each_would_be_alone(
    demo: JobConfig, loaded: LoadedModel, examples: list[Example]
) -> None:
    prompts = [prompt_text(demo.prompt, example) for example in examples[:5]]
    together = generate(loaded, prompts, 6, 5)
    assert together == [generate(loaded, [prompt], 6, 1)[0] for prompt in prompts]


def test_output_follows_the_prompt_without_it(
    demo: JobConfig, loaded: LoadedModel, examples: list[Example]
) -> None:
    prompt = prompt_text(demo.prompt, examples[0])
    (text,) = generate(loaded, [prompt], 6, 1)
    assert text
    assert not text.startswith(prompt)
    assert len(loaded.tokenizer(text)["input_ids"]) <= 8


def test_prompts_that_do_not_fit_into_memory_at_once_are_continued_in_parts(
    demo: JobConfig,
    loaded: LoadedModel,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = [prompt_text(demo.prompt, example) for example in examples[:5]]
    expected = generate(loaded, prompts, 4, 5)
    whole, sizes = generation._generate_batch, []

    def small(model: LoadedModel, count: int, batch: list[str]) -> list[str]:
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        sizes.append(len(batch))
        return whole(model, count, batch)

    monkeypatch.setattr(generation, "_generate_batch", small)
    assert generate(loaded, prompts, 4, 5) == expected
    assert sizes == [2, 1, 2]
