"""Many texts to labels or keywords, fast: lists, streams and files."""

from __future__ import annotations

import glob
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from cookbook import tables
from cookbook.formats import require
from cookbook.models import Model as Model
from cookbook.models import digest
from cookbook.models import kind_of as kind_of
from cookbook.models import load as load
from cookbook.multilabel import predicted, set_scores
from cookbook.tables import free_name, strings
from cookbook.words import join_keywords, spelt, split_keywords

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cookbook.models import Loadable


def classify(
    texts: Iterable[str],
    model: Loadable,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    dtype: str = "float32",
) -> pd.DataFrame:
    """Label many texts.

    Probabilities are those of `pipeline("text-classification", top_k=None)`, unless the model's
    configuration has a `label_temperature`, which mends them. Where a text may have several labels,
    `label` is a list: those whose probability reaches the configuration's `label_thresholds` (0.5
    where it has none). A blank text has no label (None, nan).

    Args:
        texts: The texts.
        model: As for `load`, and so are `tokenizer`, `max_length` and `dtype`.
        tokenizer: Of a model in memory.
        batch_size: Texts at once; None for what suits the hardware.
        max_length: Tokens at most; None for what the model takes.
        dtype: `"float32"`, or `"auto"`: twice as fast, the third digit differs.

    Returns:
        A row per text: `text`, `label`, `score` (its probability; of several labels that of the
        most doubtful, to hold or not), `sure` where the configuration has a `sure_from` (whether
        the score reaches it; see `trust`) and a column of probabilities per label; that of a label
        with one of these names ends in `_predicted`.

    Raises:
        ValueError: A text is no string, or the model doesn't classify.
        FileNotFoundError: There is no such model.
    """
    texts = strings(texts)
    loaded = load(model, tokenizer, dtype=dtype, max_length=max_length).of_kind("classifier")
    found = _answers(texts, loaded, ["text"], batch_size=batch_size)
    _tell_blank(sum(not text.strip() for text in texts), len(texts))
    return pd.concat([pd.DataFrame({"text": texts}, dtype=object), _frame(found)], axis=1)


def extract_keywords(
    texts: Iterable[str],
    model: Loadable,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    present_only: bool = True,
    threshold: float | None = None,
    scores: bool = False,
    **generation: Any,
) -> list[Any]:
    """Find the keywords of many texts with a fine-tuned model that marks or writes them.

    Of a model that writes, a keyword gets the text's spelling ('ubiquititi' becomes 'Ubiquiti');
    one that isn't there is dropped. Writing stops at the third repeat, or in a keyword of more than
    16 tokens. A model that marks reads a long text in windows, to its end.

    Args:
        texts: The texts; a blank one has no keywords.
        model: As for `load`, and so are `tokenizer` and `max_length`.
        tokenizer: Of a model in memory.
        batch_size: Texts at once; None for what suits the hardware.
        max_length: Tokens of a text at most; None for what the model takes.
        present_only: False keeps what isn't in the text, and writes as a plain `generate` does.
        threshold: Of a model that marks: lower finds more; see `marks.read_marks`.
        scores: Of a model that marks: whether each keyword comes with its probability.
        **generation: Passed to `generate`, or to CTranslate2's `translate_batch`.

    Returns:
        A list of keywords per text, or of pairs of a keyword and its score.

    Raises:
        ValueError: A text is no string, or the model can't do what is asked of it.
        FileNotFoundError: There is no such model.
    """
    texts = strings(texts)
    loaded = load(model, tokenizer, max_length=max_length).of_kind("marker", "writer")
    if loaded.kind == "marker":
        if generation:
            raise ValueError(f"This model marks, and has no use for {', '.join(generation)}.")
        found = loaded.predict(texts, batch_size, threshold)
        return found if scores else [[keyword for keyword, _ in each] for each in found]
    if scores or threshold is not None:
        raise ValueError("This model writes: only one that marks has scores and a threshold.")
    lines = loaded.predict(texts, batch_size, stop=present_only, **generation)
    return [
        spelt(split_keywords(line), text, present_only)
        for line, text in zip(lines, texts, strict=True)
    ]


