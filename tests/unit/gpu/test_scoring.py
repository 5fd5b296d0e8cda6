from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nlijob.config import JobConfig
from nlijob.gpu.engine import Engine, Forward
from nlijob.gpu.group import Group
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.scoring import own_batches, score
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


@pytest.mark.parametrize("count", [1, 3, 4, 39])
def test_each_batch_is_one_processs_and_none_has_all_the_longest(count: int) -> None:
    in_batches = [[number] for number in range(count)]  # the longest rows first
    group = Group()
    group.size = 4
    dealt = []
    for group.rank in range(4):
        dealt.append([place for (place,) in own_batches(in_batches, group)])
    assert sorted(place for own in dealt for place in own) == list(range(count))
    whole_rounds = [sum(own[: count // 8 * 2]) for own in dealt]
    assert len({*whole_rounds}) == 1


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
