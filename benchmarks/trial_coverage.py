"""How often the 95 % intervals over trainings and test rows hold, by simulation.

`python -m benchmarks.trial_coverage` prints a table; docs/results.md has its figures. A row is
right if a latent number is above a threshold: the sum of an effect of the training, of the premise,
of the row, and of this row in this training. The base model shares half of the premise's and the
row's effect. One training alone is right on 80 % of all rows, the base model on 70 %.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.crossed import CrossedMean, mean_accuracy, mean_advantage, mean_gain
from nlijob.records.intervals import Interval

Array = NDArray[Any]
TRAININGS = (2, 3, 5, 10)
SPREADS = (0.0, 0.01, 0.03)
"""Standard deviations of the accuracy between trainings, on all rows that there are."""
ROWS = (98, 491, 4_914)
ROWS_A_PREMISE = (1, 3)
ACCURACY, BASE_ACCURACY = 0.8, 0.7
OF_ROWS = 0.6
"""Variance of the premise's and the row's effects; that of a row in a training is the rest of 1.
Two trainings then differ in whether they are right on 16 % of the rows."""
RESAMPLES = 400
OF_PREMISES = 0.25
"""The premise's part of it, where premises have several rows."""


@dataclass(frozen=True)
class Coverage:
    """Shares of simulated samples (0 to 1), and the median half-width of the accuracy (0 to 1)."""

    accuracy: float
    """Samples whose interval of the mean accuracy holds the true one."""
    gain: float
    another: float | None
    """Samples whose interval for a further training on other rows holds its accuracy."""
    advantage: float
    """Samples whose interval holds the true difference, none, between two equal recipes: the others
    are false alarms."""
    by_rows: float
    """Samples in which the interval over rows alone holds the true mean accuracy."""
    half_width: float


@dataclass(frozen=True)
class Cell:
    """What is simulated."""

    trainings: int
    spread: float
    """Standard deviation of the accuracy between trainings (0 to 1)."""
    rows: int
    rows_a_premise: int


def measure(cell: Cell, samples: int, seed: int = 5) -> Coverage:
    """Coverage over that many samples."""
    random = np.random.Generator(np.random.PCG64([seed, cell.trainings, cell.rows]))
    found = [_sample(random, cell) for _ in range(samples)]
    widths = [one.half_width() for one, _ in found]
    shares = np.array([held for _, held in found], dtype=float).mean(axis=0)
    accuracy, gain, advantage, by_rows, *another = map(float, shares)
    return Coverage(
        accuracy=accuracy,
        gain=gain,
        another=another[0] if another else None,
        advantage=advantage,
        by_rows=by_rows,
        half_width=float(np.median(widths)),
    )


def _sample(random: np.random.Generator, cell: Cell) -> tuple[CrossedMean, list[bool]]:
    """The mean accuracy of a sample, and what held in it."""
    premises = np.arange(cell.rows) // cell.rows_a_premise
    effects = _effects(random, cell, premises)
    right = _right(random, cell, effects, cell.trainings)
    numbers = premises.tolist()
    accuracy = mean_accuracy(right, numbers)
    base = _base_right(random, effects)
    advantage = mean_advantage(right, _right(random, cell, effects, cell.trainings), numbers)
    alone = Interval(
        accuracy.rows.centre - accuracy.rows.half, accuracy.rows.centre + accuracy.rows.half
    )
    held = [
        _holds(accuracy.interval(), ACCURACY),
        _holds(mean_gain(right, base, numbers).interval(), ACCURACY - BASE_ACCURACY),
        _holds(advantage.interval(), 0.0),
        _holds(alone, ACCURACY),
    ]
    if another := accuracy.another():
        further = _right(random, cell, _effects(random, cell, premises), 1)
        held.append(_holds(another, float(further.mean())))
    return accuracy, held


def _effects(random: np.random.Generator, cell: Cell, premises: Array) -> Array:
    """The part of the latent number that a row has in every training, [rows]."""
    of_premises = OF_PREMISES if cell.rows_a_premise > 1 else 0.0
    of_premise = math.sqrt(of_premises) * random.standard_normal(int(premises[-1]) + 1)
    of_row = math.sqrt(OF_ROWS - of_premises) * random.standard_normal(cell.rows)
    return np.asarray(of_premise[premises] + of_row)


def _right(random: np.random.Generator, cell: Cell, effects: Array, trainings: int) -> Array:
    """What trainings are right on, [trainings, rows]."""
    normal = NormalDist()
    threshold = normal.inv_cdf(ACCURACY)
    spread = cell.spread / normal.pdf(threshold)
    threshold *= math.sqrt(1 + spread**2)
    of_training = spread * random.standard_normal((trainings, 1))
    rest = math.sqrt(1 - OF_ROWS) * random.standard_normal((trainings, len(effects)))
    return np.asarray(threshold + of_training + effects + rest > 0)


def _base_right(random: np.random.Generator, effects: Array) -> Array:
    """What the base model is right on, [rows]."""
    own = math.sqrt(1 - OF_ROWS / 2) * random.standard_normal(len(effects))
    shared = math.sqrt(0.5) * effects
    return np.asarray(NormalDist().inv_cdf(BASE_ACCURACY) + shared + own > 0)


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def two_way_bootstrap(cell: Cell, samples: int, seed: int = 5) -> float:
    """Coverage of the percentile bootstrap that draws trainings and rows, for comparison."""
    random = np.random.Generator(np.random.PCG64([seed, cell.trainings, cell.rows]))
    premises = np.arange(cell.rows) // cell.rows_a_premise
    held = 0
    for _ in range(samples):
        right = _right(random, cell, _effects(random, cell, premises), cell.trainings)
        drawn, rows = (
            random.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
            for size in right.shape
        )
        means = ((drawn @ right.astype(float)) * rows).sum(axis=1) / right.size
        low, high = np.quantile(means, [0.025, 0.975])
        held += low <= ACCURACY <= high
    return held / samples


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--bootstrap", action="store_true", help="only the two-way bootstrap's")
    options = parser.parse_args()
    if options.bootstrap:
        for trainings in TRAININGS:
            cell = Cell(trainings, max(SPREADS), max(ROWS), 1)
            print(f"{trainings} trainings: {100 * two_way_bootstrap(cell, options.samples):.1f} %")
        return
    _print_table(options.samples)


def _print_table(samples: int) -> None:
    names = (
        *("trainings", "rows", "spread", "accuracy", "gain", "another training"),
        *("two recipes", "half-width", "by rows alone"),
    )
    print(f"| {' | '.join(names)} |")
    print("|---" * len(names) + "|")
    for trainings, rows, spread in itertools.product(TRAININGS, ROWS, SPREADS):
        both = [measure(Cell(trainings, spread, rows, size), samples) for size in ROWS_A_PREMISE]
        figures = [" / ".join(column) for column in zip(*map(_figures, both), strict=True)]
        print(f"| {trainings} | {rows:,} | {100 * spread:g} | {' | '.join(figures)} |", flush=True)


def _figures(found: Coverage) -> Iterator[str]:
    """The figures of one cell as text, in percent."""
    for share in (found.accuracy, found.gain, found.another, found.advantage):
        yield "–" if share is None else f"{100 * share:.1f}"
    yield f"±{100 * found.half_width:.1f}"
    yield f"{100 * found.by_rows:.1f}"


if __name__ == "__main__":
    main()
