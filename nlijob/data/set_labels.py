"""The labels of a further test set, and for which of them each answer of the model counts.

A set may tell fewer labels apart than the model: in HANS, neutral and contradiction are both
"non-entailment". It is then asked whether the model's answer counts for the right one of these.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from nlijob.analysis.wording import listed
from nlijob.config import TransferConfig
from nlijob.data.labels import meaning, two_way
from nlijob.errors import ConfigurationError


class SetLabels(NamedTuple):
    """The labels of a set, and how source and model name them."""

    names: tuple[str, ...]
    """Names of the set's labels 0, 1, 2, ..."""
    label_map: dict[str, int]
    """The source's spelling of a label -> its number."""
    answers: tuple[int, ...]
    """For each label of the model, the number of the set's label for which it counts."""


def labels_of_set(one: TransferConfig, model: Sequence[str], found: Collection[str]) -> SetLabels:
    """The labels of a set. `model`: the labels that the model answers, `found`: those of the data.

    Raises ConfigurationError if an answer counts for no label of the set, or the other way round.
    """
    names = _names(one, model, found)
    numbers = [_counts_for(one, answer, names) for answer in model]
    if faults := [*_faults(one, model, names, numbers)]:
        raise ConfigurationError.from_faults(faults, _hint(model, names))
    answers = tuple(number for number in numbers if number is not None)
    return SetLabels(names, one.label_map or _merged(names, found), answers)


def _names(one: TransferConfig, model: Sequence[str], found: Collection[str]) -> tuple[str, ...]:
    if one.label_names:
        return one.label_names
    if one.answers:
        in_order = [answer for answer in model if answer in one.answers]
        return tuple(dict.fromkeys(one.answers[a] for a in (*in_order, *one.answers)))
    known = () if one.label_map else two_way(found)
    return known if known and known != two_way(model) else tuple(model)


def _counts_for(one: TransferConfig, answer: str, names: Sequence[str]) -> int | None:
    """The number of the set's label for which an answer counts; None where nothing says it."""
    if answer in one.answers:
        return names.index(one.answers[answer])
    if answer in names:
        return names.index(answer)
    meant = meaning(answer)
    alike = [i for i, name in enumerate(names) if meant and meaning(name) == meant]
    if not alike and two_way(names) and meant != "entailment":
        alike = [i for i, name in enumerate(names) if meaning(name) != "entailment"]
    return alike[0] if len(alike) == 1 else None


def _merged(names: Sequence[str], found: Collection[str]) -> dict[str, int]:
    """The number of each of the usual three labels, where the set is asked for two."""
    if not two_way(names):
        return {}
    (other,) = (i for i, name in enumerate(names) if meaning(name) != "entailment")
    meanings = {spelling: meaning(spelling) for spelling in found}
    known = {meaning(name) for name in names}
    return {s: other for s, meant in meanings.items() if meant not in ("", "entailment", *known)}


def _faults(
    one: TransferConfig, model: Sequence[str], names: Sequence[str], numbers: Sequence[int | None]
) -> Iterator[str]:
    where = f"transfer set {one.name}"
    for answer in one.answers:
        if answer not in model:
            yield f"{where}, answers: the run has no label {answer}; it has {listed([*model])}"
    lost = [answer for answer, number in zip(model, numbers, strict=True) if number is None]
    if lost:
        yield (
            f"{where}: its labels are {listed([*names])}, and nothing says for which of them the "
            f"model's {listed(lost)} {'counts' if len(lost) == 1 else 'count'}"
        )
    unanswered = [name for number, name in enumerate(names) if number not in numbers]
    if unanswered and not lost:
        yield (
            f"{where}: no answer of the model counts for the set's {listed(unanswered)}; it "
            f"answers {listed([*model])}"
        )
    for spelling, number in one.label_map.items():
        if number >= len(names):
            yield (
                f"{where}, label_map.{spelling}: {number} is not a label number (-1 to "
                f"{len(names) - 1})"
            )


def _hint(model: Sequence[str], names: Sequence[str]) -> str:
    """What would serve, as a recipe spells it."""
    pairs = ", ".join(
        f"{json.dumps(answer)} = {json.dumps(names[min(number, len(names) - 1)])}"
        for number, answer in enumerate(model)
    )
    return (
        "name for each of the model's labels the one of the set's for which it counts, such as "
        f"answers = {{{pairs}}}; labels of the source become one with label_map"
    )
