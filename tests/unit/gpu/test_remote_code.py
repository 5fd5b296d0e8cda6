"""Models with code of their own, and with weights that must be converted first."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.gpu.model import load, read_tokenizer
from nlijob.model_files import check_model_folder

CPU = torch.device("cpu")
CONFIGURATION = """
from transformers import PhiConfig
class OwnConfig(PhiConfig):
    model_type = "of-my-own"
"""
MODEL = """
from transformers import PhiForCausalLM
from .configuration_own import OwnConfig
class OwnModel(PhiForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's model as one that brings its own code."""
    cache = tmp_path / "modules"
    for module in ("dynamic_module_utils", "utils.hub"):
        monkeypatch.setattr(f"transformers.{module}.HF_MODULES_CACHE", str(cache), raising=False)
    monkeypatch.syspath_prepend(str(cache))
    made = Path(shutil.copytree(MODEL_DIR, tmp_path / "own"))
    (made / "configuration_own.py").write_text(CONFIGURATION, "utf-8")
    (made / "modeling_own.py").write_text(MODEL, "utf-8")
    file = made / "config.json"
    places = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnModel",
    }
    own = {"model_type": "of-my-own", "auto_map": places, "architectures": ["OwnModel"]}
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **own}), "utf-8")
    return made


def trusting(demo: JobConfig, **changes: Any) -> JobConfig:
    model = dataclasses.replace(demo.model, trust_remote_code=True, **changes)
    return dataclasses.replace(demo, model=model)


def test_code_that_is_allowed_makes_the_model(demo: JobConfig, folder: Path) -> None:
    job = trusting(demo)
    loaded = load(job, folder, read_tokenizer(job, folder), CPU)
    assert type(loaded.model.get_base_model()).__name__ == "OwnModel"
    assert loaded.targets == ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")


def test_code_without_a_class_for_the_head_is_refused_with_the_head_that_it_has(
    demo: JobConfig, folder: Path
) -> None:
    job = trusting(demo, head="sequence-classification")
    with pytest.raises(ConfigurationError) as caught:
        load(job, folder, read_tokenizer(job, folder), CPU)
    assert caught.value.hint.startswith("set model.head='causal'")


def test_the_command_that_converts_pickled_weights_converts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(MODEL_DIR, tmp_path / "old"))
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotAvailableError) as caught:
        check_model_folder("acme/model", folder)
    python, option, script, *arguments = shlex.split(caught.value.hint.splitlines()[-1])
    assert (python, option) == (sys.executable, "-c")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    exec(script, {})
    converted = tmp_path / arguments[-1]
    check_model_folder("acme/model", converted)
    assert transformers.AutoTokenizer.from_pretrained(converted)("a man").input_ids
    written = load_file(converted / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(written[name], weights[name])
