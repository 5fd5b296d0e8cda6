from __future__ import annotations

from collections.abc import Callable

import pytest

from nlijob.config import JobConfig
from nlijob.gpu.generation import generate
from nlijob.gpu.model import LoadedModel
from nlijob.prompts import prompt_text
from nlijob.records import Example


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
