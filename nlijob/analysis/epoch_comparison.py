"""Whether the selected epoch differs significantly from the others on the validation rows.

All epochs are scored on the same rows, so each other epoch is compared with the selected one row by
row (exact McNemar test, by premise where premises repeat), and the p-values are Holm-adjusted over
the compared epochs. The selected epoch was chosen by its score on these rows, so its lead is biased
upwards: an adjusted p below 0.05 is weaker evidence than it would be on new rows.

The validation loss of the last epoch is compared with the lowest one in the same way, by the losses
of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nlijob.analysis.clustered import (
    accuracy_interval,
    flipped_p,
    paired_difference,
    premises_as_units,
)
from nlijob.analysis.premises import Premises, premise_numbers
from nlijob.analysis.statistics import holm
from nlijob.analysis.wording import count, listed, loss, mcnemar_name, p_value, plural
from nlijob.records.job import Prediction
from nlijob.records.outcome import EpochComparison, LossChange, ValidationInterval


@dataclass(frozen=True)
class Validation:
    """Predictions for the validation rows, some of which may share premises."""

    base: Sequence[Prediction]
    """The base model's; empty if it was not scored there."""
    epochs: Mapping[int, Sequence[Prediction]]
    """Each epoch's by its number."""
    premises: Premises

    def compared_with(self, selected: int) -> tuple[EpochComparison, ...]:
        """The selected epoch compared with each other one."""
        others = {epoch: rows for epoch, rows in self.epochs.items() if epoch != selected}
        return compare_epochs(self.epochs[selected], others, self.premises)

    def loss_change(self) -> LossChange | None:
        """Change of the loss from its lowest epoch to the last one."""
        return loss_change(self.epochs, self.premises)

    def intervals(self) -> tuple[ValidationInterval, ...]:
        """The interval of the accuracy after each epoch, and of the base model's if known."""
        scored = {0: self.base, **self.epochs} if self.base else self.epochs
        return tuple(
            ValidationInterval(
                epoch,
                accuracy_interval(
                    [row.is_right for row in rows], premise_numbers(rows, self.premises)
                ),
            )
            for epoch, rows in sorted(scored.items())
        )


def compare_epochs(
    selected: Sequence[Prediction],
    others: Mapping[int, Sequence[Prediction]],
    premises: Premises | None = None,
) -> tuple[EpochComparison, ...]:
    """Compare the selected epoch's predictions with those of each other epoch (by number).

    All predictions are for the rows of one split, in any order, some of which may share `premises`;
    the result is in the order of the epochs. Raises ValueError without rows, where a row occurs
    twice, or where rows differ.
    """
    own = _by_row(selected)
    if not own:
        raise ValueError("no rows to compare epochs on")
    numbers = premise_numbers(own.values(), premises)
    found = []
    for epoch in sorted(others):
        other = _same_rows(own, _by_row(others[epoch]), epoch)
        change = paired_difference(
            [row.is_right for row in own.values()], [row.is_right for row in other], numbers
        )
        found.append((epoch, change))
    adjusted = holm([change.mcnemar_p for _, change in found])
    return tuple(
        EpochComparison(
            epoch=epoch,
            rows=len(own),
            selected_alone=change.gained,
            other_alone=change.lost,
            p=change.mcnemar_p,
            adjusted_p=adjusted_p,
            premises=change.premises,
        )
        for (epoch, change), adjusted_p in zip(found, adjusted, strict=True)
    )


def loss_change(
    epochs: Mapping[int, Sequence[Prediction]], premises: Premises | None = None
) -> LossChange | None:
    """Change of the validation loss from its lowest epoch (by number) to the last one.

    Tested with random sign flips of the rows' differences, or of the premises'. The lowest epoch
    was chosen by these losses, so p is multiplied by the number of epochs that it was chosen from.
    None if the last epoch is the lowest, or if its loss is the same. Raises ValueError where the
    rows of epochs differ.
    """
    losses = {epoch: fmean(row.loss for row in rows) for epoch, rows in epochs.items()}
    last, lowest = max(losses), min(losses, key=lambda epoch: (losses[epoch], epoch))
    difference = losses[last] - losses[lowest]
    if not difference > 0:
        return None
    before = _by_row(epochs[lowest])
    after = _same_rows(before, _by_row(epochs[last]), last)
    numbers = premise_numbers(before.values(), premises)
    changes = [new.loss - old.loss for old, new in zip(before.values(), after, strict=True)]
    p = flipped_p(changes, numbers)
    return LossChange(
        from_epoch=lowest,
        to_epoch=last,
        rows=len(before),
        difference=difference,
        p=p,
        adjusted_p=min(1.0, p * (len(losses) - 1)),
        premises=premises_as_units(numbers),
    )


def loss_sentence(change: LossChange | None) -> str:
    """Whether the validation loss of the last epoch is above its lowest one; "" if it is not."""
    if change is None:
        return ""
    rows = plural(change.rows, "validation row")
    unit = "" if change.premises is None else f", over {plural(change.premises, 'premise')}"
    verdict = (
        "this is more than chance explains"
        if change.is_significant
        else "this is not distinguishable from no change"
    )
    return (
        f"The mean validation loss of epoch {change.to_epoch} is {loss(change.difference)} nats "
        f"above that of epoch {change.from_epoch}, the lowest; {verdict} (sign-flip test on the "
        f"same {rows}{unit}, adjusted {p_value(change.adjusted_p)})."
    )


def epochs_sentence(selected_epoch: int, comparisons: Sequence[EpochComparison]) -> str:
    """Which other epochs do not differ significantly from the selected one; "" without others."""
    if not comparisons:
        return ""
    alike = [found for found in comparisons if not found.is_significant]
    rows = plural(comparisons[0].rows, "validation row")
    tests = f"{mcnemar_name(comparisons[0].premises)} on the same {rows}"
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


def _by_row(predictions: Sequence[Prediction]) -> dict[tuple[str, int], Prediction]:
    rows: dict[tuple[str, int], Prediction] = {(p.split, p.index): p for p in predictions}
    if len(rows) != len(predictions):
        raise ValueError("an epoch labels a row twice")
    return rows


def _same_rows(
    own: Mapping[tuple[str, int], Prediction],
    other: Mapping[tuple[str, int], Prediction],
    epoch: int,
) -> list[Prediction]:
    """The other epoch's predictions in the order of the own rows."""
    if own.keys() != other.keys():
        differing = len(own.keys() ^ other.keys())
        raise ValueError(f"epoch {epoch} was scored on different rows ({differing} differ)")
    return [other[row] for row in own]


def _epochs(found: Sequence[EpochComparison], capital: bool = True) -> str:
    noun = "epoch" if len(found) == 1 else "epochs"
    return f"{noun.capitalize() if capital else noun} {listed([str(f.epoch) for f in found])}"
