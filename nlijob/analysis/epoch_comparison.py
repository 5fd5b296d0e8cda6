"""Whether the selected epoch differs significantly from the others on the validation rows.

All epochs are scored on the same rows, so each other epoch is compared with the selected one row by
row (exact McNemar test), and the p-values are Holm-adjusted over the compared epochs. The selected
epoch was chosen by its score on these rows, so its lead is biased upwards: an adjusted p below 0.05
is weaker evidence than it would be on new rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nlijob.analysis.statistics import holm, mcnemar_p
from nlijob.analysis.wording import count, listed, p_value, plural
from nlijob.records.job import Prediction
from nlijob.records.outcome import EpochComparison


def compare_epochs(
    selected: Sequence[Prediction], others: Mapping[int, Sequence[Prediction]]
) -> tuple[EpochComparison, ...]:
    """Compare the selected epoch's predictions with those of each other epoch (by number).

    All predictions are for the rows of one split, in any order; the result is in the order of the
    epochs. Raises ValueError without rows, where a row occurs twice, or where rows differ.
    """
    right = _right(selected)
    if not right:
        raise ValueError("no rows to compare epochs on")
    counts = {epoch: _alone(right, _right(others[epoch]), epoch) for epoch in sorted(others)}
    raw = [mcnemar_p(*alone) for alone in counts.values()]
    return tuple(
        EpochComparison(epoch, len(right), *alone, p, adjusted_p)
        for (epoch, alone), p, adjusted_p in zip(counts.items(), raw, holm(raw), strict=True)
    )


def epochs_sentence(selected_epoch: int, comparisons: Sequence[EpochComparison]) -> str:
    """Which other epochs do not differ significantly from the selected one; "" without others."""
    if not comparisons:
        return ""
    alike = [found for found in comparisons if not found.is_significant]
    rows = plural(comparisons[0].rows, "validation row")
    tests = f"exact McNemar test on the same {rows}"
    if len(comparisons) > 1:
        tests += f", Holm-adjusted over {count(len(comparisons))} compared epochs"
    if not alike:
        verb = "differs" if len(comparisons) == 1 else "differ"
        return (
            f"{_epochs(comparisons)} {verb} significantly from the selected epoch "
            f"{selected_epoch} ({tests}; largest adjusted "
            f"{p_value(max(found.adjusted_p for found in comparisons))}). Because epoch "
            f"{selected_epoch} was selected on these rows, its lead may be overestimated."
        )
    smallest = p_value(min(found.adjusted_p for found in alike))
    which = "smallest " if len(alike) > 1 else ""
    adjusted = "adjusted " if len(comparisons) > 1 else ""
    return (
        f"On the validation rows, the selected epoch {selected_epoch} is not distinguishable from "
        f"{_epochs(alike, capital=False)} ({tests}; {which}{adjusted}{smallest})."
    )


def _right(predictions: Sequence[Prediction]) -> dict[tuple[str, int], bool]:
    right: dict[tuple[str, int], bool] = {(p.split, p.index): p.is_right for p in predictions}
    if len(right) != len(predictions):
        raise ValueError("an epoch labels a row twice")
    return right


def _alone(
    selected: Mapping[tuple[str, int], bool], other: Mapping[tuple[str, int], bool], epoch: int
) -> tuple[int, int]:
    """Numbers of rows that only the selected epoch and only the other one label correctly."""
    if selected.keys() != other.keys():
        differing = len(selected.keys() ^ other.keys())
        raise ValueError(f"epoch {epoch} was scored on different rows ({differing} differ)")
    return (
        sum(own and not other[row] for row, own in selected.items()),
        sum(other[row] and not own for row, own in selected.items()),
    )


def _epochs(found: Sequence[EpochComparison], capital: bool = True) -> str:
    noun = "epoch" if len(found) == 1 else "epochs"
    return f"{noun.capitalize() if capital else noun} {listed([str(f.epoch) for f in found])}"
