"""What SECURITY.md says about models, shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nlijob.config import load_config
from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError
from nlijob.gpu.model import read_model_config, read_tokenizer

CODE = """
from pathlib import Path
from transformers import PretrainedConfig
Path(__file__).with_name("ran").touch()
class Custom(PretrainedConfig):
    model_type = "custom"
"""


def test_code_that_comes_with_a_model_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "no")
    config = load_config("demo")
    folder = tmp_path / "model"
    shutil.copytree(MODEL_DIR, folder)
    (folder / "custom.py").write_text(CODE, encoding="utf-8")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content |= {"model_type": "custom", "auto_map": {"AutoConfig": "custom.Custom"}}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(NotAvailableError, match="custom"):
        read_model_config(config, folder, read_tokenizer(config, MODEL_DIR))
    assert list(tmp_path.rglob("ran")) == []
