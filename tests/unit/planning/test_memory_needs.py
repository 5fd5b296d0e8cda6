"""The sum of a GPU's memory: by hand, beside what was measured, and for which GPUs it is enough."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers

from nlijob.config import load_config
from nlijob.gpu.model import held_weights, meta_model
from nlijob.gpu.model_look import layer_outputs
from nlijob.planning.memory import CONTEXT_BYTES, memory_need, memory_obstacles
from nlijob.planning.words import cards_lines, sum_lines
from nlijob.records.planning import ModelLook, PlannedMemory
from tests.jobs import ROOT
from tests.unit.planning.test_durations import model

GIB = 2**30
RESULTS = ROOT / "benchmarks" / "results"
WITHOUT_DROPOUT = {"lora.dropout": 0.0}


def need(look: ModelLook, **changes: Any) -> PlannedMemory:
    """The memory that the phi2 recipe needs on a GPU."""
    return memory_need(load_config("phi2", {"model.device": "cuda", **changes}), look)


def llama_3b() -> ModelLook:
    """The measured shape of Llama 3.2 3B with phi-2's vocabulary: 28 layers of 3,072."""
    return model(
        layers=28,
        hidden_size=3072,
        trainable_parameters=18_350_080,
        target_modules=dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), 28),
        dequantized_bytes=2 * 2_818_572_288,
        four_bit_bytes=1_454_014_464,
        other_weights_bytes=2 * (51_200 * 3072 + 57 * 3072),
        largest_layer_bytes=51_941_376,
        largest_dequantized_bytes=2 * 8192 * 3072,
        largest_outside_bytes=2 * 51_200 * 3072,
        layer_outputs=28 * 27_648,
    )


def llama_70b() -> ModelLook:
    """Llama 3 70B with 80 layers of 8,192, and LoRA of rank 16 on attention."""
    return model(
        layers=80,
        hidden_size=8192,
        trainable_parameters=65_536_000,
        target_modules=dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), 80),
        dequantized_bytes=2 * 68_451_041_280,
        four_bit_bytes=35_311_910_912,
        other_weights_bytes=4_205_314_048,
        largest_layer_bytes=441_431_654,
        largest_dequantized_bytes=2 * 28_672 * 8192,
        largest_outside_bytes=2 * 128_256 * 8192,
        layer_outputs=80 * 83_968,
        vocabulary=128_256,
        free_memory_bytes=None,
    )


def test_the_sum_of_4_bit_weights_is_that_by_hand() -> None:
    mode = need(model()).modes[2]
    tokens = 8 * 59.6
    dropped = 4 * 32 * 2560  # numbers of two bytes, and a byte of the mask for each
    kept = 32 * (23_040 + 6 * 2560) + dropped * 1.5
    assert mode.mode == "4-bit weights"
    assert {term.name: term.size_bytes for term in mode.terms} == {
        "4-bit weights": 2_516_582_400 // 2 + 2_516_582_400 // 64 + 4 * 2_516_582_400 // 64 // 256,
        "weights in bfloat16": 526_202_880,
        "one dequantised weight": 2 * 2560 * 10_240,
        "adapter, gradient, moments": 20_971_520 * (4 + 2 + 4 + 8),
        "activations": round(tokens * kept * 2),
        "logits": 8 * 51_200 * 12,
        "cuBLAS's workspace": 100_000_000,
        "CUDA's own": CONTEXT_BYTES,
    }
    assert mode.total_bytes == sum(term.size_bytes for term in mode.terms)


def test_a_sharded_sum_has_a_share_of_the_weights_and_the_whole_of_two_layers() -> None:
    terms = {term.name: term.size_bytes for term in need(model()).sharded[1].terms}
    assert terms["4-bit weights, 1/4"] == 1_298_227_200 // 4
    assert terms["weights in bfloat16, 1/4"] == 526_202_880 // 4
    assert terms["gathered: two layers, the embedding"] == 2 * 40_625_920 + 262_144_000
    assert terms["adapter, gradient, moments"] == 20_971_520 * 18
    inputs, one_layer = 32 * 2560, 3.5 * (23_040 + 12 * 2560)
    assert terms["activations"] == round(59.6 * (inputs + one_layer) * 2)


def test_the_leanest_mode_of_phi_2_needs_what_was_measured() -> None:
    # 2.32 GiB at the peak with 8 rows at a time (docs/speed.md); with 2.25 GiB one did not fit
    memory = need(model())
    assert 2.1 * GIB < memory.least_bytes < 2.4 * GIB
    eight_rows = memory.modes[1].total_bytes - CONTEXT_BYTES
    assert eight_rows == pytest.approx(2.32 * GIB, rel=0.02)


@pytest.mark.parametrize(("name", "look"), [("", model()), ("-llama-3b", llama_3b())])
def test_sums_are_within_8_percent_of_measured_peaks(name: str, look: ModelLook) -> None:
    file = RESULTS / f"2026-11-21-nvidia-h200-ways{name}.json"
    ways = json.loads(file.read_text("utf-8"))["ways"]
    modes = need(look, **WITHOUT_DROPOUT).modes
    for way, mode in (("graphs, 4-bit weights", modes[2]), ("graphs", modes[3])):
        spare = sum(
            t.size_bytes for t in mode.terms if t.name in ("CUDA's own", "kept free besides")
        )
        assert mode.total_bytes - spare == pytest.approx(ways[way]["training_peak_bytes"], rel=0.08)


