"""Pictures, one function each; they return a Figure, to be shown or saved with `.savefig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

_DPI = 120
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


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
