from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nlijob.config import JobConfig
from nlijob.gpu.engine import Engine, Forward
from nlijob.gpu.group import Group
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.scoring import batches, own_batches, score
from nlijob.records.job import Prediction, SplitScore
from tests import tolerance

pytestmark = pytest.mark.arithmetic


@pytest.fixture(scope="module")
def forward(
    demo: JobConfig,
    new_model: Callable[..., LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
) -> Forward:
    return Engine(new_model(), head, demo, rows).forward()


def scored(
    forward: Forward, head: CausalHead, rows: list[Encoded], batch_size: int = 8
) -> tuple[SplitScore, list[Prediction]]:
    return score(forward, head, "test", rows, batch_size, lambda done: None)


def test_predictions_come_in_the_order_of_the_rows(
    forward: Forward, head: CausalHead, rows: list[Encoded]
) -> None:
    _, predictions = scored(forward, head, rows)
    assert [p.index for p in predictions] == [row.example.index for row in rows]


@pytest.mark.parametrize("in_step", [False, True])
def test_batches_are_dealt_out_by_their_tokens_unless_passes_are_made_together(
    head: CausalHead, rows: list[Encoded], in_step: bool
) -> None:
    some, group = [rows[n % 3] for n in range(60)], Group()
    in_batches = batches(some, 4)
    group.size, group.in_step = 4, in_step
    dealt = []
    for group.rank in range(4):
        dealt.append(own_batches(some, in_batches, group))
    assert sorted(batch for own in dealt for batch in own) == sorted(in_batches)
    tokens = [sum(some[n].length for batch in own for n in batch) for own in dealt]
    if in_step:
        assert dealt[0] == in_batches[::4]
    else:
        longest = 4 * max(row.length for row in some)
        assert max(tokens) - min(tokens) <= longest


def test_the_size_of_a_batch_does_not_change_what_is_predicted(
    forward: Forward, head: CausalHead, rows: list[Encoded]
) -> None:
    _, one_by_one = scored(forward, head, rows, 1)
    _, together = scored(forward, head, rows, 24)
    for a, b in zip(one_by_one, together, strict=True):
        # a probability changes by at most a quarter of its logit's change, for logits below 40
        bound = 10 * tolerance.rounding(torch.float32, tolerance.DEMO_OPERATIONS)
        assert a.probabilities == pytest.approx(b.probabilities, abs=bound)


def test_scoring_twice_gives_the_same_bits(
    forward: Forward, head: CausalHead, rows: list[Encoded]
) -> None:
    assert scored(forward, head, rows)[1] == scored(forward, head, rows)[1]


def test_the_score_sums_the_predictions(
    forward: Forward, head: CausalHead, rows: list[Encoded]
) -> None:
    total, predictions = scored(forward, head, rows)
    assert total.correct == sum(p.predicted == p.label for p in predictions)
    assert total.loss == pytest.approx(sum(p.loss for p in predictions) / len(predictions))


def test_probabilities_are_over_the_labels_and_their_mass_over_the_vocabulary(
    forward: Forward, head: CausalHead, rows: list[Encoded]
) -> None:
    for p in scored(forward, head, rows)[1]:
        assert sum(p.probabilities) == pytest.approx(1, abs=tolerance.rounding(torch.float32, 8))
        assert p.label_mass is not None
        assert 0 <= p.label_mass <= 1
        # the loss is over the whole vocabulary: -log(mass * probability of the gold label)
        expected = torch.tensor(p.label_mass * p.probabilities[p.label]).log().neg().item()
        # sums over the vocabulary, and a logarithm that cancels where the loss is near 0
        bound = tolerance.rounding(torch.float32, 2048)
        assert p.loss == pytest.approx(expected, rel=bound, abs=bound)


def test_progress_ends_at_the_number_of_rows(
    forward: Forward, head: CausalHead, rows: list[Encoded]
) -> None:
    told: list[int] = []
    score(forward, head, "test", rows, 10, told.append)
    assert told == [4, 14, 24]
