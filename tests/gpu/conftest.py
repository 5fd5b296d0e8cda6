"""The demo's model on a GPU, loaded as the job loads it, and rows of its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel, load, read_tokenizer
from nlijob.records.job import Example
from tests.cuda_on_cpu.places import FIRST, LAST


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases of kernels that are only for GPUs where they would run on a CPU, and all but
    one order of threads of the slow cases: the quick ones show both."""
    left_out = [item for item in items if _is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    place = parameters.params.get("place") if parameters else None
    is_slow, is_for_gpus = (item.get_closest_marker(name) for name in ("slow", "gpu"))
    return bool((place == LAST and is_slow) or (place in (FIRST, LAST) and is_for_gpus))


@pytest.fixture(scope="session", autouse=True)
def _kernels_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled kernels are kept for these tests alone, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("assets")
        patch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(folder))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return read_tokenizer(load_config("demo"), MODEL_DIR)


@pytest.fixture(scope="session")
def labelled() -> list[Example]:
    """The demo's training rows."""
    rows = read_file(DATA_DIR / "train.jsonl").rows
    return [
        Example(i, row["premise"], row["hypothesis"], row["label"])
        for i, row in enumerate(rows)
        if row["label"] >= 0
    ]


@pytest.fixture(scope="module")
def rows(head: Head, examples: list[Example]) -> list[Encoded]:
    """A module's examples, encoded by its head."""
    return [*head.encode("train", examples)]


@pytest.fixture(scope="session")
def new_model(tokenizer: Any) -> Callable[[JobConfig], LoadedModel]:
    """Load a fresh demo model as a configuration says."""
    return lambda job: load(job, MODEL_DIR, tokenizer, torch.device("cuda", 0))
