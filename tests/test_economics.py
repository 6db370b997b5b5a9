import dataclasses
import itertools
import math
from typing import Any

import pytest

from cookbook import economics
from cookbook.economics import ApiPrice, HostPrice

# What the article on keywords assumes for a text: tokens in and out.
POST: dict[str, Any] = {"input_tokens": 400, "output_tokens": 200}
# Ours for the article on clickbait, which doesn't list them: a prompt of some 70 tokens with the
# title, and 3 tokens of label.
TITLE: dict[str, Any] = {"input_tokens": 87, "output_tokens": 3}
CPU = "Hugging Face CPU x2"
FULL = 100 * 24 * 60 * 60  # what one instance answers a day at 100 texts a second


@pytest.mark.parametrize(
    ("api", "dollars"), [("GPT-4 Turbo", 30.00), ("GPT-3.5 Turbo", 1.50), ("Claude 2", 24.00)]
)
def test_three_thousand_posts_a_day_cost_what_the_article_says(api, dollars):
    assert economics.api_cost(api, 3_000, **POST) == pytest.approx(dollars)


def test_a_small_instance_breaks_even_with_gpt_3_5_at_32_000_titles_a_day():
    load = economics.break_even(CPU, "GPT-3.5 Turbo", texts_per_second=100, **TITLE)
    assert load == pytest.approx(32_000)
    assert economics.hosting_cost(CPU, load, 100) == pytest.approx(24 * 0.064)
    assert economics.api_cost("GPT-3.5 Turbo", load, **TITLE) == pytest.approx(24 * 0.064)


def test_other_assumptions_move_the_break_even():
    cheaper = dataclasses.replace(economics.HOST_PRICES[CPU], per_hour=0.060)
    assert economics.break_even(cheaper, "GPT-3.5 Turbo", **TITLE) == pytest.approx(30_000)
    longer = {"input_tokens": 187, "output_tokens": 3}
    assert economics.break_even(CPU, "GPT-3.5 Turbo", **longer) == pytest.approx(15_700, abs=50)


def test_every_price_has_its_source_and_date():
    for price in (*economics.API_PRICES.values(), *economics.HOST_PRICES.values()):
        assert price.source.startswith("https://")
        assert price.date[:2] == "20"


def test_always_on_pays_for_whole_instances_and_for_one_at_least():
    costs = [economics.hosting_cost(CPU, load, 100) for load in (0, 1, FULL, FULL + 1, 3 * FULL)]
    assert [cost / 1.536 for cost in costs] == pytest.approx([1, 1, 1, 2, 3])


def test_scaled_to_zero_pays_for_the_hours_of_use_and_the_hours_awake():
    # 720,000 texts at 100 a second take two hours, and one more is spent awake.
    assert economics.hosting_cost(CPU, 720_000, 100, scale_to_zero=True) == pytest.approx(3 * 0.064)
    assert economics.hosting_cost(CPU, 0, 100, scale_to_zero=True) == 0


@pytest.mark.parametrize("idle_hours", [0, 1, 24, 1000])
@pytest.mark.parametrize("load", [0, 1, 3_000, FULL / 2, FULL, 10 * FULL])
def test_scaled_to_zero_never_costs_more_than_always_on(load, idle_hours):
    asleep = economics.hosting_cost(CPU, load, 100, scale_to_zero=True, idle_hours=idle_hours)
    assert asleep <= economics.hosting_cost(CPU, load, 100)


@pytest.mark.parametrize("host", economics.HOST_PRICES)
@pytest.mark.parametrize("scale_to_zero", [False, True])
def test_more_texts_never_cost_less(host, scale_to_zero):
    loads = [0, 1, 10, 3_000, FULL - 1, FULL, FULL + 1, 5 * FULL]
    costs = [economics.hosting_cost(host, n, 100, scale_to_zero=scale_to_zero) for n in loads]
    assert all(more >= less for less, more in itertools.pairwise(costs))


def test_lambda_bills_gigabyte_seconds_and_requests_and_nothing_for_a_day_without_texts():
    # A million texts at 10 a second: 100,000 seconds of 2 GB, and 20 cents for the requests.
    cost = economics.hosting_cost("AWS Lambda 2 GB", 1e6, 10)
    assert cost == pytest.approx(100_000 * 2 * 0.0000166667 + 0.20)
    assert economics.hosting_cost("AWS Lambda 2 GB", 0, 10) == 0


@pytest.mark.parametrize("scale_to_zero", [False, True])
@pytest.mark.parametrize("api", economics.API_PRICES)
@pytest.mark.parametrize("host", [CPU, "Hugging Face T4", "AWS t3.medium"])
def test_the_host_is_dearer_just_below_the_break_even_and_cheaper_just_above(
    host, api, scale_to_zero
):
    load = economics.break_even(
        host, api, texts_per_second=100, scale_to_zero=scale_to_zero, **TITLE
    )
    below, above = (
        economics.hosting_cost(host, n, 100, scale_to_zero=scale_to_zero)
        - economics.api_cost(api, n, **TITLE)
        for n in (0.999 * load, 1.001 * load)
    )
    assert below > 0 > above


