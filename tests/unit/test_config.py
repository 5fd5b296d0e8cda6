"""How recipes and options become a configuration, with all faults reported at once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from nlijob.config import load_config, parse_assignment
from nlijob.errors import ConfigurationError
from nlijob.recipe import recipe_names

ATTENTION = ("q_proj", "k_proj", "v_proj", "dense")
Q_V_AND_MLP = ("q_proj", "v_proj", "fc1", "fc2")


def fault(recipe: str | Path = "demo", **overrides: Any) -> str:
    """The message for a recipe with "section__key" overrides."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    with pytest.raises(ConfigurationError) as caught:
        load_config(str(recipe), dotted)
    return caught.value.message


def recipe_file(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- the recipes that come with it


def test_the_built_in_recipes_are_the_known_ones() -> None:
    own = ["anli", "demo", "multinli", "phi2", "xnli"]
    assert recipe_names() == sorted([*own, *(f"reference-{n}" for n in range(5))])


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_is_valid_and_described(name: str) -> None:
    assert load_config(name).description


@pytest.mark.parametrize("name", [n for n in recipe_names() if n != "demo"])
def test_every_other_recipe_pins_model_and_data(name: str) -> None:
    config = load_config(name)
    revisions = (config.data.revision, config.model.revision)
    assert all(re.fullmatch("[0-9a-f]{40}", revision or "") for revision in revisions)


@pytest.mark.parametrize("name", ["anli", "multinli", "xnli"])
def test_a_recipe_for_other_data_differs_from_phi2_in_these_alone(name: str) -> None:
    ours, phi2 = load_config(name), load_config("phi2")
    assert ours.data.dataset != phi2.data.dataset
    assert ours.data.revision != phi2.data.revision
    same = dataclasses.replace(ours, data=phi2.data, description=phi2.description)
    assert same == phi2


@pytest.mark.parametrize("name", ["phi2", *(f"reference-{n}" for n in range(5))])
def test_phi2_and_the_reference_runs_share_model_data_and_epochs(name: str) -> None:
    config = load_config(name)
    data, model = config.data, config.model
    assert (data.dataset, data.config_name) == ("stanfordnlp/snli", "plain_text")
    assert (data.train_stride, data.validation_stride, data.test_stride) == (550, 100, 100)
    assert (data.train_size, data.validation_size, data.test_size) == (None, None, None)
    assert (model.name, model.quantization, model.requires_gpu) == ("microsoft/phi-2", "nf4", True)
    assert config.train.epochs == 5


@pytest.mark.parametrize(
    ("name", "head", "r", "alpha", "targets"),
    [
        ("phi2", "causal", 32, 64, "attention"),
        ("reference-0", "causal", 16, 16, Q_V_AND_MLP),
        ("reference-1", "causal", 32, 32, ATTENTION),
        ("reference-2", "causal", 32, 32, ATTENTION),
        ("reference-3", "causal", 32, 64, ("q_proj", "k_proj", "v_proj", "lm_head")),
        ("reference-4", "sequence-classification", 16, 16, Q_V_AND_MLP),
    ],
)
def test_head_and_adapter_of_each_recipe(
    name: str, head: str, r: int, alpha: int, targets: str | tuple[str, ...]
) -> None:
    config = load_config(name)
    lora = config.lora
    assert (config.model.head, lora.r, lora.alpha) == (head, r, alpha)
    assert lora.target_modules == targets


@pytest.mark.parametrize("name", [f"reference-{n}" for n in range(4)])
def test_reference_recipes_answer_with_a_number(name: str) -> None:
    assert load_config(name).prompt.verbalizers == (" 0", " 1", " 2")


def test_reference_2_trains_as_that_run_did() -> None:
    config = load_config("reference-2")
    train = config.train
    assert (train.batch_size, train.gradient_checkpointing, train.max_grad_norm) == (1, True, 1.0)
    assert (config.model.compute_dtype, config.lora.dropout) == ("float16", 0.05)


@pytest.mark.parametrize(
    "words",
    [
        'premise "{premise}"',
        'hypothesis "{hypothesis}"',
        "does the premise entail the hypothesis?",
        *("0 means", "1 means", "2 means", "the number alone"),
    ],
)
def test_reference_2_asks_as_that_run_did(words: str) -> None:
    assert words in load_config("reference-2").prompt.template


def test_reference_3_trains_as_that_run_did() -> None:
    config = load_config("reference-3")
    assert (config.train.batch_size, config.train.learning_rate) == (8, 2.5e-5)
    assert config.lora.dropout == 0.05


# ---------------------------------------------------------------- extends


def test_a_recipes_own_keys_win_over_those_it_extends(tmp_path: Path) -> None:
    mine = recipe_file(tmp_path, 'extends = "demo"\n[lora]\nr = 3\n')
    config, base = load_config(str(mine)), load_config("demo")
    assert config.lora.r == 3
    assert config.lora.alpha == base.lora.alpha
    assert config.prompt == base.prompt


def test_a_size_replaces_the_stride_of_the_recipe_extended(tmp_path: Path) -> None:
    mine = recipe_file(tmp_path, 'extends = "phi2"\n[data]\ntrain_size = 9\n')
    data = load_config(str(mine)).data
    assert (data.train_size, data.train_stride) == (9, None)
    assert data.test_stride == 100


def test_a_recipe_that_gives_size_and_stride_of_a_split_is_refused(tmp_path: Path) -> None:
    mine = recipe_file(tmp_path, 'extends = "phi2"\n[data]\ntrain_size = 9\ntrain_stride = 9\n')
    assert fault(mine) == "data.train_stride, data.train_size: give exactly one of the two"


def test_a_recipe_may_extend_a_file_in_its_folder(tmp_path: Path) -> None:
    recipe_file(tmp_path, 'extends = "demo"\n[lora]\nr = 3\n', "base.toml")
    mine = recipe_file(tmp_path, 'extends = "base.toml"\n[lora]\nalpha = 5\n')
    lora = load_config(str(mine)).lora
    assert (lora.r, lora.alpha) == (3, 5)


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    one = recipe_file(tmp_path, 'extends = "two.toml"\n', "one.toml")
    recipe_file(tmp_path, 'extends = "one.toml"\n', "two.toml")
    assert "extends itself" in fault(one)


# ---------------------------------------------------------------- files and names


def test_an_unknown_recipe_is_reported_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config("ph2")
    assert "phi2, reference-0" in caught.value.message
    assert caught.value.hint == "did you mean 'phi2'?"


def test_a_missing_recipe_file_is_reported() -> None:
    assert fault("nowhere.toml") == "recipe file 'nowhere.toml' does not exist"


@pytest.mark.parametrize("content", [b"[lora\n", b"description = '\xe9'\n"])
def test_a_file_that_is_not_toml_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    assert "mine.toml: not valid TOML" in fault(path)


def test_a_recipe_without_a_data_set_is_reported(tmp_path: Path) -> None:
    mine = recipe_file(tmp_path, '[model]\nname = "demo"\n[data]\ntrain_size = 1\n')
    assert "data.dataset: missing" in fault(mine)


# ---------------------------------------------------------------- options


def test_an_override_wins_over_the_recipe() -> None:
    assert load_config("demo", {"lora.r": 4}).lora.r == 4


@pytest.mark.parametrize(
    ("key", "other"), [("test_size", "test_stride"), ("test_stride", "test_size")]
)
def test_a_size_as_option_replaces_a_stride_and_the_reverse(
    tmp_path: Path, key: str, other: str
) -> None:
    mine = recipe_file(tmp_path, f'extends = "demo"\n[data]\n{other} = 7\n')
    data = load_config(str(mine), {f"data.{key}": 3}).data
    assert (getattr(data, key), getattr(data, other)) == (3, None)


def test_a_size_leaves_the_other_splits_alone() -> None:
    data = load_config("phi2", {"data.train_size": 7}).data
    assert (data.train_size, data.validation_stride, data.test_stride) == (7, 100, 100)


def test_an_override_of_an_unknown_section_is_reported() -> None:
    assert fault(trian__epochs=3) == "trian: unknown key; did you mean 'train'?"


def test_an_override_inside_a_plain_value_is_reported() -> None:
    assert fault(description__x=3) == "description.x: description is not a section"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b = 3e-4", 3e-4),
        ("a.b=true", True),
        ("a.b=['x', 'y']", ["x", "y"]),
        ("a.b={x = 1}", {"x": 1}),
        ("a.b=plain words", "plain words"),
        ("a.b='quoted'", "quoted"),
        ("a.b=x=y", "x=y"),
        ("a.b=", ""),
    ],
)
def test_an_assigned_value_is_read_as_toml_or_else_as_text(text: str, value: Any) -> None:
    assert parse_assignment(text) == ("a.b", value)


