"""Pictures, one function each; they return a Figure, to be shown or saved with `.savefig`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from cookbook import economics

_DPI = 120
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_HOSTS = ["black", "#CC79A7", "#E69F00", "#56B4E9"]  # the rest of them, for what stands beside


def class_balance(balance: pd.DataFrame) -> Figure:
    """Draw how many rows each label has in each split.

    Args:
        balance: One row per split, one column per label, such as `QualityReport.balance`.

    Example:
        >>> import pandas as pd
        >>> figure = class_balance(pd.DataFrame({"a": [8], "b": [9]}, index=["train"]))
    """
    figure, axes = _figure(6, 0.6 + 0.45 * len(balance.columns) * max(1, len(balance) / 2))
    balance.T.plot.barh(ax=axes, width=0.8, color=[_BLUE, _ORANGE, _GREEN, _GREY], legend=False)
    for bars in axes.containers:
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)  # type: ignore[arg-type]
    axes.set(title="Rows per label", xlabel="rows", ylabel="")
    axes.invert_yaxis()
    if len(balance) > 1:
        axes.legend(title="", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.margins(x=0.12)
    return _done(figure)


def text_lengths(lengths: Mapping[str, Sequence[int]], limit: int | None = None) -> Figure:
    """Draw how long the texts are.

    Args:
        lengths: Tokens (or words) per text, by label or by split.
        limit: What the model takes, drawn as a line where it is near.

    Example:
        >>> figure = text_lengths({"train": [8, 9, 12]}, limit=512)
    """
    figure, axes = _figure(6, 3)
    longest = max(max(values) for values in lengths.values())
    bins = np.linspace(0, longest, min(longest, 40) + 1).tolist()
    for (name, values), colour in zip(lengths.items(), _cycle(len(lengths)), strict=True):
        median = np.median(list(values))
        axes.hist(
            list(values), bins=bins, alpha=0.6, color=colour, label=f"{name} (median {median:.0f})"
        )
    if limit is not None:
        if limit <= 2 * longest:
            axes.axvline(limit, color=_GREY, linestyle="--", label=f"limit {limit}")
        else:
            axes.plot([], [], " ", label=f"limit {limit}, far off")
    axes.set(title="Text lengths", xlabel="tokens", ylabel="texts")
    axes.legend(frameon=False)
    return _done(figure)


def loss_curves(log_history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training and validation loss, and mark where overfitting begins.

    Overfitting is taken to begin at the lowest validation loss: from there on the model still gets
    better on what it trains on, and no longer on what it hasn't seen.

    Args:
        log_history: `trainer.state.log_history`.

    Raises:
        ValueError: The log has no training loss.

    Example:
        >>> figure = loss_curves([{"epoch": 1, "loss": 0.5}, {"epoch": 1, "eval_loss": 0.4}])
    """
    training = [(log["epoch"], log["loss"]) for log in log_history if "loss" in log]
    validation = [(log["epoch"], log["eval_loss"]) for log in log_history if "eval_loss" in log]
    if not training:
        raise ValueError("The log has no training loss: train first, with logging switched on.")
    figure, axes = _figure(6, 3.2)
    axes.plot(*zip(*training, strict=True), color=_BLUE, label="training loss")
    if validation:
        epochs, losses = zip(*validation, strict=True)
        axes.plot(epochs, losses, color=_ORANGE, marker="o", label="validation loss")
        lowest = int(np.argmin(losses))
        if lowest < len(losses) - 1:
            axes.axvspan(epochs[lowest], max(epochs), color=_ORANGE, alpha=0.1)
            axes.axvline(
                epochs[lowest], color=_ORANGE, linestyle=":", label="overfitting from here"
            )
    axes.set(title="Loss", xlabel="epoch", ylabel="loss", ylim=(0, None))
    axes.legend(frameon=False)
    return _done(figure)


