"""Tiny encoders with a classification head, and their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from nlijob.config import JobConfig
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel, add_adapter

SIZES: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_labels": 3,
}
DISTILBERT: dict[str, Any] = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
SPREAD = 0.2
"""Standard deviation of the weights; with the libraries' own, all answers are nearly the same."""
PADDING = 1
"""Number of RoBERTa's padding token, behind which its positions are counted."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """How to make a tiny encoder."""

    name: str
    """Name of its classes in transformers, such as "Bert"."""
    targets: tuple[str, ...] = ("query", "value")
    heads: tuple[str, ...] = ("classifier",)
    """The modules that are trained in full."""
    has_types: bool = False
    """Whether its rows have token types."""
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def model(self, dropout: float) -> Any:
        """The model with random weights from a fixed seed."""
        torch.manual_seed(0)
        config = getattr(transformers, f"{self.name}Config")(**{**SIZES, **self.sizes})
        for key in vars(config) if dropout >= 0 else ():
            if "drop" in key and isinstance(getattr(config, key), float):
                setattr(config, key, dropout)
        model = getattr(transformers, f"{self.name}ForSequenceClassification")(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, SPREAD)
        return model


MODERN = {"pad_token_id": 0, "cls_token_id": 0, "sep_token_id": 0, "eos_token_id": 0}
KINDS = {
    "BERT": Kind("Bert", heads=("classifier", "bert.pooler"), has_types=True),
    "RoBERTa": Kind("Roberta", sizes={"pad_token_id": PADDING}),
    "ELECTRA": Kind("Electra", has_types=True, sizes={"embedding_size": 16}),
    "DistilBERT": Kind(
        "DistilBert", ("q_lin", "v_lin"), ("pre_classifier", "classifier"), sizes=DISTILBERT
    ),
    "ALBERT": Kind("Albert", has_types=True, sizes={"embedding_size": 16}),
    "ModernBERT, window": Kind(
        "ModernBert",
        ("Wqkv", "Wo"),
        ("head", "classifier"),
        sizes={
            **MODERN,
            "local_attention": 8,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "ModernBERT, mean": Kind(
        "ModernBert",
        ("Wqkv",),
        ("head", "classifier"),
        sizes={**MODERN, "classifier_pooling": "mean"},
    ),
}


def encoder(kind: Kind, demo: JobConfig, tokenizer: Any, dropout: float = 0.0) -> LoadedModel:
    """The model with an adapter that has an effect, not quantised.

    `dropout`: of the model and its attention.
    """
    model_config = dataclasses.replace(demo.model, head="sequence-classification")
    lora = dataclasses.replace(demo.lora, target_modules=kind.targets)
    config = dataclasses.replace(demo, model=model_config, lora=lora)
    model = kind.model(dropout)
    adapted = add_adapter(config, model, kind.heads, kind.targets)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, SPREAD)
    return LoadedModel(adapted, tokenizer, torch.device("cpu"), torch.float32, 128)


def with_types(rows: Sequence[Encoded]) -> list[Encoded]:
    """The rows with types: 1 for the tokens of each row's second half."""
    return [
        dataclasses.replace(
            row,
            features={
                **row.features,
                "token_type_ids": [int(2 * i >= row.length) for i in range(row.length)],
            },
        )
        for row in rows
    ]
