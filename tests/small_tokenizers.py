"""Small tokenizers of the kinds that language models have, trained on a few sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Text: a man is running in the park\nClaim: a person runs\nLabel: 0 1 2 3 4 5 6 7 8 9",
    "Say 0 for entailment, 1 for neutral, 2 for contradiction. entailment neutral contradiction",
    "<|user|> <|assistant|> A B C D E F G H I J K L M Answer: A Answer: B Answer: C",
] * 20
SPECIAL = ("<unk>", "<s>", "</s>")


def byte_level(splits_digits: bool = False, **options: Any) -> Any:
    """Byte-level BPE, as GPT-2 and Llama 3 have; with or without a token for " 0"."""
    made = Tokenizer(models.BPE())
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, byte]) if splits_digits else byte
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _finished(made, trainers.BpeTrainer, 800, alphabet, **options)


def sentence_piece(**options: Any) -> Any:
    """Pieces with a blank before each word, also before the first, as Llama 2 has."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace()
    return _finished(made, trainers.BpeTrainer, 400, [], **options)


def word_pieces(**options: Any) -> Any:
    """Words and their pieces, as BERT has: white space is not part of any token."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return _finished(made, trainers.WordPieceTrainer, 400, [], **options)


def characters(**options: Any) -> Any:
    """One token a character."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.decoder = decoders.Fuse()
    alphabet = sorted(set("".join(TEXTS)))
    return _finished(made, trainers.BpeTrainer, len(SPECIAL) + len(alphabet), alphabet, **options)


def _finished(
    made: Tokenizer,
    trainer: Any,
    size: int,
    alphabet: Sequence[str],
    *,
    around: str = "",
    chat_template: str | None = None,
) -> Any:
    """Train, and wrap. `around`: what is added to a text, such as "<s> $A </s>"."""
    made.train_from_iterator(
        TEXTS,
        trainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            initial_alphabet=list(alphabet),
            show_progress=False,
        ),
    )
    if around:
        ids = [(token, SPECIAL.index(token)) for token in SPECIAL]
        made.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.pad_token = "<unk>"
    tokenizer.chat_template = chat_template
    return tokenizer