def confusion_matrix(counts: pd.DataFrame) -> Figure:
    """Draw which label is taken for which: counts, shaded by their share of the row.

    Args:
        counts: True labels down, predicted ones across, such as `metrics.confusion` returns.

    Example:
        >>> import pandas as pd
        >>> names = ["a", "b"]
        >>> figure = confusion_matrix(pd.DataFrame([[9, 1], [0, 8]], index=names, columns=names))
    """
    size = 1.8 + 0.6 * len(counts)
    figure, axes = _figure(size + 0.6, size)
    values = counts.to_numpy()
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(counts) <= 12:
        for (row, column), value in np.ndenumerate(values):
            axes.text(
                column,
                row,
                f"{value:,}\n{shares[row, column]:.1%}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    axes.set_xticks(range(len(counts)), counts.columns, rotation=90 if len(counts) > 4 else 0)
    axes.set_yticks(range(len(counts)), counts.index)
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    return _done(figure)


def per_label_bars(table: pd.DataFrame, title: str = "Per label") -> Figure:
    """Draw precision, recall and F1 of each label.

    Args:
        table: One row per label, such as `metrics.per_label` returns.
        title: What was measured on.

    Example:
        >>> import pandas as pd
        >>> scores = {"precision": [0.9], "recall": [0.8], "f1": [0.85]}
        >>> figure = per_label_bars(pd.DataFrame(scores, index=["a"]))
    """
    scores = table[["precision", "recall", "f1"]]
    figure, axes = _figure(6, 1 + 0.7 * len(scores))
    scores.plot.barh(ax=axes, width=0.75, color=[_BLUE, _ORANGE, _GREEN])
    for bars in axes.containers:
        axes.bar_label(bars, fmt="{:.1%}", padding=3, fontsize=8)  # type: ignore[arg-type]
    axes.set(title=title, xlim=(0, 1.1), ylabel="")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _done(figure)


def share_bars(shares: pd.Series, title: str) -> Figure:
    """Draw shares from 0 to 1 as bars, for instance the pass rates of a challenge set.

    Args:
        shares: One share per name.
        title: What the shares are of.

    Example:
        >>> import pandas as pd
        >>> figure = share_bars(pd.Series({"lower case": 0.9}), title="Challenge set")
    """
    figure, axes = _figure(6, 0.8 + 0.28 * len(shares))
    bars = axes.barh(list(shares.index), shares.to_numpy(), color=_BLUE)
    axes.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=8)
    axes.set(title=title, xlim=(0, 1.1))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.invert_yaxis()
    return _done(figure)


def top_bars(counts: Mapping[str, pd.Series]) -> Figure:
    """Draw what is counted most, one panel beside the other, to compare ways of counting.

    Args:
        counts: A series of counts by name, the largest first, under the title of its panel.

    Example:
        >>> import pandas as pd
        >>> figure = top_bars({"keywords": pd.Series({"Go": 9}), "words": pd.Series({"want": 12})})
    """
    longest = max(len(series) for series in counts.values())
    size = (4.2 * len(counts), 0.7 + 0.24 * longest)
    figure, panels = plt.subplots(
        1, len(counts), figsize=size, dpi=_DPI, layout="constrained", squeeze=False
    )
    colours = _cycle(len(counts))
    for axes, colour, (title, series) in zip(panels[0], colours, counts.items(), strict=True):
        bars = axes.barh(list(map(str, series.index)), series.to_numpy(), color=colour)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set(title=title, xlabel="texts")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    return _done(figure)


def break_even(
    hosts: Mapping[Any, float],
    apis: Iterable[str | economics.ApiPrice],
    *,
    input_tokens: float,
    output_tokens: float,
    scale_to_zero: bool = False,
    idle_hours: float = 1.0,
    loads: tuple[float, float] = (100, 10_000_000),
) -> Figure:
    """Draw dollars a day against texts a day, and mark where a host gets cheaper than an API.

    A host that is always on is a flight of steps, one per instance; a host that bills use only, and
    any host where `scale_to_zero` asks for it, is dotted, and its marks are hollow.

    Args:
        hosts: Texts per second, as measured, by host: a price, or a name in
            `economics.HOST_PRICES`.
        apis: Prices, or names in `economics.API_PRICES`.
        input_tokens: Tokens that an API reads per text, the prompt included.
        output_tokens: Tokens that it writes per text.
        scale_to_zero: Whether to draw hosts scaled to zero as well.
        idle_hours: As for `economics.hosting_cost`.
        loads: From how many texts a day to how many.

    Raises:
        ValueError: As for `economics.break_even`.

    Example:
        >>> figure = break_even(
        ...     {"Hugging Face CPU x2": 100}, ["GPT-3.5 Turbo"], input_tokens=87, output_tokens=3
        ... )
    """
    figure, axes = _figure(9, 4.5)
    texts = np.geomspace(*loads, 2000)
    tokens: dict[str, Any] = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    apis = list(apis)
    for i, (api, colour) in enumerate(zip(apis, _cycle(len(apis)), strict=True)):
        dollars = [economics.api_cost(api, n, **tokens) for n in texts]
        name = api if isinstance(api, str) else api.name
        axes.plot(texts, dollars, color=colour, linestyle="-" if i < 4 else "-.", label=name)
    for (host, speed), colour in zip(hosts.items(), _HOSTS * len(hosts), strict=False):
        economics.hosting_cost(host, loads[0], speed)  # says so where there is no such host
        price = economics.HOST_PRICES[host] if isinstance(host, str) else host
        for asleep in [True] if price.use_only else [False, True][: 1 + scale_to_zero]:
            use: dict[str, Any] = {"scale_to_zero": asleep, "idle_hours": idle_hours}
            how = "by use" if price.use_only else "scale to zero" if asleep else "always on"
            dollars = [economics.hosting_cost(price, n, speed, **use) for n in texts]
            line = axes.plot(texts, dollars, color=colour, linewidth=2.5)[0]
            line.set(label=f"{price.name}, {how}", linestyle=":" if asleep else "-")
            crossings = {
                economics.break_even(price, api, texts_per_second=speed, **tokens, **use): api
                for api in apis
            }
            seen = sorted(load for load in crossings if loads[0] <= load <= loads[1])
            for i, load in enumerate(seen):
                cost = economics.api_cost(crossings[load], load, **tokens)
                face = "white" if asleep else colour
                axes.plot(load, cost, "o", color=colour, markerfacecolor=face, zorder=3)
                # Above and below in turn, since APIs of like price cross the host side by side.
                axes.annotate(
                    f"{float(f'{load:.2g}'):,.0f}",
                    (load, cost),
                    xytext=(0, (7, -7)[i % 2]),
                    textcoords="offset points",
                    ha="center",
                    va=("bottom", "top")[i % 2],
                    fontsize=8,
                    # No line may run through the digits.
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.9},
                )
    title = f"Break-even at {input_tokens:g} tokens in and {output_tokens:g} out"
    axes.set(title=title, xlabel="texts a day", ylabel="dollars a day")
    axes.set(xscale="log", yscale="log", xlim=loads)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _done(figure)


