"""Stage a model, a data set or a page in a folder, look at it, and push the folder to the Hub."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import jinja2
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

from cookbook import quality
from cookbook.data import load_splits
from cookbook.formats import require
from cookbook.labels import encode_labels, names_of
from cookbook.metrics import load_metrics, save_metrics
from cookbook.models import load
from cookbook.tables import asset, read_json

_RULES = yaml.safe_load(asset("hub.yaml"))
_CARDS = jinja2.Environment(loader=jinja2.PackageLoader("cookbook", "assets"))
_CARDS.globals["frame"] = pd.DataFrame
_MARK = ".staged.json"  # what a folder was staged for, and which files are ours; never pushed
_HTTP_ERROR = HfHubHTTPError.__bases__[0]  # of its HTTP library, which changed before


def stage_model(
    model: str | Path,
    repo_id: str,
    folder: str | Path | None = None,
    *,
    metrics: str | Path | Mapping[str, Any] | None = None,
    figures: str | Path | None = None,
    data: str = "",
    limits: str = "",
    **head: Any,
) -> Path:
    """Lay out a model and a card that claims what was measured, in a folder, which is returned.

    Args:
        model: Folder of a fine-tuned or exported model.
        repo_id: 'your-name/your-model'.
        folder: None for `to_push/models/your-model`; an earlier staging is replaced.
        metrics: Their file or content; None for the file beside the model.
        figures: Folder of PNG files; None for the one beside the model.
        data: What it was trained on.
        limits: What it can't do.
        **head: `license`, `license_name`, `license_link`, `language`, `tags`, `datasets`.

    Raises:
        FileNotFoundError: No model there.
        FileExistsError: Something else lies in the folder.
        ValueError: The model can't answer, the metrics are another's, or there is a secret.
    """
    source = Path(model)
    with _staging("model", repo_id, folder, head) as (stage, target, card):
        loaded = load(source)
        about = _measured(metrics, source, loaded)
        card |= {"loaded": loaded, "about": about, "data": data, "limits": limits}
        files = [name for name in _files(source) if not re.fullmatch(_RULES["unsaid"], name)]
        taken = [name for name in files if re.fullmatch(_RULES["model"], name)]
        if left := set(files) - set(taken):
            warnings.warn(f"Not staged from {source}: {', '.join(sorted(left))}", stacklevel=2)
        for name in taken:
            shutil.copyfile(source / name, stage / name)
        if about:
            save_metrics(stage, **about)
        (stage / "figures").mkdir()
        for path in Path(figures or source.absolute().parent / "figures").glob("*.png"):
            shutil.copyfile(path, stage / "figures" / path.name)
    return target


def stage_dataset(
    splits: Any,
    repo_id: str,
    folder: str | Path | None = None,
    *,
    provenance: str,
    text: str = "text",
    label: str | None = "label",
    several: bool = False,
    keywords: str | None = None,
    **head: Any,
) -> Path:
    """Lay out a data set and its card, as `stage_model`.

    Args:
        splits: A `DatasetDict`, taken as it is, or what `data.load_splits` reads.
        repo_id: 'your-name/your-data'.
        folder: None for `to_push/datasets/your-data`.
        provenance: Who wrote the texts, when and how.
        text: Its column.
        label: Its column, or None.
        several: Whether a text of a table may have several labels; of a `DatasetDict` its lists
            say it.
        keywords: Their column, or None.
        **head: As `stage_model`.

    Raises:
        FileExistsError: Something else lies in the folder.
        ValueError: A row holds a secret, or a column is missing.
    """
    from datasets import DatasetDict

    with _staging("dataset", repo_id, folder, head) as (stage, target, card):
        if not isinstance(splits, DatasetDict):
            columns: Any = {"text": text, "label": label, "keywords": keywords}
            splits = load_splits(splits, several=several, **columns)
            text, label, keywords = "text", label and "label", keywords and "keywords"
        for name, part in splits.items():
            require(part.column_names, filter(None, (text, label)), f"Split {name!r}")
        kinds = [part.features.get(label) for part in splits.values()]
        if several := hasattr(kinds[0], "feature"):  # lists, of names or already encoded
            splits = encode_labels(splits, label=label or "").remove_columns("label")
            splits, label = splits.rename_column("label_names", "label"), "label"
        elif label and any(kind != kinds[0] or not hasattr(kind, "names") for kind in kinds):
            splits, label = encode_labels(splits, label=label), "label"
        report: Any = label and quality.check(splits, text=text, label=label, several=several)
        if keywords:
            report = quality.check_keywords(splits, text=text, keywords=keywords)
        first = next(iter(splits.values()))
        sample, names = pd.DataFrame(first[:5]), []
        counts: dict[str, Any] = {name: Counter() for name in splits}
        if label:
            feature = first.features[label]
            names = (feature.feature if several else feature).names
            cells = [own if several else [own] for own in sample[label]]
            sample[label] = ["|".join(filter(None, names_of(own, names))) for own in cells]
            for name, part in splits.items():
                counts[name].update(chain(*part[label][:]) if several else part[label][:])
        card |= {"splits": splits, "labels": names, "counts": counts, "sample": sample}
        card |= {"provenance": provenance, "keywords": keywords, "report": report}
        for name, part in splits.items():
            part.to_parquet(stage / "data" / f"{name}-00000-of-00001.parquet")
    return target


def stage_page(
    model_repo: str,
    space_id: str,
    folder: str | Path | None = None,
    *,
    title: str | None = None,
    examples: Sequence[str] | None = None,
    package: str | None = None,
    **head: Any,
) -> Path:
    """Lay out a Space, the page of a model that was pushed, as `stage_model`.

    For a private model, give the Space a secret HF_TOKEN.

    Args:
        model_repo: 'your-name/your-model'.
        space_id: 'your-name/your-page'.
        folder: None for `to_push/spaces/your-page`.
        title: Heading.
        examples: Texts to click.
        package: Line for pip; None for the cookbook from its repository.
        **head: As `stage_model`.

    Raises:
        FileExistsError: Something else lies in the folder.
    """
    validate_repo_id(model_repo)
    address = metadata.metadata("small-model-cookbook")["Project-URL"].split(", ")[1]
    shown = None if examples is None else list(map(str, examples))
    call = f"page.build({model_repo!r}, title={title!r}, examples={shown!r}).launch()"
    with _staging("space", space_id, folder, head) as (stage, target, card):
        (stage / "app.py").write_text(f"from cookbook import page\n\n{call}\n", "utf-8")
        needs = package or f"small-model-cookbook[deploy] @ git+{address}"
        (stage / "requirements.txt").write_text(f"{needs}\n", "utf-8")
        versions = [found.version for found in metadata.distributions(name="gradio")]
        card |= {"model_repo": model_repo, "title": title, "versions": versions}
    return target


def push(
    folder: str | Path,
    repo_id: str | None = None,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    exist_ok: bool = True,
    message: str | None = None,
) -> str:
    """Push what was staged, and return the address; of an earlier push, what would mix goes.

    Args:
        folder: As it was returned.
        repo_id: What it was staged for, or None.
        token: None for your login's.
        private: None for your account's default.
        revision: Branch.
        create_pr: Open a pull request.
        exist_ok: False refuses a repository that is there.
        message: The commit's.

    Raises:
        PermissionError: No token, or none that may write there; says what to run.
        ValueError: Not staged for that, a secret, or a name taken.
        FileExistsError: See `exist_ok`.
        ConnectionError: The upload broke off.
    """
    folder = Path(folder)
    staged = read_json(folder / _MARK)
    name, kind = staged.get("repo_id", ""), staged.get("repo_type", "")
    if not kind or repo_id not in (None, name):
        raise ValueError(
            f"{folder} wasn't staged for {repo_id or 'the Hub'}, but for {name or 'nothing'}. A "
            "card names its repository, so stage it first."
        )
    api = hf.HfApi(token=token or hf.get_token())
    if not api.token:
        raise PermissionError(f"You aren't logged in to the Hugging Face Hub. {_RULES['login']}")
    _refuse_secrets(folder, api.token)
    where = {"repo_id": name, "repo_type": kind}
    try:
        other = {"model": "dataset", "dataset": "model"}.get(kind)
        if other and api.repo_exists(name, repo_type=other):
            raise ValueError(f"{name} is a {other} already; name this {kind} otherwise.")
        sdk = "gradio" if kind == "space" else None
        page = api.create_repo(**where, private=private, exist_ok=exist_ok, space_sdk=sdk)
        if private and not api.repo_info(**where).private:
            raise ValueError(f"{name} is public already: make it private in its settings first.")
        if revision and not create_pr:
            api.create_branch(**where, branch=revision, exist_ok=True)
        there = api.list_repo_files(**where, revision=revision)
        old = [path for path in there if re.fullmatch(_RULES["loaded"][kind], path)]
        how: Any = {"revision": revision, "create_pr": create_pr, "commit_message": message}
        how |= {"ignore_patterns": [_MARK], "delete_patterns": old}
        commit = api.upload_folder(**where, **how, folder_path=folder)
    except (_HTTP_ERROR, ConnectionError, TimeoutError, RuntimeError) as error:
        raise _explained(error, name) from error
    return str(commit.pr_url or page)


@contextmanager
def _staging(
    kind: str, repo_id: str, folder: str | Path | None, head: Mapping[str, Any]
) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
    """Yield an empty folder, the place that it takes once it is filled, and the card's values.

    Nothing may be in that place but an earlier staging, as it was written.
    """
    validate_repo_id(repo_id)
    name = repo_id.partition("/")[2]
    if not name:
        raise ValueError(f"{repo_id!r} can't be a repository: write 'your-name/its-name'.")
    if unknown := sorted(set(head) - set(_RULES["head"])):
        raise TypeError(f"A card has no {', '.join(unknown)}; name any of {_RULES['head']}.")
    target = Path(folder or f"to_push/{kind}s/{name}")
    if target.is_file() or _files(target) != read_json(target / _MARK).get("files", {}):
        raise FileExistsError(
            f"{target} holds what no staging put there, or what was changed since: move that "
            "away, or name another folder."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        stage = Path(temporary, "new")
        stage.mkdir()
        values = {"repo_id": repo_id, "name": name, "head": head}
        yield stage, target, values
        template = _CARDS.get_template(f"{kind}.md.jinja")
        # The client's class writes the head as YAML and leaves out what is None.
        card = hf.RepoCard(template.render(files=_files(stage), **values))
        card.save(stage / "README.md")
        _refuse_secrets(stage, hf.get_token())
        mark = {"repo_id": repo_id, "repo_type": kind, "files": _files(stage)}
        (stage / _MARK).write_text(json.dumps(mark), "utf-8")
        if target.exists():
            target.rename(Path(temporary, "old"))
        stage.rename(target)


def _files(folder: Path) -> dict[str, int]:
    """Return when each file was changed, by its path within the folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _MARK]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths}


