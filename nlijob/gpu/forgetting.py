"""The loss of a language model on general text, whatever prompt and labels it was tuned on.

The model is used as it is. Layers that were replaced by faster ones compute unpacked text too, with
the adapter's weights as they were when rows were last scored.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads.special_tokens import added_tokens
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.model.attention import WITHOUT_PLANS
from nlijob.gpu.out_of_memory import free_memory, in_halves
from nlijob.memory import is_out_of_memory
from nlijob.records.forgetting import GeneralText, TextLoss

MOST_TOKENS = 256
"""Tokens that are read of a text."""
LOGITS_AT_ONCE = {"cuda": 2**27, "cpu": 2**23}
"""Most logits of a batch by device, 256 MiB in 16 bits on a GPU. All tokens of a text have logits
here, each as many as the vocabulary has tokens. A CPU is faster with what fits into its caches."""
LOOKED_AT = 12
"""Tokens of the text on which influences between rows are looked for."""


class Tokens(NamedTuple):
    """A text as model input."""

    text: int
    """The text's number."""
    ids: tuple[int, ...]


def encode_texts(loaded: LoadedModel, texts: Sequence[GeneralText]) -> list[Tokens]:
    """The beginning of each text as tokens; what the tokenizer adds at a text's end is left out.

    Texts of fewer than two tokens are left out, as nothing is predicted in them, and so are texts
    with a token that the model has no embedding for.
    """
    if not texts:
        return []
    tokenizer = loaded.tokenizer
    rows = tokenizer([text.content for text in texts])["input_ids"]
    behind = added_tokens(tokenizer).after
    longest = min(MOST_TOKENS, loaded.max_length)
    known = _vocabulary(loaded)
    encoded = []
    for text, row in zip(texts, rows, strict=True):
        whole = row[: -len(behind)] if behind and tuple(row[-len(behind) :]) == behind else row
        ids = tuple(whole[:longest])
        if len(ids) > 1 and max(ids) < known:
            encoded.append(Tokens(text.text, ids))
    return encoded


@torch.no_grad()
def text_losses(
    loaded: LoadedModel,
    texts: Sequence[Tokens],
    on_batch: Callable[[int], object] = lambda _: None,
    group: Group = ALONE,
) -> list[TextLoss]:
    """The loss of the model as it is now on each text, in the order of `texts`.

    Each token but the first is predicted from those before it. Batches depend on the texts alone,
    so that two models are measured with the same arithmetic; where memory runs out, they are
    halved, and a text that does not fit alone is not measured. `on_batch` is called after each
    batch with the number of texts done so far. The processes of a group share the batches, unless
    they work in step: each then does all of them.
    """
    loaded.model.eval()
    measure = functools.partial(_losses_or_none, loaded)
    with sdpa_kernel(WITHOUT_PLANS):
        losses: dict[int, float] = {}
        batches = _batches(loaded, texts)
        for batch in batches if group.in_step else batches[group.rank :: group.size]:
            if group.in_step:  # halves would be passes that the others do not make
                losses |= _batch_losses(loaded, batch)
            else:
                for part in in_halves(measure, batch):
                    losses |= part
            on_batch(len(losses))
    for own in group.gather(losses):
        losses |= own
    return [
        TextLoss(one.text, len(one.ids) - 1, loss if math.isfinite(loss) else None)
        for one in texts
        for loss in [losses[one.text]]
    ]


def _batches(loaded: LoadedModel, texts: Sequence[Tokens]) -> list[list[Tokens]]:
    """The texts by length, in batches whose logits are not too many; alone where they must be."""
    ordered = sorted(texts, key=lambda one: len(one.ids))
    if len(ordered) > 1 and not _are_independent(loaded, ordered[0], ordered[-1]):
        return [[one] for one in ordered]
    most = max(1, LOGITS_AT_ONCE[loaded.device.type] // _vocabulary(loaded))
    batches: list[list[Tokens]] = []
    for one in ordered:
        if not batches or (len(batches[-1]) + 1) * len(one.ids) > most:
            batches.append([])
        batches[-1].append(one)
    return batches


def _losses_or_none(loaded: LoadedModel, texts: Sequence[Tokens]) -> dict[int, float]:
    """As `_batch_losses`; not a number for a single text that does not fit into memory.

    Rows need less, as they have logits at one token only: the job can go on without the text.
    """
    try:
        return _batch_losses(loaded, texts)
    except Exception as error:
        if len(texts) > 1 or not is_out_of_memory(error):
            raise
    free_memory()
    return {texts[0].text: math.nan}


def _batch_losses(loaded: LoadedModel, texts: Sequence[Tokens]) -> dict[int, float]:
    """Text -> its mean loss in nats, of texts side by side."""
    ids = _padded(texts).to(loaded.device)
    logits = _logits(loaded, ids)
    losses = []
    for row, one in enumerate(texts):  # one at a time, as they are needed in float32
        last = len(one.ids) - 1
        predicted = logits[row, :last].float()
        losses.append(functional.cross_entropy(predicted, ids[row, 1 : last + 1]))
    return dict(zip((one.text for one in texts), torch.stack(losses).tolist(), strict=True))


def _are_independent(loaded: LoadedModel, text: Tokens, other: Tokens) -> bool:
    """Whether neither the padding behind a text nor another row has a part in its logits.

    It has one in layers that mix tokens other than by attention to earlier ones. Such a part shows
    when only what stands beside the text changes: its logits are the same to the last bit if
    nothing of that reaches them.
    """
    own = text.ids[:LOOKED_AT]
    beside = other.ids[-2 * LOOKED_AT :]
    rows = [own + beside, beside + own], [own + beside[::-1], beside[::-1] + own]
    first, second = (_logits(loaded, torch.tensor(both).to(loaded.device)) for both in rows)
    return torch.equal(first[0, : len(own)], second[0, : len(own)])


def _padded(texts: Sequence[Tokens]) -> Tensor:
    """The texts as token ids [rows, tokens], padded on the right, where no text sees it."""
    longest = max(len(one.ids) for one in texts)
    return torch.tensor([one.ids + one.ids[:1] * (longest - len(one.ids)) for one in texts])


def _logits(loaded: LoadedModel, ids: Tensor) -> Tensor:
    """Logits [rows, tokens, vocabulary] of token ids [rows, tokens]."""
    logits: Tensor = loaded.model(input_ids=ids, use_cache=False).logits
    return logits


def _vocabulary(loaded: LoadedModel) -> int:
    """Number of tokens that the model has embeddings for."""
    embedding: Any = loaded.model.get_input_embeddings()
    return len(next(embedding.parameters()))
