"""What a model forgot: its loss on general text before and after tuning, paired by text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.clustered import flipped_p
from nlijob.analysis.statistics import holm, t_95
from nlijob.analysis.wording import count, loss, loss_difference, p_value, plural
from nlijob.config import JobConfig
from nlijob.kept import kept_trial
from nlijob.records.forgetting import (
    Forgetting,
    GeneralText,
    LossDifference,
    TextChange,
    TextLoss,
    TrialForgetting,
)
from nlijob.records.intervals import Interval
from nlijob.records.outcome import SIGNIFICANT, Finding
from nlijob.records.serialization import read_all
from nlijob.rundir import RunDir
from nlijob.trials import trials_of

Array = NDArray[Any]
FORGOT = 0.05
"""Rise of the mean loss in nats from which on it is a warning: a perplexity 5 % higher."""
SHOWN_TEXTS = 5
LARGEST_LOSS = 700.0
"""Loss in nats above which the perplexity is too large a number."""


def read_forgetting(run: RunDir, config: JobConfig) -> Forgetting | None:
    """What each training of a finished run did to the loss on general text; None if not measured.

    Raises ValueError where records are damaged.
    """
    trials = trials_of(config)
    return measure_forgetting(
        config.forgetting.texts,
        read_all(GeneralText, run.texts),
        read_all(TextLoss, run.baseline_texts),
        {trial.name: read_all(TextLoss, run.of_trial(trial).evaluate_texts) for trial in trials},
        kept_trial(run, config).name,
    )


def measure_forgetting(
    source: str,
    texts: Sequence[GeneralText],
    base: Sequence[TextLoss],
    tuned: Mapping[str, Sequence[TextLoss]],
    kept: str,
) -> Forgetting | None:
    """The figures of the training `kept` beside the base model, and those of all others.

    `tuned`: name of each training -> the losses of its model. Texts count where every model has a
    finite loss. None if there is no such text. Raises ValueError where a text has different
    numbers of tokens.
    """
    before = _by_text(base)
    after = {name: _by_text(losses) for name, losses in tuned.items()}
    common = [text for text in texts if all(text.text in one for one in (before, *after.values()))]
    if not common:
        return None
    numbers = [text.text for text in common]
    tokens = np.array([before[number].tokens for number in numbers], dtype=float)
    for name, of_trial in after.items():
        if [of_trial[number].tokens for number in numbers] != tokens.tolist():
            raise ValueError(f"{name}: texts have other numbers of tokens than in the baseline")
    losses = {name: _losses(of_trial, numbers) for name, of_trial in after.items()}
    return _forgetting(source, texts, common, tokens, _losses(before, numbers), losses, kept)


def loss_change(differences: Array, tokens: Array) -> LossDifference:
    """The mean difference over all tokens, from the mean of each text [texts] and its tokens.

    The test exchanges the models in whole texts.
    """
    p = flipped_p(differences * tokens, range(len(tokens)))
    return LossDifference(_mean(differences, tokens), change_interval(differences, tokens), p)


def change_interval(differences: Array, tokens: Array) -> Interval | None:
    """95 % interval of the mean difference over all tokens; None for fewer than two texts.

    The mean is a ratio of two sums over texts, which are the units. The interval is that of a
    linearised ratio with Student's t: Cochran (1977), Sampling Techniques, section 6.4.
    """
    number = len(tokens)
    if number < 2:
        return None
    mean = _mean(differences, tokens)
    squares = float(((tokens * (differences - mean)) ** 2).sum())
    error = math.sqrt(squares * number / (number - 1)) / float(tokens.sum())
    half = t_95(number - 1) * error
    return Interval(mean - half, mean + half)


def forgetting_warnings(found: Forgetting | None) -> Iterator[Finding]:
    """A finding if the tuned model predicts general text clearly worse."""
    if found is None or not has_forgotten(found):
        return
    change = found.change
    yield Finding(
        "forgotten",
        {
            "loss_before": found.base_loss,
            "loss_after": found.tuned_loss,
            "difference": change.difference,
            "p": change.p,
            "texts": found.texts,
        },
        forgetting_sentence(found),
    )


def has_forgotten(found: Forgetting) -> bool:
    """Whether the loss rose beyond chance and by more than `FORGOT`."""
    return found.change.p < SIGNIFICANT and found.change.difference > FORGOT


def forgetting_sentence(found: Forgetting) -> str:
    """What tuning did to the loss on general text."""
    change = found.change
    start = f"On {plural(found.texts, 'general text')}, the mean loss of a token"
    if found.worse == found.better == 0:
        return f"{start} is exactly the same before and after tuning, {loss(found.base_loss)} nats."
    figures = f"{with_loss_interval(change)}; sign-flip test over texts, {p_value(change.p)}"
    if change.p >= SIGNIFICANT:
        return f"{start} after tuning is not distinguishable from that before ({figures})."
    way = "fell" if change.difference < 0 else "rose"
    end = ""
    if change.difference > FORGOT:
        end = ": the tuned model predicts such text worse than the base model"
    elif change.difference > 0:
        end = f", less than the {FORGOT} nats that count as forgetting here"
    return (
        f"{start} {way} from {loss(found.base_loss)} to {loss(found.tuned_loss)} nats in tuning "
        f"({figures}){end}."
    )


def with_loss_interval(change: LossDifference) -> str:
    """A difference of losses with its interval: "+0.120 nats, 95 % interval +0.100 to +0.140"."""
    bounds = change.interval
    text = f"{loss_difference(change.difference)} nats"
    return f"{text}, 95 % interval {loss_interval(bounds)}" if bounds else text


def loss_interval(bounds: Interval) -> str:
    """The interval of a difference of losses, such as "+0.100 to +0.140"."""
    return f"{loss_difference(bounds.low)} to {loss_difference(bounds.high)}"


def trials_sentence(found: Forgetting) -> str:
    """The trainings together; "" where there is one."""
    if found.mean_change is None:
        return ""
    rises = [one.change.difference for one in found.trials]
    adjusted = holm([one.change.p for one in found.trials])
    clear = sum(p < SIGNIFICANT and r > FORGOT for p, r in zip(adjusted, rises, strict=True))
    return (
        f"The mean change over the {count(len(rises))} trainings is "
        f"{with_loss_interval(found.mean_change)} (single trainings: "
        f"{loss_difference(min(rises))} to {loss_difference(max(rises))}). The loss rose beyond "
        f"chance (Holm-adjusted) and by more than {FORGOT} nats in {count(clear)} of them."
    )


def _forgetting(
    source: str,
    texts: Sequence[GeneralText],
    common: Sequence[GeneralText],
    tokens: Array,
    base: Array,
    tuned: Mapping[str, Array],
    kept: str,
) -> Forgetting:
    own = tuned[kept]
    base_loss, tuned_loss = _mean(base, tokens), _mean(own, tokens)
    several = len(tuned) > 1
    changes = {name: loss_change(losses - base, tokens) for name, losses in tuned.items()}
    mean = np.mean([losses - base for losses in tuned.values()], axis=0)
    return Forgetting(
        source=source,
        texts=len(common),
        left_out=len(texts) - len(common),
        tokens=int(tokens.sum()),
        most_tokens=int(tokens.max()),
        base_loss=base_loss,
        tuned_loss=tuned_loss,
        base_perplexity=_perplexity(base_loss),
        tuned_perplexity=_perplexity(tuned_loss),
        change=changes[kept],
        worse=int((own > base).sum()),
        better=int((own < base).sum()),
        worst=_worst(common, tokens, base, own),
        trials=tuple(
            TrialForgetting(name, _mean(losses, tokens), changes[name])
            for name, losses in tuned.items()
            if several
        ),
        mean_change=loss_change(mean, tokens) if several else None,
    )


def _worst(
    texts: Sequence[GeneralText], tokens: Array, base: Array, tuned: Array
) -> tuple[TextChange, ...]:
    """The texts whose loss rose most."""
    order = sorted(range(len(texts)), key=lambda at: float(base[at] - tuned[at]))
    return tuple(
        TextChange(
            text=texts[at].text,
            kind=texts[at].kind,
            content=texts[at].content,
            tokens=int(tokens[at]),
            base_loss=float(base[at]),
            tuned_loss=float(tuned[at]),
        )
        for at in order[:SHOWN_TEXTS]
        if tuned[at] > base[at]
    )


def _by_text(losses: Sequence[TextLoss]) -> dict[int, TextLoss]:
    """Text -> its loss, where that is a finite number."""
    return {one.text: one for one in losses if one.loss is not None}


def _losses(of_text: Mapping[int, TextLoss], numbers: Sequence[int]) -> Array:
    return np.array([of_text[number].loss for number in numbers], dtype=float)


def _mean(losses: Array, tokens: Array) -> float:
    """Mean over all tokens."""
    return float((losses * tokens).sum() / tokens.sum())


def _perplexity(mean_loss: float) -> float | None:
    return math.exp(mean_loss) if mean_loss < LARGEST_LOSS else None
