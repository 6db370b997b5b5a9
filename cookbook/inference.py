"""Many texts to labels or keywords, fast; export to formats that run without torch."""

from __future__ import annotations

import copy
import csv
import inspect
import json
import math
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

# Neither torch nor transformers is imported up here: an exported model needs neither.
if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def classify(
    texts: Iterable[str],
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    dtype: str = "float32",
) -> pd.DataFrame:
    """Label many texts.

    Texts are sorted by length first, so that a batch has next to no padding, and returned in the
    order they came. Probabilities are those of `pipeline("text-classification", top_k=None)`, of
    a model with several labels a text too, where they don't add up to 1.

    Args:
        texts: The texts.
        model: A fine-tuned classifier, its folder, or its name on the Hub; or the folder of
            `export_onnx`, which runs without torch. A folder or a name goes to the GPU where there
            is one.
        tokenizer: Its tokenizer; None where `model` is a folder or a name.
        batch_size: Texts at once; None for 8 to 16 on a CPU, whose caches hold no more, and 128
            on a GPU.
        max_length: Tokens at most; None for what the tokenizer allows.
        dtype: `"float32"`, or `"auto"` for the fastest that the hardware computes in: bf16 or fp16
            on a GPU, bf16 on a CPU with AMX. That halves the time or better and changes
            probabilities in the third digit. A model that is passed as such, or was exported, has
            its own.

    Returns:
        One row per text: `text`, `label`, `score` (probability of that label, 0 to 1) and one
        column of probabilities per label.

    Raises:
        ValueError: A text is no string (names its position), the tokenizer is missing, `dtype` is
            unknown, or the model is a regression or has a label called text, label or score.
        OSError: There is no such model; says so.
    """
    texts = _strings(texts)
    names, encode, answer, size = _classifier(model, tokenizer, max_length, dtype)
    return _classified(texts, names, encode, answer, batch_size or size)


def _classified(
    texts: list[str], names: list[str], encode: Any, answer: Any, batch_size: int
) -> pd.DataFrame:
    if taken := {"text", "label", "score"} & set(names):
        raise ValueError(f"Labels may not be called {taken}, as the columns are: rename them.")
    probabilities = np.zeros((len(texts), len(names)))
    rows = encode(texts) if texts else []
    order = np.argsort([len(ids) for ids, *_ in rows], kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    answers = answer([rows[i] for i in batch] for batch in batches)
    bar = tqdm(batches, desc="Classify", leave=False, disable=len(batches) < 40)
    for batch, found in zip(bar, answers, strict=True):
        probabilities[batch] = found
    best = probabilities.argmax(axis=1) if texts else np.array([], dtype=int)
    return pd.DataFrame(
        {
            "text": texts,
            "label": [names[i] for i in best],
            "score": probabilities.max(axis=1) if texts else [],
            **{name: probabilities[:, i] for i, name in enumerate(names)},
        }
    )


def worst_mistakes(answers: pd.DataFrame, labels: Sequence[str], n: int = 10) -> pd.DataFrame:
    """List the mistakes that the model was surest of: often a wrong label, or a gap in the data.

    Args:
        answers: What `classify` returned.
        labels: The true label name of each text.
        n: Mistakes at most.

    Returns:
        Columns `text`, `label` (true), `predicted`, `score`, the surest mistake first.

    Example:
        >>> import pandas as pd
        >>> answers = pd.DataFrame({"text": ["A", "B"], "label": ["x", "x"], "score": [0.9, 0.8]})
        >>> worst_mistakes(answers, ["x", "y"])["text"].tolist()
        ['B']
    """
    table = answers[["text", "label", "score"]].rename(columns={"label": "predicted"})
    table.insert(1, "label", list(labels))
    wrong = table[table["label"] != table["predicted"]]
    return wrong.sort_values("score", ascending=False).head(n).reset_index(drop=True)


def extract_keywords(
    texts: Iterable[str],
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    present_only: bool = True,
    **generation: Any,
) -> list[list[str]]:
    """Write keywords for many texts with a fine-tuned seq2seq model.

    Texts are sorted by length first, so that a batch has next to no padding, and answered in the
    order they came. Every keyword that stands in its text gets the text's spelling, and so does one
    that is nearly there ('ubiquititi' becomes 'Ubiquiti'); any other is dropped, unless asked for:
    a small model that writes what isn't there is mostly wrong (dropping it costs the few
    abstractions that it gets right). Repeats are taken out, and
    writing stops at the third one: what follows would be more of the same, and the whole batch
    would wait for it; so it does within a keyword of more than 16 tokens. With
    `present_only=False` the model writes on undisturbed, up to the limit of its
    `generation_config`, as a plain `generate` does.

    Args:
        texts: The texts; an empty one has no keywords.
        model: A fine-tuned seq2seq model, its folder, or its name on the Hub; or the folder of
            `export_ctranslate2`, which runs without torch. A folder or a name goes to the GPU where
            there is one.
        tokenizer: Its tokenizer; None where `model` is a folder or a name.
        batch_size: Texts at once.
        max_length: Tokens of a text at most, the rest is not read; None for what the model takes.
        present_only: Whether to keep only keywords that stand in the text.
        **generation: Passed to `model.generate`, for instance `num_beams=4`; for an exported model
            to `ctranslate2.Translator.translate_batch`, for instance `beam_size=4`.

    Returns:
        A list of keywords per text.

    Raises:
        ValueError: A text is no string (names its position), or the tokenizer is missing.
        OSError: There is no such model; says so.
    """
    texts = _strings(texts)
    write = _writer(model, tokenizer, max_length, present_only, generation)
    return _extracted(texts, write, batch_size, present_only)


def _extracted(
    texts: list[str], write: Any, batch_size: int, present_only: bool
) -> list[list[str]]:
    from cookbook.data import split_keywords

    written: list[list[str]] = [[] for _ in texts]
    order = [i for i in np.argsort([len(text) for text in texts]) if texts[i].strip()]
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc="Extract keywords", leave=False, disable=len(starts) < 10):
        rows = order[start : start + batch_size]
        lines = write([texts[row] for row in rows])
        for row, line in zip(rows, lines, strict=True):
            written[row] = _spelt(split_keywords(line), texts[row], present_only)
    return written