def comparison(table: pd.DataFrame, measure: str = "accuracy") -> Figure:
    """Draw how good each way is, by set, and how fast.

    Speed is drawn up to a million texts a second, which only a constant answer goes beyond.

    Args:
        table: `baselines.Comparison.table`, or rows of it, or another one with such columns: (set,
            measure) and ("cost", "texts_per_second").
        measure: The measure to draw, between 0 and 1.

    Example:
        >>> import pandas as pd
        >>> figures = {("test", "accuracy"): [0.9], ("cost", "texts_per_second"): [500.0]}
        >>> figure = comparison(pd.DataFrame(figures, index=["TF-IDF"]))
    """
    scores = table.xs(measure, axis=1, level=1)
    speed = table["cost", "texts_per_second"].to_numpy()
    shown = np.minimum(speed, 1e6)
    size = (9, 1.2 + len(table) * (0.25 + 0.2 * scores.shape[1]))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=size, dpi=_DPI, layout="constrained", sharey=True, width_ratios=[3, 2]
    )
    colours: Any = _cycle(scores.shape[1])
    scores.plot.barh(ax=left, width=0.8, color=colours, legend=False)
    for bars in left.containers:
        left.bar_label(bars, fmt="{:.1%}", padding=3, fontsize=8)
    left.set(title=measure[0].upper() + measure[1:], xlabel="", ylabel="", xlim=(0, 1.1))
    left.xaxis.set_major_formatter(PercentFormatter(1))
    right.plot(shown, range(len(table)), "o", color="black")
    for row, value in enumerate(shown):
        right.annotate(
            f"{'> ' if value < speed[row] else ''}{float(f'{value:.2g}'):,.10g}",
            (value, row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    right.set(title="Speed", xlabel="texts per second", xscale="log")
    right.grid(axis="x", color=_GREY, alpha=0.3)
    right.margins(x=0.25)
    left.invert_yaxis()  # of both, since they share it
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", which="minor", left=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return _done(figure)


def learning_curve(curve: pd.DataFrame) -> Figure:
    """Draw accuracy against the number of training rows: the mean over seeds, and their spread.

    Args:
        curve: Columns `name`, `rows`, `seed` and `accuracy`, such as `baselines.learning_curve`
            returns.

    Example:
        >>> import pandas as pd
        >>> curve = pd.DataFrame({"rows": [100, 1000], "accuracy": [0.8, 0.9]})
        >>> figure = learning_curve(curve.assign(name="TF-IDF", seed=0))
    """
    figure, axes = _figure(6, 3.4)
    names = curve["name"].unique()
    for name, colour in zip(names, _cycle(len(names)), strict=True):
        by_size = curve[curve["name"] == name].groupby("rows")["accuracy"]
        mean = by_size.mean()
        sizes = mean.index.to_numpy()
        axes.plot(sizes, mean.to_numpy(), color=colour, marker="o", label=name)
        axes.fill_between(
            sizes, by_size.min().to_numpy(), by_size.max().to_numpy(), color=colour, alpha=0.15
        )
    sizes = sorted(curve["rows"].unique())
    axes.set(title="Learning curve", xlabel="training rows", ylabel="accuracy", xscale="log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, loc="lower right")
    return _done(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), dpi=_DPI, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _done(figure: Figure) -> Figure:
    # Closed, so that a notebook shows the returned figure once, not a second time by itself.
    plt.close(figure)
    return figure


def _cycle(n: int) -> list[str]:
    colours = [_BLUE, _ORANGE, _GREEN, _GREY]
    return [colours[i % len(colours)] for i in range(n)]