@pytest.mark.parametrize("text", ["a.b", "a=1", "a.b.c=1"])
def test_a_malformed_assignment_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected section\.key=value"):
        parse_assignment(text)


# ---------------------------------------------------------------- faults


def test_all_faults_are_reported_at_once() -> None:
    message = fault(
        lora__r=0, train__epochs=-1, train__seed="x", model__nme="x", report__min_gain=50
    )
    assert message.startswith("5 faults in the configuration:")
    for text in (
        "lora.r: 0 is below 1",
        "train.epochs: -1 is below 1",
        "train.seed: expected a whole number, got 'x'",
        "model.nme: unknown key; did you mean 'name'?",
        "report.min_gain: 50.0 is not in [-1, 1]; give a fraction, not a percentage",
    ):
        assert f"  - {text}" in message


def test_a_value_of_the_wrong_type_is_reported_once() -> None:
    assert fault(data__train_size="many") == "data.train_size: expected a whole number, got 'many'"
    assert fault(prompt__verbalizers=3) == "prompt.verbalizers: expected 'auto' or a list, got 3"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("data.train_stride", 0, "0 is below 1"),
        ("data.train_size", -1, "-1 is below 0"),
        ("data.label_names", ["yes"], "at least two labels"),
        ("data.label_names", ["yes", "yes", "no"], "names must differ"),
        ("data.label_map", {"x": 3}, "3 is not a label number (-1 to 2)"),
        ("data.label_map", {"x": -2}, "-2 is not a label number"),
        ("model.head", "generative", "is none of 'causal', 'sequence-classification'"),
        ("model.max_length", 0, "0 is below 1"),
        ("model.residual_dropout", 1.0, "1.0 is not in [0, 1)"),
        ("prompt.template", "", "the causal head needs one"),
        ("prompt.template", "{premise}", "{hypothesis} is missing"),
        ("prompt.template", "{premise} {hypothesis} {label}", "{label} is unknown"),
        ("prompt.template", "{premise} {hypothesis} {}", "{} is unknown"),
        ("prompt.template", "{premise} {hypothesis} {", "write {{ and }} for literal braces"),
        ("prompt.verbalizers", [" 0", " 1"], "2 given for 3 labels"),
        ("prompt.verbalizers", [" 0", " 1", " 1"], "two labels share a verbalizer"),
        ("prompt.verbalizers", "digits", "expected 'auto' or a list, got 'digits'"),
        ("prompt.verbalizers", [], "0 given for 3 labels"),
        ("prompt.chat", "yes", "is none of 'auto', 'never', 'always'"),
        ("model.too_long", "cut", "is none of 'error', 'drop'"),
        ("lora.dropout", 1.0, "1.0 is not in [0, 1)"),
        ("lora.alpha", 0, "0 is below 1"),
        ("lora.target_modules", [], "name at least one module"),
        ("lora.target_modules", "", "name at least one module"),
        ("lora.target_modules", "layers.(", "is not a regular expression"),
        ("train.batch_size", 0, "0 is below 1"),
        ("train.learning_rate", 0.0, "0.0 is not above 0"),
        ("train.learning_rate", float("nan"), "expected a number, got nan"),
        ("train.learning_rate", float("inf"), "expected a number, got inf"),
        ("train.weight_decay", -0.1, "-0.1 is below 0"),
        ("train.checkpoint_every_s", -1, "-1.0 is below 0"),
        ("train.micro_batch_size", 3, "3 does not divide train.batch_size 8"),
        ("train.warmup_ratio", 1.5, "1.5 is not in [0, 1)"),
        ("train.max_grad_norm", 0, "0.0 is not above 0"),
        ("eval.batch_size", 0, "0 is below 1"),
        ("eval.cases", 4, "4 is below 5"),
        ("eval.generate_tokens", -1, "-1 is below 0"),
        ("report.sample_interval_s", 0, "0.0 is not above 0"),
        ("report.min_accuracy", 75, "75.0 is not in [0, 1]; give a fraction, not a percentage"),
    ],
)
def test_an_invalid_value_is_reported_with_its_key(key: str, value: Any, text: str) -> None:
    message = fault(**{key.replace(".", "__"): value})
    assert key in message
    assert text in message


