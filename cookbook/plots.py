"""Pictures, one function each; they return a Figure to show, or to `save` on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from cookbook import economics
from cookbook.metrics import worst_pairs

_MANY = 20  # labels up to which a picture shows them all
_BESIDE: Any = {"textcoords": "offset points", "va": "center"}
_AT_END: Any = {"xycoords": ("axes fraction", "data")}
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # so that digits can be read
_styled = plt.style.context("cookbook.assets.plots")


def save(figure: Figure, path: str | Path) -> Figure:
    """Write a picture to a file, in the format of its ending, and return it to be shown.

    Args:
        figure: Any Figure, also one of your own.
        path: The file; its folder is made where it is missing.

    Example:
        >>> picture = save(text_lengths({"train": [8, 9]}), "out/figures/x.png")  # doctest: +SKIP
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return figure


@_styled
def class_balance(balance: pd.DataFrame) -> Figure:
    """Draw how many rows each label has in each split; of many, the commonest and the rarest.

    Args:
        balance: One row per split, one column per label, such as `quality` reports.

    Example:
        >>> import pandas as pd
        >>> figure = class_balance(pd.DataFrame({"a": [8], "b": [9]}, index=["train"]))
    """
    table, title = balance.T, "Rows per label"
    if len(table) > _MANY:
        title = f"Rows per label: commonest and rarest of {len(table)}"
        ordered = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
        table = pd.concat([ordered.head(_MANY // 2), ordered.tail(_MANY // 2)])
    return _bar_chart({title: table}, "{:,.0f}", "rows")


@_styled
def text_lengths(lengths: Mapping[str, Sequence[int]], limit: int | None = None) -> Figure:
    """Draw how long the texts are.

    Args:
        lengths: Tokens (or words) per text, by label or by split.
        limit: What the model takes, drawn as a line where it is near.

    Example:
        >>> figure = text_lengths({"train": [8, 9, 12]}, limit=512)
    """
    figure, axes = _figure(6, 3)
    longest = max([1, *(max(values, default=0) for values in lengths.values())])
    bins = np.linspace(0, longest, min(longest, 40) + 1)
    for name, values in lengths.items():
        median = f"median {np.median(values):.0f}" if len(values) else "none"
        axes.hist(list(values), bins=bins, alpha=0.6, label=f"{name} ({median})")
    axes.set(title="Text lengths", xlabel="tokens", ylabel="texts")
    if limit is not None:
        axes.set_xlabel(f"tokens (limit: {limit})")
        if limit <= 2 * longest:
            axes.axvline(limit, color="grey", linestyle="--")
    axes.legend()
    return figure


@_styled
def loss_curves(log_history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training and validation loss, and mark where overfitting begins: at the lowest one.

    Where the last is within a hundredth of the lowest nothing is marked.

    Args:
        log_history: `trainer.state.log_history`.

    Raises:
        ValueError: The log has no training loss.

    Example:
        >>> figure = loss_curves([{"epoch": 1, "loss": 0.5}, {"epoch": 1, "eval_loss": 0.4}])
    """
    log = pd.DataFrame(log_history, columns=["epoch", "loss", "eval_loss"]).set_index("epoch")
    training, validation = log["loss"].dropna(), log["eval_loss"].dropna()
    if training.empty:
        raise ValueError("The log has no training loss: train first, with logging switched on.")
    figure, axes = _figure(6, 3.2)
    axes.plot(training, label="training loss")
    if len(validation):
        axes.plot(validation, marker="o", label="validation loss")
        spot, last = validation.idxmin(), validation.index[-1]
        if validation.iloc[-1] > 1.01 * validation.min():
            axes.axvspan(spot, last, color="grey", alpha=0.1)
            axes.axvline(spot, color="grey", linestyle=":", label="overfitting from here")
    axes.set(title="Loss", xlabel="epoch", ylabel="loss", ylim=(0, None))
    axes.legend()
    return figure


@_styled
def confusion_matrix(counts: pd.DataFrame) -> Figure:
    """Draw which label is taken for which: counts, shaded by their share of the row.

    Of more than twenty labels it draws the pairs that are mixed up most often.

    Args:
        counts: True labels down, predicted ones across, such as `metrics.confusion` returns.

    Example:
        >>> import pandas as pd
        >>> names = ["a", "b"]
        >>> figure = confusion_matrix(pd.DataFrame([[9, 1], [0, 8]], index=names, columns=names))
    """
    size = len(counts)
    if size > _MANY:
        pairs = worst_pairs(counts, _MANY)
        names = pairs["label"] + " → " + pairs["predicted"] + " (" + pairs["texts"].map(str) + ")"
        table = pd.DataFrame({"share": pairs["share"].to_numpy()}, index=names)
        return _bar_chart({f"Taken for another, of {size} labels": table}, "{:.0%}")
    figure, axes = _figure(2.4 + 0.6 * size, 1.8 + 0.6 * size)
    values = counts.to_numpy()
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if size <= 12:
            text = f"{values[row, column]:,}\n{share:.1%}"
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, text, color=colour, ha="center", va="center")
    axes.set_xticks(range(size), counts.columns, rotation=90 if size > 4 else 0)
    axes.set_yticks(range(size), counts.index)
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
    return figure


@_styled
def per_label_bars(table: pd.DataFrame, title: str = "Per label") -> Figure:
    """Draw precision, recall and F1 of each label; of more than twenty, of the worst.

    Args:
        table: One row per label, such as `metrics.per_label` returns.
        title: What was measured on.

    Example:
        >>> import pandas as pd
        >>> scores = {"precision": [0.9], "recall": [0.8], "f1": [0.85]}
        >>> figure = per_label_bars(pd.DataFrame(scores, index=["a"]))
    """
    if len(table) > _MANY:
        title += f": the worst of {len(table)}"
        table = table.nsmallest(_MANY, "f1")
    return _bar_chart({title: table[["precision", "recall", "f1"]]}, "{:.1%}")


@_styled
def share_bars(shares: pd.Series, title: str) -> Figure:
    """Draw shares from 0 to 1 as bars, for instance the pass rates of a challenge set.

    Args:
        shares: One share per name.
        title: What the shares are of.

    Example:
        >>> import pandas as pd
        >>> figure = share_bars(pd.Series({"lower case": 0.9}), title="Challenge set")
    """
    return _bar_chart({title: shares.to_frame()}, "{:.0%}")


@_styled
def top_bars(counts: Mapping[str, pd.Series]) -> Figure:
    """Draw what is counted most, one panel beside the other, to compare ways of counting.

    Args:
        counts: A series of counts by name, the largest first, under the title of its panel.

    Example:
        >>> import pandas as pd
        >>> figure = top_bars({"keywords": pd.Series({"Go": 9}), "words": pd.Series({"want": 12})})
    """
    panels = {title: series.to_frame() for title, series in counts.items()}
    return _bar_chart(panels, "{:,.0f}", "texts")


@_styled
def keyword_trends(table: pd.DataFrame) -> Figure:
    """Draw the share of each keyword over time; in colour what rises or falls beyond chance.

    Args:
        table: What `words.top_keywords` returns for texts with dates.

    Example:
        >>> from cookbook.words import top_keywords
        >>> figure = keyword_trends(top_keywords([["Go"], ["Go"]], dates=["2024-01-01", "2024-02"]))
    """
    figure, axes = _figure(8, 4)
    periods = [column for column in table if isinstance(column, pd.Period)]
    days = [str(period.start_time.date()) for period in periods]
    for row in table.to_dict("records"):
        moves = row["low"] > 0 or row["high"] < 0
        color: dict[str, Any] = {} if moves else {"color": "0.8", "zorder": 0}
        line = axes.plot(days, [row[period] for period in periods], **color)[0]
        if moves:
            told = f"{row['keyword']} ({row['change']:+.1%})"
            axes.annotate(
                told, (1, row[periods[-1]]), (4, 0), **_BESIDE | _AT_END, color=line.get_color()
            )
    axes.set(title="What is talked about", ylabel="share of the texts", xlabel="first day")
    axes.set_ylim(0)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.tick_params("x", rotation=30)
    return figure


@_styled
def break_even(
    hosts: Mapping[Any, float],
    apis: Iterable[str | economics.ApiPrice],
    *,
    scale_to_zero: bool = False,
    idle_hours: float = 1.0,
    loads: tuple[float, float] = (100, 10_000_000),
    **tokens: float,
) -> Figure:
    """Draw dollars a day against texts a day, and mark where a host gets cheaper than an API.

    A host that is always on is a flight of steps, one per instance; any other is dotted.

    Args:
        hosts: As for `economics.compare_costs`.
        apis: As for `economics.compare_costs`.
        scale_to_zero: Whether to draw hosts scaled to zero as well.
        idle_hours: As for `economics.hosting_cost`.
        loads: From how many texts a day to how many.
        **tokens: `input_tokens` and `output_tokens`.

    Raises:
        ValueError: As for `economics.break_even`.

    Example:
        >>> tokens = {"input_tokens": 87, "output_tokens": 3}
        >>> figure = break_even({"Hugging Face CPU x2": 100}, ["GPT-3.5 Turbo"], **tokens)
    """
    figure, axes = _figure(9, 4.5)
    texts = np.geomspace(*loads, 2000)
    prices = {
        economics.price_of(api, economics.API_PRICES): economics.api_cost(api, 1, **tokens)
        for api in apis
    }
    for api, price in prices.items():
        axes.plot(texts, texts * price, label=api.name)
    for host, speed in hosts.items():
        colour = None
        for how, asleep in economics.ways(host)[: 1 + scale_to_zero]:
            use: dict[str, Any] = {"scale_to_zero": asleep, "idle_hours": idle_hours}
            dollars = [economics.hosting_cost(host, n, speed, **use) for n in texts]
            line = ":" if asleep else "-"
            (drawn,) = axes.plot(texts, dollars, line, color=colour, linewidth=2.5, label=how)
            colour = drawn.get_color()
            use |= {"texts_per_second": speed, **tokens}
            for i, (api, price) in enumerate(sorted(prices.items(), key=lambda item: item[1])):
                load = economics.break_even(host, api, **use)
                if loads[0] <= load <= loads[1]:
                    spot = load, load * price
                    axes.plot(*spot, "o", color=colour, zorder=3)
                    # Above and below in turn, since APIs of like price cross it side by side.
                    shift = (0, (9, -9)[i % 2])
                    axes.annotate(_rounded(load), spot, shift, ha="center", bbox=_WHITE, **_BESIDE)
    title = "Break-even at {input_tokens:g} tokens in and {output_tokens:g} out".format(**tokens)
    axes.set(title=title, xlabel="texts a day", ylabel="dollars a day")
    axes.set(xscale="log", yscale="log", xlim=loads)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.6g}")
    figure.legend(loc="outside right upper")
    return figure


@_styled
def comparison(table: pd.DataFrame, measure: str = "") -> Figure:
    """Draw how good each way is, by set, and how fast, up to a million texts a second.

    Args:
        table: `compare.Comparison.table`, or another one with columns (set, measure) and
            ("cost", "texts_per_second").
        measure: The measure to draw, between 0 and 1; "" for accuracy, of several labels a text
            for `f1_macro`.

    Example:
        >>> import pandas as pd
        >>> figures = {("test", "accuracy"): [0.9], ("cost", "texts_per_second"): [500.0]}
        >>> figure = comparison(pd.DataFrame(figures, index=["TF-IDF"]))
    """
    measure = measure or _measure(table.columns.get_level_values(1))
    scores = pd.DataFrame(table.xs(measure, axis=1, level=1))
    figure, left, right = _figure(9, _height(scores), 2, sharey=True, width_ratios=[3, 2])
    _bars(left, scores, "{:.1%}")
    left.set_title(measure)
    for row, speed in enumerate(table["cost", "texts_per_second"]):
        shown = min(speed, 1e6)
        right.plot(shown, row, "o", color="black")
        more = "> " if speed > shown else ""
        right.annotate(more + _rounded(shown), (shown, row), (7, 0), **_BESIDE)
    right.set(title="Speed", xlabel="texts per second", xscale="log")
    right.xaxis.set_major_formatter(EngFormatter(sep=""))
    right.grid(axis="x", alpha=0.3)
    right.margins(x=0.25)
    return figure


@_styled
def confidence(scores: Mapping[str, Sequence[float]]) -> Figure:
    """Draw how sure a model is of its answers, on one kind of texts beside another.

    Args:
        scores: Probabilities of the answers, by kind.

    Example:
        >>> figure = confidence({"validation": [0.99, 0.9], "headlines": [0.6, 0.98]})
    """
    figure, axes = _figure(6, 3)
    bins = np.linspace(0.5, 1, 26)
    for name, values in scores.items():
        shares = np.full(len(values), 1 / max(len(values), 1))
        label = f"{name} (mean {np.nanmean(values):.3f})"
        axes.hist(np.clip(values, 0.5, 1), bins=bins, weights=shares, alpha=0.6, label=label)
    axes.set(title="How sure", xlabel="probability of the likeliest label", yscale="log")
    axes.set_ylabel("share of the texts")
    axes.yaxis.set_major_formatter("{x:.1%}")
    axes.legend()
    return figure


@_styled
def accuracy_by_coverage(curves: Mapping[str, pd.DataFrame], wanted: float | None = None) -> Figure:
    """Draw how many answers are right where only the surest are given, and how few may be.

    Args:
        curves: Tables of `trust.accuracy_by_coverage`, by the kind of texts or the model.
        wanted: An accuracy, drawn as a line.

    Example:
        >>> import pandas as pd
        >>> figures = {"coverage": [0.9, 1.0], "accuracy": [0.99, 0.96], "low": [0.98, 0.95]}
        >>> figure = accuracy_by_coverage({"headlines": pd.DataFrame(figures)}, wanted=0.98)
    """
    figure, axes = _figure(6, 3.4)
    for name, table in curves.items():
        axes.plot(table["coverage"], table["accuracy"], marker="o", markersize=3, label=name)
        axes.fill_between(table["coverage"], table["low"], table["accuracy"], alpha=0.15)
    if wanted is not None:
        axes.axhline(wanted, color="grey", linestyle="--", label=f"wanted: {wanted:.1%}")
    axes.set(title="Accuracy of the surest answers", xlabel="share answered", ylabel="accuracy")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.1%}")
    axes.legend()
    return figure


@_styled
def learning_curve(curve: pd.DataFrame) -> Figure:
    """Draw accuracy against the number of training rows: the mean over seeds, and their spread.

    Args:
        curve: Columns `name`, `rows`, `seed` and `accuracy` or `f1_macro`, such as
            `compare.learning_curve` returns.

    Example:
        >>> import pandas as pd
        >>> curve = pd.DataFrame({"rows": [100, 1000], "accuracy": [0.8, 0.9]})
        >>> figure = learning_curve(curve.assign(name="TF-IDF", seed=0))
    """
    figure, axes = _figure(6, 3.4)
    measure = _measure(curve)
    for name, rows in curve.groupby("name", sort=False):
        spread = rows.groupby("rows")[measure].agg(["mean", "min", "max"])
        axes.plot(spread["mean"], marker="o", label=name)
        axes.fill_between(spread.index, spread["min"], spread["max"], alpha=0.15)
    sizes = sorted(curve["rows"].unique())
    axes.set(title="Learning curve", xlabel="training rows", ylabel=measure)
    axes.set_xscale("symlog", linthresh=next(filter(None, sizes), 1))  # has a place for 0
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:.1%}")
    axes.legend()
    return figure


def _figure(width: float, height: float, panels: int = 1, **options: Any) -> tuple[Any, ...]:
    """Return a figure and its panels."""
    size = (width, height)
    figure, grid = plt.subplots(1, panels, figsize=size, squeeze=False, **options)
    # Closed, so that a notebook shows the returned figure once, not a second time by itself.
    plt.close(figure)
    return figure, *grid[0]


def _bar_chart(panels: Mapping[str, pd.DataFrame], form: str, xlabel: str = "") -> Figure:
    """Draw tables as bars, one panel beside the other, each under its title."""
    height = max(map(_height, panels.values()))
    figure, *grid = _figure(2 + 4 * len(panels), height, len(panels))
    for axes, (title, table) in zip(grid, panels.items(), strict=True):
        _bars(axes, table, form)
        axes.set(title=title, xlabel=xlabel)
    return figure


def _height(table: pd.DataFrame) -> float:
    return 0.8 + len(table) * (0.1 + 0.2 * table.shape[1])


def _bars(axes: Axes, table: pd.DataFrame, form: str) -> None:
    """Draw a group of bars per row, the first on top, each with its figure."""
    width = 0.8 / table.shape[1]
    # By place, since bars at equal names would lie on one another.
    places = np.arange(len(table)) - 0.4 + width / 2
    for i, (name, values) in enumerate(table.items()):
        bars = axes.barh(places + i * width, values, width, label=str(name))
        axes.bar_label(bars, fmt=form, padding=3)
    axes.set_yticks(range(len(table)), map(str, table.index))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    if "%" in form:
        axes.set_xlim(0, 1.1)
        axes.xaxis.set_major_formatter("{x:.0%}")
    if table.shape[1] > 1:
        axes.figure.legend(loc="outside right upper")


def _measure(columns: Iterable[Any]) -> str:
    return "accuracy" if "accuracy" in columns else "f1_macro"


def _rounded(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.10g}"
