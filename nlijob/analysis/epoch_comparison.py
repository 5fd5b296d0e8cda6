"""Whether validation rows tell the kept epoch from the others.

All epochs are scored on the same rows, so each other epoch is compared with the kept one row by
row (exact McNemar test) and the p-values are Holm-adjusted over the epochs compared. The kept epoch
was picked for its score on these very rows, so its lead is flattered: an adjusted p below 0.05 is
weaker evidence than it would be on fresh rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nlijob.analysis.statistics import holm, mcnemar_p
from nlijob.analysis.wording import count, listed, p_value, plural
from nlijob.records import EpochComparison, Prediction


def compare_epochs(
    selected: Sequence[Prediction], others: Mapping[int, Sequence[Prediction]]
) -> tuple[EpochComparison, ...]:
    """The kept epoch's predictions against each other epoch's (epoch number -> predictions).

    All on one split's rows, in any order; the result is in the order of the epochs. Raises
    ValueError on no rows, on a row labelled twice, or where an epoch labelled other rows.
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
    """Which other epochs the rows do not tell from the kept one; empty with no other epoch."""
    if not comparisons:
        return ""
    alike = [found for found in comparisons if not found.is_significant]
    rows = plural(comparisons[0].rows, "validation row")
    tests = f"exact McNemar test on the same {rows}"
    if len(comparisons) > 1:
        tests += f", Holm-adjusted over the {count(len(comparisons))} epochs compared"
    if not alike:
        verb = "differs" if len(comparisons) == 1 else "differ"
        return (
            f"{_epochs(comparisons)} {verb} from epoch {selected_epoch}, the one kept, beyond what "
            f"chance explains ({tests}; largest adjusted "
            f"{p_value(max(found.adjusted_p for found in comparisons))}). As epoch "
            f"{selected_epoch} was picked on these rows, its lead may be flattered."
        )
    smallest = p_value(min(found.adjusted_p for found in alike))
    which = "smallest " if len(alike) > 1 else ""
    adjusted = "adjusted " if len(comparisons) > 1 else ""
    return (
        f"The validation rows do not tell epoch {selected_epoch}, the one kept, from "
        f"{_epochs(alike, capital=False)} ({tests}; {which}{adjusted}{smallest})."
    )


def _right(predictions: Sequence[Prediction]) -> dict[tuple[str, int], bool]:
    right: dict[tuple[str, int], bool] = {
        (p.split, p.index): p.predicted == p.label for p in predictions
    }
    if len(right) != len(predictions):
        raise ValueError("a row was labelled twice by one epoch")
    return right


def _alone(
    selected: Mapping[tuple[str, int], bool], other: Mapping[tuple[str, int], bool], epoch: int
) -> tuple[int, int]:
    """Rows that only the kept epoch, and only the other one, labels right."""
    if selected.keys() != other.keys():
        differing = len(selected.keys() ^ other.keys())
        raise ValueError(f"epoch {epoch} was scored on other rows ({differing} differ)")
    return (
        sum(own and not other[row] for row, own in selected.items()),
        sum(other[row] and not own for row, own in selected.items()),
    )


def _epochs(found: Sequence[EpochComparison], capital: bool = True) -> str:
    noun = "epoch" if len(found) == 1 else "epochs"
    return f"{noun.capitalize() if capital else noun} {listed([str(f.epoch) for f in found])}"