def worst_mistakes(answers: pd.DataFrame, labels: Sequence[str], n: int = 10) -> pd.DataFrame:
    """List the mistakes that the model was surest of: often a wrong label, or a gap in the data.

    Args:
        answers: What `classify` returned.
        labels: The true label name of each text.
        n: Mistakes at most.

    Returns:
        Columns `text`, `label` (true), `predicted`, `score`, the surest mistake first.

    Example:
        >>> answers = pd.DataFrame({"text": ["A", "B"], "label": ["x", "x"], "score": [0.9, 0.8]})
        >>> worst_mistakes(answers, ["x", "y"])["text"].tolist()
        ['B']
    """
    table = answers[["text", "label", "score"]].rename(columns={"label": "predicted"})
    table.insert(1, "label", list(labels))
    same = table[["label", "predicted"]].map(
        lambda n: set(n) if pd.api.types.is_list_like(n) else n
    )
    wrong = table[same["label"] != same["predicted"]]
    return wrong.sort_values("score", ascending=False).head(n).reset_index(drop=True)


def answer_chunks(
    chunks: Iterable[pd.DataFrame],
    model: Loadable,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    text: str = "text",
    dtype: str = "float32",
    max_length: int | None = None,
    **options: Any,
) -> Iterator[pd.DataFrame]:
    """Answer a stream of tables with a stream of tables: memory stays that of one of them.

    Args:
        chunks: Tables, such as `pandas.read_sql(..., chunksize=5000)` yields.
        model: As for `load`; it classifies or writes keywords, as its configuration says.
        tokenizer: Of a model in memory.
        text: Column of the texts. Where one is blank or missing, so is the answer.
        dtype: As for `load`, and so is `max_length`.
        max_length: Tokens of a text at most.
        **options: Passed to `classify` or `extract_keywords`.

    Yields:
        Each table with columns added: those of `classify`, or `keywords`, and `sure_keywords` where
        the configuration of a model that marks has a `sure_from`. The added one ends in
        `_predicted` where the table has such a column.

    Raises:
        ValueError: A table has no column `text`, or something else than texts in it.

    Example:
        >>> list(answer_chunks([], "no model is loaded for nothing"))
        []
    """
    loaded, blank, rows = None, 0, 0
    for chunk in chunks:
        require(chunk.columns, [text], "The table")
        loaded = loaded or load(model, tokenizer, dtype=dtype, max_length=max_length)
        texts = _texts(chunk[text], rows)
        found = _frame(_answers(texts, loaded, chunk.columns, **options))
        yield pd.concat([chunk, found.set_index(chunk.index)], axis=1)
        blank, rows = blank + texts.count(""), rows + len(texts)
    _tell_blank(blank, rows)