def restore_case(keyword: str, text: str) -> str | None:
    """Give a keyword the spelling that it has in the text.

    White space around punctuation doesn't matter, since tokenizers that lower-case write
    'next. js' for 'Next.js'.

    Args:
        keyword: As a model wrote it.
        text: The text it is about.

    Returns:
        The first stretch of the text that is the keyword but for case, accents and white space, one
        in the same case before others; None where there is none.

    Example:
        >>> restore_case("next. js", "We moved to Next.js 14."), restore_case("vue", "Revue")
        ('Next.js', None)
    """
    pieces = re.findall(r"\w+|[^\w\s]", _folded(keyword))
    if not pieces:
        return None
    pattern = r"\s*".join(map(re.escape, pieces))
    # 'C' doesn't stand in 'C++', nor '.NET' in 'ASP.NET'.
    whole = re.compile(rf"(?<![\w]){pattern}(?![\w+#])" if pieces[-1][-1].isalnum() else pattern)
    folded = _folded(text)
    match = whole.search(folded) or re.compile(whole.pattern, re.IGNORECASE).search(folded)
    return " ".join(text[slice(*match.span())].split()) if match else None


def _folded(text: str) -> str:
    """Take the accents off, which lower-casing tokenizers do; every character keeps its place."""

    def plain(character: str) -> str:
        apart = unicodedata.normalize("NFD", character)
        # A Korean syllable comes apart into letters, none of which is an accent.
        return apart[0] if all(map(unicodedata.combining, apart[1:])) else character

    return "".join(map(plain, text))


def top_keywords(
    keywords: Iterable[Sequence[str]], n: int | None = 20, versions: bool = False
) -> pd.DataFrame:
    """Count keywords over many texts, different spellings of one thing together.

    'nextjs', 'Next.js' and 'next.js 14' count as one, and so do 'LLM' and 'LLMs', shown in the
    commonest spelling; 'C', 'C++' and 'C#' stay apart. A text counts once, however often it names
    a thing.

    Args:
        keywords: Keywords per text, such as `extract_keywords` returns.
        n: Rows at most; None for all.
        versions: Whether to count versions ('Python 3.12') apart from the thing itself.

    Returns:
        One row per keyword, the commonest first: `keyword`, `texts` (number of texts), `share` (of
        the texts, 0 to 1) and `spellings` (how it was written, the commonest first; without the
        version unless `versions`).

    Example:
        >>> top_keywords([["Next.js", "Go"], ["nextjs"], ["next.js 14"]])["texts"].tolist()
        [3, 1]
    """
    spellings: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    total = 0
    for phrases in keywords:
        if isinstance(phrases, str):
            raise ValueError(
                f"Keywords are one string, not a list: {phrases!r}. Split them first, for instance "
                "with cookbook.data.split_keywords."
            )
        total += 1
        seen: dict[str, str] = {}
        for phrase in phrases:
            name = phrase if versions else _VERSION.sub("", phrase)
            if key := _canonical(name):
                seen.setdefault(key, name)
        counts.update(seen.keys())
        for key, name in seen.items():
            spellings.setdefault(key, Counter())[name] += 1
    rows = []
    for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]:
        written = [name for name, _ in spellings[key].most_common()]
        rows.append((written[0], count, count / total, written))
    return pd.DataFrame(rows, columns=["keyword", "texts", "share", "spellings"])


