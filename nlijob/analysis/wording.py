"""Figures as text. Rounding never misleads: only all is shown as 100 %, only none as 0 %.

The page, the terminal, summary.md, the model card, `compare` and `index` all word their figures
here, so that a figure reads the same everywhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from nlijob.records.intervals import Interval

NOT_MEASURED = "not measured"
GIB = 2**30
MIB = 2**20
MINUTE = 59.95
"""Seconds at and above which rounding to a tenth would give a full minute."""
MINUS = "\N{MINUS SIGN}"
MOST_DECIMALS = 6
"""Most decimals of a bound in percent; one that is still closer to 0 or 100 % gets a < or >."""


def percent(share: float, decimals: int = 1) -> str:
    """A share (0 to 1) in percent; "> 99.9 %" or "< 0.1 %" if it would round to 100 % or 0 %."""
    step = 10**-decimals
    shown = round(100 * share, decimals)
    if shown >= 100 and share < 1:
        return f"> {100 - step:.{decimals}f} %"
    if shown <= 0 and share > 0:
        return f"< {step:.{decimals}f} %"
    return f"{shown:.{decimals}f} %"


def share_of(part: int, whole: int) -> str:
    """A share with its counts, such as "87.0 % (87 of 100)"."""
    if not whole:
        return "no rows"
    return f"{percent(part / whole)} ({count(part)} of {count(whole)})"


def interval(bounds: Interval) -> str:
    """A confidence interval of a share, such as "79.0 to 92.2 %".

    It has as many decimals as it takes for no bound to look like 0 % or 100 % that is not.
    """
    low, high = _bounds(bounds)
    return f"{low} to {high} %"


def with_interval(share: float, bounds: Interval | None) -> str:
    """A share with its confidence interval, such as "87.0 % (79.0 to 92.2 %)"."""
    return percent(share) + (f" ({interval(bounds)})" if bounds else "")


def points(difference: float, decimals: int = 1) -> str:
    """A signed difference of two shares in percentage points.

    It has as many decimals as it takes for no difference to look like 0 or 100 that is not.
    """
    return f"{_sign(difference)}{_told_from(100 * abs(difference), decimals, (0, 100))} points"


def signed(value: float, decimals: int) -> str:
    """A number with its sign, and more decimals where it would look like 0; zero has no sign."""
    return f"{_sign(value)}{_told_from(abs(value), decimals)}"


def points_interval(bounds: Interval) -> str:
    """An interval of a difference of two shares, in points, such as "+21.0 to +44.9".

    As in `interval`, no bound looks like 0 or 100 that is not.
    """
    low, high = _bounds(bounds)
    return f"{_sign(bounds.low)}{low} to {_sign(bounds.high)}{high}"


def probability(value: float) -> str:
    """A probability with two decimals; only exactly 0 or 1 is shown as "0.00" or "1.00"."""
    if value < 1 and round(value, 2) >= 1:
        return "> 0.99"
    if value > 0 and round(value, 2) <= 0:
        return "< 0.01"
    return f"{value:.2f}"


def signed_probability(difference: float) -> str:
    """A signed difference of two probabilities with two decimals, or more as in `points`."""
    return f"{_sign(difference)}{_told_from(abs(difference), 2, (0, 1))}"


def loss(value: float) -> str:
    """A loss in nats with three decimals; only a loss of exactly 0 is shown as "0.000"."""
    return "< 0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def loss_difference(difference: float) -> str:
    """A signed difference of two losses in nats with three decimals, or more as in `points`."""
    return signed(difference, 3)


def metric(value: float) -> str:
    """A metric of any scale with three decimals, or more where it would look like 0."""
    return f"{MINUS if value < 0 else ''}{_told_from(abs(value), 3)}"


def p_value(p: float) -> str:
    """A p-value such as "p = 0.012", never rounded across 0.05 nor to 0 or 1."""
    if p < 0.001:
        return "p < 0.001"
    if 0.9995 <= p < 1:
        return "p > 0.999"
    decimals = 3
    while (round(p, decimals) >= 0.05) != (p >= 0.05) and decimals < 12:
        decimals += 1
    return f"p = {p:.{decimals}f}"


def mcnemar_name(premises: int | None) -> str:
    """The name of the test that compares two models; `premises` is None if each row is a unit."""
    if premises is None:
        return "exact McNemar test"
    return f"exact McNemar test over {plural(premises, 'premise')}"


def count(number: int) -> str:
    """A whole number with thousands separated."""
    return f"{number:,}"


def whole(value: float) -> str:
    """A number of at least 0 without decimals; only 0 is shown as 0."""
    return "< 1" if 0 < value <= 0.5 else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, or "not measured"."""
    if value is None:
        return NOT_MEASURED
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")  # 9.996 needs no more decimals than 10.0
    magnitude = math.floor(math.log10(abs(rounded)))
    if magnitude < -4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def duration(seconds: float | None) -> str:
    """A duration with its seconds in parentheses, such as "2 h 5 min (7,500 s)".

    A negative one, of a run before format 4 whose clock was set, was not measured.
    """
    if seconds is None or seconds < 0:
        return NOT_MEASURED
    if seconds < MINUTE:
        return short_seconds(seconds)
    return f"{clock(seconds)} ({seconds:,.0f} s)"