def _measured(metrics: Any, source: Path, loaded: Any) -> dict[str, Any]:
    """Return the metrics, given or lying in or beside the model; refuse those of another."""
    if metrics is None:
        places = (source / "metrics.json", source.absolute().parent / "metrics.json")
        metrics = next(filter(Path.is_file, places), {})
    about = dict(load_metrics(metrics) if isinstance(metrics, (str, Path)) else metrics)
    scored = [key[8:] for key in about.get("test") or {} if key.startswith("support_")]
    named = list(map(str, about.get("labels") or scored))
    fits = not named or set(named) == set(loaded.names)
    if not fits or ("variant" in about and loaded.kind == "classifier"):
        raise ValueError(
            f"The metrics are another model's, of labels {named}, not {loaded.names}: move their "
            "file away, or pass this model's with metrics= and figures=."
        )
    return about


def _refuse_secrets(folder: Path, token: str | None) -> None:
    """Refuse what looks like a key, by what whoever loads the files would read."""
    pattern = "|".join([*_RULES["secrets"], *([re.escape(token)] if token else [])])
    for name in _files(folder):
        path = folder / name
        weights = path.suffix in (".safetensors", ".onnx", ".data", ".bin")
        if path.suffix == ".parquet":  # where it is packed
            columns = pq.read_table(path).to_pydict()
        else:
            with path.open("rb") as file:  # of weights the head, where words may stand
                columns = {"": [file.read(2**20 if weights else -1).decode("utf-8", "replace")]}
        for column, cells in columns.items():
            found = pc.match_substring_regex(pa.array(map(str, cells), pa.string()), pattern)
            row = pc.index(found, True).as_py()
            if row >= 0:
                place = f"{name}, row {row}, column {column!r}," if column else name
                raise ValueError(
                    f"{place} holds a token or another secret. Take it out, and revoke it where "
                    "it was made."
                )


def _explained(error: Exception, repo_id: str) -> OSError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = " ".join(str(error).split())  # in one line
    if status in (401, 403):
        told = "isn't valid (any more)" if status == 401 else f"may not write to {repo_id}"
        return PermissionError(f"Your token {told}: {said} {_RULES['login']}")
    if status == 409:
        return FileExistsError(f"{repo_id} is there already, and exist_ok is off.")
    return ConnectionError(
        f"The upload broke off ({type(error).__name__}: {said}); {repo_id} is as it was before, or "
        "complete. Push again: what arrived isn't sent twice."
    )