def answer_file(
    source: str | Path,
    target: str | Path,
    model: Loadable,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    text: str = "text",
    chunk_rows: int = 5000,
    dtype: str = "float32",
    max_length: int | None = None,
    **options: Any,
) -> Path:
    """Answer every text of a table, however large, into another one.

    It can be killed at any moment: answered rows are kept in a folder beside the target until all
    are there, and the same call goes on after the last of them. With another model, source or other
    options it begins anew, in another folder.

    Args:
        source: A CSV, JSON lines or Parquet file.
        target: The file to write; its ending says what.
        model: As for `answer_chunks`, and so are all of these but `chunk_rows`.
        tokenizer: Of a model in memory.
        text: Column of the texts.
        chunk_rows: Rows in memory at once, and lost by a kill.
        dtype: As for `load`.
        max_length: Tokens of a text at most.
        **options: Passed to `classify` or `extract_keywords`; `sep` and `encoding` to
            `tables.read`.

    Returns:
        Path of the target: every column of the source as it was, and the answers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file can't be read or written as it is.
        RuntimeError: Another run is writing the target.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise FileNotFoundError(f"{source} isn't there.")
    tables.require_ending(target)
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the source itself: name another target.")
    with tables.lock(target):
        loaded = load(model, tokenizer, dtype=dtype, max_length=max_length)
        told = [loaded.identity, text, chunk_rows, sorted(options.items())]
        run = digest([source, repr(told).encode()])[:12]
        parts = target.with_name(f"{target.name}.{run}.parts")
        for other in {*target.parent.glob(f"{glob.escape(target.name)}.*.parts")} - {parts}:
            warnings.warn(f"{other} is of another run: delete it if you won't go on.", stacklevel=2)
        done: list[Path] = []
        blank, reading = 0, _of_reading(options)
        with tqdm(desc=f"Answer {source.name}", total=tables.row_count(source)) as bar:
            for piece in tables.chunks(source, [text], chunk_rows, **reading):
                done.append(parts / f"{len(done):06}.parquet")
                texts = _texts(piece.column(text).to_pandas(), bar.n)
                if not done[-1].is_file():
                    tables.write(_answered(piece, texts, loaded, **options), done[-1])
                blank += texts.count("")
                bar.update(len(texts))
        tables.write(map(pq.read_table, done), target)
        shutil.rmtree(parts)
    _tell_blank(blank, bar.n)
    return target


def answer_pieces(
    source: str | Path, loaded: Model, *, text: str = "text", rows: int = 5000, **options: Any
) -> Iterator[pa.Table]:
    """Answer a table in pieces; see `answer_file`, which writes them.

    Args:
        source: A CSV, JSON lines or Parquet file.
        loaded: What `load` returned.
        text: Column of the texts.
        rows: Rows of a piece, which memory holds.
        **options: As for `answer_file`.

    Yields:
        Arrow tables: every column as it stands, and the answers. Of a file without rows, one.

    Raises:
        ValueError: The file can't be read as it is.
    """
    blank = before = 0
    reading = _of_reading(options)
    try:
        for piece in tables.chunks(source, [text], rows, **reading):
            texts = _texts(piece.column(text).to_pandas(), before)
            yield _answered(piece, texts, loaded, **options)
            blank, before = blank + texts.count(""), before + len(texts)
    except tables.NoRows as error:
        yield _answered(error.table, [], loaded, **options)
    _tell_blank(blank, before)


def _of_reading(options: dict[str, Any]) -> dict[str, str]:
    """Take out of the options what is about reading a CSV."""
    return {name: options.pop(name) for name in ("sep", "encoding") if name in options}


def _answered(piece: pa.Table, texts: list[str], loaded: Model, **options: Any) -> pa.Table:
    found = _answers(texts, loaded, piece.column_names, **options)
    for name in found.column_names:
        piece = piece.append_column(name, found[name])
    return piece


def _texts(column: pd.Series, before: int) -> list[str]:
    """Return a column's texts, '' where one is blank or missing."""
    texts = column.astype(object).where(column.notna(), "").tolist()
    for row, cell in enumerate(texts, before):
        if not isinstance(cell, str):
            raise ValueError(f"Row {row}, {column.name!r}: {cell!r} is no text.")
    return [text if text.strip() else "" for text in texts]


def _answers(texts: list[str], loaded: Model, taken: Iterable[str], **options: Any) -> pa.Table:
    """Return the columns that a model adds, each under a name that is free."""
    least = loaded.config.get("sure_from")
    if loaded.kind != "classifier":
        doubts = loaded.kind == "marker" and least is not None
        found = extract_keywords(texts, loaded, **(options | ({"scores": True} if doubts else {})))
        lists = {"keywords": found}
        if doubts:
            lists["sure_keywords"] = [[name for name, p in each if p >= least] for each in found]
        blank = np.array([not text.strip() for text in texts], bool)
        columns: list[Any] = [
            (name, pa.array(map(join_keywords, each), pa.string(), mask=blank))
            for name, each in lists.items()
        ]
    else:
        scores = loaded.predict(texts, **options)
        names = np.array([*loaded.names, None], object)
        blank = np.isnan(scores).any(axis=1)
        if loaded.several:
            held = predicted(scores, loaded.names, loaded.config.get("label_thresholds", 0.5))
            sets = [
                None if no else names[:-1][own == 1] for no, own in zip(blank, held, strict=True)
            ]
            labels, score = pa.array(sets, pa.list_(pa.string())), set_scores(scores, held)
        else:
            labels = pa.array(names[np.where(blank, -1, scores.argmax(axis=1))], pa.string())
            score = scores.max(axis=1)
        columns = [("label", labels), ("score", score)]
        if least is not None:
            columns.append(("sure", pa.array(score >= least, mask=blank)))
        columns += zip(loaded.names, scores.T, strict=True)
    added: dict[str, Any] = {}
    for name, values in columns:
        added[free_name(name, [*taken, *added])] = pa.array(values, from_pandas=True)
    return pa.table(added)


def _frame(found: pa.Table) -> pd.DataFrame:
    """Return a frame in which several labels are a list, as in Arrow, and no array."""
    frame = found.to_pandas()
    for field in found.schema:
        if pa.types.is_list(field.type):
            frame[field.name] = pd.Series(found[field.name].to_pylist(), dtype=object)
    return frame


def _tell_blank(blank: int, rows: int) -> None:
    if blank:
        warnings.warn(f"{blank} of {rows} texts are blank: no answer there.", stacklevel=3)
