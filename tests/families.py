"""Tiny models with random weights of many families, and how each does in the job.

`python -m tools.model_table` writes the outcome of all of them to docs/models.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import processors
from torch import Tensor

from nlijob.analysis.outcome import build_results
from nlijob.config import JobConfig, load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.errors import ConfigurationError
from nlijob.gpu.checkpoints import set_trained_weights, trained_weights
from nlijob.gpu.engine import MAX_LOGITS_DIFFERENCE, Engine
from nlijob.gpu.environment import environment
from nlijob.gpu.fast.agreement import relative_difference
from nlijob.gpu.heads import Encoded, Head, head_class
from nlijob.gpu.model import LoadedModel, load, max_length, read_model_config, read_tokenizer
from nlijob.gpu.training import PlainTrainer, TrainingSchedule
from nlijob.heads import HeadName
from nlijob.records.job import Example
from nlijob.records.outcome import Results
from nlijob.report.snippet import usage_snippet
from tests.synthetic import Spec, build_run

CPU = torch.device("cpu")
VOCABULARY = 2048
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    **SPECIAL,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
XLNET = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""What encoders drop by their configurations' defaults would make each training step another one.
"""
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
ROWS = 6
MAX_DIFFERENCE = MAX_LOGITS_DIFFERENCE[torch.float32]
"""Relative difference that passes as rounding, for a job too."""
SPREAD = 0.2
"""Standard deviation of the weights; with the libraries' own, all answers are nearly the same."""
Marks = Literal["none", "ends", "both"]
"""Special tokens around the rows: none, an end after each text, or those of BERT."""


@dataclass(frozen=True)
class Family:
    """How to make a tiny model of a family."""

    name: str
    config: Callable[[], Any]
    saved_as: str = "AutoModelForCausalLM"
    """The class of transformers whose checkpoint it is."""
    marks: Marks = "none"
    types: bool = False
    """Whether the tokenizer tells premise and hypothesis apart by numbers (token_type_ids)."""
    drops: bool = False
    """Whether dropout of its own makes each training step another one."""


def family(name: str, kind: str, sizes: Mapping[str, Any] = GROUPED, **options: Any) -> Family:
    """A family from the name of its class of configurations and its sizes."""
    described = {f.name for f in dataclasses.fields(Family)}
    own = {key: options.pop(key) for key in list(options) if key in described}
    return Family(name, lambda: getattr(transformers, kind)(**{**sizes, **options}), **own)


def _encoder(
    name: str, kind: str, saved_as: str = "AutoModelForMaskedLM", **options: Any
) -> Family:
    sizes = SIZES | NO_DROPOUT
    return family(name, kind, sizes, saved_as=saved_as, marks="both", **options)


def _gemma3_that_sees() -> Any:
    text = transformers.Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=16)
    vision = transformers.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
    )
    return transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), mm_tokens_per_image=4, **SPECIAL
    )


