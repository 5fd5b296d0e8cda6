"""Reads the model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from nlijob.config import JobConfig
from nlijob.errors import NotAvailableError, first_line
from nlijob.gpu.model.configuration import unsupported


def read_tokenizer(config: JobConfig, model_dir: Path) -> Any:
    """Return the model's tokenizer, with a padding token that the model has.

    Raises NotAvailableError if it cannot be read.
    """
    trusted = config.model.trust_remote_code
    try:
        model_config = transformers.AutoConfig.from_pretrained(model_dir, trust_remote_code=trusted)
    except Exception as error:  # the library's checks of a configuration raise errors of any kind
        raise unsupported(config, model_dir, error) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir, trust_remote_code=trusted)
    except Exception as error:  # of many kinds, from the libraries that read its files
        raise NotAvailableError(
            f"tokenizer of {config.model.name} cannot be read: {first_line(error)}",
            f"the model's folder is {model_dir}",
        ) from error
    _set_padding(tokenizer, model_config.get_text_config())
    return tokenizer


def vocabulary_size(model_config: Any) -> int | None:
    """How many tokens the model has embeddings for; None if its configuration does not say."""
    size = getattr(model_config.get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) else None


def _set_padding(tokenizer: Any, text_config: Any) -> None:
    """Give the tokenizer a padding token that the model has an embedding for.

    Padded positions are never read, so any token will do. But some models find the end of a row by
    the token that their configuration names, so that one comes first.
    """
    size = vocabulary_size(text_config)
    candidates = (
        tokenizer.pad_token_id,
        getattr(text_config, "pad_token_id", None),
        tokenizer.eos_token_id,
        0,
    )
    for token in candidates:
        if not isinstance(token, int) or token < 0 or (size is not None and token >= size):
            continue
        text = tokenizer.convert_ids_to_tokens(token)
        if text is not None:
            tokenizer.pad_token = text
            return
