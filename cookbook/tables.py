"""Any table in, any table out, every cell as it stands: CSV, JSONL, Parquet, frames, the Hub."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import filelock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cookbook.formats import NoRows as NoRows
from cookbook.formats import head_of, local_file, pieces_of, require
from cookbook.formats import lines_of as lines_of

if TYPE_CHECKING:  # datasets takes a second to import; reading a CSV doesn't need it
    from datasets import Dataset, DatasetDict

    Table: TypeAlias = str | Path | pd.DataFrame | Dataset
    Source: TypeAlias = Table | DatasetDict | Mapping[str, Table]

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_JSON_LINES = (".jsonl", ".ndjson")


def read(source: Table, columns: Sequence[str] = (), **options: str) -> pd.DataFrame:
    """Read a whole table: '007' stays text, 'NA' isn't missing, class ids come as names.

    Args:
        source: CSV, JSON lines or Parquet (path or address, also compressed), or a frame.
        columns: Columns that have to be there.
        **options: Of a CSV: `sep`, else seen from the header, and `encoding`, else UTF-8 or UTF-16.

    Returns:
        A frame. Cells of a CSV are strings, '' where empty; class ids are a Categorical of names.

    Raises:
        ValueError: The file can't be read as it is, or a column is missing or doubled.
        ConnectionError: The address can't be reached.

    Example:
        >>> read(pd.DataFrame({"text": ["007"]}), ["text"])["text"].tolist()
        ['007']
    """
    if isinstance(source, pd.DataFrame):
        frame = source.set_axis(source.columns.map(str), axis=1)
        require(frame.columns, columns, "The table")
        return frame
    table = pa.concat_tables(chunks(source, columns, sys.maxsize, **options))
    frame = table.to_pandas(integer_object_nulls=True, ignore_metadata=True)
    for name, feature in getattr(source, "features", {}).items():
        if hasattr(feature, "int2str"):  # -1, in a data set of the Hub, stands for no label
            ids = frame[name].map(lambda cell: -1 if pd.isna(cell) else int(cell))
            frame[name] = pd.Categorical.from_codes(ids.tolist(), feature.names)
        elif names := getattr(getattr(feature, "feature", None), "names", None):
            lists = [None if ids is None else [names[i] for i in ids] for ids in frame[name]]
            frame[name] = pd.Series(lists, frame.index, dtype=object)
    return frame


def read_splits(source: Source, **options: Any) -> dict[str, pd.DataFrame]:
    """Read every split of a data set; a single table is the split 'train'.

    Args:
        source: As for `read`, a mapping of such, or the name of a data set on the Hub.
        **options: Passed to `read`, or to `datasets.load_dataset`.

    Returns:
        A frame by name of the split.

    Raises:
        ValueError: As `read`.
        ConnectionError: The Hub's data set can't be had.

    Example:
        >>> list(read_splits(pd.DataFrame({"text": ["A"]})))
        ['train']
    """
    if isinstance(source, str) and not _is_file(source):
        from datasets import load_dataset

        try:
            source, options = load_dataset(source, **options), {}
        except Exception as error:  # the client raises a dozen kinds; each means: not to be had
            raise ConnectionError(
                f"{source!r} is no file here, and it couldn't be loaded from the Hugging Face Hub: "
                "is the name right, the internet there, and access granted (hf auth login)? "
                f"{type(error).__name__}: {error}"
            ) from error
    parts = source if isinstance(source, Mapping) else {"train": source}
    return {str(name): read(part, **options) for name, part in parts.items()}


def chunks(
    source: Table, columns: Sequence[str] = (), rows: int = 5000, **options: str
) -> Iterator[pa.Table]:
    """Read a table in pieces, in the memory of one of them; see `read`.

    Args:
        source: As for `read`; a list in JSON is read whole.
        columns: Columns that have to be there.
        rows: Rows of a piece.
        **options: As for `read`.

    Yields:
        Tables of one schema, with at least one row.

    Raises:
        ValueError: As `read`; of the header before the first piece.
        NoRows: There are none.
    """
    if unknown := sorted(set(options) - {"sep", "encoding"}):
        raise TypeError(f"Nothing that is read has {unknown}; a CSV has sep and encoding.")
    with TemporaryDirectory() as folder:
        where = str(source) if isinstance(source, (str, Path)) else "The table"
        if isinstance(source, pd.DataFrame):
            whole = read(source, columns)
            pieces: Iterable[Any] = [pa.Table.from_pandas(whole, preserve_index=False)]
        elif isinstance(source, (str, Path)):
            pieces = pieces_of(local_file(where, folder), where, columns, rows, options)
        else:
            pieces = [source.with_format("arrow")[:]]
        empty = True
        for piece in pieces:
            require(piece.column_names, columns, where)
            piece = _without_bytes(piece.replace_schema_metadata(), columns, where)
            for start in range(0, len(piece), rows):
                empty = False
                yield piece.slice(start, rows)
        if empty:
            raise NoRows(where, piece)


def sample(source: Table, column: str, rows: int, seed: int = 0, **options: str) -> pd.Series:
    """Draw rows of one column at random, without replacement, in the memory of as many.

    Blank and missing cells aren't drawn.

    Args:
        source: As for `chunks`.
        column: The column.
        rows: Rows to draw; all, in their order, where there are fewer.
        seed: Seed of the draw.
        **options: As for `read`.

    Returns:
        The cells, in the order of the table.

    Raises:
        ValueError: As `read`.

    Example:
        >>> sample(pd.DataFrame({"text": list("abc")}), "text", 5).tolist()
        ['a', 'b', 'c']
    """
    return draw(chunks(source, [column], 1000, **options), column, rows, seed)


def draw(pieces: Iterable[pa.Table], column: str, rows: int, seed: int = 0) -> pd.Series:
    """Draw rows at random from the pieces of a table; see `sample`.

    Reservoir sampling (Vitter 1985, algorithm R).
    """
    rng, seen = np.random.default_rng(seed), 0
    drawn: dict[int, tuple[int, Any]] = {}
    for cell in (cell for piece in pieces for cell in piece.column(column).to_pylist()):
        if cell is None or not str(cell).strip():
            continue
        place = seen if seen < rows else int(rng.integers(seen + 1))
        if place < rows:
            drawn[place] = seen, cell
        seen += 1
    return pd.Series([cell for _, cell in sorted(drawn.values(), key=lambda pair: pair[0])])


def row_count(source: Table) -> int | None:
    """Return the number of rows where it can be had without reading them, for a progress bar.

    Example:
        >>> row_count(pd.DataFrame({"text": ["A", "B"]}))
        2
    """
    if not isinstance(source, (str, Path)):
        return len(source)
    is_parquet = Path(source).is_file() and head_of(Path(source)).startswith(b"PAR1")
    return pq.ParquetFile(source).metadata.num_rows if is_parquet else None


def write(
    data: pd.DataFrame | pa.Table | Iterable[pa.Table], path: str | Path, encoding: str = "utf-8"
) -> Path:
    """Write a table by the ending of its name, whole or not at all.

    Args:
        data: A frame, an Arrow table, or pieces of one.
        path: Ends in .csv, .tsv, .jsonl, .ndjson or .parquet; what was there is replaced.
        encoding: Of a CSV; 'utf-8-sig' has the mark that Excel looks for.

    Returns:
        The path. In a CSV lists and mappings are JSON, whole, and a missing cell is empty.

    Raises:
        ValueError: The ending is another.

    Example:
        >>> from tempfile import mkdtemp
        >>> read(write(pd.DataFrame({"tags": [["Go", "C"]]}), f"{mkdtemp()}/a.csv"))["tags"][0]
        '["Go", "C"]'
    """
    ending = require_ending(path)
    if isinstance(data, pd.DataFrame):
        data = pa.Table.from_pandas(data, preserve_index=False)
    pieces: Iterator[Any] = iter([data] if isinstance(data, pa.Table) else data)
    first = next(pieces)

    def save(half: Path) -> None:
        if ending == ".parquet":
            with pq.ParquetWriter(half, first.schema) as parquet:
                for piece in chain([first], pieces):
                    parquet.write_table(piece.cast(first.schema))
            return
        with half.open("w", encoding=encoding, newline="") as file:
            write_row = csv_writer(file, "\t" if ending == ".tsv" else ",")
            if ending not in _JSON_LINES:
                write_row(first.column_names)
            for piece in chain([first], pieces):
                if ending in _JSON_LINES:
                    file.writelines(f"{_json(row)}\n" for row in piece.to_pylist())
                else:
                    for row in zip(*(part.to_pylist() for part in piece.columns), strict=True):
                        write_row(row)

    return write_atomically(path, save)


def _json(value: Any) -> str:
    """Return a value as JSON, which has no NaN and no infinity: null."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        told = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
        return json.dumps(told, ensure_ascii=False)


