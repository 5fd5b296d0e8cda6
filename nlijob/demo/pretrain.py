"""Pretrains the demo's tiny Phi model, tokenizer included, on the unlabelled text of generate.py.

    python -m nlijob.demo.pretrain --out DIR

The text contains neither the prompt format of the demo's recipe nor the meaning of the label
tokens: the model learns both in fine-tuning. It uses a GPU if there is one (README.md says how long
it takes).
"""

import argparse
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from nlijob.demo.generate import documents, draw_splits

END_OF_TEXT = "<|endoftext|>"
IGNORED = -100
VOCABULARY_SIZE = 2048
TOKENIZER_DOCUMENTS = 20_000
SHOWN_EVERY = 250
"""Steps between two lines of output."""


@dataclass(frozen=True)
class Plan:
    """The sizes of one pretraining run; the defaults made the committed model."""

    documents: int = 600_000
    steps: int = 5_000
    rows_per_step: int = 256
    row_length: int = 160
    peak_lr: float = 2e-3
    warmup: float = 0.03
    weight_decay: float = 0.05
    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 4
    heads: int = 6
    seed: int = 20261121


def draw_texts(count: int, seed: int, unseen: frozenset[str]) -> list[str]:
    """Draw `count` documents without the premises in `unseen`, on all CPU cores."""
    shard_size = min(count, 2_000)
    shards = [(seed + 1 + index, shard_size, unseen) for index in range(count // shard_size)]
    with multiprocessing.get_context("fork").Pool() as pool:
        return [text for shard in pool.imap(_draw_shard, shards) for text in shard]


def _draw_shard(shard: tuple[int, int, frozenset[str]]) -> list[str]:
    seed, size, unseen = shard
    return list(islice(documents(seed, unseen), size))


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with an end-of-text token on the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def pack(token_lists: Sequence[Sequence[int]], row_length: int, end: int) -> Tensor:
    """Pack whole documents, each followed by `end`, into rows; pad the rows with `IGNORED`."""
    rows: list[list[int]] = [[]]
    for tokens in token_lists:
        closed = [*tokens, end][:row_length]
        if len(rows[-1]) + len(closed) > row_length:
            rows.append([])
        rows[-1].extend(closed)
    packed = torch.full((len(rows), row_length), IGNORED, dtype=torch.int16)
    for row, tokens in zip(packed, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int16)
    return packed


def build_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> PhiForCausalLM:
    """Return an untrained Phi model of the planned size."""
    end = tokenizer.eos_token_id
    config = PhiConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=plan.hidden_size,
        intermediate_size=plan.intermediate_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        partial_rotary_factor=0.5,
        max_position_embeddings=512,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    return PhiForCausalLM(config)


def learning_rate(plan: Plan, progress: float) -> float:
    """Return the rate at `progress` (0 to 1): a linear warm-up, then a cosine down to zero."""
    if progress < plan.warmup:
        return plan.peak_lr * progress / plan.warmup
    rest = (progress - plan.warmup) / (1 - plan.warmup)
    return plan.peak_lr * 0.5 * (1 + math.cos(math.pi * rest))


def batches(rows: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Yield batches of rows in shuffled passes without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, max(len(rows) - size, 0) + 1, size):
            yield rows[order[start : start + size]]


def language_loss(model: PhiForCausalLM, rows: Tensor, end: int) -> Tensor:
    """Return the mean cross-entropy of the next tokens, without padding."""
    ids = rows.long()
    logits = model(input_ids=ids.masked_fill(ids == IGNORED, end)).logits
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=IGNORED
    )


def train(model: PhiForCausalLM, rows: Tensor, plan: Plan, end: int) -> None:
    """Train the model in place for the planned steps; `end` is the end-of-text token."""
    device = model.device
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.95), weight_decay=plan.weight_decay
    )
    for step, batch in enumerate(islice(batches(rows, plan.rows_per_step, plan.seed), plan.steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step / plan.steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = language_loss(model, batch.to(device), end)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % SHOWN_EVERY == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


def pretrain(plan: Plan, out: Path) -> None:
    """Train a tokenizer and a model, and save both to the folder `out`."""
    torch.manual_seed(plan.seed)
    unseen = frozenset(row.premise for split in draw_splits().values() for row in split)
    texts = draw_texts(plan.documents, plan.seed, unseen)
    tokenizer = train_tokenizer(texts[:TOKENIZER_DOCUMENTS])
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts)
    rows = pack([encoding.ids for encoding in encodings], plan.row_length, tokenizer.eos_token_id)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(plan, tokenizer).to(device)
    print(f"{model.num_parameters()} parameters, {len(rows)} rows of {plan.row_length} tokens")
    train(model, rows, plan, tokenizer.eos_token_id)
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def read_plan(arguments: Sequence[str] | None = None) -> tuple[Plan, Path]:
    """Return the plan and the output folder from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nlijob.demo.pretrain")
    parser.add_argument("--out", type=Path, required=True)
    for name, default in vars(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args(arguments))
    out: Path = options.pop("out")
    return Plan(**options), out


if __name__ == "__main__":
    pretrain(*read_plan())
