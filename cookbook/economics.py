"""What a million texts cost, through an API and on a host of one's own, and where they break even.

Prices are data, each with its source and date, and they change: look yours up and pass your own
`ApiPrice` and `HostPrice`, or put them into `API_PRICES` and `HOST_PRICES`. All money is in US
dollars without tax; all loads are texts a day. What is left out: batch discounts, prompt caching
and free allowances of the APIs, traffic and storage of the hosts, and anybody's working hours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

_Price = TypeVar("_Price", "ApiPrice", "HostPrice")

_SECONDS_PER_DAY = 24 * 60 * 60


def _require(name: str, value: float, positive: bool = False) -> None:
    if not (math.isfinite(value) and value >= 0) or (positive and value == 0):
        kind = "a number above 0" if positive else "0 or a number above it"
        raise ValueError(f"{name} is {value}, and should be {kind}.")


@dataclass(frozen=True)
class ApiPrice:
    """What an API takes.

    Attributes:
        name: Name of the model.
        input: Dollars per million tokens read.
        output: Dollars per million tokens written.
        source: Where the price stands.
        date: When it stood there: a year, a month or a day in ISO 8601.

    Raises:
        ValueError: A price is negative, no number, or so small that it must be per token or per
            thousand tokens.
    """

    name: str
    input: float
    output: float
    source: str
    date: str

    def __post_init__(self) -> None:
        for kind in ("input", "output"):
            price = getattr(self, kind)
            _require(f"The {kind} price of {self.name}", price)
            if 0 < price < 0.001:
                raise ValueError(
                    f"The {kind} price of {self.name} is {price} dollars per million tokens: that "
                    "looks like a price per token or per thousand; give it per million."
                )


@dataclass(frozen=True)
class HostPrice:
    """What a machine takes.

    Attributes:
        name: Name of the machine.
        per_hour: Dollars per hour and instance.
        source: Where the price stands.
        date: When it stood there: a year, a month or a day in ISO 8601.
        per_million_requests: Dollars per million requests on top; a request is taken for one text.
        use_only: Whether only the time of answering is ever billed, such as by AWS Lambda.

    Raises:
        ValueError: A price is negative or no number.
    """

    name: str
    per_hour: float
    source: str
    date: str
    per_million_requests: float = 0.0
    use_only: bool = False

    def __post_init__(self) -> None:
        _require(f"The hourly price of {self.name}", self.per_hour)
        _require(f"The price per million requests of {self.name}", self.per_million_requests)


_OPENAI, _ANTHROPIC = "https://openai.com/pricing", "https://www.anthropic.com/pricing"
_HUGGING_FACE = "https://huggingface.co/docs/inference-endpoints/pricing"

API_PRICES: dict[str, ApiPrice] = {
    price.name: price
    for price in (
        ApiPrice("GPT-4 Turbo", 10.00, 30.00, _OPENAI, "2024-04"),
        ApiPrice(
            "GPT-3.5 Turbo",  # gpt-3.5-turbo-0125
            0.50,
            1.50,
            "https://openai.com/blog/new-embedding-models-and-api-updates",
            "2024-01-25",
        ),
        ApiPrice("Claude 2", 8.00, 24.00, _ANTHROPIC, "2024-04"),
        ApiPrice(
            "Claude 3 Haiku", 0.25, 1.25, "https://www.anthropic.com/news/claude-3-haiku", "2024-03"
        ),
        ApiPrice(
            "GPT-4o mini",
            0.15,
            0.60,
            "https://openai.com/index/gpt-4o-mini-advancing-cost-efficient-intelligence/",
            "2024-07-18",
        ),
    )
}

HOST_PRICES: dict[str, HostPrice] = {
    price.name: price
    for price in (
        # On AWS, Intel Ice Lake: 1 vCPU with 2 GB, 2 vCPUs with 4 GB.
        HostPrice("Hugging Face CPU x1", 0.032, _HUGGING_FACE, "2024-05"),
        HostPrice("Hugging Face CPU x2", 0.064, _HUGGING_FACE, "2024-05"),
        HostPrice("Hugging Face T4", 0.50, _HUGGING_FACE, "2024-05"),
        # Linux, on demand, us-east-1: 2 vCPUs with 4 GiB. Burstable: kept busy for more than a
        # fifth of the time, it slows down or costs more.
        HostPrice("AWS t3.medium", 0.0416, "https://aws.amazon.com/ec2/pricing/on-demand/", "2024"),
        # x86, us-east-1: $0.0000166667 per GB-second, here 2 GB, about one vCPU.
        HostPrice(
            "AWS Lambda 2 GB",
            2 * 3600 * 0.0000166667,
            "https://aws.amazon.com/lambda/pricing/",
            "2024",
            per_million_requests=0.20,
            use_only=True,
        ),
    )
}


def api_cost(
    api: ApiPrice | str, texts: float, *, input_tokens: float, output_tokens: float
) -> float:
    """Return what texts cost through an API.

    Args:
        api: A price, or a name in `API_PRICES`.
        texts: Number of texts.
        input_tokens: Tokens read per text, the prompt included.
        output_tokens: Tokens written per text.

    Returns:
        Dollars.

    Raises:
        ValueError: The name is unknown, or a number is negative.

    Example:
        >>> api_cost("GPT-4 Turbo", 3_000, input_tokens=400, output_tokens=200)
        30.0
    """
    api = _known(api, API_PRICES, "API_PRICES")
    _require("texts", texts)
    _require("input_tokens", input_tokens)
    _require("output_tokens", output_tokens)
    return texts * (input_tokens * api.input + output_tokens * api.output) / 1e6


def hosting_cost(
    host: HostPrice | str,
    texts_per_day: float,
    texts_per_second: float,
    *,
    scale_to_zero: bool = False,
    idle_hours: float = 1.0,
) -> float:
    """Return what a model on a machine of its own costs a day.

    Always on, it pays for 24 hours of as many instances as the load needs, and for one at least.
    Scaled to zero, it pays for the time of answering and for `idle_hours`, and never for more than
    if it were always on. The load is taken as spread over the day: where all of it comes within
    eight hours, pass a third of the speed for a host that is always on.

    Args:
        host: A price, or a name in `HOST_PRICES`.
        texts_per_day: The load.
        texts_per_second: What one instance answers, as measured on such a machine.
        scale_to_zero: Whether the host sleeps while there is nothing to do.
        idle_hours: Hours a day that it is awake without answering: start-ups, and the waits before
            it falls asleep. Hugging Face waits for an hour, unless told otherwise
            (https://huggingface.co/docs/inference-endpoints/guides/autoscaling), so the default
            stands for one batch of texts a day. Of a host that bills use only, none are counted.

    Returns:
        Dollars a day.

    Raises:
        ValueError: The name is unknown, a number is negative, or the speed is zero.

    Example:
        >>> round(hosting_cost("Hugging Face CPU x2", 3_000, texts_per_second=100), 3)
        1.536
    """
    host = _known(host, HOST_PRICES, "HOST_PRICES")
    _require("texts_per_day", texts_per_day)
    _require("texts_per_second", texts_per_second, positive=True)
    _require("idle_hours", idle_hours)
    hours = 24.0 * _instances(texts_per_day, texts_per_second)
    if scale_to_zero or host.use_only:
        idle = idle_hours if texts_per_day and not host.use_only else 0.0
        hours = min(hours, texts_per_day / texts_per_second / 3600 + idle)
    return hours * host.per_hour + texts_per_day * host.per_million_requests / 1e6


def break_even(
    host: HostPrice | str,
    api: ApiPrice | str,
    *,
    input_tokens: float,
    output_tokens: float,
    texts_per_second: float | None = None,
    scale_to_zero: bool = False,
    idle_hours: float = 1.0,
) -> float:
    """Return the load from which a machine of one's own is cheaper than an API.

    Always on, that is the price of a day divided by what the API takes for a text. It is the first
    such load: past the capacity of one instance a second one is paid for, and until that is filled
    as well the API may be cheaper again.

    A well-known article puts it at about 32,000 titles a day, for a clickbait classifier on a small
    CPU instance against GPT-3.5 Turbo
    (https://towardsdatascience.com/fine-tune-smaller-transformer-models-text-classification-77cbbd3bf02b),
    and doesn't list all that it assumes. The example assumes $0.064 an hour, 87 tokens in (a prompt
    of some 70 and the title) and 3 out (the label), all three our own guesses. With $0.060 an hour
    it would be 30,000, with a prompt of 170 tokens 15,700: the prompt decides.

    Args:
        host: A price, or a name in `HOST_PRICES`.
        api: A price, or a name in `API_PRICES`.
        input_tokens: Tokens that the API reads per text, the prompt included.
        output_tokens: Tokens that it writes per text.
        texts_per_second: What one instance answers; None where it is fast enough for any load.
        scale_to_zero: Whether the host sleeps while there is nothing to do.
        idle_hours: As for `hosting_cost`.

    Returns:
        Texts a day; 0 where the host is cheaper from the first text on; infinite, with a warning
        that says why, where the API stays cheaper at any load.

    Raises:
        ValueError: A name is unknown, a number is negative, the speed is zero, or it is missing
            where only use is billed.

    Example:
        >>> round(break_even(
        ...     "Hugging Face CPU x2", "GPT-3.5 Turbo", input_tokens=87, output_tokens=3
        ... ))
        32000
    """
    host = _known(host, HOST_PRICES, "HOST_PRICES")
    api = _known(api, API_PRICES, "API_PRICES")
    _require("idle_hours", idle_hours)
    if texts_per_second is not None:
        _require("texts_per_second", texts_per_second, positive=True)
    elif scale_to_zero or host.use_only:
        raise ValueError(f"{host.name} is billed by use: texts_per_second says how much that is.")
    saved = api_cost(api, 1, input_tokens=input_tokens, output_tokens=output_tokens)
    saved -= host.per_million_requests / 1e6
    answering = host.per_hour / 3600 / texts_per_second if texts_per_second else 0.0
    # A text that costs more to answer than the API takes is never made up for, however many
    # instances there are: a full one costs exactly that per text.
    if saved <= 0 or saved < answering:
        warnings.warn(
            f"{host.name} never gets cheaper than {api.name}: a text costs "
            f"${host.per_million_requests / 1e6 + answering:.2g} on a busy instance"
            + (f" at {texts_per_second:g} texts a second" if texts_per_second else "")
            + f", and ${saved + host.per_million_requests / 1e6:.2g} through the API.",
            stacklevel=2,
        )
        return math.inf
    always_on = 24 * host.per_hour / saved
    if not (scale_to_zero or host.use_only):
        return always_on
    idle = 0.0 if host.use_only else idle_hours * host.per_hour
    return min(always_on, idle / (saved - answering)) if saved > answering else always_on


def compare_costs(
    texts_per_day: float,
    hosts: Mapping[Any, float],
    apis: Iterable[str | ApiPrice] | None = None,
    *,
    input_tokens: float,
    output_tokens: float,
    idle_hours: float = 1.0,
) -> pd.DataFrame:
    """Tabulate what a load costs in every way.

    Args:
        texts_per_day: The load.
        hosts: Texts per second, as measured, by host: a price, or a name in `HOST_PRICES`.
        apis: Prices, or names in `API_PRICES`; None for all of these.
        input_tokens: Tokens that an API reads per text, the prompt included.
        output_tokens: Tokens that it writes per text.
        idle_hours: As for `hosting_cost`, where scaled to zero.

    Returns:
        One row per API and two per host, always on and scaled to zero (one where only use is
        billed), the cheapest first: `dollars_per_day`, `dollars_per_million` (texts), `instances`
        that the load needs, `share_of_capacity` (how busy they are, 0 to 1; both missing for an
        API) and `price_of` (the date of the price).

    Raises:
        ValueError: A name is unknown or there twice, a number is negative, or the load or a speed
            is zero.

    Example:
        >>> table = compare_costs(
        ...     3_000, {"Hugging Face CPU x2": 100}, ["Claude 2"], input_tokens=400,
        ...     output_tokens=200, idle_hours=0
        ... )
        >>> table["dollars_per_day"].round(4).to_dict()  # doctest: +NORMALIZE_WHITESPACE
        {'Hugging Face CPU x2, scale to zero': 0.0005, 'Hugging Face CPU x2, always on': 1.536,
         'Claude 2': 24.0}
    """
    _require("texts_per_day", texts_per_day, positive=True)
    rows: dict[str, dict[str, float | str]] = {}
    for api in API_PRICES if apis is None else apis:
        api = _known(api, API_PRICES, "API_PRICES")
        cost = api_cost(api, texts_per_day, input_tokens=input_tokens, output_tokens=output_tokens)
        _require_new(api.name, rows)
        rows[api.name] = {"dollars_per_day": cost, "price_of": api.date}
    for host, speed in hosts.items():
        host = _known(host, HOST_PRICES, "HOST_PRICES")
        for asleep in (True,) if host.use_only else (False, True):
            cost = hosting_cost(
                host, texts_per_day, speed, scale_to_zero=asleep, idle_hours=idle_hours
            )
            instances = _instances(texts_per_day, speed)
            how = "by use" if host.use_only else "scale to zero" if asleep else "always on"
            _require_new(f"{host.name}, {how}", rows)
            rows[f"{host.name}, {how}"] = {
                "dollars_per_day": cost,
                "instances": instances,
                "share_of_capacity": texts_per_day / speed / _SECONDS_PER_DAY / instances,
                "price_of": host.date,
            }
    columns = ["dollars_per_day", "instances", "share_of_capacity", "price_of"]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    table.insert(1, "dollars_per_million", table["dollars_per_day"] / texts_per_day * 1e6)
    table["instances"] = table["instances"].astype("Int64")
    return table.rename_axis("option").sort_values("dollars_per_day", kind="stable")


def _require_new(name: str, rows: Mapping[str, Any]) -> None:
    if name in rows:
        raise ValueError(f"{name!r} is there twice: give one of the prices another name.")


def _instances(texts_per_day: float, texts_per_second: float) -> int:
    # Rounded, so that an instance that is exactly full isn't joined by a second one.
    return max(1, math.ceil(round(texts_per_day / texts_per_second / _SECONDS_PER_DAY, 9)))


def _known(price: _Price | str, prices: Mapping[str, _Price], where: str) -> _Price:
    if not isinstance(price, str):
        return price
    if price not in prices:
        raise ValueError(f"{price!r} isn't in {where}, which has {', '.join(prices)}.")
    return prices[price]
