"""Models teach a student on texts without labels, round by round, with a watch on harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cookbook import features, tables, training, words
from cookbook.losses import soft_collator, soft_loss
from cookbook.models import inherit, kind_of
from cookbook.opinions import NothingToLearn, Soft, at_a_loss, losses, rows_of, several, truth
from cookbook.opinions import likeliest as likeliest
from cookbook.opinions import soft_labels as soft_labels
from cookbook.opinions import sureness as sureness
from cookbook.runtimes import EXPORTED
from cookbook.surface import near_duplicates, words_and_letters

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import Trainer


@dataclass
class Lesson:
    """What `teach` made of texts without labels; prints as a summary.

    Attributes:
        splits: The splits, with those texts in train that teach something.
        pool: One row per text: `text`, `label` (or `keywords`), `sure` (see `sureness`) and
            `left_out` ('' where it is used, else the reason).
        told: What speaks against it, with the figure that says so; empty where nothing does.
    """

    splits: DatasetDict
    pool: pd.DataFrame
    told: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        reasons = self.pool["left_out"].value_counts()
        head = f"{reasons.get('', 0):,} of {len(self.pool):,} texts teach."
        lines = [f"  {reason:<24} {n:>6,}" for reason, n in reasons.items() if reason]
        return "\n".join([head, *lines, *(f"PROBLEM  {problem}" for problem in self.told)])


def teach(
    splits: DatasetDict,
    unlabelled: Iterable[str],
    teachers: Sequence[Any],
    *,
    sure: float = 0.0,
    soft: bool = True,
    held_out: Iterable[str] = (),
) -> Lesson:
    """Add texts without labels to the training split, with what their teachers think of them.

    Near copies of validation, test and `held_out` are left out, so that what is measured stays
    unseen.

    Args:
        splits: With `validation`; `label` holds class ids (`labels.encode_labels`) or a 0 or 1 per
            label, or there are `keywords`.
        unlabelled: Texts of the kind that is to be judged.
        teachers: As for `soft_labels`.
        sure: The `sureness` from which a text is used.
        soft: Whether the student learns probabilities, half the true label and half the teachers'
            of a labelled text; else it learns what is likeliest, and the true labels.
        held_out: Further texts that are measured on.

    Returns:
        The splits, whose train has `text` and `label`, or `text`, `keywords` and `marks`; and what
        became of each text. Soft labels want `compute_loss_func=losses.soft_loss`.

    Raises:
        ValueError: A held-out text stands in train, no text is left, or labels differ.
    """
    texts = tables.strings(unlabelled)
    left_out = _left_out(splits, texts, tables.strings(held_out))
    usual = sureness(_asked(splits, teachers, splits["validation"]["text"][:]))
    found = _asked(splits, teachers, texts)
    own = _asked(splits, teachers, splits["train"]["text"][:]) if soft else None
    doubts = at_a_loss(sureness(found), usual)
    return _lesson(splits, texts, left_out, found, own, sure, doubts)


def _asked(splits: DatasetDict, teachers: Sequence[Any], texts: list[str]) -> Soft:
    """Return soft labels in the order of the splits' labels."""
    names = getattr(splits["train"].features.get("label"), "names", None)
    return soft_labels(teachers, texts, names)


def _left_out(splits: DatasetDict, texts: list[str], held_out: list[str]) -> pd.Series:
    """Say of each text why it mustn't be learnt, '' where it may; look at the splits first."""
    if "validation" not in splits:
        raise ValueError("There is no split 'validation', which watches: data.load_splits makes it")
    label = splits["train"].features.get("label")
    if getattr(label, "dtype", "") in ("string", "large_string"):
        raise ValueError("Column 'label' holds names: labels.encode_labels makes class ids of them")
    own = splits["train"]["text"][:]
    measured = list(chain(held_out, *(splits[n]["text"] for n in splits if n != "train")))
    if both := set(map(words.normalise, own)) & set(map(words.normalise, measured)) - {""}:
        raise ValueError(
            f"{len(both)} texts of train are measured on as well, such as {min(both)!r}. Drop them "
            "from one of the two; of splits quality.check(splits).clean() does."
        )
    reasons = pd.Series(["" if text.strip() else "blank" for text in texts], dtype=object)
    copies = near_duplicates(pd.Series([*measured, *texts], dtype=object))
    for row, of, _ in copies[copies["row"] >= len(measured)].itertuples(index=False):
        what = "copy of a held-out text" if of < len(measured) else "copy of another"
        reasons[row - len(measured)] = what
    return reasons


