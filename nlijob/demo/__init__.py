"""The embedded demo: a tiny language model and a small NLI data set, for a laptop without a GPU.

`MODEL_DIR` is a folder that `AutoModelForCausalLM.from_pretrained` loads;
`DATA_DIR` holds train.jsonl, validation.jsonl and test.jsonl.
README.md beside this file says how both were made.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
DATA_DIR = Path(__file__).parent / "data"

__all__ = ["DATA_DIR", "MODEL_DIR"]