def test_a_host_without_idle_hours_is_cheaper_from_the_first_text():
    load = economics.break_even(
        CPU, "GPT-4o mini", texts_per_second=100, scale_to_zero=True, idle_hours=0, **TITLE
    )
    assert load == 0
    assert economics.break_even("AWS Lambda 2 GB", "Claude 2", texts_per_second=10, **TITLE) == 0


@pytest.mark.parametrize("scale_to_zero", [False, True])
def test_a_host_too_slow_for_its_price_never_breaks_even_and_is_named(scale_to_zero):
    # At 0.1 texts a second an instance is full at 8,640 a day, far from the 32,000 it needs.
    with pytest.warns(
        UserWarning, match=r"CPU x2 never gets cheaper than GPT-3\.5 Turbo.*\$0\.00018"
    ):
        load = economics.break_even(
            CPU, "GPT-3.5 Turbo", texts_per_second=0.1, scale_to_zero=scale_to_zero, **TITLE
        )
    assert load == math.inf
    for n in (100, 8_640, 32_000, 10_000_000):
        host = economics.hosting_cost(CPU, n, 0.1, scale_to_zero=scale_to_zero)
        assert host > economics.api_cost("GPT-3.5 Turbo", n, **TITLE)


def test_nothing_is_cheaper_than_a_free_api():
    free = ApiPrice("a friend's server", 0, 0, "word of mouth", "2026")
    with pytest.warns(UserWarning, match="a friend's server"):
        assert economics.break_even(CPU, free, **TITLE) == math.inf


def test_the_comparison_lists_every_option_with_the_cheapest_first():
    table = economics.compare_costs(
        3_000, {CPU: 100, "AWS Lambda 2 GB": 10}, ["GPT-4 Turbo", "Claude 2"], **POST
    )
    assert table.index.tolist() == [
        "AWS Lambda 2 GB, by use",
        f"{CPU}, scale to zero",
        f"{CPU}, always on",
        "Claude 2",
        "GPT-4 Turbo",
    ]
    assert table.loc["GPT-4 Turbo", "dollars_per_day"] == pytest.approx(30)
    assert table.loc["GPT-4 Turbo", "dollars_per_million"] == pytest.approx(10_000)
    assert table["instances"].isna().tolist() == [False, False, False, True, True]
    assert table.loc["Claude 2", "price_of"] == economics.API_PRICES["Claude 2"].date


def test_the_comparison_says_how_busy_the_instances_are():
    table = economics.compare_costs(1.5 * FULL, {CPU: 100}, [], **POST)
    assert table["instances"].tolist() == [2, 2]
    assert table["share_of_capacity"].tolist() == pytest.approx([0.75, 0.75])


def test_prices_of_ones_own_take_the_place_of_those_that_come_along(monkeypatch):
    api = ApiPrice("mine", 1, 2, "an invoice", "2026-01")
    host = HostPrice("the machine under the desk", 0.01, "the electricity bill", "2026-01")
    table = economics.compare_costs(1_000_000, {host: 50}, [api], **POST)
    assert table.loc["mine", "dollars_per_day"] == pytest.approx(800)
    assert table.loc["the machine under the desk, always on", "dollars_per_day"] == 0.24
    monkeypatch.setitem(economics.API_PRICES, "GPT-4 Turbo", api)
    assert economics.api_cost("GPT-4 Turbo", 1_000_000, **POST) == pytest.approx(800)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: economics.api_cost("GPT-5000", 1, **POST),
            "no price of 'GPT-5000'; there are GPT-4 Turbo",
        ),
        (
            lambda: economics.hosting_cost("a toaster", 1, 1),
            "no price of 'a toaster'; there are Hugging Face CPU x1",
        ),
        (lambda: economics.api_cost("Claude 2", -3, **POST), "texts is -3"),
        (
            lambda: economics.api_cost("Claude 2", 1, input_tokens=-400, output_tokens=200),
            "input_tokens is -400",
        ),
        (
            lambda: economics.api_cost("Claude 2", 1, input_tokens=400, output_tokens=math.nan),
            "output_tokens is nan",
        ),
        (lambda: economics.hosting_cost(CPU, 1, 0), "texts_per_second is 0"),
        (lambda: economics.hosting_cost(CPU, -1, 1), "texts_per_day is -1"),
        (lambda: economics.hosting_cost(CPU, 1, 1, idle_hours=-2), "idle_hours is -2"),
        (lambda: economics.compare_costs(0, {CPU: 1}, **POST), "texts_per_day is 0"),
        (lambda: economics.compare_costs(1, {}, ["Claude 2"] * 2, **POST), "is there twice"),
        (
            lambda: economics.break_even(CPU, "Claude 2", scale_to_zero=True, **POST),
            f"{CPU} is billed by use: texts_per_second",
        ),
        (
            lambda: economics.break_even(CPU, "Claude 2", texts_per_second=0, **POST),
            "texts_per_second is 0",
        ),
        (lambda: ApiPrice("mine", -1, 2, "", ""), "The input price of mine is -1"),
        (lambda: HostPrice("mine", -0.5, "", ""), "The hourly price of mine is -0.5"),
        (
            lambda: ApiPrice("mine", 0.0005, 0.0015, "", ""),
            "mine is 0.0005 dollars per million tokens: that looks like a price per token",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