def test_a_split_with_neither_size_nor_stride_is_a_fault(tmp_path: Path) -> None:
    mine = recipe_file(
        tmp_path,
        '[model]\nname = "demo"\nhead = "sequence-classification"\n'
        '[data]\ndataset = "demo"\ntrain_size = 1\ntest_size = 1\n',
    )
    expected = "data.validation_stride, data.validation_size: give exactly one of the two"
    assert fault(mine) == expected


def test_float16_on_the_cpu_is_refused() -> None:
    assert "float16 does not train on a CPU" in fault(
        model__device="cpu", model__compute_dtype="float16"
    )


def test_classification_needs_neither_template_nor_verbalizers() -> None:
    config = load_config(
        "demo",
        {"model.head": "sequence-classification", "prompt.template": "", "prompt.verbalizers": []},
    )
    assert config.prompt.template == ""


def test_a_chat_template_needs_a_prompt_to_put_into_it() -> None:
    message = fault(
        model__head="sequence-classification", prompt__template="", prompt__chat="always"
    )
    assert message == "prompt.chat: there is no prompt.template to put into the chat template"


@pytest.mark.parametrize("start", ["{{}}", "{answers}"])
def test_a_template_may_contain_literal_braces_and_the_answers(start: str) -> None:
    template = start + " {premise} {hypothesis}"
    assert load_config("demo", {"prompt.template": template}).prompt.template == template


