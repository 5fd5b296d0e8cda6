"""A model's folder as the parent checks it: each fault names its file and ends with 4."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError
from nlijob.model_files import check_model_folder, weight_files

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


def fault(folder: Path) -> NotAvailableError:
    with pytest.raises(NotAvailableError) as caught:
        check_model_folder("acme/model", folder)
    return caught.value


def shard(folder: Path, places: object) -> None:
    """Make the weights one shard, and write an index with these places."""
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def test_a_whole_model_is_accepted(folder: Path) -> None:
    check_model_folder("acme/model", folder)
    assert weight_files(folder) == [folder / WEIGHTS]


def test_a_sharded_model_is_accepted(folder: Path) -> None:
    shard(folder, {"lm_head.weight": "model-1.safetensors"})
    check_model_folder("acme/model", folder)
    assert weight_files(folder) == [folder / "model-1.safetensors"]


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("config.json", "", "config.json is empty"),
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "[]", "config.json is not a JSON object"),
        ("config.json", "[" * 100_000, "config.json is not JSON"),
        ("config.json", "{}", "config.json does not say what kind of model it is"),
        ("config.json", '{"model_type": 3}', "config.json does not say what kind of model it is"),
        ("config.json", " " * (11 * 1024**2), "config.json has 11,534,336 bytes"),
        ("config.json", "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("tokenizer.json", "{}", "tokenizer.json holds no tokenizer"),
        ("tokenizer.json", "", "tokenizer.json is empty"),
        (WEIGHTS, "", "model.safetensors is empty"),
        (WEIGHTS, "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    folder: Path, file: str, content: str, told: str
) -> None:
    (folder / file).write_text(content, encoding="utf-8")
    error = fault(folder)
    assert told in error.message
    assert str(folder) in error.hint


@pytest.mark.parametrize("values", [{"num_hidden_layers": 10**9}, {"text_config": {"n_layer": 99}}])
def test_more_layers_than_the_files_have_tensors_are_a_fault(
    folder: Path, values: dict[str, object]
) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **values}), encoding="utf-8")
    assert "but the files hold 61 tensors" in fault(folder).message


def test_all_faults_are_told_at_once(folder: Path) -> None:
    for file in ("config.json", "tokenizer.json", WEIGHTS):
        (folder / file).write_bytes(b"")
    assert fault(folder).message.count("is empty") == 3


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([], "lists no tensors"),
        ({}, "lists no tensors"),
        ({"a": "../model-1.safetensors"}, "places the tensor a outside the model's folder"),
        ({"a": "/model-1.safetensors"}, "places the tensor a outside the model's folder"),
        ({"a": 1}, "places the tensor a outside the model's folder"),
        ({"a": "model-2.safetensors"}, "has no model-2.safetensors"),
        ({"a": "model-1.safetensors"}, "model-1.safetensors lacks the tensor a"),
    ],
)
def test_an_index_that_cannot_be_used_is_told(folder: Path, places: object, told: str) -> None:
    shard(folder, places)
    assert told in fault(folder).message


def test_a_link_to_a_file_that_is_gone_is_told(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / "gone")
    assert "model.safetensors (it is a link to a file that is gone)" in fault(folder).message


def test_a_model_without_a_tokenizer_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert fault(folder).message.endswith("has no tokenizer.json")


def test_weights_in_another_format_are_told_with_what_to_do(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    error = fault(folder)
    assert error.message.endswith("has no model.safetensors")
    assert "pytorch_model.bin" in error.hint
    assert "can contain code" in error.hint
    assert "t.PhiForCausalLM.from_pretrained(source)" in error.hint
    assert error.hint.endswith(f"{folder} model-safetensors")


@pytest.mark.parametrize("classes", [["os.system('x')"], ["__import__"], "Phi", [3]])
def test_no_command_is_made_of_a_class_that_is_no_model(folder: Path, classes: object) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    configure(folder, architectures=classes)
    assert (
        "from_pretrained" not in fault(folder).hint or "AutoModelForCausalLM" in fault(folder).hint
    )


def configure(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")


OWN = {
    "model_type": "of-my-own",
    "auto_map": {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Lm"},
}


def test_code_that_comes_with_a_model_is_named_with_the_option_that_allows_it(
    folder: Path,
) -> None:
    configure(folder, **OWN)
    error = fault(folder)
    assert "code of its own (of-my-own: configuration_own.py, modeling_own.py)" in error.message
    assert "--trust-remote-code" in error.hint


def test_a_model_with_code_is_accepted_if_that_is_allowed(folder: Path) -> None:
    configure(folder, **OWN)
    check_model_folder("acme/model", folder, trust_remote_code=True)


def test_code_beside_a_model_that_the_library_has_itself_is_not_needed(folder: Path) -> None:
    configure(folder, auto_map=OWN["auto_map"])
    check_model_folder("acme/model", folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "config.json").chmod(0)
    assert f"{folder / 'config.json'} cannot be read: Permission denied" in fault(folder).message
