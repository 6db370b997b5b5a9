"""Teach a model on files of texts: what `cookbook teach` does."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cookbook import data, inference, labels, multilabel, tables, teach, words


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
        unlabelled: Table of texts, of any size.
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
    pool = tables.sample(unlabelled, text, sample, seed).sample(frac=1, random_state=seed).tolist()
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
    if first.several and rounds.best:
        _set_thresholds(Path(rounds.models[rounds.best][0]), splits["validation"])
    return rounds


def _set_thresholds(folder: Path, validation: Any) -> None:
    """Choose a student's thresholds anew: its probabilities aren't its teacher's."""
    loaded, given = inference.load(folder), np.array(validation["label"][:])
    found = loaded.predict(validation["text"][:])
    chosen = multilabel.choose_thresholds(given, found, loaded.names)
    path = folder / "config.json"
    content = json.dumps(
        json.loads(path.read_text("utf-8")) | {"label_thresholds": chosen}, indent=2
    )
    tables.write_atomically(path, lambda half: half.write_text(content, "utf-8"))