# ---------------------------------------------------------------- reading


def test_value_returns_sections_and_single_values() -> None:
    config = load_config("demo")
    assert config.value("eval.batch_size") == config.eval.batch_size
    assert config.value("lora") == {
        "r": config.lora.r,
        "alpha": config.lora.alpha,
        "dropout": config.lora.dropout,
        "target_modules": config.lora.target_modules,
    }


@pytest.mark.parametrize("spelling", ["two.toml", "./two.toml", "sub/../two.toml"])
def test_a_circle_is_found_however_the_files_are_named(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "sub").mkdir()
    one = recipe_file(tmp_path, f'extends = "{spelling}"\n', "one.toml")
    recipe_file(tmp_path, 'extends = "./sub/../one.toml"\n', "two.toml")
    assert "extends itself" in fault(one)


@pytest.mark.parametrize("outside", ["../base.toml", "sub/../../base.toml", "/etc/base.toml"])
def test_a_recipe_extends_no_file_outside_its_folder(tmp_path: Path, outside: str) -> None:
    recipe_file(tmp_path, 'extends = "demo"\n', "base.toml")
    folder = tmp_path / "mine"
    folder.mkdir()
    mine = recipe_file(folder, f'extends = "{outside}"\n')
    assert f"{outside!r} is outside the recipe's folder" in fault(mine)


def test_what_is_no_file_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    (tmp_path / "circle.toml").symlink_to("circle.toml")
    for name in ("folder", "device", "circle"):
        assert "is not a file" in fault(tmp_path / f"{name}.toml")
    assert "does not exist" in fault(f"{'x' * 300}.toml")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("extends = 3\n", "expected the name of a recipe or a file, got 3"),
        ("x = " + "[" * 9999, "not valid TOML"),
        ("x = " + "9" * 9999, "not valid TOML"),
        ("#" * 1_000_001, "larger than 1000 kB"),
    ],
)
def test_a_recipe_that_cannot_be_one_is_told(tmp_path: Path, content: str, text: str) -> None:
    assert text in fault(recipe_file(tmp_path, content))


def test_a_number_of_too_many_digits_is_told() -> None:
    key, value = parse_assignment(f"train.seed={'9' * 9999}")
    with pytest.raises(ConfigurationError, match=r"train\.seed: expected a whole number"):
        load_config("demo", {key: value})


def test_a_name_that_is_not_utf_8_is_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config("demo", {"data.dataset": "/data/caf\udce9"})
    assert caught.value.message == r'data.dataset: "/data/caf\udce9" is not UTF-8; rename it'
