from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nlijob import records
from nlijob.config import JobConfig, ModelConfig, load_config
from nlijob.errors import DiskError
from nlijob.gpu import checkpoints
from nlijob.gpu.model import LoadedModel
from nlijob.records.use import AdapterRecord


def test_a_saved_adapter_loads_unchanged(
    demo: JobConfig, new_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    model, other = new_model().model, new_model().model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    checkpoints.save_adapter(model, tmp_path, demo.model)
    checkpoints.load_adapter(other, tmp_path)
    expected = checkpoints.adapter_weights(model)
    for name, weight in checkpoints.adapter_weights(other).items():
        assert torch.equal(weight, expected[name])


@pytest.mark.parametrize("head", ["causal", "sequence-classification"])
def test_an_adapter_is_written_as_it_was_when_its_weights_were_copied(
    new_model: Callable[..., LoadedModel], tmp_path: Path, head: str
) -> None:
    config = load_config("demo", {"model.head": head})
    model = new_model(config).model
    expected = checkpoints.on_host(checkpoints.adapter_weights(model))
    weights = checkpoints.on_host(checkpoints.trained_weights(model))
    with torch.no_grad():
        for parameter in checkpoints.trained_weights(model).values():
            parameter.add_(1)  # training goes on while the checkpoint is written
    checkpoints.save_adapter(model, tmp_path, config.model, weights)
    written = load_file(tmp_path / checkpoints.ADAPTER_FILE)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)


@pytest.mark.parametrize("head", ["causal", "sequence-classification"])
def test_an_adapter_is_written_as_the_library_writes_it(
    new_model: Callable[..., LoadedModel], tmp_path: Path, head: str
) -> None:
    config = load_config("demo", {"model.head": head})
    model, base = new_model(config).model, ModelConfig("acme/base", "abc")
    checkpoints.save_adapter(model, tmp_path / "ours", base)
    settings = model.peft_config["default"]
    settings.base_model_name_or_path, settings.revision = base.name, base.revision
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    for name in checkpoints.ADAPTER_FILES:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_an_adapter_names_its_base_as_the_recipe_does(
    new_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    checkpoints.save_adapter(new_model().model, tmp_path, ModelConfig("acme/base", "abc"))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/base", "abc")


def test_an_adapter_with_a_weight_missing_is_refused(
    demo: JobConfig, new_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    model = new_model().model
    checkpoints.save_adapter(model, tmp_path, demo.model)
    weights = load_file(tmp_path / checkpoints.ADAPTER_FILE)
    weights.pop(next(iter(weights)))
    save_file(weights, tmp_path / checkpoints.ADAPTER_FILE)
    with pytest.raises(ValueError, match="does not have the weights"):
        checkpoints.load_adapter(model, tmp_path)


def test_an_adapter_of_another_rank_is_refused(
    new_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    smaller, larger = (load_config("demo", {"lora.r": rank}) for rank in (1, 4))
    checkpoints.save_adapter(new_model(smaller).model, tmp_path, smaller.model)
    with pytest.raises(ValueError, match="does not have the weights"):
        checkpoints.load_adapter(new_model(larger).model, tmp_path)


@pytest.fixture
def use(demo: JobConfig) -> AdapterRecord:
    return AdapterRecord(demo, "stamp", (1, 2, 3), "", "0")


def test_the_exported_adapter_holds_the_adapter_alone(tmp_path: Path, use: AdapterRecord) -> None:
    source = tmp_path / "epoch-1"
    source.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json", "result.json"):
        (source / name).write_text("x")
    checkpoints.copy_adapter(source, tmp_path / "adapter", use)
    names = sorted(p.name for p in (tmp_path / "adapter").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "nlijob.json"]


def test_the_hash_beside_an_exported_adapter_is_that_of_its_weights(
    tmp_path: Path, use: AdapterRecord
) -> None:
    source = tmp_path / "epoch-1"
    source.mkdir()
    for name in checkpoints.ADAPTER_FILES:
        (source / name).write_bytes(b"weights")
    *_, record = checkpoints.copy_adapter(source, tmp_path / "adapter", use)
    found = records.read(AdapterRecord, record)
    assert found == dataclasses.replace(use, adapter_sha256=hashlib.sha256(b"weights").hexdigest())


def test_an_adapter_takes_the_place_of_an_earlier_one_only_when_it_is_whole(
    tmp_path: Path, use: AdapterRecord
) -> None:
    source, target = tmp_path / "epoch-1", tmp_path / "adapter"
    for folder in (source, target):
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_text(folder.name)
    with pytest.raises(FileNotFoundError):  # there is no configuration
        checkpoints.copy_adapter(source, target, use)
    assert (target / "adapter_model.safetensors").read_text() == "adapter"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "epoch-1"]


def test_everyone_can_read_a_saved_adapter(
    demo: JobConfig, new_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    checkpoints.save_adapter(new_model().model, tmp_path, demo.model)
    files = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert files == dict.fromkeys(checkpoints.ADAPTER_FILES, 0o644)


def test_weights_of_another_adapter_are_refused(
    demo: JobConfig, new_model: Callable[..., LoadedModel]
) -> None:
    model = new_model().model
    weights = checkpoints.on_host(checkpoints.trained_weights(model))
    weights.pop(next(iter(weights)))
    with pytest.raises(ValueError, match="not those that training changes"):
        checkpoints.set_trained_weights(model, weights)


def test_training_does_not_change_a_state_copied_to_the_host() -> None:
    state = {"optimizer": {0: {"step": torch.ones(())}}, "step": 3}
    kept = checkpoints.on_host(state)
    state["optimizer"][0]["step"].add_(1)  # type: ignore[index]
    assert kept == {"optimizer": {0: {"step": torch.ones(())}}, "step": 3}


@contextlib.contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """No file that this process writes may be larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_adapter_that_the_disk_does_not_take_is_the_disks_fault(
    demo: JobConfig, new_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    with largest_file(1000), pytest.raises(DiskError, match="ulimit -f"):
        checkpoints.save_adapter(new_model().model, tmp_path, demo.model)


def test_a_state_that_the_disk_does_not_take_is_the_disks_fault(tmp_path: Path) -> None:
    state = {"optimizer": {0: {"exp_avg": torch.zeros(4, 1000)}}}
    with largest_file(1000), pytest.raises(DiskError, match=r"state\.pt"):
        checkpoints.save_state(state, tmp_path / "state.pt")
    assert list(tmp_path.iterdir()) == []


def test_all_files_of_an_adapter_may_be_read_by_those_whom_the_umask_lets(
    demo: JobConfig, new_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        checkpoints.save_adapter(new_model().model, tmp_path, demo.model)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}
