"""Where files are: in a folder here, in an object store, or on the Hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from uuid import uuid4

from fsspec.core import url_to_fs
from fsspec.utils import infer_compression
from pyarrow import fs


class Place(NamedTuple):
    """A file or folder, here or in an object store."""

    files: fs.FileSystem
    path: str

    @property
    def here(self) -> bool:
        """Whether it is of this machine's own file system."""
        return isinstance(self.files, fs.LocalFileSystem)

    def real(self) -> Place:
        """Return the same place by its one name, whatever links and dots led there."""
        return Place(self.files, Path(self.path).resolve().as_posix()) if self.here else self

    def below(self, name: str) -> Place:
        """Return a place in this folder."""
        return Place(self.files, f"{self.path.rstrip('/')}/{name}")

    def fetch(self, folder: str) -> Path:
        """Return the path of the file, or that of a copy in the folder."""
        if self.here:
            return Path(self.path)
        copy = Path(folder, Path(self.path).name)
        if isinstance(self.files, fs.PyFileSystem):  # its clients fetch a file at once
            self.files.handler.fs.get_file(self.path, str(copy))
        else:
            fs.copy_files(self.path, str(copy), self.files, fs.LocalFileSystem())
        return copy

    def put(self, name: str, file: Path) -> None:
        """Copy a file into this folder, whole or not at all: under another name at first."""
        half, whole = self.below(f"_half/{uuid4().hex}"), self.below(name)
        if self.here:  # an object store knows no folders
            for each in (half, whole):
                Path(each.path).parent.mkdir(parents=True, exist_ok=True)
        fs.copy_files(str(file), half.path, fs.LocalFileSystem(), self.files)
        self.files.move(half.path, whole.path)

    def tidy(self) -> None:
        """Delete what a kill left half written; in a store, where others may write, what is old."""
        half = self.below("_half")
        if self.here:
            shutil.rmtree(half.path, ignore_errors=True)
            return
        for info in half.listed():
            if info.mtime and datetime.now(timezone.utc) - info.mtime > timedelta(days=1):
                self.files.delete_file(info.path)

    def name_of(self, path: str) -> str:
        """Return the name of a file below it, or of the file that it is.

        Example:
            >>> place("/mine").name_of("/mine/2026/a.csv")
            '2026/a.csv'
        """
        return path[len(self.path.rstrip("/")) + 1 :] or path.rpartition("/")[2]

    def holds(self, other: Place) -> bool:
        """Say whether another place is below this one."""
        below = other.path.startswith(f"{self.path.rstrip('/')}/")
        return below and self.files.type_name == other.files.type_name

    def listed(self) -> list[fs.FileInfo]:
        """Return the files below it in the order of their names, or the file that it is."""
        info = self.files.get_file_info(self.path)
        if info.type == fs.FileType.File:
            return [info]
        if self.here:
            return self.files.get_file_info(sorted(_files(self.path)))
        under = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        found = [info for info in self.files.get_file_info(under) if info.is_file]
        return sorted(found, key=lambda info: info.path)


def _files(folder: str) -> Iterator[str]:
    """Yield the paths of the files below a folder, of each folder once, whatever links lead there.

    A link to nowhere is one too: it can't be read, which is to be said.
    """
    folders, links = [folder] if os.path.isdir(folder) else [], list[str]()
    seen = set()
    while folders or links:
        here = (folders or links).pop(0)
        if (real := os.path.realpath(here)) in seen:
            continue
        seen.add(real)
        for each in sorted(os.scandir(here), key=lambda entry: entry.name):
            if each.is_dir():
                (links if each.is_symlink() else folders).append(each.path)
            elif each.is_file() or not os.path.exists(each.path):
                yield Path(each.path).as_posix()