# ' 14', ' v2.1', ' 3.12-rc1' at the end of a name; what stands before it is the thing itself.
_VERSION = re.compile(r"(?<=\S)\s+v?\d+(\.\d+|\.x)*(-?(alpha|beta|rc)\.?\d*)?$", re.IGNORECASE)


def _canonical(name: str) -> str:
    name = re.sub(r"(?<=[A-Z])s$", "", name)  # 'LLMs' is 'LLM', 'Windows' isn't 'Window'
    return re.sub(r"[^\w+#]|_", "", name.casefold())


def _spelt(keywords: list[str], text: str, present_only: bool) -> list[str]:
    from cookbook.data import split_keywords

    found = []
    for keyword in keywords:
        spelling = restore_case(keyword, text)
        if spelling is None and present_only:
            spelling = _nearest(keyword, text)
        if spelling or not present_only:
            found.append(spelling or keyword)
    return split_keywords(found)


def _nearest(keyword: str, text: str, similarity: float = 80) -> str | None:
    """Return the one to four words of the text that a miswritten keyword is most like.

    Small models stutter on names that they have never seen, 'ubiquititi' for 'Ubiquiti'. Four
    characters of five in common made F1@M 0.02 to 0.03 higher on validation posts, hard cases and
    real texts alike; less brought no more.
    """
    from rapidfuzz import fuzz, process

    words = [match.span() for match in re.finditer(r"\w[\w.+#/'-]*[\w+#]|\w", text)]
    spans = [text[words[i][0] : end] for i in range(len(words)) for _, end in words[i : i + 4]]
    spans = [span for span in spans if not re.search(r"[,;:.!?)]\s", span)]
    folded = [_folded(span).casefold() for span in spans]
    best = process.extractOne(
        _folded(keyword).casefold(), folded, scorer=fuzz.ratio, score_cutoff=similarity
    )
    return " ".join(spans[best[2]].split()) if best else None


def answer_chunks(
    chunks: Iterable[pd.DataFrame],
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    text: str = "text",
    **options: Any,
) -> Iterator[pd.DataFrame]:
    """Answer a stream of tables with a stream of tables: memory stays that of one of them.

    Args:
        chunks: Tables, such as `pandas.read_csv(..., chunksize=5000)` or `pandas.read_sql(...,
            chunksize=5000)` yield. A few thousand rows each keep a batch free of padding.
        model: As `classify` or `extract_keywords`; which of the two is read from its configuration.
        tokenizer: As there.
        text: Column of the texts; a missing text is read as an empty one.
        **options: Passed to `classify` or `extract_keywords`.

    Yields:
        Each table with columns added: `label`, `score` and one per label, or `keywords`, joined by
        '; '. Where the table has a column of that name, the added one ends in `_predicted`.

    Raises:
        ValueError: A table has no column `text`; names those that it has.

    Example:
        >>> list(answer_chunks([], "no model is loaded for nothing"))
        []
    """
    answer: Callable[[list[str]], pd.DataFrame] | None = None
    for chunk in chunks:
        if text not in chunk.columns:
            raise ValueError(
                f"There is no column {text!r}; there are: {', '.join(map(repr, chunk.columns))}. "
                "Name yours with text=."
            )
        answer = answer or _answerer(model, tokenizer, options)
        missing = chunk[text].isna()
        texts = ["" if gone else str(cell) for cell, gone in zip(chunk[text], missing, strict=True)]
        added = answer(texts).set_index(chunk.index)
        names = {name: str(name) for name in added}
        while taken := [name for name in names if names[name] in chunk.columns]:
            names |= {name: f"{names[name]}_predicted" for name in taken}
        yield pd.concat([chunk, added.rename(columns=names)], axis=1)