def clock(seconds: float) -> str:
    """A duration in its two largest units, such as "2 h 5 min"; see `duration` for a negative."""
    if seconds < 0:
        return NOT_MEASURED
    if seconds < MINUTE:
        return short_seconds(seconds)
    whole = round(seconds)
    days, hours = divmod(whole // 3600, 24)
    minutes, rest = divmod(whole % 3600, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s"


def roughly(seconds: float) -> str:
    """A time that is not known exactly, such as "45 s", "3 min 20 s" or "2 h 5 min"."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    return clock(10 * math.ceil(whole / 10))


def at_least(text: str, is_least: bool) -> str:
    """A figure as text, said to be a lower bound where it is one."""
    return f"at least {text}" if is_least else text


def short_seconds(seconds: float) -> str:
    """A duration below a minute, down to milliseconds."""
    if 0 < seconds < 0.0005:
        return "< 0.001 s"
    return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.1f} s"


def gib(size_bytes: float | None) -> str:
    """A size in GiB (2^30 bytes), or in MiB if it is small."""
    if size_bytes is None:
        return NOT_MEASURED
    if 0 < size_bytes < MIB / 20:
        return "< 0.1 MiB"
    if abs(size_bytes) < GIB / 10:
        return f"{size_bytes / MIB:.1f} MiB"
    return f"{size_bytes / GIB:,.2f} GiB"


def energy(joules: float | None) -> str:
    """Energy in Wh, with joules in parentheses."""
    if joules is None:
        return NOT_MEASURED
    watt_hours = joules / 3600
    amount = f"{watt_hours / 1000:.2f} kWh" if watt_hours >= 1000 else f"{decimal(watt_hours)} Wh"
    return f"{amount} ({whole(joules)} J)"


def emissions(grams: float | None) -> str:
    """Emissions in grams of CO2 equivalents, or in kilograms where they are many."""
    if grams is None:
        return NOT_MEASURED
    return f"{decimal(grams / 1000)} kg" if grams >= 1000 else f"{decimal(grams)} g"


def money(amount: float, currency: str) -> str:
    """An amount of money such as "USD 3.20"; small ones keep two significant digits."""
    text = f"{amount:,.2f}" if amount >= 1 or not amount else decimal(amount, 2)
    return f"{currency} {text}"


def rate(per_s: float | None, unit: str = "examples") -> str:
    """A speed, such as "12.3 examples/s"."""
    return NOT_MEASURED if per_s is None else f"{decimal(per_s)} {unit}/s"


def part_of(part: int, whole: int, noun: str) -> str:
    """A share of things with its percentage: "3 of 32 test rows (9.4 %)"."""
    return f"{count(part)} of {plural(whole, noun)} ({percent(part / whole)})"


def which(number: int, one: str, several: str) -> str:
    """The words that go with a number: "is" for 1, "are" for all others."""
    return one if number == 1 else several


def plural(number: int, noun: str) -> str:
    """A count with its noun: "1 row", "1,200 rows"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def listed(items: list[str] | tuple[str, ...]) -> str:
    """Items as running text: "a, b and c"."""
    *first, last = items or ("none",)
    return f"{', '.join(first)} and {last}" if first else last


def counted(items: Sequence[str]) -> str:
    """Items as running text, those that repeat with their number: "2 × a and b"."""
    numbers = Counter(items)
    return listed([f"{n} × {item}" if n > 1 else item for item, n in numbers.items()])


def settings_text(settings: Mapping[str, int | float | str]) -> str:
    """Settings as running text: "lora.r 8, train.learning_rate 0.0002"."""
    return ", ".join(f"{key} {setting_text(value)}" for key, value in settings.items())


def setting_text(value: int | float | str) -> str:
    """The value of a setting; numbers with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _sign(value: float) -> str:
    return "+" if value > 0 else MINUS if value < 0 else ""


def _told_from(value: float, decimals: int, ends: tuple[int, ...] = (0,)) -> str:
    """A number from 0 to the last of `ends`, with more decimals where it would look like an end."""
    while decimals < MOST_DECIMALS and _looks_like(value, decimals, ends):
        decimals += 1
    if not _looks_like(value, decimals, ends):
        return f"{value:.{decimals}f}"
    step = 10**-decimals
    end = round(value)
    return f"> {end - step:.{decimals}f}" if end else f"< {step:.{decimals}f}"


def _looks_like(value: float, decimals: int, ends: tuple[int, ...]) -> bool:
    return value not in ends and round(value, decimals) in ends


def _bounds(bounds: Interval) -> tuple[str, str]:
    """Both bounds in percent without their signs, with one decimal or as many as they need."""
    decimals = 1
    while decimals < MOST_DECIMALS and any(
        _looks_exact(bound, decimals) for bound in (bounds.low, bounds.high)
    ):
        decimals += 1
    return _bound(abs(bounds.low), decimals), _bound(abs(bounds.high), decimals)


def _bound(share: float, decimals: int) -> str:
    if _looks_exact(share, decimals):
        return percent(share, decimals).removesuffix(" %")
    return f"{100 * share:.{decimals}f}"


def _looks_exact(share: float, decimals: int) -> bool:
    """Whether a share that is neither 0 nor 1 (nor -1) is shown as such with so many decimals."""
    return abs(share) not in (0, 1) and round(100 * abs(share), decimals) in (0, 100)
