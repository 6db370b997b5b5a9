"""What a file holds, by its content: rows of a CSV as they stand, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException
from itertools import chain, dropwhile, islice, starmap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import infer_compression

csv.field_size_limit(2**31 - 1)  # a cell may be longer than the module's 131,072 characters
# What a file begins with that isn't text, and what it is.
_MAGIC = {
    b"PAR1": "Parquet",
    b"PK": "an Excel workbook (xlsx) or another zip archive: save the sheet as 'CSV UTF-8'",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (xls): save the sheet as 'CSV UTF-8'",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"SQLite": "an SQLite database: export the table as CSV",
    b"%PDF": "a PDF",
    b"<!doctype": "a web page: name the address of the raw file",
    b"<html": "a web page: name the address of the raw file",
}


class NoRows(ValueError):
    """A table has no rows; `table` is its columns."""

    def __init__(self, where: str, table: pa.Table) -> None:
        super().__init__(where, table)
        self.table = table

    def __str__(self) -> str:
        return f"{self.args[0]} has no rows."


def require(columns: Iterable[Hashable], wanted: Iterable[str], where: str) -> None:
    """Refuse a table in which a column is missing, or has the name of another.

    Raises:
        ValueError: Names the column, and those that are there.
    """
    columns = list(columns)
    if doubled := [name for name, n in Counter(columns).items() if n > 1]:
        raise ValueError(
            f"{where} has more than one column called {', '.join(map(repr, doubled))}: rename or "
            "drop one."
        )
    if absent := [name for name in wanted if name not in columns]:
        raise ValueError(
            f"{where} has no column {', '.join(map(repr, absent))}; it has: "
            f"{', '.join(map(repr, columns))}. Name yours with text=, label=, keywords= or group=."
        )


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, which tell what it is."""
    with path.open("rb") as file:
        return file.read(4096)


def lines_of(path: Path) -> list[str]:
    """Read the lines of a text file that aren't blank.

    Raises:
        ValueError: It isn't UTF-8.
    """
    try:
        found = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} isn't UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    return [line.strip() for line in found if line.strip()]


def local_file(source: str, folder: str) -> Path:
    """Return the path of a file, in the folder where it was fetched or unpacked.

    Raises:
        FileNotFoundError: There is no such file.
        ConnectionError: The address can't be reached.
    """
    path = Path(source)
    if source.startswith(("http://", "https://")):
        path = Path(folder) / (Path(urlsplit(source).path).name or "table")
        try:
            with urlopen(source, timeout=60) as answer:
                path.write_bytes(answer.read())
        except (OSError, HTTPException) as error:
            raise ConnectionError(f"{source} can't be reached: {error}") from error
    if not path.is_file():
        told = "is a folder: name a file in it" if path.is_dir() else "isn't there"
        raise FileNotFoundError(f"{source} {told}.")
    if not infer_compression(str(path)):
        return path
    unpacked = Path(folder) / "unpacked"
    with fsspec.open(str(path), "rb", compression="infer") as packed:
        unpacked.write_bytes(packed.read())
    return unpacked


def pieces_of(
    path: Path, where: str, columns: Sequence[str], rows: int, options: Mapping[str, str]
) -> Iterator[pa.Table]:
    """Yield what a file holds as Arrow tables of one schema, with `rows` rows at most.

    One without rows is a table without rows.

    Raises:
        ValueError: It holds something else, no rows of one width, or not these columns.
    """
    head = head_of(path)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    kind = next(
        (name for magic, name in _MAGIC.items() if head.lower().startswith(magic.lower())), ""
    )
    if b"\0" in head and not (kind or options) and head[:2] not in _UTF_16:
        kind = "no text: if it is UTF-16, pass encoding='utf-16-le'"
    if kind == "Parquet":
        file = pq.ParquetFile(path)
        require(file.schema_arrow.names, columns, where)
        if not file.metadata.num_rows:
            yield file.schema_arrow.empty_table()
        for batch in file.iter_batches(min(rows, 2**31 - 1)):
            yield pa.Table.from_batches([batch])
    elif kind:
        raise ValueError(f"{where} can't be read: it is {kind}.")
    elif re.match(rb'\[?\s*\{\s*["}]', start):
        yield from _json_tables(path, where, rows)
    else:
        lines = csv_rows(path, where, columns, options)
        names = next(lines)
        block = list(islice(lines, rows))
        if not block:
            yield pa.schema([(name, pa.string()) for name in names]).empty_table()
        while block:
            cells = [pa.array(part, pa.string()) for part in zip(*block, strict=True)]
            yield pa.Table.from_arrays(cells, names)
            block = list(islice(lines, rows))


