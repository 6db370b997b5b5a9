"""Know what a model doesn't know: probabilities that hold, and from which on an answer is sure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax, xlogy

from cookbook.cascades import Cascade as Cascade
from cookbook.cascades import cascade as cascade
from cookbook.cascades import cheapest as cheapest
from cookbook.cascades import trade_off as trade_off
from cookbook.inference import extract_keywords
from cookbook.label_cells import label_names, label_sets, one_hot
from cookbook.metrics import expected_calibration_error
from cookbook.models import Model, configure, load
from cookbook.multilabel import predicted, set_scores
from cookbook.promises import Sure as Sure
from cookbook.promises import accuracy_by_coverage as accuracy_by_coverage
from cookbook.promises import at_threshold as at_threshold
from cookbook.promises import choose_threshold as choose_threshold
from cookbook.promises import keyword_hits as keyword_hits
from cookbook.tables import strings

if TYPE_CHECKING:
    from cookbook.models import Loadable

_FEW = 10  # wrong answers, below which a temperature is mostly chance
_TINY = 1e-12


# --- Probabilities that hold --------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """How far a model's probabilities hold, before and after one number; prints as a line.

    Attributes:
        temperature: What the logits behind the probabilities are to be divided by: above 1 the
            model is less sure than before.
        rows: Texts that it was fitted on.
        wrong: Of these, those that the model has wrong: with fewer than ten the temperature is
            mostly chance.
        error_before: Expected calibration error; see `metrics.expected_calibration_error`.
        error_after: The same with the temperature, on the same texts: on others a little more.
        loss_before: Log-loss per text.
        loss_after: The same with the temperature.
    """

    temperature: float
    rows: int
    wrong: int
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float

    @property
    def by_chance(self) -> bool:
        """Whether too few answers were wrong for a temperature that is more than chance."""
        return self.wrong < _FEW

    def __str__(self) -> str:
        return (
            f"temperature {self.temperature:.2f}, fitted on {self.rows:,} texts: calibration error "
            f"{self.error_before:.3f} → {self.error_after:.3f}, log-loss {self.loss_before:.3f} → "
            f"{self.loss_after:.3f}"
        )


def calibrate(references: Sequence[Any], scores: Any, names: Sequence[str]) -> Calibration:
    """Fit a temperature, one number by which probabilities come to hold (Guo et al. 2017).

    See https://arxiv.org/abs/1706.04599. It is the one with the least log-loss, and is fitted from
    probabilities, whatever they come from: their logarithms are logits up to a constant. No answer
    changes, unless labels have thresholds; see `cooled`.

    Args:
        references: The label of each text, or the list of its labels; of texts that were not
            trained on: the validation split's, or better some 200 of those that will come.
        scores: Probabilities of shape (texts, labels).
        names: Label names in the order of the columns.

    Raises:
        ValueError: The shapes differ, a label is unknown, or a text has no probabilities.

    Warns:
        UserWarning: Too few answers are wrong for more than chance.

    Example:
        >>> scores = np.array([[0.99, 0.01]] * 20)
        >>> calibrate(["a"] * 16 + ["b"] * 4, scores, ["a", "b"]).temperature > 3
        True
    """
    true, scores, several = _given(references, scores, names)
    right = (scores >= 0.5) == true if several else _first(scores) & (true == 1)
    wrong = int((~right).any(axis=1).sum() if several else (~right.any(axis=1)).sum())

    def loss(power: float) -> float:
        return _loss(true, cooled(scores, math.exp(power), several), several)

    # With nothing wrong the least loss is that of a model that is never in doubt: stay at 1.
    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded").x if wrong else 0.0
    after = cooled(scores, math.exp(best), several)
    before, then = (_error(true, each, several) for each in (scores, after))
    found = Calibration(math.exp(best), len(true), wrong, before, then, loss(0.0), loss(best))
    if found.by_chance:
        told = f"Only {wrong} of {len(true)} answers are wrong: a temperature from them is chance."
        warnings.warn(f"{told} Take more texts.", stacklevel=2)
    return found


def cooled(scores: Any, temperature: float, several: bool = False) -> np.ndarray:
    """Return probabilities as they would be with their logits divided by a temperature.

    Args:
        scores: Probabilities of shape (texts, labels).
        temperature: Above 1 draws them together.
        several: Whether a text may have several labels: each is then a matter of its own.

    Example:
        >>> cooled([[0.9, 0.1]], 2.0).round(2).tolist()
        [[0.75, 0.25]]
    """
    scores = np.asarray(scores, float)
    if several or scores.shape[-1] == 1:
        return expit(logit(np.clip(scores, _TINY, 1 - _TINY)) / temperature)
    return softmax(np.log(np.clip(scores, _TINY, 1)) / temperature, axis=-1)


def _given(
    references: Sequence[Any], scores: Any, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return true labels as 1 and 0, probabilities, and whether a text may have several labels."""
    scores, cells = np.asarray(scores, float), list(references)
    several = bool(cells) and all(map(pd.api.types.is_list_like, cells))
    true = one_hot(cells if several else [[name] for name in label_names(cells)], names)
    if scores.shape != true.shape or not len(true):
        raise ValueError(
            f"{len(true)} texts with labels, {len(names)} names, probabilities of shape "
            f"{scores.shape}: there must be a row per text and a column per name."
        )
    if (bad := np.flatnonzero(~np.isfinite(scores).all(axis=1))).size:
        raise ValueError(f"Row {bad[0]} has no probabilities: leave out blank texts.")
    return true, scores, several