def _lesson(
    splits: DatasetDict,
    texts: list[str],
    left_out: pd.Series,
    found: Soft,
    own: Soft | None,
    sure: float,
    told: list[str],
) -> Lesson:
    """Make a lesson of soft labels: those of the pool, and of train where they are to be soft."""
    pool = pd.DataFrame({"text": texts, **likeliest(found, texts), "sure": sureness(found)})
    out = [left_out != "", pool["sure"].isna(), pool["sure"] < sure]
    pool["left_out"] = np.select(out, [left_out, "no answer", "unsure"], "")
    kept = np.flatnonzero(pool["left_out"] == "")
    if not len(kept):
        why = pool["left_out"].value_counts().to_dict()
        most = f"{pool['sure'].max():.3f} sure at most: lower sure=, or bring other texts"
        raise NothingToLearn(f"No text is left to learn from: {why}. The teachers are {most}.")
    if len(kept) < len(pool) / 2:
        told = [*told, f"Only {len(kept) / len(pool):.0%} of these texts teach."]
    feature = splits["train"].features.get("label")
    if hasattr(feature, "int2str"):
        shares = pool.loc[kept, "label"].value_counts(normalize=True)
        before = pd.Series(feature.int2str(splits["train"]["label"][:]))
        for name, share in before.value_counts(normalize=True).items():
            if (now := shares.get(name, 0)) < share / 5:
                told = [*told, f"{now:.1%} of them are {name!r}, {share:.1%} of train."]
    learnt = _with_labels(splits["train"], pool.iloc[kept], own, rows_of(found, kept))
    return Lesson(type(splits)({**splits, "train": learnt}), pool, told)


def _with_labels(train: Dataset, pool: pd.DataFrame, own: Soft | None, theirs: Soft) -> Dataset:
    """Return the labelled texts and those of the pool, all with labels of one form."""
    from datasets import ClassLabel, Dataset

    columns: dict[str, Any] = {"text": [*train["text"][:], *pool["text"]]}
    true = truth(train, theirs)
    if isinstance(theirs, list):
        keywords = map(words.join_keywords, train["keywords"][:])
        columns["keywords"] = [*keywords, *pool["keywords"]]
        if own is not None:
            both = zip(true, own, strict=True)
            columns["marks"] = [*((one + other) / 2 for one, other in both), *theirs]
        return Dataset.from_dict(columns)
    if own is not None:
        known = own.where(own.notna(), true)
        learnt = np.vstack([(true + known) / 2, theirs])
    elif several(theirs):
        learnt = np.vstack([true, theirs.round()])
    else:
        best = theirs.to_numpy().argmax(axis=1).tolist()
        made = Dataset.from_dict({**columns, "label": [*train["label"][:], *best]})
        label = train.features["label"]
        return made.cast_column("label", label) if isinstance(label, ClassLabel) else made
    return Dataset.from_dict({**columns, "label": learnt.astype(np.float32)})


@dataclass
class Rounds:
    """What `teach_rounds` did; prints as its table.

    Attributes:
        table: One row per round, 0 being the first teachers: `texts` (of the pool that taught),
            `changed` (share of the pool whose label differs from the round before), `sure` (mean
            over the pool), `validation_loss` (mean over the models) and the share of each label.
        pool: The texts, and a column of labels per round.
        models: Folders of the students, by round.
        best: The round to keep; 0 where no student does better than its teachers.
        told: What speaks against the pool or ended the rounds.
    """

    table: pd.DataFrame
    pool: pd.DataFrame
    models: dict[int, list[Path]]
    best: int
    told: list[str]

    def __str__(self) -> str:
        return "\n".join([self.table.round(4).to_string(), *self.told])


