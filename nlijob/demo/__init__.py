"""The built-in demo: a tiny language model and a small NLI data set, for a laptop without a GPU.

`AutoModelForCausalLM.from_pretrained` loads the folder `MODEL_DIR`. `DATA_DIR` contains
train.jsonl, validation.jsonl and test.jsonl. README.md in this folder explains how both were made.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
DATA_DIR = Path(__file__).parent / "data"

__all__ = ["DATA_DIR", "MODEL_DIR"]