def answer_file(
    source: str | Path,
    target: str | Path,
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    text: str = "text",
    chunk_rows: int = 5000,
    **options: Any,
) -> Path:
    """Answer every text of a CSV or Parquet file, however large, into another one.

    It can be killed at any moment: every `chunk_rows` rows are kept in a folder beside the target
    until all are there, and the same call goes on after the last of them. So little as that is
    lost, and a model that was trained anew meanwhile is noticed.

    Args:
        source: A CSV file (UTF-8, comma) or a Parquet file.
        target: The file to write; its ending, .csv or .parquet, says which.
        model: As `answer_chunks`.
        tokenizer: As there.
        text: Column of the texts.
        chunk_rows: Rows in memory at once.
        **options: Passed to `classify` or `extract_keywords`.

    Returns:
        Path of the target: every column of the source as it was, and those of `answer_chunks`.

    Raises:
        ValueError: An ending is neither .csv nor .parquet, there is no column `text`, there are no
            rows, the CSV isn't regular or not in UTF-8, or what lies beside the target is of
            another run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source, target = Path(source), Path(target)
    for path in (source, target):
        if path.suffix not in (".csv", ".parquet"):
            raise ValueError(f"{path} ends neither in .csv nor in .parquet.")
    stat = source.stat()
    name = str(model) if isinstance(model, (str, Path)) else model.name_or_path
    run = {"source": source.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    run |= {"model": name, "weights": _fingerprint(model), "text": text}
    run |= {"chunk_rows": chunk_rows, "options": repr(options)}
    parts = target.with_name(f"{target.name}.parts")
    marker = parts / "run.json"
    known = json.loads(marker.read_text("utf-8")) if marker.is_file() else {}
    if known != run:
        if known and any(parts.glob("*.parquet")):
            other = ", ".join(f"{key} {was}" for key, was in known.items() if run.get(key) != was)
            raise ValueError(
                f"{parts} is of another run ({other}): delete it, or name another target."
            )
        shutil.rmtree(parts, ignore_errors=True)  # a run that was killed while it cleared up
        parts.mkdir(parents=True)
        _whole(marker, lambda path: path.write_text(json.dumps(run, indent=1), "utf-8"))

    def done(number: int) -> Path:
        return parts / f"{number:06}.parquet"

    if source.suffix == ".csv":
        chunks: Iterable[pa.Table] = (
            pa.Table.from_pandas(chunk, preserve_index=False)
            for chunk in _csv_chunks(source, chunk_rows)
        )
        total = None
    else:
        file = pq.ParquetFile(source)
        batches = file.iter_batches(batch_size=chunk_rows)
        chunks = (pa.Table.from_batches([batch]) for batch in batches)
        total = file.metadata.num_rows
    waiting: list[tuple[int, pa.Table]] = []
    count = 0

    def pending() -> Iterator[pd.DataFrame]:
        nonlocal count
        for number, table in enumerate(chunks):
            count = number + 1
            if done(number).is_file():
                bar.update(len(table))
                continue
            waiting.append((number, table))
            # As pandas noted it, a column may be the index: here it is a column like others.
            yield table.to_pandas(ignore_metadata=True)

    with tqdm(desc=f"Answer {source.name}", total=total, unit=" texts") as bar:
        for answered in answer_chunks(pending(), model, tokenizer, text=text, **options):
            number, table = waiting.pop()
            for column in answered.columns[table.num_columns :]:
                table = table.append_column(column, pa.array(answered[column], from_pandas=True))
            _whole(done(number), partial(pq.write_table, table))
            bar.update(len(table))

    def joined(path: Path) -> None:
        tables = (pq.read_table(done(number)) for number in range(count))
        if target.suffix == ".csv":
            for number, table in enumerate(tables):
                # Types of Arrow, so that a column of integers stays one where a cell is empty.
                frame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
                # Quoted, since a lone carriage return isn't otherwise (before Python 3.13).
                quoting: Any = csv.QUOTE_NONNUMERIC
                frame.to_csv(path, mode="a", header=number == 0, index=False, quoting=quoting)
        else:
            with pq.ParquetWriter(path, pq.read_schema(done(0))) as writer:
                for table in tables:
                    writer.write_table(table)

    if not count:
        shutil.rmtree(parts)
        raise ValueError(f"{source} has no rows.")
    _whole(target, joined)
    shutil.rmtree(parts)
    return target


def _csv_chunks(source: Path, rows: int) -> Iterator[pd.DataFrame]:
    """Read every cell as the string that it is, so that '007', '1.0' and 'NA' stay themselves."""
    try:
        for chunk in pd.read_csv(
            source,
            chunksize=rows,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
        ):
            if not isinstance(chunk.index, pd.RangeIndex):  # the first cells taken for an index
                raise ValueError(
                    f"{source} has rows with more cells than its header, the first of them "
                    f"{chunk.index[0]!r}. Put a text with a comma in it between double quotes."
                )
            if len(chunk):
                yield chunk.fillna("")  # of rows that end early
    except pd.errors.EmptyDataError:
        raise ValueError(f"{source} is empty. Its first line should name the columns.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} isn't UTF-8 ({error}). Save it again as 'CSV UTF-8'.") from None


def _fingerprint(model: Any) -> str:
    """Tell a model from another of its name, such as one trained anew; '' for one on the Hub."""
    if isinstance(model, (str, Path)):
        files = Path(model).glob("*") if Path(model).is_dir() else ()
        return str(max((file.stat().st_mtime_ns for file in files), default=""))
    return f"{sum(part.detach().double().sum().item() for part in model.parameters()):.9g}"


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that under its name it is there in full or not at all."""
    half = path.with_name(f"{path.name}.half")
    half.unlink(missing_ok=True)
    write(half)
    half.replace(path)


