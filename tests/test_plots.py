import io

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cookbook import metrics, plots

NAMES = ["clickbait", "factual", "opinion"]
BALANCE = pd.DataFrame([[8, 9, 1], [2, 1, 1]], index=["train", "test"], columns=NAMES)
TABLE = metrics.per_label([0, 1, 2, 1], [0, 1, 1, 1], NAMES)
LOG = [
    {"epoch": 0.5, "loss": 0.6},
    {"epoch": 1.0, "loss": 0.4},
    {"epoch": 1.0, "eval_loss": 0.3},
    {"epoch": 2.0, "loss": 0.1},
    {"epoch": 2.0, "eval_loss": 0.5},
    {"epoch": 2.0, "train_runtime": 3.0},
]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.class_balance(BALANCE),
        lambda: plots.text_lengths({"train": [3, 9, 12], "test": [4]}, limit=16),
        lambda: plots.text_lengths({"train": [1]}, limit=None),
        lambda: plots.loss_curves(LOG),
        lambda: plots.confusion_matrix(metrics.confusion([0, 1, 2], [0, 1, 1], NAMES)),
        lambda: plots.per_label_bars(TABLE),
        lambda: plots.top_bars({"words": pd.Series({"want": 3, "make": 1}), "none": pd.Series()}),
        lambda: plots.share_bars(pd.Series({"lower case": 0.9, "numbers": 1.0}), title="Passed"),
    ],
)
def test_every_picture_becomes_a_png_and_is_shown_once(draw):
    figure = draw()
    assert isinstance(figure, Figure)
    figure.savefig(file := io.BytesIO(), format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert not plt.get_fignums()  # an open figure would show up a second time in a notebook


def test_twenty_labels_still_fit():
    names = [f"label {i}" for i in range(20)]
    counts = metrics.confusion(range(20), range(20), names)
    axes = plots.confusion_matrix(counts).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == names


def test_the_overfitting_spot_is_the_lowest_validation_loss():
    axes = plots.loss_curves(LOG).axes[0]
    spot = next(line for line in axes.lines if line.get_label() == "overfitting from here")
    assert set(spot.get_xdata()) == {1.0}


def test_no_spot_where_validation_loss_still_falls():
    log = [*LOG[:3], {"epoch": 2.0, "eval_loss": 0.2}]
    labels = [line.get_label() for line in plots.loss_curves(log).axes[0].lines]
    assert labels == ["training loss", "validation loss"]


def test_a_log_without_training_says_so():
    with pytest.raises(ValueError, match="no training loss"):
        plots.loss_curves([{"epoch": 1, "eval_loss": 0.3}])


def test_panels_stand_side_by_side_with_the_largest_on_top():
    counts = {"keywords": pd.Series({"Go": 9, "C++": 4}), "words": pd.Series({"want": 12})}
    left, right = plots.top_bars(counts).axes
    assert (left.get_title(), right.get_title()) == ("keywords", "words")
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["Go", "C++"]
    assert left.yaxis_inverted()
