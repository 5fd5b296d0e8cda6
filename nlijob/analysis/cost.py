"""What the job's time cost, at the price that was given."""

from __future__ import annotations

from collections.abc import Mapping

from nlijob.config import ReportConfig
from nlijob.records import Cost, Environment

SECONDS_AN_HOUR = 3600


def job_cost(asked: ReportConfig, environment: Environment, total_s: float) -> Cost | None:
    """The price of `total_s` seconds of this machine; None where no price is known.

    `price_per_hour` is the machine's and wins over the table of GPU prices, which are added up
    over the GPUs in use. Only the job's own time counts, not the machine's start or idle time.
    """
    price, source = asked.price_per_hour, "the price given for the machine"
    if price is None:
        names = [gpu.name for gpu in environment.gpus]
        price, source = _price_of(names, asked.gpu_prices_per_hour), "the recipe's table of GPUs"
    if price is None:
        return None
    amount = price * total_s / SECONDS_AN_HOUR
    return Cost(amount, asked.currency, price, source)


def _price_of(gpu_names: list[str], table: Mapping[str, float]) -> float | None:
    """The sum over the GPUs; None without GPUs or where one is not in the table."""
    prices = [_entry(name, table) for name in gpu_names]
    known = [price for price in prices if price is not None]
    return sum(known) if known and len(known) == len(prices) else None


def _entry(gpu_name: str, table: Mapping[str, float]) -> float | None:
    """The price under the longest key that stands in the GPU's name, whatever the case."""
    fitting = [key for key in table if key.casefold() in gpu_name.casefold()]
    return table[max(fitting, key=len)] if fitting else None
