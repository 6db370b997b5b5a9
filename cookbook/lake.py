"""Answers over a lake: thousands of files, here or in an object store, on one machine or many."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pyarrow as pa
from pyarrow.fs import FileInfo
from tqdm.auto import tqdm

from cookbook import extra, tables
from cookbook.inference import answer_pieces
from cookbook.models import Model, digest, load, model_folder
from cookbook.places import Place, matches, parts_of, place
from cookbook.places import is_lake as is_lake

if TYPE_CHECKING:
    from cookbook.models import Loadable

_ASKED_AT_ONCE = 1000
_LOADED: dict[str, Model] = {}  # a worker's model


@dataclass
class Lake:
    """What a run over a lake left; prints as a summary.

    Attributes:
        target: Where the answers are.
        parts: How many parts the source has.
        answered: How many of them this run answered.
        rows: The rows of those.
        failed: The parts that couldn't be answered: columns `part` and `reason`.
    """

    target: str
    parts: int
    answered: int
    rows: int
    failed: pd.DataFrame

    @property
    def ok(self) -> bool:
        """Whether every part has its answers."""
        return self.failed.empty

    def __str__(self) -> str:
        done = self.parts - len(self.failed)
        lines = [f"{done:,} of {self.parts:,} parts are in {self.target}."]
        lines += [f"Answered now: {self.answered:,}, with {self.rows:,} rows."]
        if not self.ok:
            lines += [f"Set aside: {len(self.failed):,}; all reasons are in _failed.csv there."]
            lines += [f"  {part}: {reason}" for part, reason in self.failed.head().to_numpy()]
        return "\n".join(lines)


def answer_lake(
    source: str | Path,
    target: str | Path,
    model: Loadable,
    *,
    text: str = "text",
    ray: str | None = None,
    resources: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    max_length: int | None = None,
    **options: Any,
) -> Lake:
    """Answer every file of a folder or an object store, a part each; where there is, on a cluster.

    It can be killed at any moment: a part is written whole or not at all, and the same call goes on
    with those that aren't there, or are older than their source (what is put in its place with an
    older date isn't noticed). A part that can't be answered is set aside with its reason, and tried
    again by the next call. Where a machine of the cluster dies, others answer its parts.

    Args:
        source: A folder, or a pattern such as `s3://mine/2026/*.parquet`; also `gs://`, `hf://`.
            Names that begin with `_` or `.` are left out.
        target: Folder to write, here or in a store; its parts are named as the source's.
        model: As for `load`; on a cluster a folder, which is sent there, or a name on the Hub.
        text: Column of the texts.
        ray: Address of a Ray cluster, as for `ray.init`; None for RAY_ADDRESS, or this process. Its
            machines have this package, and reach source and target.
        resources: What a part takes there, as for `ray.remote`; one core.
        dtype: As for `load`.
        max_length: Tokens of a text at most.
        **options: As for `answer_file`.

    Returns:
        What was done, and which parts failed.

    Raises:
        FileNotFoundError: There are no files.
        ValueError: The target has answers of another model, source or other options.
        RuntimeError: Another run is writing the target; of a store nobody can tell.
    """
    out, ray = place(target), ray or os.environ.get("RAY_ADDRESS")
    folder = model_folder(model) if isinstance(model, (str, Path)) else None
    if ray and folder is None:
        raise ValueError("A model in memory can't be sent to a cluster: save it, name its folder.")
    if out.here and Path(out.path).is_file():
        raise ValueError(f"{target} is a file: of many tables the target is a folder.")
    root, pattern, parts = parts_of(source, out)
    with tables.lock(Path(out.path, "_run.json")) if out.here else nullcontext():
        loaded = load(model, dtype=dtype, max_length=max_length)
        told = [loaded.identity, root.real().path, pattern, text, sorted(options.items())]
        there = {out.name_of(info.path): info for info in out.listed()}
        _same_run(out, str(target), digest([repr(told).encode()]), set(there) & set(parts))
        todo = {
            name: Place(root.files, info.path)
            for name, info in parts.items()
            if not _is_newer(there.get(name), info)
        }
        work = {"out": out, "text": text, **options}
        if ray and folder:
            sent = folder, loaded, dtype, max_length
            results = _on_ray(todo, work, sent, ray, {"num_cpus": 1, **(resources or {})})
        else:
            results = ((name, _answer(name, part, loaded, **work)) for name, part in todo.items())
        done = len(parts) - len(todo)
        bar = tqdm(results, desc="Answer parts", total=len(parts), initial=done)
        found = dict(bar)
        if left := sorted(name for name in set(there) - set(parts) if matches(name, "")):
            warnings.warn(
                f"{len(left)} files in {target} answer nothing that the source holds today, such "
                f"as {left[0]}: delete them, or whoever reads the folder reads them too.",
                stacklevel=2,
            )
        return _told(out, str(target), len(parts), found, there)


def sample(source: str | Path, column: str, rows: int, seed: int = 0) -> pd.Series:
    """Draw rows of one column at random, as `tables.sample`, which this is for one table.

    Every part of a lake is read once, piece by piece. What can't be read of one is left out, with a
    warning that names it.

    Args:
        source: A table, or a lake as for `answer_lake`.
        column: As for `tables.sample`, and so are `rows` and `seed`.
        rows: How many.
        seed: Of the draw.

    Raises:
        FileNotFoundError: There are no files.
        ValueError: Nothing of them can be read.
    """
    if not is_lake(source):
        return tables.sample(source, column, rows, seed)
    root, _, parts = parts_of(source)
    reasons = []

    def pieces() -> Iterator[pa.Table]:
        for name, info in tqdm(parts.items(), desc="Read parts"):
            with TemporaryDirectory() as folder:
                try:
                    path = Place(root.files, info.path).fetch(folder)
                    yield from tables.chunks(path, [column], 1000)
                except tables.NoRows as error:
                    yield error.table
                except Exception as error:  # whatever is wrong with a part, the others go on
                    reasons.append(f"{name}: {type(error).__name__}: {error}")

    drawn = tables.draw(pieces(), column, rows, seed)
    if reasons:
        told = f"{len(reasons)} of {len(parts)} parts can't be read whole, such as {reasons[0]}"
        if drawn.empty:
            raise ValueError(told)
        warnings.warn(f"{told} The rest of them is left out.", stacklevel=2)
    return drawn


class _Part(NamedTuple):
    """What became of a part: its rows, why it failed, warnings, answers with other names."""

    rows: int = 0
    reason: str = ""
    warned: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()


def _answer(
    name: str, part: Place, loaded: Model, *, out: Place, text: str, **options: Any
) -> _Part:
    """Answer a part and put it where it belongs; or say why that can't be."""
    rows, renamed = 0, tuple[str, ...]()

    def counted(pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
        nonlocal rows, renamed
        for piece in pieces:
            renamed = tuple(name for name in piece.column_names if _ours(name, loaded))
            rows += len(piece)
            yield piece

    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            before = _stamp(part)
            pieces = answer_pieces(part.fetch(folder), loaded, text=text, **options)
            answered = Path(folder, f"answered{tables.require_ending(name)}")
            tables.write(counted(pieces), answered)
            if _stamp(part) != before:
                raise RuntimeError("It changed while it was answered: call again.")
            out.put(name, answered)
        except Exception as error:  # whatever is wrong with a part, the others go on
            told = f"{type(error).__name__}: {error}".replace(f"{folder}/", "")
            return _Part(reason=" ".join(told.split()))
    return _Part(rows, "", tuple(str(each.message) for each in warned), renamed)


def _ours(name: str, loaded: Model) -> bool:
    """Say whether a column is an answer that got another name than it has elsewhere."""
    usual = re.sub("(_predicted)+$", "", name)
    known = ("label", "score", "sure", "keywords", "sure_keywords", *loaded.names)
    return usual != name and usual in known


def _stamp(part: Place) -> tuple[Any, ...]:
    info = part.files.get_file_info(part.path)
    return info.size, info.mtime_ns


def _is_newer(answers: FileInfo | None, part: FileInfo) -> bool:
    """Say whether there are answers that are newer than what they answer, as far as is told."""
    if answers is None or not (answers.mtime_ns and part.mtime_ns):
        return answers is not None
    return answers.mtime_ns >= part.mtime_ns


def _same_run(out: Place, target: str, run: str, there: Collection[str]) -> None:
    """Refuse a target that holds answers of another run, or files that may be no answers."""
    note = out.below("_run.json")
    with TemporaryDirectory() as folder:
        if note.files.get_file_info(note.path).is_file:
            if json.loads(note.fetch(folder).read_text("utf-8")) != {"run": run}:
                raise ValueError(
                    f"{target} holds answers of another model (or one trained anew), source or "
                    "other options: delete the folder, or name another target."
                )
            return
        if there:
            raise ValueError(
                f"{target} holds {sorted(there)[0]}, and no note that a run put it there: delete "
                "the folder, or name another target."
            )
        written = Path(folder, "run.json")
        written.write_text(json.dumps({"run": run}), "utf-8")
        out.put("_run.json", written)


def _told(
    out: Place, target: str, parts: int, results: Mapping[str, _Part], there: Collection[str]
) -> Lake:
    """Write down what failed, tidy up, and sum up."""
    old = " Its answers are still those to what it was."
    reasons = [
        (name, part.reason + (old if name in there else ""))
        for name, part in results.items()
        if part.reason
    ]
    failed = pd.DataFrame(reasons, columns=["part", "reason"], dtype=object)
    if out.files.get_file_info(out.below("_failed.csv").path).is_file:
        out.files.delete_file(out.below("_failed.csv").path)
    if reasons:
        with TemporaryDirectory() as folder:
            out.put("_failed.csv", tables.write(failed, Path(folder, "failed.csv")))
    out.tidy()
    warned = [(name, told) for name, part in results.items() for told in part.warned]
    if warned:
        told = f"Parts that warn: {len(warned)}; the first is {warned[0][0]}: {warned[0][1]}"
        warnings.warn(told, stacklevel=3)
    named = {name: part.renamed for name, part in results.items() if not part.reason}
    if len(set(named.values())) > 1:
        name = max(named, key=lambda one: len(named[one]))
        told = f"{name} has columns of its own that are called as answers are"
        warnings.warn(f"{told}, which are {', '.join(named[name])} there.", stacklevel=3)
    rows = sum(part.rows for part in results.values())
    return Lake(target, parts, len(results) - len(reasons), rows, failed)


def _on_ray(
    todo: Mapping[str, Place],
    work: Mapping[str, Any],
    sent: tuple[Path, Model, str, int | None],
    address: str,
    resources: Mapping[str, Any],
) -> Iterator[tuple[str, _Part]]:
    """Answer parts on a cluster; Ray gives those of a machine that died to others, three times."""
    with extra("lake"):
        import ray
    joined = not ray.is_initialized()
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    try:
        folder, loaded, *settings = sent
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        model = f"{loaded.identity} {settings}", ray.put(files), settings
        remote = ray.remote(**resources)(_answer_there)
        jobs = iter(todo.items())
        asked: dict[Any, str] = {}
        while True:
            for name, part in islice(jobs, _ASKED_AT_ONCE - len(asked)):
                asked[remote.remote(name, part, model, work)] = name
            if not asked:
                return
            (ready,), _ = ray.wait(list(asked))
            try:
                part_of = ray.get(ready)
            except ray.exceptions.RayError as error:  # it killed its worker time and again, say
                cause = getattr(error, "cause", None) or error
                part_of = _Part(reason=" ".join(f"{type(cause).__name__}: {cause}".split()))
            yield asked.pop(ready), part_of
    finally:
        if joined:
            ray.shutdown()


def _answer_there(name: str, part: Place, model: Any, work: Mapping[str, Any]) -> _Part:
    """Answer a part in a worker of a cluster, which loads the model for its first."""
    import ray

    key, files, (dtype, max_length) = model
    if key not in _LOADED:
        with TemporaryDirectory() as folder:
            for file, content in ray.get(files).items():
                Path(folder, file).write_bytes(content)
            _LOADED.clear()
            _LOADED[key] = load(folder, dtype=dtype, max_length=max_length)
    return _answer(name, part, _LOADED[key], **work)