def place(address: str | Path) -> Place:
    """Return where a path or an address such as `s3://bucket/folder` is.

    Example:
        >>> place("titles").here
        True
    """
    name = str(address)
    if "://" not in name:
        return Place(fs.LocalFileSystem(), Path(name).absolute().as_posix())
    if name.startswith(("s3://", "gs://")):  # Arrow knows these, and their credentials
        bucket, key, query = re.findall(r"^(\w+://[^/?]*)([^?]*)\??(.*)$", name, re.DOTALL)[0]
        if (other := os.environ.get("AWS_ENDPOINT_URL")) and name.startswith("s3://"):
            query += f"&endpoint_override={quote(other, safe='')}"  # as Amazon's own clients
        store, path = fs.FileSystem.from_uri(f"{bucket}{quote(key)}?{query.lstrip('&')}")
        return Place(store, path.rstrip("/"))
    files, path = url_to_fs(name)
    return Place(fs.PyFileSystem(fs.FSSpecHandler(files)), path.rstrip("/"))


def split(source: str | Path) -> tuple[Place, str]:
    """Return the folder of a pattern and the pattern below it, which is '' of what has no star.

    Nothing but a star stands for other signs.

    Example:
        >>> split("/mine/2026/part-*.csv")[1]
        'part-*.csv'
    """
    before, star, after = str(source).partition("*")
    folder, slash, begun = before.rpartition("/")
    return (place(f"{folder}{slash}"), f"{begun}*{after}") if star else (place(source), "")


def matches(name: str, pattern: str) -> bool:
    """Say whether a file below a folder is of a pattern; one that begins with _ or . never is.

    Example:
        >>> matches("2026/a.csv", "*/*.csv"), matches("2026/a.csv", "*.csv"), matches("_a", "")
        (True, False, False)
        >>> [matches(name, "**/a.csv") for name in ("a.csv", "2026/05/a.csv", "2026/data.csv")]
        [True, True, False]
    """
    if any(step.startswith(("_", ".")) for step in name.split("/")):
        return False
    wild = re.escape(pattern).replace(r"\*\*/", "(.+/)?").replace(r"\*\*", ".*")
    return not pattern or bool(re.fullmatch(wild.replace(r"\*", "[^/]*"), name, re.DOTALL))


def is_lake(source: str | Path) -> bool:
    """Say whether a source is several files or an object store's, and no file of this machine.

    Example:
        >>> is_lake("titles.csv"), is_lake("2026/*.csv"), is_lake("s3://mine/titles.csv")
        (False, True, True)
    """
    name, path = str(source), Path(source)
    remote = "://" in name and not name.startswith(("http://", "https://"))
    return remote or path.is_dir() or ("*" in name and not path.exists())


def parts_of(
    source: str | Path, out: Place | None = None
) -> tuple[Place, str, dict[str, fs.FileInfo]]:
    """Return where a source is, its pattern, and its files by the names that their answers get.

    Raises:
        FileNotFoundError: There are none.
        ValueError: Two would get one name, some are a table format's own, or the target is a part.
    """
    root, pattern = split(source)
    there = root.real()
    parts: dict[str, fs.FileInfo] = {}
    for info in root.listed():
        if "/_delta_log/" in info.path or info.path.endswith(".metadata.json"):
            raise ValueError(
                f"{source} is a table of Delta Lake or Iceberg, whose folder holds old rows too: "
                "write the rows of today into a folder of Parquet files, and name that."
            )
        name = root.name_of(info.path)
        if not matches(name, pattern):
            continue
        name = name.rpartition(".")[0] if infer_compression(name) else name
        name += "l" if name.endswith(".json") else ""  # lines, as Spark writes them there too
        if name in parts:
            raise ValueError(f"{info.path} and {parts[name].path} would both become {name}.")
        parts[name] = info
        if out is None:
            continue
        answers = out.real().below(name)
        if there.holds(answers) and matches(there.name_of(answers.path), pattern):
            raise ValueError(f"{out.path} is part of the source itself: name another target.")
    if not parts:
        raise FileNotFoundError(f"{source} holds no files.")
    return root, pattern, parts
