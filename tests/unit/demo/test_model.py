"""The demo's committed model: it loads as a real Phi model, and it is small."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import nlijob.demo  # noqa: E402
from nlijob.demo import MODEL_DIR  # noqa: E402
from nlijob.demo.generate import draw_splits  # noqa: E402

PROMPT = "Text: {premise}\nClaim: {hypothesis}\nLabel:"
VERBALIZERS = (" 0", " 1", " 2")
SIZE_LIMIT = 6_000_000


def test_the_folder_loads_as_phi() -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    assert type(model).__name__ == "PhiForCausalLM"
    assert model.config.hidden_size % 64 == 0
    assert model.config.intermediate_size % 64 == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    assert model.config.vocab_size >= len(tokenizer)
    tokens = tokenizer("A man is reading a book.", return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=tokens["input_ids"]).logits
    assert torch.isfinite(logits).all()


def test_each_label_is_one_token_of_its_own_after_the_prompt() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    assert tokenizer.is_fast
    assert tokenizer.eos_token_id is not None
    for row in draw_splits(1, {"test": 20})["test"]:
        prompt = PROMPT.format(premise=row.premise, hypothesis=row.hypothesis)
        before = tokenizer(prompt)["input_ids"]
        after = [tokenizer(prompt + word)["input_ids"] for word in VERBALIZERS]
        assert all(tokens[:-1] == before for tokens in after)
        assert len({tokens[-1] for tokens in after}) == len(VERBALIZERS)


def test_the_demo_stays_small() -> None:
    folder = Path(nlijob.demo.__file__).parent
    files = [file for file in folder.rglob("*") if "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files if file.is_file()) < SIZE_LIMIT