def csv_writer(file: TextIO, sep: str = ",") -> Callable[[Iterable[Any]], None]:
    """Return a function that writes a row of a CSV: any value whole, as text or as JSON.

    Example:
        >>> csv_writer(sys.stdout)([None, ["Go", 1], "007"])
        ,"[""Go"", 1]",007
    """
    plain = csv.writer(file, delimiter=sep, lineterminator="\n")
    # Before Python 3.13 a lone carriage return isn't quoted, and would end the row.
    quoted = csv.writer(file, delimiter=sep, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def cell(value: Any) -> str:
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, (list, tuple, dict)):
            return _json(value)
        return value if isinstance(value, str) else "" if pd.isna(value) else str(value)

    def write_row(row: Iterable[Any]) -> None:
        cells = list(map(cell, row))
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)

    return write_row


class Appender:
    """A CSV that grows row by row, and that a kill can't spoil; one run at a time.

    A file with other columns is refused before it is touched; the last `added` ones, which a file
    from before they were known lacks, are given to it, empty. Of one with these columns, a last
    line that a kill tore is taken off, with a warning.

    Attributes:
        before: The rows that stood there, as strings.

    Example:
        >>> from tempfile import mkdtemp
        >>> with Appender(f"{mkdtemp()}/a.csv", ["text"]) as rows:
        ...     rows.write(["A title"])
    """

    def __init__(self, path: str | Path, columns: Sequence[str], added: int = 0) -> None:
        self.path, self.columns, self.added = Path(path), list(map(str, columns)), added

    def __enter__(self) -> Appender:
        """Lock the file, look at it, refuse it or open it."""
        require(self.columns, (), str(self.path))
        with ExitStack() as stack:
            stack.enter_context(lock(self.path))
            if not self.path.exists() or not self.path.stat().st_size:
                write(pd.DataFrame(columns=self.columns), self.path)
            self.before = self._taken_over()
            self._file = stack.enter_context(self.path.open("a", encoding="utf-8", newline=""))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file and let others at it."""
        self._stack.close()

    def write(self, *rows: Sequence[Any]) -> None:
        """Append rows; they are on disk when this returns."""
        for row in rows:
            csv_writer(self._file)(row)
        self._file.flush()

    def _taken_over(self) -> pd.DataFrame:
        raw = self.path.read_bytes()
        end = position = quotes = 0
        for line in raw.splitlines(keepends=True):
            position += len(line)
            quotes += line.count(b'"')  # odd within a quoted cell, which may span lines
            if line.endswith(b"\n") and quotes % 2 == 0:
                end = position
        try:
            whole = io.StringIO(raw[:end].decode("utf-8-sig"), newline="")
            head, *rows = filter(None, csv.reader(whole, strict=True))
            lacks = len(self.columns) - len(head)
            ours = head == self.columns[: len(head)] and 0 <= lacks <= self.added
            ours = ours and all(len(row) == len(head) for row in rows)
        except (csv.Error, ValueError):
            ours = False
        if not ours:
            raise ValueError(
                f"{self.path} isn't a CSV of ours with the columns {self.columns}, and is left as "
                "it is. Name another file."
            )
        if torn := raw[end:]:
            warnings.warn(f"{self.path} ended in a torn line, taken off: {torn!r}", stacklevel=3)
            os.truncate(self.path, end)
        frame = pd.DataFrame(rows, columns=head, dtype=str)
        if lacks:
            frame = frame.reindex(columns=self.columns, fill_value="")
            write(frame, self.path)
        return frame


@contextmanager
def lock(path: str | Path) -> Iterator[None]:
    """Keep other runs, in this process or another, from writing the same file meanwhile.

    Raises:
        RuntimeError: Another run is writing it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except filelock.Timeout as error:
        told = f"Another run is writing {path}. Wait for it, or name another file."
        raise RuntimeError(told) from error


