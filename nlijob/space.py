"""Values to choose from in a search: lists, and ranges written as "1e-5..1e-3:log"."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nlijob.errors import ConfigurationError

Value = int | float | str
Values = str | tuple[Value, ...]
"""A range as it is written, or a list."""
LOG = ":log"
MOST_CANDIDATES = 1_000
SEARCHED: dict[str, type] = {
    "lora.r": int,
    "lora.alpha": int,
    "lora.dropout": float,
    "lora.target_modules": str,
    "train.learning_rate": float,
    "train.schedule": str,
    "train.warmup_ratio": float,
    "train.weight_decay": float,
    "train.max_grad_norm": float,
    "train.epochs": int,
    "train.batch_size": int,
}
"""The settings that a search may change, with the type of their values: they change the outcome of
a training, and nothing before it."""
WITHOUT_EFFECT = (
    "micro_batch_size",
    "gradient_checkpointing",
    "speed",
    "checkpoint_every_s",
    "keep",
)
"""Keys of [train] that do not change what a training learns."""
EXAMPLE = "for example --sweep lora.r=8,16,32 or --sweep train.learning_rate=1e-5..1e-3:log"


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included."""

    low: float
    high: float
    is_log: bool
    """Whether equal factors count as equal distances."""


def parse_sweep(text: str) -> tuple[str, Values]:
    """Split 'section.key=values' into the dotted key and its values: a tuple, or a range as text.

    Values are separated by commas, or a list as TOML has it. Raises ConfigurationError.
    """
    key, separator, raw = text.partition("=")
    key, raw = key.strip(), raw.strip()
    if not separator or key.count(".") != 1 or not raw:
        raise ConfigurationError(f"--sweep {text!r}: expected section.key=values", EXAMPLE)
    if is_range(raw):
        return key, raw
    listed = _toml(raw)
    if isinstance(listed, list):
        return key, tuple(listed)
    return key, tuple(_value(part.strip()) for part in raw.split(","))


def is_range(values: object) -> bool:
    """Whether values are written as a range, such as "1..5", and not as a list."""
    return isinstance(values, str) and ".." in values and "," not in values


def read_range(text: str) -> Range:
    """The range that a text such as "1e-5..1e-3:log" stands for. Raises ValueError."""
    numbers, is_log = text.removesuffix(LOG), text.endswith(LOG)
    low_text, _, high_text = numbers.partition("..")
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        raise ValueError(f"{text!r} is not a range; write low..high or low..high{LOG}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"in {text!r} the first number must be below the second")
    if is_log and low <= 0:
        raise ValueError(f"{text!r} is logarithmic, so it must begin above 0")
    return Range(low, high, is_log)


def space_faults(
    space: Mapping[str, Values], faults_with: Callable[[str, Value], Sequence[str]]
) -> Iterator[str]:
    """What is wrong with the settings of a search and with their values.

    `faults_with` gives the faults of the configuration with one value of a setting.
    """
    for key, values in space.items():
        where = f"sweep.space.{key}"
        faults = [_why_not_searched(key)] if key not in SEARCHED else list(_faults(key, values))
        yield from (f"{where}: {fault}" for fault in faults)
        if not faults:
            for value in bounds_of(key, values) if isinstance(values, str) else values:
                yield from (f"{where}: {fault}" for fault in faults_with(key, value))


def combination_faults(space: Mapping[str, Values]) -> Iterator[str]:
    """Why not all combinations of the values can be tried."""
    ranges = [key for key, values in space.items() if isinstance(values, str)]
    if ranges:
        yield (
            f"sweep.trials: {' and '.join(ranges)} has no list of values of which to try all. Give "
            "the number of candidates to choose, such as --trials 20, or list the values"
        )
        return
    number = math.prod(len(values) for values in space.values())
    if number > MOST_CANDIDATES:
        yield (
            f"sweep.space: {number:,} combinations; at most {MOST_CANDIDATES:,} are tried. Give "
            "fewer values, or the number of candidates to choose, such as --trials 20"
        )


def bounds_of(key: str, values: str) -> tuple[Value, Value]:
    """Lowest and highest value of a setting's range, in its own type."""
    bounds, kind = read_range(values), SEARCHED[key]
    return kind(bounds.low), kind(bounds.high)


def _faults(key: str, values: Values) -> Iterator[str]:
    if not isinstance(values, str):
        if len(values) < 2 or len({str(value) for value in values}) < len(values):
            yield "give two different values or more; a single one is set with --set"
        return
    if SEARCHED[key] is str:
        yield "it is no number, so it has no range; list the values"
        return
    try:
        bounds = read_range(values)
    except ValueError as error:
        yield str(error)
        return
    if SEARCHED[key] is int and not (bounds.low.is_integer() and bounds.high.is_integer()):
        yield f"{values!r} must be of whole numbers"


def _why_not_searched(dotted: str) -> str:
    section, _, key = dotted.partition(".")
    if dotted in ("train.seed", "train.seeds"):
        return "a seed is no setting to choose; --seeds 5 trains five times"
    if section == "train" and key in WITHOUT_EFFECT:
        return f"it does not change what a training learns; give it with --set {dotted}=..."
    known = ", ".join(SEARCHED)
    if section in ("lora", "train"):
        close = difflib.get_close_matches(dotted, SEARCHED, n=1)
        return "unknown key; " + (f"did you mean {close[0]!r}?" if close else f"known: {known}")
    return (
        f"candidates share model, prompt and rows, so a search may change {known} alone. For "
        "others, make a run of each value, and compare them with `nlijob compare`"
    )


def _value(text: str) -> Value:
    value = _toml(text)
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return value
    return text


def _toml(text: str) -> object:
    """A value as TOML reads it; None where it is none."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):  # also numbers of too many digits
        return None