def _first(scores: np.ndarray) -> np.ndarray:
    """Mark the likeliest label of each text."""
    return np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]


def _loss(true: np.ndarray, scores: np.ndarray, several: bool) -> float:
    scores = np.clip(scores, _TINY, 1 - _TINY if several else 1)
    lost = -xlogy(true, scores)
    return float((lost - xlogy(1 - true, 1 - scores) if several else lost).sum(axis=1).mean())


def _error(true: np.ndarray, scores: np.ndarray, several: bool) -> float:
    sure, right = scores.max(axis=1), true[_first(scores)]
    if several:  # each label by itself
        sure, right = scores.ravel(), true.ravel()
    return expected_calibration_error(sure.tolist(), right.tolist())


# --- Of a model ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trust:
    """What was found out about a model's answers; prints as lines.

    Attributes:
        calibration: Of a classifier; None where its probabilities were left as they are.
        sure: From which score on it is sure.
        settings: What `keep` writes, for `model.config.update` of a model in memory.
        anew: Whether the threshold was chosen here; else it was there, and its promise holds.
    """

    calibration: Calibration | None
    sure: Sure
    settings: dict[str, Any]
    anew: bool = True

    def __str__(self) -> str:
        told = [] if self.calibration is None else [str(self.calibration)]
        return "\n".join([*told, f"{'' if self.anew else 'as before: '}{self.sure}"])


def measure(
    model: Loadable,
    texts: Iterable[str],
    references: Iterable[Any],
    wanted: float = 0.98,
    *,
    data: str = "",
    fit: bool = True,
    **options: Any,
) -> Trust:
    """Find out how far a model's probabilities hold, and from which on it is sure.

    Args:
        model: As for `inference.load`: it classifies, or marks keywords.
        texts: Texts that were not trained on, best of the kind that is to come, and chosen blindly.
        references: Their labels, lists of labels, or keywords.
        wanted: The accuracy to promise; of keywords the precision.
        data: What the texts are, for the card, such as "headlines of 2016".
        fit: Whether to fit a temperature; of a model that marks none is.
        **options: `coverage` and `confidence`, as for `choose_threshold`.

    Returns:
        What was found; nothing is changed before `keep`.

    Raises:
        ValueError: As `calibrate` and `choose_threshold`; the model writes.
    """
    loaded, texts = load(model).of_kind("classifier", "marker"), strings(texts)
    references, settings = _cells(loaded, references), dict[str, Any]()
    calibration, temperature = None, 1.0
    if loaded.kind == "classifier" and fit:
        calibration = calibrate(references, loaded.predict(texts), loaded.names)
        temperature = calibration.temperature
        before = loaded.config.get("label_temperature") or 1.0
        settings["label_temperature"] = before * temperature
        if given := loaded.config.get("label_thresholds"):
            # So that the same labels hold as before.
            own = given if isinstance(given, Mapping) else dict.fromkeys(loaded.names, given)
            moved = cooled(list(own.values()), temperature, several=True).tolist()
            settings["label_thresholds"] = dict(zip(own, moved, strict=True))
    answers = _answered(loaded, texts, references, temperature)
    sure = choose_threshold(**answers, wanted=wanted, **options)
    return Trust(calibration, sure, settings | _about(sure, data))


def keep(folder: str | Path, found: Trust) -> Path:
    """Write what was found into a model's configuration, which torch, ONNX and the page obey.

    `label_temperature` divides logits; from `sure_from` on `inference.classify` says `sure`;
    `sure_about` says for the card what that promises. transformers' own pipeline knows none of it.

    Args:
        folder: The model's, or that of an export.
        found: What `measure` returned of this very model.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: There is no model.
    """
    return configure(folder, **found.settings)


def check_export(folder: str | Path, texts: Iterable[str], references: Iterable[Any]) -> Trust:
    """Measure an exported model on this CPU; what it doesn't keep any more is chosen anew.

    In int8 answers change, and with the CPU too. Where the threshold in the configuration still
    promises what it did, or what was wanted, it stays; else it and the temperature are chosen anew
    on these rows. What was measured is written into the folder's configuration.

    Args:
        folder: Of `export.export_onnx`, made of a folder that `keep` wrote into.
        texts: The same texts as for `measure`.
        references: Their labels, lists of labels, or keywords.

    Raises:
        ValueError: There is no threshold to check; as `measure`.
    """
    loaded, texts = load(folder).of_kind("classifier", "marker"), strings(texts)
    threshold, about = (loaded.config.get(name) for name in ("sure_from", "sure_about"))
    if threshold is None or not about:
        raise ValueError(f"{folder} has no threshold to check: measure and keep one, then export.")
    asked = {"wanted": about["wanted"], "confidence": about["confidence"]}
    asked["coverage"], references = about["least"], _cells(loaded, references)
    sure = at_threshold(threshold, **_answered(loaded, texts, references), **asked)
    found = Trust(None, sure, _about(sure, about["data"]), anew=False)
    if sure.low < min(about["wanted"], about["low"]):
        fit = "label_temperature" in loaded.config
        found = measure(loaded, texts, references, data=about["data"], fit=fit, **asked)
    keep(folder, found)
    return found


def _about(sure: Sure, data: str) -> dict[str, Any]:
    if sure.threshold is None:
        return {"sure_from": None, "sure_about": None}
    about = {**asdict(sure), "data": data}
    return {"sure_from": about.pop("threshold"), "sure_about": about}


def _cells(loaded: Model, references: Iterable[Any]) -> list[Any]:
    """Return lists of labels where a text may have several, however they are written down."""
    if not loaded.several:
        return list(references)
    return [[None] if own is None else own for own in label_sets(references)]


def _answered(
    loaded: Model, texts: list[str], references: Sequence[Any], temperature: float = 1.0
) -> dict[str, Any]:
    """Return how sure each answer is, whether it is right, and what it hangs together with."""
    if loaded.kind == "marker":
        hits = keyword_hits(extract_keywords(texts, loaded, scores=True), references)
        return {"scores": hits["score"], "right": hits["right"], "groups": hits["text"]}
    true, scores, _ = _given(references, loaded.predict(texts), loaded.names)
    after = cooled(scores, temperature, loaded.several)
    if loaded.several:
        held = predicted(scores, loaded.names, loaded.config.get("label_thresholds", 0.5))
        right, sure = (held == true).all(axis=1), set_scores(after, held)
    else:
        right, sure = true[_first(scores)] == 1, after.max(axis=1)
    return {"scores": sure, "right": right, "groups": None}
