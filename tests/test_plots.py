import io
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cookbook import economics, metrics, plots, words

NAMES = ["clickbait", "factual", "opinion"]
BALANCE = pd.DataFrame([[8, 9, 1], [2, 1, 1]], index=["train", "test"], columns=NAMES)
TABLE = metrics.per_label([0, 1, 2, 1], [0, 1, 1, 1], NAMES)
TITLE: dict[str, Any] = {"input_tokens": 87, "output_tokens": 3}
COMPARED = pd.DataFrame(
    {
        ("real", "accuracy"): [0.5, 0.9, 0.95],
        ("lower case", "accuracy"): [0.5, 0.85, 0.95],
        ("real", "f1_macro"): [0.3, 0.9, 0.95],
        ("cost", "texts_per_second"): [9e7, 12_345.0, 301.0],
    },
    index=["majority", "TF-IDF", "MiniLM"],
)
CURVE = pd.DataFrame(
    [
        (name, rows, seed, 0.7 + 0.1 * seed)
        for name in "ab"
        for rows in (100, 1000)
        for seed in (0, 1)
    ],
    columns=["name", "rows", "seed", "accuracy"],
)
CURVES = pd.DataFrame({"coverage": [0.5, 1.0], "accuracy": [0.99, 0.96], "low": [0.97, 0.94]})
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
        lambda: plots.comparison(COMPARED),
        lambda: plots.learning_curve(CURVE),
        lambda: plots.accuracy_by_coverage({"test": CURVES}),
        lambda: plots.accuracy_by_coverage({"test": CURVES, "real": CURVES}, wanted=0.98),
        lambda: plots.break_even(
            {"Hugging Face CPU x2": 100, "AWS Lambda 2 GB": 30},
            economics.API_PRICES,
            scale_to_zero=True,
            **TITLE,
        ),
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


def test_accuracy_is_drawn_against_coverage_with_what_is_wanted():
    axes = plots.accuracy_by_coverage({"test": CURVES}, wanted=0.98).axes[0]
    curve, line = axes.lines
    assert curve.get_xydata().tolist() == CURVES[["coverage", "accuracy"]].to_numpy().tolist()
    assert set(line.get_ydata()) == {0.98}
    assert line.get_label() == "wanted: 98.0%"


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


def test_the_break_even_is_marked_where_the_lines_cross():
    axes = plots.break_even({"Hugging Face CPU x2": 100}, ["GPT-3.5 Turbo"], **TITLE).axes[0]
    assert [text.get_text() for text in axes.texts] == ["32,000"]
    mark = next(line for line in axes.lines if line.get_marker() == "o")
    assert mark.get_xydata()[0] == pytest.approx([32_000, 1.536])


def test_a_host_climbs_a_step_where_a_second_instance_is_needed():
    axes = plots.break_even({"Hugging Face CPU x2": 1}, [], loads=(1_000, 200_000), **TITLE).axes[0]
    (line,) = axes.lines
    assert sorted(set(line.get_ydata())) == pytest.approx([1.536, 3.072, 4.608])
    assert line.get_label() == "Hugging Face CPU x2, always on"


def test_no_break_even_is_marked_where_the_api_stays_cheaper():
    with pytest.warns(UserWarning, match="never gets cheaper than GPT-4o mini"):
        figure = plots.break_even({"Hugging Face T4": 0.1}, ["GPT-4o mini"], **TITLE)
    assert not figure.axes[0].texts


def test_a_comparison_shows_accuracy_by_set_and_speed_on_one_scale():
    figure = plots.comparison(COMPARED)
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == list(COMPARED.index)
    assert [text.get_text() for text in figure.legends[0].texts] == ["real", "lower case"]
    assert [bar.get_width() for bar in left.containers[1]] == [0.5, 0.85, 0.95]
    assert right.get_xscale() == "log"
    assert [text.get_text() for text in right.texts] == ["> 1,000,000", "12,000", "300"]
    assert left.yaxis_inverted()


def test_a_learning_curve_is_the_mean_over_seeds_within_their_spread():
    axes = plots.learning_curve(CURVE).axes[0]
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert axes.lines[0].get_xydata().tolist() == [[100, 0.75], [1000, 0.75]]
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.7, 0.8))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "1,000"]


def test_only_what_moves_beyond_chance_is_named_over_time():
    keywords = [["Go"]] * 200 + [["AI"]] * 3 + [["AI"]] * 60 + [["Go"]] * 40 + [["Zig"]] * 2
    dates = ["2024-01-02"] * 203 + ["2024-01-09"] * 102
    figure = plots.keyword_trends(words.top_keywords(keywords, dates=dates))
    told = [text.get_text().split()[0] for text in figure.axes[0].texts]
    assert sorted(told) == ["AI", "Go"]
    assert len(figure.axes[0].lines) == 3


def test_a_picture_is_saved_where_there_is_no_folder_yet_and_given_back(tmp_path):
    figure, _ = plt.subplots()  # one of the user's own, still open
    assert plots.save(figure, tmp_path / "figures" / "own.png") is figure
    assert (tmp_path / "figures" / "own.png").read_bytes().startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_names_that_are_equal_or_numbers_have_a_bar_each():
    shares = pd.Series([0.5, 0.75, 1.0], index=["same", "same", 7])
    axes = plots.share_bars(shares, title="Shares").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["same", "same", "7"]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.75, 1.0]
    assert len({bar.get_y() for bar in axes.patches}) == 3


def test_a_loss_that_stays_level_is_no_overfitting():
    level = [*LOG[:1], *({"epoch": e, "eval_loss": v} for e, v in ((1, 0.5), (2, 0.4), (2, 0.401)))]
    labels = [line.get_label() for line in plots.loss_curves(level).axes[0].lines]
    assert labels == ["training loss", "validation loss"]


def test_dollars_in_a_name_are_no_formula():
    figure = plots.top_bars({"words": pd.Series({"$HOME/$USER": 2, "$_$": 1})})
    figure.savefig(io.BytesIO(), format="png")
    shown = [tick for tick in figure.axes[0].get_yticklabels() if tick.get_text() == "$HOME/$USER"]
    assert [tick.get_parse_math() for tick in shown] == [False]


def test_a_split_without_texts_and_a_loss_that_is_no_number_are_drawn_all_the_same():
    axes = plots.text_lengths({"train": [3, 4], "test": []}).axes[0]
    assert [text.get_text() for text in axes.get_legend().texts][1] == "test (none)"
    log = [*LOG[:3], {"epoch": 2.0, "eval_loss": float("nan")}, {"epoch": 3.0, "eval_loss": 0.2}]
    labels = [line.get_label() for line in plots.loss_curves(log).axes[0].lines]
    assert "overfitting from here" not in labels
