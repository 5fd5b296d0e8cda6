"""The settings of a search: how they are given, which are refused, and what follows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from nlijob.config import JobConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.fingerprints import stage_inputs
from nlijob.records.job import RunRecord
from nlijob.records.search import Winner
from nlijob.records.serialization import from_json
from nlijob.space import parse_sweep
from nlijob.stages import SEARCH
from nlijob.sweep import candidate_inputs, combinations, is_of_search, resolved
from nlijob.trials import stages_of

STAMPS = {"data": "rows", "model": "weights"}


def searched(*texts: str, **more: Any) -> JobConfig:
    values = {key.replace("__", "."): value for key, value in more.items()}
    return load_config("demo", {"sweep.space": dict(map(parse_sweep, texts)), **values})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lora.r=8,16,32", (8, 16, 32)),
        ("lora.r = [8, 16]", (8, 16)),
        ("train.learning_rate=1e-4, 3e-4", (1e-4, 3e-4)),
        ("train.schedule=linear,cosine", ("linear", "cosine")),
        ("lora.target_modules=attention,all-linear", ("attention", "all-linear")),
        ("train.learning_rate=1e-5..1e-3:log", "1e-5..1e-3:log"),
        ("lora.dropout=0..0.2", "0..0.2"),
    ],
)
def test_values_are_a_list_or_a_range(text: str, values: object) -> None:
    key, found = parse_sweep(text)
    assert found == values
    assert searched(text, sweep__trials=3).sweep.space == {key: values}


@pytest.mark.parametrize("text", ["lora.r", "r=8,16", "lora.r=", "=1,2"])
def test_what_is_no_assignment_of_values_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected section\.key=values") as caught:
        parse_sweep(text)
    assert "--sweep lora.r=8,16,32" in caught.value.hint


@pytest.mark.parametrize(
    ("texts", "more", "fault"),
    [
        (["lora.r=8"], {}, "two different values"),
        (["lora.r=8,8"], {}, "two different values"),
        (["lora.r=8,x"], {}, "lora.r: expected a whole number, got 'x'"),
        (["lora.r=8,true"], {}, "lora.r: expected a whole number"),
        (["lora.r=0,8"], {}, "lora.r: 0 is below 1"),
        (["lora.dropout=0.1,1.5"], {}, r"1.5 is not in \[0, 1\)"),
        (["train.schedule=linear,wavy"], {}, "'wavy' is none of"),
        (["train.batch_size=6,8"], {"train__micro_batch_size": 4}, "does not divide"),
        (["lora.rank=8,16"], {}, "unknown key; "),
        (["train.seed=1,2"], {}, "--seeds 5 trains five times"),
        (["train.speed=auto,plain"], {}, "does not change what a training learns"),
        (["model.name=a,b"], {}, "compare them with `nlijob compare`"),
        (["lora.r=8..16"], {}, "sweep.trials: lora.r has no list of values"),
        (["lora.r=16..8"], {"sweep__trials": 3}, "the first number must be below"),
        (["lora.r=1.5..8"], {"sweep__trials": 3}, "must be of whole numbers"),
        (["lora.r=a..b"], {"sweep__trials": 3}, "is not a range; write low..high"),
        (["lora.r=1..inf"], {"sweep__trials": 3}, "the first number must be below"),
        (["train.weight_decay=0..1:log"], {"sweep__trials": 3}, "must begin above 0"),
        (["train.schedule=a..b"], {"sweep__trials": 3}, "it is no number"),
        (["lora.r=8,16"], {"sweep__trials": 1}, "sweep.trials: 1 candidates; give 2 to"),
        (["lora.r=8,16"], {"sweep__seed": 42}, "42 is a seed of the run as well"),
        (["lora.r=8,16"], {"sweep__seed": -1}, "sweep.seed: give a number from 0"),
        ([], {"sweep__trials": 3}, "there is nothing to search"),
        ([f"lora.r={','.join(map(str, range(1, 1002)))}"], {}, "1,001 combinations; at most 1,000"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_would_serve(
    texts: list[str], more: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        searched(*texts, **more)


def test_every_faulty_setting_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        searched("lora.r=8", "train.seed=1,2", "train.schedule=linear,wavy")
    for key in ("lora.r", "train.seed", "train.schedule"):
        assert f"sweep.space.{key}: " in caught.value.message


def test_settings_that_are_given_are_added_to_those_of_the_recipe(tmp_path: Any) -> None:
    recipe = tmp_path / "wide.toml"
    recipe.write_text(
        'extends = "demo"\n[sweep.space]\n"lora.r" = [2, 4]\n"lora.alpha" = [8, 16]\n'
    )
    space = dict([parse_sweep("lora.r=16,32")])
    config = load_config(str(recipe), {"sweep.space": space})
    assert config.sweep.space == {"lora.r": (16, 32), "lora.alpha": (8, 16)}


def test_a_configuration_with_a_search_survives_json() -> None:
    config = searched("lora.r=8,16", "train.learning_rate=1e-4,1", sweep__pruning=True)
    record = RunRecord("job", "demo", config, (), "2026-01-01", "0")
    assert from_json(RunRecord, json.loads(json.dumps(asdict(record)))) == record


# ---------------------------------------------------------------- stages


def test_the_search_is_a_stage_only_where_there_is_one() -> None:
    assert SEARCH not in [stage.name for stage in stages_of(load_config("demo"))]
    names = [stage.name for stage in stages_of(searched("lora.r=8,16"))]
    assert names[names.index(SEARCH) - 1] == "baseline"
    assert names[names.index(SEARCH) + 1] == "train"


def test_a_search_does_not_depend_on_what_it_chooses_or_on_the_runs_seeds() -> None:
    config = searched("lora.r=8,16")
    found = resolved(config, Winner("candidate-1", {"lora.r": 8}, "", 2))
    more = replace(found, train=replace(found.train, seed=7, seeds=(7, 8)))
    before, after = (stage_inputs(one, STAMPS) for one in (config, more))
    assert before[SEARCH] == after[SEARCH]
    assert before["baseline"].settings != after["baseline"].settings  # its own seed


def test_trainings_after_a_search_are_made_from_what_they_are_made_from_alone() -> None:
    config = searched("lora.r=8,16")
    found = resolved(config, Winner("candidate-1", {"lora.r": 8}, "", 2))
    alone = load_config("demo", {"lora.r": 8})
    for stage in ("train", "select", "evaluate", "explain"):
        assert stage_inputs(found, STAMPS)[stage] == stage_inputs(alone, STAMPS)[stage]


def test_candidates_belong_to_a_search_whatever_they_chose() -> None:
    config = searched("lora.r=8,16", "train.learning_rate=1e-4,1e-3")
    last = candidate_inputs(combinations(config)[-1], config.sweep, STAMPS)
    assert is_of_search(last, config, STAMPS)
    assert not is_of_search(last, replace(config, lora=replace(config.lora, alpha=99)), STAMPS)
    assert not is_of_search(last, config, {**STAMPS, "model": "others"})
    assert not is_of_search(None, config, STAMPS)


def test_combinations_of_a_shape_follow_each_other() -> None:
    config = searched(
        "train.learning_rate=1e-4,1e-3", "lora.r=8,16", "train.schedule=linear,cosine"
    )
    ranks = [one.settings["lora.r"] for one in combinations(config)]
    assert ranks == [8] * 4 + [16] * 4
    assert len({json.dumps(one.settings) for one in combinations(config)}) == 8
