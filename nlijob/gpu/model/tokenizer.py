"""Reads the model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from nlijob.config import JobConfig
from nlijob.errors import NotAvailableError


def read_tokenizer(config: JobConfig, model_dir: Path) -> Any:
    """Return the model's tokenizer, with a padding token."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    except (ValueError, OSError) as error:
        raise NotAvailableError(f"tokenizer of {config.model.name}: {error}") from error
    if tokenizer.pad_token_id is None:
        # Any token will do, because padded positions are never read.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer
