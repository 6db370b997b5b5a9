"""Teach a model on files of texts: what `cookbook teach` does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cookbook import data, inference, labels, lake, metrics, multilabel, tables, teach, words
from cookbook.models import configure


def teach_files(
    models: Sequence[str],
    unlabelled: str | Path,
    labelled: str | Path | pd.DataFrame | None = None,
    measured: Sequence[str | Path] = (),
    *,
    out: str | Path = "taught",
    base: str = "",
    sample: int = 8000,
    text: str = "text",
    label: str = "label",
    keywords: str | None = None,
    seed: int = 0,
    shares: dict[str, float] | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> teach.Rounds:
    """Teach a model on files of texts; see `teach.teach_rounds`.

    Args:
        models: Fine-tuned models of one kind: the teachers.
        unlabelled: Table of texts of any size, or a lake, as for `lake.answer_lake`: only what is
            drawn is answered.
        labelled: Table of labelled texts, which teach and watch; without, a fifth of the texts with
            the teachers' own labels stands in for them, and nothing watches.
        measured: Tables of texts that stay unseen.
        out: Folder for the rounds.
        base: What a student starts as; '' for the first model.
        sample: Unlabelled texts to take, at random.
        text: Column of the texts.
        label: Column of the labels.
        keywords: Column of keywords; of a model that marks them.
        seed: Seed of the sample, the splits and the student.
        shares: Of validation and test, as for `data.load_splits`.
        settings: Of each student, as for `training_arguments`.
        **options: Of `teach_rounds`: `rounds`, `sure`.

    Raises:
        ValueError: As `teach.teach`.
    """
    pool = lake.sample(unlabelled, text, sample, seed).sample(frac=1, random_state=seed).tolist()
    held_out = [cell for file in measured for cell in tables.sample(file, text, 10**9)]
    first = inference.load(models[0]).of_kind("classifier", "marker")
    marking = first.kind == "marker"
    columns: dict[str, Any] = {"label": label}
    if marking:
        columns = {"label": None, "keywords": keywords or "keywords"}
    watch = labelled is not None
    if labelled is not None:
        rows = tables.read(labelled, [text])
    else:
        fifth, pool = pool[: len(pool) // 5], pool[len(pool) // 5 :]
        found = teach.likeliest(teach.soft_labels(models, fifth), fifth)
        rows = pd.DataFrame({text: fifth, **found})
        columns |= {name: name for name in found}
    keys = rows[text].astype(str).map(words.normalise)
    unseen = ~(keys.duplicated() | keys.isin(set(map(words.normalise, held_out))))
    if not unseen.all():
        told = f"{(~unseen).sum()} of {len(rows)} labelled texts repeat another or a measured one."
        warnings.warn(f"{told} They are left out.", stacklevel=2)
    columns |= {"several": first.several, "seed": seed, **(shares or {})}
    splits = data.load_splits(rows[unseen], text=text, **columns)
    if not marking:
        splits = labels.encode_labels(splits, names=first.names)
    build = teach.student(base or str(models[0]), models[0], **(settings or {}))
    options = {"seeds": [seed], "held_out": held_out, "watch": watch, **options}
    rounds = teach.teach_rounds(splits, pool, models, build, out, **options)
    if (first.several or marking) and rounds.best:
        choose_thresholds(rounds.models[rounds.best][0], splits["validation"])
    return rounds


def choose_thresholds(folder: str | Path, validation: Any) -> None:
    """Choose a model's thresholds anew and write them into its configuration.

    A student's probabilities aren't its teacher's, nor those of an int8 export its model's.

    Args:
        folder: A model of several labels a text, or one that marks keywords; or its export.
        validation: Texts that weren't trained on, with their `label` (names, or 1 and 0 for each
            label) or `keywords`.
    """
    loaded, texts = inference.load(folder), validation["text"][:]
    if loaded.kind == "marker":
        wanted = [words.split_keywords(cell) for cell in validation["keywords"]]

        def find(threshold: float) -> Any:
            return inference.extract_keywords(texts, loaded, threshold=threshold)

        found: dict[str, Any] = {
            "keyword_threshold": metrics.choose_threshold(find, texts, wanted)[0]
        }
    else:
        given, scores = validation["label"][:], loaded.predict(texts)
        if "label_names" in validation.features:  # encoded
            given = np.array(given)
        found = {"label_thresholds": multilabel.choose_thresholds(given, scores, loaded.names)}
    configure(folder, **found)