def test_gradient_checkpointing_asks_for_lean_modes_alone() -> None:
    memory = need(model(), **{"train.gradient_checkpointing": True})
    assert all("checkpointing" in mode.mode for mode in memory.modes)
    assert memory.fastest_bytes < 1.1 * memory.least_bytes


def test_the_plain_loop_keeps_more_and_dequantises_nothing_for_good() -> None:
    modes = need(model(), **{"train.speed": "plain"}).modes
    assert [mode.mode for mode in modes][-1] == "4-bit weights"
    assert modes[-1].total_bytes > need(model()).modes[2].total_bytes


def test_cards_are_named_with_what_they_can_do() -> None:
    assert list(cards_lines(need(model()))) == [
        "16, 24, 48, 80 and 141 GB: dequantised weights",
    ]
    lean = "gradient checkpointing, one row at a time"
    assert list(cards_lines(need(llama_70b()))) == [
        f"16 GB: only with weights sharded over 5 GPUs, {lean}",
        f"24 GB: only with weights sharded over 3 GPUs, {lean}",
        "48 GB: gradient checkpointing, 8 rows at a time",
        "80 and 141 GB: 4-bit weights",
    ]


def test_a_large_batch_may_be_computed_in_parts_where_a_gpu_has_no_room_for_it() -> None:
    memory = need(model(), **{"train.batch_size": 256})
    few, all_rows = memory.modes[-2:]
    assert few.mode == "dequantised weights, 8 rows at a time"
    at_eight = {term.name: term.size_bytes for term in need(model()).modes[-1].terms}
    assert {term.name: term.size_bytes for term in few.terms} == at_eight
    assert few.total_bytes < all_rows.total_bytes
    assert next(cards_lines(memory)).endswith("GB: dequantised weights, 8 rows at a time")


def test_a_model_that_no_number_of_gpus_has_room_for_is_said_to_be_too_large() -> None:
    look = model(four_bit_bytes=10**12, largest_outside_bytes=10**10)
    assert {card.gpus for card in need(look).cards} == {None, 8}
    assert next(cards_lines(need(look))).startswith("16, 24, 48 and 80 GB: too small, also for")


def test_divided_weights_are_what_is_planned_where_they_are_asked_for() -> None:
    config = load_config("phi2", {"model.device": "cuda", "machine.accelerate_config": "fsdp"})
    memory = memory_need(config, model(), 4)
    assert memory.least_bytes == memory.sharded[1].total_bytes - CONTEXT_BYTES
    assert memory.fastest_bytes == memory.least_bytes
    assert memory.cards == need(model()).cards


def test_too_little_memory_on_one_gpu_names_the_number_that_has_enough() -> None:
    memory = need(model(free_memory_bytes=int(1.9 * GIB)))
    (obstacle,) = memory_obstacles(memory)
    assert "or divide the weights: --gpus 4 --accelerate-config fsdp" in obstacle.hint


def test_the_sum_is_printed_with_all_its_terms() -> None:
    memory = need(model())
    lines = list(sum_lines(memory))
    assert lines[0].startswith("gradient checkpointing, one row at a time: 3.")
    assert lines[1].startswith("  = 1.21 GiB 4-bit weights + 0.49 GiB weights in bfloat16 + ")
    assert len(lines) == 2 * (len(memory.modes) + len(memory.sharded))


def test_a_cpu_has_no_cards_and_no_shards() -> None:
    memory = need(model(), **{"model.device": "cpu"})
    assert not memory.cards
    assert not memory.sharded
    assert "the libraries" in {term.name for term in memory.modes[0].terms}


def test_too_little_memory_ends_the_job_with_5() -> None:
    memory = PlannedMemory(3 * GIB, 9 * GIB, 2 * GIB)
    (obstacle,) = memory_obstacles(memory)
    assert obstacle.exit_code == 5
    assert "needs about 3.00 GiB, and 2.00 GiB are free" in obstacle.message
    assert not list(memory_obstacles(PlannedMemory(3 * GIB, 9 * GIB, 4 * GIB)))
    assert not list(memory_obstacles(PlannedMemory(3 * GIB, 9 * GIB, None)))


def test_weights_are_counted_once_each_as_they_are_held() -> None:
    shape = transformers.LlamaConfig(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    config = load_config("phi2")
    meta = meta_model(config, shape)
    held = held_weights(meta, config.model, torch.bfloat16)
    layer = 4 * 64 * 64 + 3 * 64 * 128
    four_bit = layer // 2 + layer // 64 + 4 * 4 * 1 + 4 * 3 * 1  # 64 or 128 blocks: one float32
    assert held.four_bit == 3 * four_bit
    assert held.largest_layer == four_bit + 2 * 2 * 64  # and two norms
    assert held.others == 2 * (1000 * 64 + 7 * 64)
    assert held.largest_outside == 2 * 1000 * 64
    assert held.largest_dequantized == 2 * 64 * 128
    assert layer_outputs(meta) == 3 * (5 * 64 + 2 * 128)


def test_tokens_that_are_not_known_leave_the_weights_in_the_sum() -> None:
    unknown = need(model(tokens={}))
    assert 0 < unknown.least_bytes < need(model()).least_bytes