def teach_rounds(
    splits: DatasetDict,
    unlabelled: Iterable[str],
    teachers: Sequence[Any],
    build: Callable[[DatasetDict, int, Path], Trainer],
    folder: str | Path,
    *,
    rounds: int = 2,
    seeds: Sequence[int] = (0,),
    view: Any = None,
    sure: float = 0.8,
    held_out: Iterable[str] = (),
    enough: float = 0.002,
    watch: bool = True,
) -> Rounds:
    """Let students become teachers, until a further round brings nothing.

    Students learn what is likeliest, where that is sure; those of the last round learn
    probabilities, so that they aren't too sure of themselves. That is the round after one that
    changed hardly a label. Where students do worse on the validation split than their teachers, by
    more than twice the standard error, that is the end, and they aren't the best. A run that was
    killed goes on where it was.

    Args:
        splits: As for `teach`.
        unlabelled: Texts of the kind that is to be judged.
        teachers: The first ones.
        build: Makes the Trainer of a student, from the splits that it learns, a seed (to be set
            before the model is created) and a folder for checkpoints.
        folder: Where the rounds go.
        rounds: Most rounds.
        seeds: Of the students of a round, who teach the next one together.
        view: An estimator of scikit-learn that learns the labels of each round too, and teaches the
            next one with half the weight; None for `surface.words_and_letters`, False for none. It
            is for texts with one label each.
        sure: As for `teach`, in all rounds but the last.
        held_out: Further texts that are measured on.
        enough: Share of the pool's labels that has to change in a round.
        watch: False where validation has the teachers' own labels, which say nothing.

    Returns:
        What happened round by round, the students' folders, and the round to keep.

    Raises:
        ValueError: As `teach`.
    """
    folder, texts = Path(folder), tables.strings(unlabelled)
    left_out = _left_out(splits, texts, tables.strings(held_out))
    train, marking = splits["train"], "label" not in splits["train"].features
    models: dict[int, list[Any]] = {0: list(teachers)}
    pool, table, told = pd.DataFrame({"text": texts}), [], []
    found, best, last, lowest = None, 0, False, None
    doubts: list[str] = []
    with tables.lock(folder / "rounds"):
        for number in range(rounds + 1):
            row: dict[str, Any] = {"texts": 0, "changed": np.nan}
            if number:
                last = last or marking or number == rounds
                soft = _asked(splits, models[number - 1], train["text"][:]) if last else None
                bar = 0.0 if last else sure
                lesson = _lesson(splits, texts, left_out, found, soft, bar, doubts)
                told += [problem for problem in lesson.told if problem not in told]
                here = folder / f"round-{number}"
                tables.write(lesson.pool, here / "pool.parquet")
                row["texts"] = (lesson.pool["left_out"] == "").sum()
                models[number] = []
                for seed in seeds:
                    trainer = build(lesson.splits, seed, here / f"checkpoints-{seed}")
                    models[number].append(training.train_once(trainer, here / f"seed-{seed}"))
            found, usual, loss = _opinions(splits, models[number], texts)
            doubts = at_a_loss(sureness(found), usual)
            (answers,) = likeliest(found, texts).values()
            pool[f"round {number}"] = pd.Series(answers).fillna("")
            if number:
                row["changed"] = (pool.iloc[:, -1] != pool.iloc[:, -2]).mean()
            row |= {"sure": np.nanmean(sureness(found)), "validation_loss": np.nanmean(loss)}
            shares = pool.iloc[:, -1].value_counts(normalize=True)
            table.append(row | ({} if marking else dict(shares)))
            worse = loss - (loss if lowest is None else lowest)
            if watch and not np.nanmean(worse) <= 2 * np.nanstd(worse) / np.sqrt(len(worse)):
                told.append(f"Round {number} did worse on the validation split than round {best}.")
                break
            best, lowest = number, loss
            if last:
                break
            last = row["changed"] < enough
            if view is not False and not marking and not several(found):
                view = view or words_and_letters(C=10)
                found = _with_view(view, found, train, texts, left_out == "")
    return Rounds(pd.DataFrame(table).rename_axis("round"), pool, models, best, told)