_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def _json_tables(path: Path, where: str, rows: int) -> Iterator[pa.Table]:
    """Read JSON lines in pieces, or one list whole; twice, since any row may bring a column."""

    def blocks() -> Iterator[list[Any]]:
        with path.open(encoding="utf-8-sig") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            number, first = next(lines)
            if first.lstrip()[0] == "[":
                yield json.loads("".join([first, *file]))
                return
            every = starmap(_json_row, chain([(number, first)], lines))
            while block := list(islice(every, rows)):
                yield block

    try:
        first, *others = [(made := _json_table(block)).schema for block in blocks()]
        whole = pa.unify_schemas([first, *others], promote_options="permissive")
        for block in blocks() if others else ():
            yield _json_table(block, whole)
        if not others:
            yield made
    except pa.ArrowException as error:
        raise ValueError(
            f"{where}: a column holds values of several kinds, or some that don't fit: {error}"
        ) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{where} isn't JSON with a row a line: {error}") from None


def _json_row(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


def _json_table(block: list[Any], schema: pa.Schema | None = None) -> pa.Table:
    names = schema.names if schema else list(dict.fromkeys(chain.from_iterable(block)))
    cells = []
    for place, name in enumerate(names):
        try:
            kind = schema.types[place] if schema else None
            cells.append(pa.array([row.get(name) for row in block], kind))
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise pa.ArrowInvalid(f"{name!r}: {error}") from None
    return pa.Table.from_arrays(cells, names)


def csv_rows(
    path: Path, where: str, columns: Sequence[str], options: Mapping[str, str]
) -> Iterator[list[str]]:
    """Yield the header of a CSV, and then rows of as many cells.

    Args:
        path: The file.
        where: What messages call it.
        columns: Columns that have to be there.
        options: `sep` and `encoding`, where they are known.

    Raises:
        ValueError: A row has more cells, a quotation mark isn't closed, or a byte can't be read.
    """
    default = "utf-16" if head_of(path)[:2] in _UTF_16 else "utf-8-sig"
    short, line, sep = [], 0, options.get("sep")
    try:
        with path.open(encoding=options.get("encoding", default), newline="") as file:
            lines = dropwhile(lambda text: not text.strip(), file)
            first = next(lines, "")
            if first.lower().startswith("sep="):  # Excel's word on the separator
                sep, first = sep or first[4], next(lines, "")
            if not first:
                raise ValueError(f"{where} is empty. Its first line should name the columns.")
            sep = sep or _separator(first, columns)
            reader = csv.reader(chain([first], lines), delimiter=sep, strict=True)
            names = next(reader)
            require(names, columns, where)
            yield names
            line = reader.line_num
            for row in reader:
                line += 1
                if any(part.strip() for part in row[len(names) :]):
                    raise ValueError(
                        f"{where}, line {line}: {len(row)} cells under {len(names)} columns. Put a "
                        f"text with {sep!r} in it between double quotes: {row}"
                    )
                if 0 < len(row) < len(names):
                    short.append(line)
                row = row[: len(names)] + [""] * (len(names) - len(row))
                if reader.line_num > line and len(names) > 1:
                    _warn_of_swallowed_rows(row, sep, f"{where}, line {line}")
                line = reader.line_num
                yield row
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 1]
        raise ValueError(
            f"{where} isn't {error.encoding} (after line {line}: {bad!r}). Save it as 'CSV UTF-8', "
            "or pass encoding='cp1252' (Windows, Western Europe) or the one it has."
        ) from None
    except csv.Error as error:
        raise ValueError(
            f"{where}, line {line + 1}: a quotation mark isn't closed, or text follows it "
            f"({error}). Double the marks within a text, and put it between double quotes."
        ) from None
    if short:
        told = f"{len(short)} rows end early (first: line {short[0]}); their last cells are empty."
        warnings.warn(f"{where}: {told}", stacklevel=2)


def _separator(line: str, columns: Sequence[str]) -> str:
    found = {sep: next(csv.reader([line], delimiter=sep)) for sep in ",;\t|"}
    return max(found, key=lambda sep: (set(columns) <= set(found[sep]), len(found[sep])))


def _warn_of_swallowed_rows(row: list[str], sep: str, where: str) -> None:
    for part in row:
        lines = part.splitlines()
        if len(lines) > 1 and all(line.count(sep) == len(row) - 1 for line in lines[:-1]):
            told = f"a cell of {len(lines)} lines looks like rows: is a quotation mark missing?"
            warnings.warn(f"{where}: {told} {part[:60]!r}", stacklevel=2)