def write_atomically(path: str | Path, save: Callable[[Path], Any]) -> Path:
    """Let `save` write a file under another name, then give it its own: whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.half")
    try:
        save(half)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of settings; {} where it isn't there."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def write_json(path: str | Path, value: Any, indent: int = 1) -> Path:
    """Write a value as JSON, whole or not at all."""
    content = json.dumps(value, indent=indent, ensure_ascii=False)
    return write_atomically(path, lambda half: half.write_text(f"{content}\n", "utf-8"))


def asset(name: str) -> str:
    """Read a text that comes with the package.

    Example:
        >>> asset("styles.txt").splitlines()[0]
        'a plain statement'
    """
    return files("cookbook").joinpath("assets", name).read_text("utf-8").removesuffix("\n")


def free_name(name: str, columns: Iterable[Hashable]) -> str:
    """Return a name for an added column that is in nobody's way.

    Example:
        >>> free_name("label", ["text", "label"])
        'label_predicted'
    """
    columns = set(columns)
    while name in columns:
        name += "_predicted"
    return name


def require_ending(path: str | Path) -> str:
    """Return the ending of a name, in small letters, if it is one of `ENDINGS`.

    Raises:
        ValueError: It is another.

    Example:
        >>> require_ending("TITLES.CSV")
        '.csv'
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{path} ends in none of {', '.join(ENDINGS)}, which say how to write it.")
    return ending


def strings(texts: Iterable[str]) -> list[str]:
    """Return texts as a list, each of them a string.

    Raises:
        ValueError: They are one string, or a text is none; names its position.

    Example:
        >>> strings(("A", "B"))
        ['A', 'B']
    """
    if isinstance(texts, str):
        raise ValueError(f"Texts are one string, not a list: put {texts[:40]!r} into a list.")
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Text {row} is {text!r}, which is no string.")
    return texts


def _is_file(source: str) -> bool:
    name = source.split("?")[0].lower()
    return "://" in name or Path(source).exists() or any(ending in name for ending in ENDINGS)


def _without_bytes(table: pa.Table, columns: Sequence[str], where: str) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            try:
                text = table.column(place).cast(pa.string())
                table = table.set_column(place, field.name, text)
            except pa.ArrowException:
                if field.name in columns:  # of others nobody asked for text
                    raise ValueError(f"{where}: {field.name!r} holds bytes, not text.") from None
    return table