def _opinions(
    splits: DatasetDict, models: Sequence[Any], texts: list[str]
) -> tuple[Soft, np.ndarray, np.ndarray]:
    """Ask models about the pool; and each by itself, how sure and how wrong it is on validation."""
    checked = splits["validation"]
    each = [_asked(splits, [model], checked["text"][:]) for model in models]
    usual = np.concatenate(list(map(sureness, each)))
    loss = np.nanmean([losses(one, checked) for one in each], axis=0)
    return _asked(splits, models, texts), usual, loss


def _with_view(
    view: Any, found: pd.DataFrame, train: Dataset, texts: list[str], allowed: pd.Series
) -> pd.DataFrame:
    """Let another kind of model learn what is sure of the pool; return the mean of both opinions.

    Co-training (Blum and Mitchell 1998, https://doi.org/10.1145/279943.279962).
    """
    names = list(found)
    kept = np.flatnonzero(allowed & (found.max(axis=1) >= 0.9))
    known = [names[i] for i in train["label"][:]] + found.iloc[kept].idxmax(axis=1).tolist()
    view.fit([*train["text"][:], *(texts[i] for i in kept)], known)
    other = soft_labels([view], texts)
    return (found + other.reindex(columns=names, fill_value=0.0)) / 2


def student(
    base: str | Path, of: str | Path | None = None, frozen_layers: int = 0, **settings: Any
) -> Callable[[DatasetDict, int, Path], Trainer]:
    """Return what `teach_rounds` takes as `build`: a Trainer in the manner of the notebooks.

    The embeddings stay as they came, so that words that no text has keep their meaning.

    Args:
        base: The model that a student starts as: a folder, or a name on the Hub.
        of: A teacher, for its kind and its labels; None where `base` is one.
        frozen_layers: Lowest layers left as they came.
        **settings: Of `training_arguments`, for instance `num_train_epochs=3`.

    Raises:
        ValueError: The teacher writes, or has no head.
    """
    import transformers
    from datasets import List, Value

    given = transformers.AutoConfig.from_pretrained(of or base)
    kind = kind_of(given.to_dict())
    if kind == "writer":
        raise ValueError(f"{of or base} writes: only models that classify or mark are taught.")
    if any((Path(base) / name).is_file() for name in EXPORTED):
        raise ValueError(f"{base} is an export, which can't be trained: name another base=.")
    known = {"id2label": given.id2label, "label2id": given.label2id}
    known |= {"problem_type": given.problem_type, "ignore_mismatched_sizes": True}
    known = features.MARKS if kind == "marker" else known
    plain = given.problem_type != "multi_label_classification"
    head = "Token" if kind == "marker" else "Sequence"
    auto = getattr(transformers, f"AutoModelFor{head}Classification")
    collator: Any = soft_collator if kind == "marker" else transformers.DataCollatorWithPadding

    def build(splits: DatasetDict, seed: int, folder: Path) -> Trainer:
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        transformers.set_seed(seed)  # before the model is created: a new head is random
        ours, there = list(given.id2label.values()), splits["validation"].features
        label = there["label_names"].feature if "label_names" in there else there.get("label")
        if getattr(label, "names", ours) != ours:
            raise ValueError(f"Encode labels in the model's order: encode_labels(…, names={ours}).")
        model = auto.from_pretrained(base, dtype="float32", **known)
        inherit(model.config, given)
        lowest = [f"layer.{number}." for number in range(frozen_layers)]
        for name, weights in model.named_parameters():
            weights.requires_grad = not any(part in name for part in ("embeddings.", *lowest))
        if not plain:  # the model's own loss wants floats
            splits = splits.cast_column("label", List(Value("float32")))
        tokenize = features.tokenize_marker if kind == "marker" else features.tokenize
        rows = tokenize(splits, tokenizer, config=model.config)
        about: Any = {"metric": "loss", "seed": seed, "load_best_model_at_end": False}
        args = training.training_arguments(folder, **about, **settings)
        return transformers.Trainer(
            model=model,
            args=args,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            processing_class=tokenizer,
            data_collator=collator(tokenizer, pad_to_multiple_of=None if args.use_cpu else 8),
            compute_loss_func=soft_loss if plain else None,
        )

    return build