FAMILIES: tuple[Family, ...] = (
    family("Llama", "LlamaConfig"),
    family("Mistral, sliding window", "MistralConfig", sliding_window=16),
    family("Qwen2, tied embeddings", "Qwen2Config", tie_word_embeddings=True),
    family("Qwen3", "Qwen3Config", head_dim=8),
    family("Gemma 2", "Gemma2Config", head_dim=8, sliding_window=16),
    family("Gemma 3, text", "Gemma3TextConfig", head_dim=8, sliding_window=16),
    Family("Gemma 3, with vision", _gemma3_that_sees, "Gemma3ForConditionalGeneration"),
    family("Phi", "PhiConfig", SIZES),
    family("Phi-3", "Phi3Config"),
    family("GPT-NeoX", "GPTNeoXConfig", SIZES),
    family("GPT-2", "GPT2Config", SIZES, n_inner=48, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0),
    family("OPT", "OPTConfig", SIZES, ffn_dim=48, word_embed_proj_dim=32, dropout=0.0),
    family("BLOOM", "BloomConfig", SIZES, n_layer=2, n_head=4),
    family("Falcon", "FalconConfig", SIZES, alibi=False, multi_query=True),
    family("StableLM", "StableLmConfig"),
    family("OLMo 2", "Olmo2Config"),
    family("SmolLM3", "SmolLM3Config"),
    family("Granite, attention dropout", "GraniteConfig", attention_dropout=0.1, drops=True),
    family("Cohere", "CohereConfig"),
    family("Mixtral", "MixtralConfig", **EXPERTS),
    family(
        "Qwen2-MoE",
        "Qwen2MoeConfig",
        moe_intermediate_size=48,
        shared_expert_intermediate_size=48,
        **EXPERTS,
    ),
    family("GPT-J", "GPTJConfig", SIZES, n_layer=2, n_head=4, n_embd=32, rotary_dim=4),
    family("MPT", "MptConfig", SIZES, d_model=32, n_heads=4, n_layers=2, max_seq_len=256),
    family("Starcoder2", "Starcoder2Config"),
    family(
        "DeepSeek-V2 (latent attention)",
        "DeepseekV2Config",
        SIZES,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        first_k_dense_replace=2,
        n_routed_experts=4,
        moe_intermediate_size=16,
    ),
    family(
        "Llama 4, text",
        "Llama4TextConfig",
        head_dim=8,
        intermediate_size_mlp=48,
        num_local_experts=4,
        interleave_moe_layer_step=2,
    ),
    family(
        "Jamba (attention and state space)",
        "JambaConfig",
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    family("Mamba", "MambaConfig", SIZES, state_size=4),
    family("Mamba 2", "Mamba2Config", SIZES, state_size=4, num_heads=8, head_dim=8, n_groups=1),
    family(
        "RecurrentGemma",
        "RecurrentGemmaConfig",
        lru_width=32,
        attention_window_size=16,
        head_dim=8,
        num_hidden_layers=3,
    ),
    family(
        "T5",
        "T5Config",
        SIZES,
        saved_as="T5ForConditionalGeneration",
        marks="ends",
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        eos_token_id=1,
        decoder_start_token_id=0,
    ),
    family(
        "BART",
        "BartConfig",
        SIZES,
        saved_as="BartForConditionalGeneration",
        marks="both",
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        eos_token_id=1,
        pad_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    ),
    _encoder("BERT", "BertConfig", types=True),
    _encoder("RoBERTa", "RobertaConfig", pad_token_id=1, max_position_embeddings=300),
    _encoder(
        "DeBERTa-v2",
        "DebertaV2Config",
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        types=True,
    ),
    _encoder(
        "ModernBERT, window",
        "ModernBertConfig",
        cls_token_id=0,
        sep_token_id=1,
        local_attention=16,
        layer_types=["full_attention", "sliding_attention"],
    ),
    _encoder(
        "ModernBERT, mean of tokens",
        "ModernBertConfig",
        cls_token_id=0,
        sep_token_id=1,
        classifier_pooling="mean",
    ),
    _encoder(
        "DistilBERT",
        "DistilBertConfig",
        dim=32,
        hidden_dim=48,
        n_layers=2,
        n_heads=4,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
    ),
    _encoder("XLM-R", "XLMRobertaConfig", pad_token_id=1, max_position_embeddings=300),
    _encoder("ELECTRA", "ElectraConfig", "ElectraForPreTraining", embedding_size=16, types=True),
    _encoder(
        "ALBERT, shared layers",
        "AlbertConfig",
        embedding_size=16,
        classifier_dropout_prob=0.0,
        types=True,
    ),
    _encoder("MPNet", "MPNetConfig", pad_token_id=1, max_position_embeddings=300),
    _encoder("Longformer", "LongformerConfig", attention_window=16),
    family("XLNet, no linear attention", "XLNetConfig", XLNET, saved_as="XLNetLMHeadModel"),
)
HEADS: tuple[HeadName, ...] = ("causal", "sequence-classification")


@dataclass(frozen=True)
class Outcome:
    """How a family does with a head."""

    refused: str = ""
    """Why it cannot be had, and what can; everything below is then empty."""
    targets: str = ""
    """What LoRA adapts: the modules found and how many of each."""
    unquantized: str = ""
    """The linear modules that are not held in 4 bits."""
    execution: str = ""
    """How rows are computed, and why not packed."""
    difference: float = 0.0
    """Largest relative difference of the logits to those of rows that are computed alone."""
    step: float = 0.0
    """Relative difference of the first step's gradient norm to the plain loop's."""
    usage: float = 0.0
    """Share of the rows for which the page's code gives the prediction of the job."""


PACKED = "packed"


@dataclass(frozen=True)
class Bench:
    """What all families share."""

    folder: Path
    """An empty folder for models."""
    examples: Sequence[Example]
    results: Results
    """Of any run; the code on the page is made from it."""


def outcome(family: Family, head: HeadName, bench: Bench) -> Outcome:
    """Make the model of a family, and do with it what a job does."""
    folder = bench.folder / family.name.replace(" ", "-")
    if not folder.exists():
        save_model(family, folder)
    config = job(folder, head)
    try:
        tokenizer = read_tokenizer(config, folder)
        loaded = load(config, folder, tokenizer, CPU)
    except ConfigurationError as error:
        return Outcome(refused=f"{error.message}; {error.hint}".replace(str(folder), "it"))
    longest = max_length(config.model, read_model_config(config, folder, tokenizer), tokenizer)
    asked = head_class(head)(tokenizer, config.prompt, longest, bench.examples, VOCABULARY)
    rows = asked.encode("train", bench.examples)
    _draw_adapter(loaded.model)
    alone = torch.cat([_plain(loaded, asked, [row]) for row in rows])
    plain_norm = _plain_step(config, loaded, asked, rows)
    engine = Engine(loaded, asked, config, rows)
    plan = engine.plan()
    scores = engine.forward()(rows)
    used = _by_usage_code(config, loaded, asked, bench)
    norm = next(engine.trainer().epoch(1)).grad_norm or 0.0
    own = asked.label_logits(scores).argmax(-1).tolist()
    return Outcome(
        targets=_targets(loaded.model),
        unquantized=", ".join(loaded.unquantized),
        execution=PACKED if plan.way == "packed" else _why_plain(plan.refused),
        difference=relative_difference(scores, alone),
        step=abs(norm - plain_norm) / plain_norm,
        usage=sum(a == b for a, b in zip(used, own, strict=True)) / len(own),
    )


def job(folder: Path, head: HeadName) -> JobConfig:
    """The demo's job on another model, with nothing else set."""
    return load_config(
        "demo",
        {
            "model.name": str(folder),
            "model.head": head,
            "model.device": "cpu",
            "lora.target_modules": "attention",
            "lora.dropout": 0.0,
            "train.batch_size": 2,
            **({"prompt.template": ""} if head != "causal" else {}),
        },
    )


def save_model(family: Family, folder: Path) -> None:
    """Write the model, with weights from a fixed seed, and its tokenizer."""
    torch.manual_seed(0)
    model_class: Any = getattr(transformers, family.saved_as)
    config = family.config()
    made = (
        model_class.from_config if family.saved_as.startswith("Auto") else model_class._from_config
    )
    model = made(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, SPREAD)
    model.save_pretrained(folder)
    _tokenizer(family, model.config).save_pretrained(folder)


def _tokenizer(family: Family, config: Any) -> Any:
    """The demo's tokenizer with the special tokens of a family."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    if family.marks == "none":
        return tokenizer
    end = tokenizer.convert_ids_to_tokens(1)
    begin = tokenizer.convert_ids_to_tokens(0)
    first = f"{begin} " if family.marks == "both" else ""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first}$A {end}",
        pair=f"{first}$A {end} $B:1 {end}:1",
        special_tokens=[(begin, 0), (end, 1)],
    )
    padding = config.get_text_config().pad_token_id
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    names = ["input_ids", "attention_mask", *["token_type_ids"] * family.types]
    tokenizer.model_input_names = names
    return tokenizer


@torch.no_grad()
def _draw_adapter(model: Any) -> None:
    """An adapter that has an effect; a new one adds nothing."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.normal_(0, SPREAD)


@torch.no_grad()
def _plain(loaded: LoadedModel, head: Head, rows: Sequence[Encoded]) -> Tensor:
    return head.logits(loaded.model.eval(), head.collate(rows, CPU))


def _plain_step(
    config: JobConfig, loaded: LoadedModel, head: Head, rows: Sequence[Encoded]
) -> float:
    """The gradient norm of the plain loop's first step, which is then undone."""
    before = {n: w.detach().clone() for n, w in trained_weights(loaded.model).items()}
    trainer = PlainTrainer(loaded, head, TrainingSchedule(config.train, rows))
    norm = next(trainer.epoch(1)).grad_norm or 0.0
    set_trained_weights(loaded.model, before)
    return norm


def _why_plain(refused: Sequence[str]) -> str:
    """Why rows are not packed, without what depends on the rows that were tried."""
    first = next(text for text in refused if ", fused layers: " not in text)
    why = first.rpartition("micro-batch of")[2].partition(": ")[2]
    known = why.startswith(("the model ", "the model's ", "rows of a pack "))
    why = re.sub(r" of \d+ tokens$", "", why)
    return f"in batches: {why if known else 'its code does not take packed rows'}"


def _targets(model: Any) -> str:
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    counts = Counter(name.rpartition(".")[2] for name in adapted)
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _by_usage_code(config: JobConfig, loaded: LoadedModel, head: Head, bench: Bench) -> list[int]:
    """Labels of the rows by the code that the page shows, with the adapter read from disk."""
    results = dataclasses.replace(
        bench.results,
        run=dataclasses.replace(bench.results.run, config=config),
        environment=environment(loaded),
        prompt=dataclasses.replace(
            bench.results.prompt,
            template=head.prompt.template,
            label_tokens=head.label_tokens,
            answer_start=head.prompt.answer_start,
            tokens_before=head.prompt.tokens_before,
            is_chat=head.prompt.is_chat,
        ),
    )
    adapter = bench.folder / "adapter"
    loaded.model.save_pretrained(adapter, save_embedding_layers=False)
    code = usage_snippet(results).replace('"adapter"', repr(str(adapter)))
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "usage", "exec"), names)
    labels = list(config.data.label_names)
    return [labels.index(names["predict"](e.premise, e.hypothesis)) for e in bench.examples]


def new_bench(folder: Path) -> Bench:
    """What all families share, made in an empty folder."""
    rows = read_file(DATA_DIR / "validation.jsonl").rows
    labelled = [(i, row) for i, row in enumerate(rows) if row["label"] >= 0]
    examples = [Example(i, r["premise"], r["hypothesis"], r["label"]) for i, r in labelled[:ROWS]]
    results = build_results(build_run(folder / "run", Spec(samples=False)))
    return Bench(folder, examples, results)


def line(family: Family, head: HeadName, found: Outcome) -> str:
    """The outcome as a line of the table in docs/models.md; agreement is stated by its bounds."""
    cells = [family.name, f"`{head}`"]
    if found.refused:
        cells += [found.refused.replace("|", "\\|"), "", "", ""]
    else:
        bound = f"{MAX_DIFFERENCE:.1%}".replace("%", " %")
        agrees = found.difference <= MAX_DIFFERENCE and found.usage == 1
        packed = found.execution == PACKED and found.step <= MAX_DIFFERENCE
        same = f"logits{' and gradient' if packed else ''} within {bound}, same predictions"
        cells += [found.targets, found.unquantized or "all", found.execution]
        cells += [same if agrees else "**differs**"]
    return f"| {' | '.join(cells)} |"