def export_onnx(
    model: str | Path | PreTrainedModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    int8: bool = True,
) -> Path:
    """Export a classifier to ONNX, for `classify` or any ONNX runtime, without torch.

    With int8 the weights are stored as 8-bit integers per output channel, in 7 bits of them: CPUs
    without VNNI add up pairs of products in 16 bits, which overflow otherwise (onnxruntime's advice
    on `reduce_range`). Activations are quantised as they come ("dynamically"), by one scale for a
    whole batch, which a few large values spoil; they stand behind the activation function of the
    lowest layers, so the matrix that takes them in stays fp32 in the lowest third of the layers.
    With MiniLM that halved the labels that change, from 16 to 7 of 2,000 real headlines.

    Args:
        model: A fine-tuned classifier, its folder, or its name on the Hub.
        folder: Where to write `model.onnx`, `config.json` and the tokenizer.
        tokenizer: Its tokenizer; None where `model` is a folder or a name.
        int8: Less than a third of the size, and faster on most CPUs; False for fp32, exactly.

    Returns:
        The folder.

    Raises:
        ImportError: onnx, onnxruntime or onnxscript is missing; says what to install.
    """
    with _extra("deploy"):
        import onnx
        import onnxscript  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
    import torch
    from transformers import AutoModelForSequenceClassification

    network, tokenizer = _loaded(model, tokenizer, AutoModelForSequenceClassification)
    if network is model:
        network = copy.deepcopy(network)  # it is changed below
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    # In full, since `save_pretrained` leaves out label names that are LABEL_0, LABEL_1, …
    network.config.to_json_file(folder / "config.json", use_diff=False)
    takes = inspect.signature(network.forward).parameters
    batch = tokenizer(["one", "two or three"], padding=True, return_tensors="pt")
    batch = {name: ids for name, ids in batch.items() if name in takes}
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with TemporaryDirectory() as temporary, _evaluating(network), torch.inference_mode():
        exact = Path(temporary) / "exact.onnx"
        torch.onnx.export(
            network.cpu().float(),
            (),
            exact,
            kwargs=batch,
            input_names=list(batch),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(batch, sizes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        graph = onnx.load(exact)
        # The shapes that torch notes for values in between are of its own names, and
        # onnxruntime's quantisation stumbles over them; it infers its own.
        del graph.graph.value_info[:]
        _read_first_token_early(graph.graph)
        onnx.save(graph, exact)
        if int8:
            shapes = {each.name: each.dims for each in graph.graph.initializer}
            narrowing = [
                node.name
                for node in graph.graph.node
                if node.op_type == "MatMul"
                and (shape := shapes.get(node.input[1]))
                and shape[0] >= 2 * shape[1]
            ]
            quantize_dynamic(
                exact,
                Path(temporary) / "model.onnx",
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                nodes_to_exclude=narrowing[: math.ceil(len(narrowing) / 3)],
            )
            exact = Path(temporary) / "model.onnx"
        shutil.copyfile(exact, folder / "model.onnx")
    return folder


def _read_first_token_early(graph: Any) -> None:
    """Leave out of a graph what the last layer computes for tokens that nobody reads.

    A classifier reads the first token of the last layer alone. What goes on row by row before that
    (feed-forward, norms, the attention's output) needn't be done for the others: a tenth of all
    work with six layers. `Gather` of the first token moves up as far as only such operations
    depend on it. Where there is no such node, the graph stays as it is.
    """
    from onnx import helper, numpy_helper

    constants = {each.name: each for each in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def first(node: Any) -> bool:
        index = constants.get(node.input[1]) if node.op_type == "Gather" else None
        axis = [each.i for each in node.attribute if each.name == "axis"]
        return index is not None and axis == [1] and (numpy_helper.to_array(index) == 0).all()

    (gather, *_) = [*filter(first, graph.node), None]
    if gather is None or len(readers[gather.input[0]]) > 1:
        return
    moved = [gather.name]
    for node in reversed(graph.node):
        by_row = node.op_type in ("Add", "Gelu", "LayerNormalization", "Mul", "Tanh") or (
            node.op_type == "MatMul" and node.input[1] in constants
        )
        users = [user.name for name in node.output for user in readers.get(name, [])]
        if by_row and users and set(users) <= set(moved):
            moved.append(node.name)
    made = {name for node in graph.node if node.name in moved for name in node.output}
    nodes = []
    early: dict[str, str] = {}
    for node in graph.node:
        if node.name == gather.name:
            nodes.append(helper.make_node("Identity", [gather.input[0]], gather.output))
            continue
        if node.name in moved:
            for place, name in enumerate(node.input):
                if name in constants or name in made:
                    continue
                if name not in early:
                    early[name] = f"{name}_first"
                    nodes.append(
                        helper.make_node("Gather", [name, gather.input[1]], [early[name]], axis=1)
                    )
                node.input[place] = early[name]
        nodes.append(node)
    if len(moved) > 1:
        del graph.node[:]
        graph.node.extend(nodes)


def export_ctranslate2(
    model: str | Path | PreTrainedModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    quantization: str | None = "int8",
) -> Path:
    """Export a BART to CTranslate2, for `extract_keywords`, without torch.

    Args:
        model: A fine-tuned BART, its folder, or its name on the Hub.
        folder: Where to write the model and the tokenizer.
        tokenizer: Its tokenizer; None where `model` is a folder or a name.
        quantization: `"int8"`, `"float16"` (for a GPU) or None for fp32.

    Returns:
        The folder.

    Raises:
        ImportError: ctranslate2 is missing; says what to install.
    """
    with _extra("deploy"):
        from ctranslate2.converters import TransformersConverter
    from transformers import AutoModelForSeq2SeqLM

    network, tokenizer = _loaded(model, tokenizer, AutoModelForSeq2SeqLM)
    folder = Path(folder)
    with TemporaryDirectory() as temporary:
        saved, made = Path(temporary) / "saved", Path(temporary) / "made"
        network.save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        # What BART is; the converter asks for it.
        _edit_json(saved / "config.json", lambda settings: {"normalize_before": False, **settings})
        # It would delete the folder that it writes.
        TransformersConverter(str(saved)).convert(str(made), quantization=quantization)
        shutil.copytree(made, folder, dirs_exist_ok=True)
    # The converter asks the tokenizer, and BERT's has no beginning and end; the model knows.
    ids = {"bos_token": network.config.bos_token_id, "eos_token": network.config.eos_token_id}
    tokens = {name: tokenizer.convert_ids_to_tokens(token) for name, token in ids.items()}
    _edit_json(folder / "config.json", lambda settings: settings | tokens)
    tokenizer.save_pretrained(folder)
    longest = _longest(tokenizer.model_max_length, network.config.max_position_embeddings)
    _edit_json(
        folder / "tokenizer_config.json", lambda settings: settings | {"model_max_length": longest}
    )
    network.generation_config.save_pretrained(folder)
    return folder


def _edit_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8"))), indent=2), "utf-8")


def _strings(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise ValueError(f"Texts are one string, not a list: put {texts[:40]!r} into a list.")
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Text {row} is {text!r}, which is no string.")
    return texts


def _answerer(model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Load the model once; return what turns texts into the columns to add."""
    batch_size = options.pop("batch_size", None)
    if _writes(model):
        present_only = options.pop("present_only", True)
        write = _writer(model, tokenizer, options.pop("max_length", None), present_only, options)

        def keywords(texts: list[str]) -> pd.DataFrame:
            found = _extracted(texts, write, batch_size or 32, present_only)
            return pd.DataFrame({"keywords": ["; ".join(phrases) for phrases in found]})

        return keywords
    names, encode, answer, size = _classifier(model, tokenizer, **options)

    def labels(texts: list[str]) -> pd.DataFrame:
        return _classified(texts, names, encode, answer, batch_size or size).drop(columns="text")

    return labels


def _writes(model: Any) -> bool:
    """Whether a model writes keywords; if not, it classifies."""
    if not isinstance(model, (str, Path)):
        config, kind = model.config, type(model).__name__
    elif (Path(model) / "model.onnx").is_file() or (Path(model) / "model.bin").is_file():
        return (Path(model) / "model.bin").is_file()
    else:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(model)
        (kind, *_) = config.architectures or [""]
    return config.is_encoder_decoder and not kind.endswith("ForSequenceClassification")


def _classifier(
    model: Any, tokenizer: Any = None, max_length: int | None = None, dtype: str = "float32"
) -> tuple[list[str], Any, Any, int]:
    """Load a classifier once, for many calls.

    Returns:
        Label names; a function from texts to what the tokenizer makes of each, its ids first; one
        from batches of these to their probabilities; and how many to a batch.
    """
    if isinstance(model, (str, Path)) and (Path(model) / "model.onnx").is_file():
        return _onnx_classifier(Path(model), max_length)
    import torch
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

    network, tokenizer = _loaded(model, tokenizer, AutoModelForSequenceClassification, dtype)
    collate = DataCollatorWithPadding(tokenizer)
    config = network.config
    names = [config.id2label[i] for i in range(config.num_labels)]
    probabilities = _activation(config.problem_type, len(names))
    longest = _longest(tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    columns: list[str] = []

    def encode(texts: list[str]) -> list[tuple[list[int], ...]]:
        rows = tokenizer(texts, truncation=True, max_length=max_length or longest)
        columns[:] = ["input_ids", *(name for name in rows if name != "input_ids")]
        return list(zip(*(rows[name] for name in columns), strict=True))

    def answer(batches: Iterable[list[tuple[list[int], ...]]]) -> Iterator[np.ndarray]:
        for rows in batches:
            # Declared a dict, it is a BatchEncoding.
            padded: Any = collate([dict(zip(columns, row, strict=True)) for row in rows])
            with _evaluating(network), torch.inference_mode():
                logits = network(**padded.to(network.device)).logits.float().cpu().numpy()
            yield probabilities(logits)

    return names, encode, answer, 16 if network.device.type == "cpu" else 128


def _activation(problem_type: str | None, labels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns logits into probabilities, as the pipeline chooses it."""
    from scipy.special import expit, softmax

    if problem_type == "regression":
        raise ValueError("The model is a regression: it has no labels to choose from.")
    one_each = problem_type == "multi_label_classification" or labels == 1
    return expit if one_each else lambda logits: softmax(logits.astype(float), axis=-1)


def _longest(*limits: Any) -> int | None:
    """Return the lowest limit that is one: transformers expresses none as 1e30."""
    return min((each for each in limits if isinstance(each, int) and each < 1e6), default=None)


def _onnx_classifier(folder: Path, max_length: int | None) -> tuple[list[str], Any, Any, int]:
    changed = (folder / "model.onnx").stat().st_mtime_ns
    session, encoder, names, pad, probabilities = _onnx_session(str(folder), changed, max_length)
    wanted = [each.name for each in session.get_inputs()]

    def encode(texts: list[str]) -> list[tuple[list[int], ...]]:
        return [(row.ids, row.type_ids) for row in encoder.encode_batch(texts)]

    def run(rows: list[tuple[list[int], ...]]) -> np.ndarray:
        shape = len(rows), max(len(ids) for ids, _ in rows)
        batch = {name: np.zeros(shape, np.int64) for name in wanted}
        batch["input_ids"][:] = pad
        for row, (ids, types) in enumerate(rows):
            batch["input_ids"][row, : len(ids)] = ids
            batch["attention_mask"][row, : len(ids)] = 1
            if "token_type_ids" in batch:
                batch["token_type_ids"][row, : len(ids)] = types
        return probabilities(session.run(["logits"], batch)[0])

    def answer(batches: Iterable[list[tuple[list[int], ...]]]) -> Iterator[np.ndarray]:
        # A batch per core beats a batch on all cores: nothing waits for the slowest thread.
        with ThreadPoolExecutor(_cores()) as pool:
            yield from pool.map(run, batches)

    return names, encode, answer, 8


@lru_cache(maxsize=2)
def _onnx_session(folder: str, changed: int, max_length: int | None) -> Any:
    """Load an exported classifier; a second call for the same file costs nothing."""
    with _extra("deploy"):
        import onnxruntime
    from tokenizers import Tokenizer

    settings = {
        name: json.loads((Path(folder) / name).read_text("utf-8"))
        for name in ("config.json", "tokenizer_config.json")
    }
    config = settings["config.json"]
    stated = settings["tokenizer_config.json"].get("model_max_length")
    longest = max_length or _longest(stated, config.get("max_position_embeddings"))
    encoder = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    encoder.no_padding()
    if longest:
        encoder.enable_truncation(longest)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    names = [name for _, name in sorted(config["id2label"].items(), key=lambda x: int(x[0]))]
    probabilities = _activation(config.get("problem_type"), len(names))
    return session, encoder, names, config.get("pad_token_id") or 0, probabilities


def _writer(
    model: Any,
    tokenizer: Any,
    max_length: int | None,
    present_only: bool,
    generation: dict[str, Any],
) -> Callable[[list[str]], list[str]]:
    """Return a function from a batch of texts to the lines that the model writes about them."""
    if isinstance(model, (str, Path)) and (Path(model) / "model.bin").is_file():
        return _ctranslate2_writer(Path(model), max_length, generation)
    import torch
    from transformers import AutoModelForSeq2SeqLM

    network, tokenizer = _loaded(model, tokenizer, AutoModelForSeq2SeqLM)
    positions = getattr(network.config, "max_position_embeddings", None)
    max_length = max_length or _longest(tokenizer.model_max_length, positions)
    # With the marks of a space before them that tokenizers use. Asked of the vocabulary, since a
    # call would change how other threads' calls pad.
    marks = [space + mark for space in ("", "Ġ", "▁") for mark in ",;"]
    known = set(tokenizer.convert_tokens_to_ids(marks)) - {None, tokenizer.unk_token_id}
    separators = sorted(known)
    stop = {"stopping_criteria": [_repeats(separators)]} if present_only else {}

    def write(texts: list[str]) -> list[str]:
        batch = tokenizer(
            texts,
            padding=True,
            truncation=max_length is not None,
            max_length=max_length,
            return_token_type_ids=False,
            return_tensors="pt",
        ).to(network.device)
        with _evaluating(network), torch.inference_mode():
            answers = network.generate(**batch, **{"use_cache": True, **stop, **generation})
        return tokenizer.batch_decode(answers, skip_special_tokens=True)

    return write


def _ctranslate2_writer(
    folder: Path, max_length: int | None, generation: dict[str, Any]
) -> Callable[[list[str]], list[str]]:
    translator, encoder, longest = _translator(
        str(folder), (folder / "model.bin").stat().st_mtime_ns, max_length
    )
    settings = {"beam_size": 1, "max_decoding_length": longest, "max_batch_size": 0, **generation}

    def write(texts: list[str]) -> list[str]:
        source = [row.tokens for row in encoder.encode_batch(texts)]
        answers = translator.translate_batch(source, **settings)
        ids = [[encoder.token_to_id(token) for token in a.hypotheses[0]] for a in answers]
        return encoder.decode_batch(ids, skip_special_tokens=True)

    return write


@lru_cache(maxsize=2)
def _translator(folder: str, changed: int, max_length: int | None) -> Any:
    """Load an exported BART; a second call for the same file costs nothing."""
    with _extra("deploy"):
        import ctranslate2
    from tokenizers import Tokenizer

    settings = {
        name: json.loads((Path(folder) / name).read_text("utf-8"))
        for name in ("generation_config.json", "tokenizer_config.json")
    }
    encoder = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    encoder.no_padding()
    stated = _longest(settings["tokenizer_config.json"].get("model_max_length"))
    encoder.enable_truncation(max_length or stated or 1024)
    device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    translator = ctranslate2.Translator(folder, device=device, intra_threads=_cores())
    return translator, encoder, settings["generation_config.json"].get("max_length") or 64


def _repeats(separators: list[int], longest: int = 16) -> Any:
    """Stop a text at its third keyword that was written before, or at one that is far too long."""
    import torch
    from transformers import StoppingCriteria

    marks = set(separators)

    def stuck(ids: list[int]) -> bool:
        keywords: list[tuple[int, ...]] = [()]
        for token in ids:
            if token in marks:
                keywords.append(())
            else:
                keywords[-1] += (token,)
        *finished, begun = keywords
        return len(finished) - len(set(finished)) >= 3 or len(begun) > longest

    class Repeats(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return torch.tensor([stuck(ids) for ids in input_ids.tolist()], device=input_ids.device)

    return Repeats()


@contextmanager
def _evaluating(network: Any) -> Iterator[None]:
    """Switch dropout off; leave the model in the mode that it was in."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def _loaded(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    kind: Any,
    dtype: str = "float32",
) -> tuple[Any, PreTrainedTokenizerBase]:
    network: Any = model
    if isinstance(model, (str, Path)):
        import torch
        from transformers import AutoTokenizer

        from cookbook.training import mixed_precision

        fastest = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}
        precision = fastest[mixed_precision()] if dtype == "auto" else getattr(torch, dtype, None)
        if not isinstance(precision, torch.dtype):
            raise ValueError(f"{dtype=} is none; 'float32', 'bfloat16', 'float16' and 'auto' are.")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        device = "mps" if torch.backends.mps.is_available() else device
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        network = kind.from_pretrained(model, dtype=precision).to(device)
    if tokenizer is None:
        raise ValueError("Pass the tokenizer along with the model, or the model's folder alone.")
    return network, tokenizer


def _cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say what to install where an optional package is missing."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f'{error}. Install what this needs: pip install "small-model-cookbook[{name}]"'
        ) from error
