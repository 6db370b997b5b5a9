"""What a million texts cost, through an API and on a host of one's own, and where they break even.

The prices of assets/prices.json, each with its source and date, change: look yours up and pass your
own `ApiPrice` and `HostPrice`, or put them into `API_PRICES` and `HOST_PRICES`. All money is in US
dollars without tax; all loads are texts a day. What is left out: batch discounts, prompt caching
and free allowances of the APIs, traffic and storage of the hosts, and anybody's working hours.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from cookbook.tables import asset

_SECONDS_PER_DAY = 24 * 60 * 60


def _require(values: Mapping[str, float], above_zero: bool = False) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf or (above_zero and value == 0):
            least = "above 0" if above_zero else "from 0 up"
            raise ValueError(f"{name} is {value}, and should be a number {least}.")


@dataclass(frozen=True)
class ApiPrice:
    """What an API takes.

    Attributes:
        name: Name of the model.
        input: Dollars per million tokens read.
        output: Dollars per million tokens written.
        source: Where the price stands.
        date: When it stood there, in ISO 8601.
        note: What else there is to know.

    Raises:
        ValueError: A price is negative, no number, or so small that it must be per token.
    """

    name: str
    input: float
    output: float
    source: str
    date: str
    note: str = ""

    def __post_init__(self) -> None:
        for kind, price in (("input", self.input), ("output", self.output)):
            name = f"The {kind} price of {self.name}"
            _require({name: price})
            if 0 < price < 0.001:
                raise ValueError(
                    f"{name} is {price} dollars per million tokens: that looks like a price per "
                    "token or per thousand; give it per million."
                )


@dataclass(frozen=True)
class HostPrice:
    """What a machine takes.

    Attributes:
        name: Name of the machine.
        per_hour: Dollars per hour and instance.
        source: Where the price stands.
        date: When it stood there, in ISO 8601.
        per_million_requests: Dollars per million requests, of one text each, on top.
        use_only: Whether only the time of answering is ever billed, such as by AWS Lambda.
        note: What else there is to know.

    Raises:
        ValueError: A price is negative or no number.
    """

    name: str
    per_hour: float
    source: str
    date: str
    per_million_requests: float = 0.0
    use_only: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        _require({f"The hourly price of {self.name}": self.per_hour})
        _require({f"The price of {self.name}'s requests": self.per_million_requests})


_PRICES = json.loads(asset("prices.json"))
API_PRICES = {row["name"]: ApiPrice(**row) for row in _PRICES["apis"]}
"""Prices of LLMs by the token, by name; each says where and when it was read."""
HOST_PRICES = {row["name"]: HostPrice(**row) for row in _PRICES["hosts"]}
"""Prices of machines by the hour, by name; each says where and when it was read."""

Price = TypeVar("Price", ApiPrice, HostPrice)


def price_of(name: Price | str, prices: Mapping[str, Price]) -> Price:
    """Look a price up in `API_PRICES` or `HOST_PRICES`; a price itself is returned as it is.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> price_of("Claude 2", API_PRICES).input
        8.0
    """
    if not isinstance(name, str):
        return name
    if name not in prices:
        raise ValueError(f"There is no price of {name!r}; there are {', '.join(prices)}.")
    return prices[name]


def api_cost(
    api: ApiPrice | str, texts: float, *, input_tokens: float, output_tokens: float
) -> float:
    """Return what texts cost through an API, in dollars.

    Args:
        api: A price, or a name in `API_PRICES`.
        texts: Number of texts.
        input_tokens: Tokens read per text, the prompt included.
        output_tokens: Tokens written per text.

    Raises:
        ValueError: The name is unknown, or a number is negative.

    Example:
        >>> api_cost("GPT-4 Turbo", 3_000, input_tokens=400, output_tokens=200)
        30.0
    """
    api = price_of(api, API_PRICES)
    _require({"texts": texts, "input_tokens": input_tokens, "output_tokens": output_tokens})
    return texts * (input_tokens * api.input + output_tokens * api.output) / 1e6


def hosting_cost(
    host: HostPrice | str,
    texts_per_day: float,
    texts_per_second: float,
    *,
    scale_to_zero: bool = False,
    idle_hours: float = 1.0,
) -> float:
    """Return what a model on a machine of its own costs, in dollars a day.

    Always on, it pays for as many instances as the load, spread over the day, needs; scaled to
    zero, for the time of answering and for `idle_hours`, but never more.

    Args:
        host: A price, or a name in `HOST_PRICES`.
        texts_per_day: The load.
        texts_per_second: What one instance answers.
        scale_to_zero: Whether it sleeps while there is nothing to do.
        idle_hours: Hours a day awake without answering. Hugging Face waits for one.

    Raises:
        ValueError: The name is unknown, a number is negative, or the speed is zero.

    Example:
        >>> round(hosting_cost("Hugging Face CPU x2", 3_000, texts_per_second=100), 3)
        1.536
    """
    host = price_of(host, HOST_PRICES)
    _require({"texts_per_day": texts_per_day, "idle_hours": idle_hours})
    _require({"texts_per_second": texts_per_second}, above_zero=True)
    hours = 24.0 * _instances(texts_per_day, texts_per_second)
    if scale_to_zero or host.use_only:
        idle = idle_hours if texts_per_day and not host.use_only else 0.0
        hours = min(hours, texts_per_day / texts_per_second / 3600 + idle)
    return hours * host.per_hour + texts_per_day * host.per_million_requests / 1e6


def break_even(
    host: HostPrice | str,
    api: ApiPrice | str,
    *,
    texts_per_second: float | None = None,
    scale_to_zero: bool = False,
    idle_hours: float = 1.0,
    **tokens: float,
) -> float:
    """Return the load from which a machine of one's own is cheaper than an API, in texts a day.

    It is the first such load: where a second instance is paid for, the API may be cheaper again.
    Infinite, with a warning, where the host never is.

    Args:
        host: A price, or a name in `HOST_PRICES`.
        api: A price, or a name in `API_PRICES`.
        texts_per_second: What one instance answers; None for any load.
        scale_to_zero: As for `hosting_cost`.
        idle_hours: As for `hosting_cost`.
        **tokens: `input_tokens` and `output_tokens`, as for `api_cost`.

    Raises:
        ValueError: As for `hosting_cost`, or no speed where use is billed.

    Example:
        >>> tokens = {"input_tokens": 87, "output_tokens": 3}
        >>> round(break_even("Hugging Face CPU x2", "GPT-3.5 Turbo", **tokens))
        32000
    """
    host, api = price_of(host, HOST_PRICES), price_of(api, API_PRICES)
    by_use = scale_to_zero or host.use_only
    _require({"idle_hours": idle_hours})
    if texts_per_second is not None:
        _require({"texts_per_second": texts_per_second}, above_zero=True)
    elif by_use:
        raise ValueError(f"{host.name} is billed by use: texts_per_second says how much that is.")
    price, requests = api_cost(api, 1, **tokens), host.per_million_requests / 1e6
    answering = host.per_hour / 3600 / texts_per_second if texts_per_second else 0.0
    saved = price - requests
    # A text that costs more to answer than the API takes is never made up for, however many
    # instances there are: a full one costs exactly that per text.
    if saved <= 0 or saved < answering:
        warnings.warn(
            f"{host.name} never gets cheaper than {api.name}: on a busy instance a text costs "
            f"${requests + answering:.2g}, through the API ${price:.2g}.",
            stacklevel=2,
        )
        return math.inf
    always_on = 24 * host.per_hour / saved
    if not by_use or saved == answering:
        return always_on
    idle = 0.0 if host.use_only else idle_hours * host.per_hour
    return min(always_on, idle / (saved - answering))


def compare_costs(
    texts_per_day: float,
    hosts: Mapping[Any, float],
    apis: Iterable[str | ApiPrice] | None = None,
    *,
    idle_hours: float = 1.0,
    **tokens: float,
) -> pd.DataFrame:
    """Tabulate what a load costs in every way, the cheapest first.

    Args:
        texts_per_day: The load.
        hosts: Texts per second, as measured, by host: a price, or a name in `HOST_PRICES`.
        apis: Prices, or names in `API_PRICES`; None for all of these.
        idle_hours: As for `hosting_cost`.
        **tokens: `input_tokens` and `output_tokens`, as for `api_cost`.

    Returns:
        One row per API and for each of a host's `ways`: `dollars_per_day`, `dollars_per_million`
        (texts), `instances`, `share_of_capacity` (how busy they are), `price_of` (its date).

    Raises:
        ValueError: A name is unknown or there twice, or a number is negative or zero.

    Example:
        >>> tokens = {"input_tokens": 400, "output_tokens": 200}
        >>> compare_costs(3_000, {}, ["Claude 2"], **tokens)["dollars_per_day"].tolist()
        [24.0]
    """
    _require({"texts_per_day": texts_per_day}, above_zero=True)
    rows: list[tuple[Any, ...]] = []
    for api in API_PRICES if apis is None else apis:
        api = price_of(api, API_PRICES)
        rows.append((api.name, api_cost(api, texts_per_day, **tokens), None, None, api.date))
    for name, speed in hosts.items():
        host = price_of(name, HOST_PRICES)
        for how, asleep in ways(host):
            cost = hosting_cost(
                host, texts_per_day, speed, scale_to_zero=asleep, idle_hours=idle_hours
            )
            instances = _instances(texts_per_day, speed)
            busy = texts_per_day / speed / _SECONDS_PER_DAY / instances
            rows.append((how, cost, instances, busy, host.date))
    columns = ["option", "dollars_per_day", "instances", "share_of_capacity", "price_of"]
    table = pd.DataFrame(rows, columns=columns).set_index("option")
    if table.index.has_duplicates:
        raise ValueError(f"A name is there twice, give one another: {list(table.index)}")
    table.insert(1, "dollars_per_million", table["dollars_per_day"] / texts_per_day * 1e6)
    table = table.astype({"instances": "Int64", "share_of_capacity": float})
    return table.sort_values("dollars_per_day", kind="stable")


def ways(host: HostPrice | str) -> list[tuple[str, bool]]:
    """Return how a host can be paid for: what to call it, and whether it is scaled to zero.

    Example:
        >>> ways("AWS Lambda 2 GB")
        [('AWS Lambda 2 GB, by use', True)]
    """
    host = price_of(host, HOST_PRICES)
    if host.use_only:
        return [(f"{host.name}, by use", True)]
    return [(f"{host.name}, always on", False), (f"{host.name}, scale to zero", True)]


def _instances(texts_per_day: float, texts_per_second: float) -> int:
    # Rounded, so that an instance that is exactly full isn't joined by a second one.
    return max(1, math.ceil(round(texts_per_day / texts_per_second / _SECONDS_PER_DAY, 9)))
