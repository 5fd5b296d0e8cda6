"""The cost of the job's time at the configured price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nlijob.analysis.resources import GpusInUse
from nlijob.config import ReportConfig
from nlijob.records.job import GpuInfo
from nlijob.records.outcome import Cost

SECONDS_AN_HOUR = 3600


def job_cost(asked: ReportConfig, in_use: GpusInUse, seconds: Mapping[int, float]) -> Cost | None:
    """Cost of all attempts; None unless the price of every attempt is known.

    `price_per_hour` is the price of the machine and takes precedence over the table of GPU prices,
    which are summed over the GPUs of an attempt. Only the job's own time counts, not the start or
    idle time of the machine.
    """
    hours = {attempt: of / SECONDS_AN_HOUR for attempt, of in seconds.items()}
    prices = {attempt: _price_per_hour(asked, in_use.at(attempt)) for attempt in hours}
    known = {attempt: price for attempt, price in prices.items() if price is not None}
    if not known or len(known) < len(hours):
        return None
    amount = sum(price * hours[attempt] for attempt, price in known.items())
    different = {*known.values()}
    price_per_hour = amount / sum(hours.values()) if len(different) > 1 else different.pop()
    by_table = asked.price_per_hour is None
    number = max(len(in_use.at(attempt)) for attempt in known)
    table = "the recipe's table of GPUs" + (f", for {number} GPUs" if number > 1 else "")
    source = table if by_table else "the price given for the machine"
    return Cost(amount, asked.currency, price_per_hour, source)


def _price_per_hour(asked: ReportConfig, gpus: Sequence[GpuInfo]) -> float | None:
    return price_per_hour(asked, [gpu.name for gpu in gpus])


def price_per_hour(asked: ReportConfig, gpus: Sequence[str]) -> float | None:
    """The machine's price, or the sum over its GPUs; None without GPUs or where one is unknown."""
    if asked.price_per_hour is not None:
        return asked.price_per_hour
    prices = [_entry(name, asked.gpu_prices_per_hour) for name in gpus]
    known = [price for price in prices if price is not None]
    return sum(known) if known and len(known) == len(prices) else None


def _entry(gpu_name: str, table: Mapping[str, float]) -> float | None:
    """Price under the longest key that occurs in the GPU's name, ignoring case."""
    fitting = [key for key in table if key.casefold() in gpu_name.casefold()]
    return table[max(fitting, key=len)] if fitting else None
