"""Push a model, a data set or a page to the Hugging Face Hub, with a card of what was measured."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tenacity
from huggingface_hub import (
    DatasetCard,
    DatasetCardData,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    SpaceCard,
    SpaceCardData,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import Trainer

# What a stranger needs of a model's folder. Not training_args.bin: it is a pickle, which nobody
# should load from a stranger, and it may hold the token that the Trainer was given.
_MODEL_FILES = ("*.safetensors", "*.onnx", "*.json", "*.txt", "*.model")
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")


def push_model(
    model: str | Path | Trainer,
    repo_id: str,
    *,
    metrics: str | Path | Mapping[str, Any] | None = None,
    figures: str | Path | None = None,
    data: str = "",
    limits: str = "",
    license: str = "apache-2.0",
    tags: tuple[str, ...] = (),
    datasets: tuple[str, ...] = (),
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    exist_ok: bool = True,
    message: str = "Upload model and card",
    dry_run: str | Path | None = None,
) -> str:
    """Push a fine-tuned model, its tokenizer and a card, in one commit.

    The card is built from `metrics.json` and the model's configuration: nothing is claimed that
    wasn't measured. The same push a second time makes no new commit. The upload is checked for
    tokens first, and tried again where the connection breaks or the server is busy; as it is one
    commit, the repository is then as before or complete.

    Args:
        model: The folder of a saved model and tokenizer, or the Trainer that has both.
        repo_id: 'your-name/your-model'.
        metrics: `metrics.json` as the notebooks write it, or its content; None for the file beside
            the model's folder, where there is one.
        figures: Folder of PNG files for the card; None for `figures` beside the model's folder.
        data: What the model was trained on and where that came from, for the card.
        limits: What it can't do, for the card.
        license: An identifier of the Hub's, such as 'apache-2.0' or 'mit'.
        tags: Further tags.
        datasets: Names of data sets on the Hub that it was trained on.
        token: None for the one you are logged in with (`hf auth login`, `HF_TOKEN`).
        private: Whether a new repository is private; None for your account's default.
        revision: Branch to push to, made where it is missing; None for `main`.
        create_pr: Whether to open a pull request instead.
        exist_ok: False refuses a repository that is there already.
        message: The commit's message.
        dry_run: Folder that gets exactly what would be pushed; nothing is then pushed or asked.

    Returns:
        Address of the repository or the pull request; the folder of a dry run.

    Raises:
        PermissionError: No token, an invalid one, or none that may write there; says what to run.
        ValueError: `repo_id` can't be a name, a file holds a token, or a data set or Space of that
            name exists.
        FileNotFoundError: The folder holds no model.
        FileExistsError: The repository is there, and `exist_ok` is off.
        ConnectionError: The upload failed for good; the repository is as before.
    """
    _require_name(repo_id)
    with tempfile.TemporaryDirectory() as temporary:
        if isinstance(model, (str, Path)):
            folder = Path(model)
        else:
            folder = Path(temporary) / "model"
            model.save_model(str(folder))
            output = Path(str(model.args.output_dir))
            metrics = metrics or next(iter(output.glob("metrics.json")), None)
        stage = Path(dry_run) if dry_run else Path(temporary) / "stage"
        stage.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise FileNotFoundError(
                f"{folder} holds no model: config.json and *.safetensors are what "
                "trainer.save_model writes."
            )
        for pattern in _MODEL_FILES:
            for path in folder.glob(pattern):
                shutil.copyfile(path, stage / path.name)
        metrics = metrics or next(iter(folder.parent.glob("metrics.json")), None) or {}
        if isinstance(metrics, (str, Path)):
            metrics = json.loads(Path(metrics).read_text("utf-8"))
        measured: dict[str, Any] = dict(metrics)  # type: ignore[arg-type]
        if measured:
            (stage / "metrics.json").write_text(json.dumps(measured, indent=1), "utf-8")
        pictures = sorted(Path(figures or folder.parent / "figures").glob("*.png"))
        for picture in pictures:
            (stage / "figures").mkdir(exist_ok=True)
            shutil.copyfile(picture, stage / "figures" / picture.name)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = [f"figures/{picture.name}" for picture in pictures]
        card = model_card(repo_id, config, measured, names, data, limits, license, tags, datasets)
        card.save(stage / "README.md")
        return _push(
            stage, repo_id, "model", token, private, revision, create_pr, exist_ok, message, dry_run
        )


def push_dataset(
    splits: str | Path | DatasetDict,
    repo_id: str,
    *,
    provenance: str,
    text: str = "text",
    label: str | None = "label",
    keywords: str | None = None,
    license: str = "cc0-1.0",
    language: str = "en",
    tags: tuple[str, ...] = (),
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    exist_ok: bool = True,
    message: str = "Upload data and card",
    dry_run: str | Path | None = None,
) -> str:
    """Push a data set as Parquet, with a card: provenance, quality report and a sample.

    Labels become class labels, so that whoever loads it gets their names. As `push_model`: one
    commit, none where nothing has changed, tried again where the connection breaks.

    Args:
        splits: A CSV, which is split as the notebooks do it, or a `DatasetDict`, pushed as it is.
        repo_id: 'your-name/your-data'.
        provenance: Who or what wrote the texts, when, and what was done to them.
        text: Column of the texts.
        label: Column of the labels; None where there is none.
        keywords: Column of keywords, where the data has them.
        license: An identifier of the Hub's.
        language: Code of the language.
        tags: Further tags.
        token: As `push_model`.
        private: As `push_model`.
        revision: As `push_model`.
        create_pr: As `push_model`.
        exist_ok: As `push_model`.
        message: The commit's message.
        dry_run: Folder that gets exactly what would be pushed; nothing is then pushed or asked.

    Returns:
        Address of the repository or the pull request; the folder of a dry run.

    Raises:
        PermissionError, ValueError, FileExistsError, ConnectionError: As `push_model`.
    """
    from cookbook import labels, quality
    from cookbook.data import load_splits

    _require_name(repo_id)
    if isinstance(splits, (str, Path)):
        splits = load_splits(splits, text=text, label=label, keywords=keywords)
        text, label, keywords = "text", label and "label", keywords and "keywords"
    if label and not hasattr(splits["train"].features[label], "names"):
        splits = labels.encode_labels(splits, label=label)
    if keywords:
        report: Any = quality.check_keywords(splits, text=text, keywords=keywords)
    else:
        report = quality.check(splits, text=text, label=label) if label else None
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(dry_run) if dry_run else Path(temporary)
        (stage / "data").mkdir(parents=True, exist_ok=True)
        for name, rows in splits.items():
            rows.to_parquet(stage / "data" / f"{name}-00000-of-00001.parquet")
        card = dataset_card(
            repo_id, splits, str(report or ""), provenance, license, language, tags, label, keywords
        )
        card.save(stage / "README.md")
        return _push(
            stage,
            repo_id,
            "dataset",
            token,
            private,
            revision,
            create_pr,
            exist_ok,
            message,
            dry_run,
        )


def push_demo(
    model_repo: str,
    space_id: str,
    *,
    title: str | None = None,
    examples: Sequence[str] | None = None,
    package: str | None = None,
    license: str = "apache-2.0",
    token: str | None = None,
    private: bool | None = None,
    exist_ok: bool = True,
    message: str = "Upload page and card",
    dry_run: str | Path | None = None,
) -> str:
    """Put a page for a model, the one that `python -m cookbook.demo` serves, on a Space.

    Push the model first. A Space loads it by its name; where the model is private, give the Space
    a secret HF_TOKEN in its settings that may read it. As `push_model`: one commit, none where
    nothing has changed, tried again where the connection breaks.

    Args:
        model_repo: 'your-name/your-model', a classifier or keyword model on the Hub.
        space_id: 'your-name/your-page'; it may be the model's name.
        title: Heading; None for one made of the model's labels.
        examples: Texts to click; None for those of `demo.build`.
        package: What the Space installs beside gradio, a line for pip; None for the cookbook from
            its repository.
        license: An identifier of the Hub's, for the page.
        token: As `push_model`.
        private: As `push_model`.
        exist_ok: As `push_model`.
        message: The commit's message.
        dry_run: Folder that gets exactly what would be pushed; nothing is then pushed or asked.

    Returns:
        Address of the Space; the folder of a dry run.

    Raises:
        PermissionError, ValueError, FileExistsError, ConnectionError: As `push_model`.
    """
    _require_name(model_repo)
    _require_name(space_id)
    arguments = [repr(model_repo)]
    arguments += [f"title={title!r}"] if title else []
    arguments += [f"examples={[str(example) for example in examples]!r}"] if examples else []
    about = SpaceCardData(
        title=title or space_id.split("/")[1],
        sdk="gradio",
        sdk_version=_gradio_version(),
        python_version="3.12",
        app_file="app.py",
        license=license,
        models=[model_repo],
        tags=["small-model-cookbook"],
    )
    told = f"A page for [{model_repo}](https://huggingface.co/{model_repo}): one text, or a CSV."
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(dry_run) if dry_run else Path(temporary)
        stage.mkdir(parents=True, exist_ok=True)
        (stage / "app.py").write_text(
            f"from cookbook import demo\n\ndemo.build({', '.join(arguments)}).launch()\n", "utf-8"
        )
        (stage / "requirements.txt").write_text(f"{package or _package()}\n", "utf-8")
        card = SpaceCard(f"---\n{about.to_yaml()}\n---\n\n# {about.title}\n\n{told}\n")
        card.save(stage / "README.md")
        return _push(
            stage, space_id, "space", token, private, None, False, exist_ok, message, dry_run
        )


def _package() -> str:
    """Return the line that installs the cookbook from its repository, for pip."""
    addresses = metadata.metadata("small-model-cookbook").get_all("Project-URL") or []
    repository = dict(address.split(", ", 1) for address in addresses)["Repository"]
    return f"small-model-cookbook[deploy] @ git+{repository}"


def _gradio_version() -> str | None:
    """Return the gradio that is installed here; None, and a Space takes the newest."""
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError:
        return None


def model_card(
    repo_id: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    figures: list[str],
    data: str = "",
    limits: str = "",
    license: str = "apache-2.0",
    tags: tuple[str, ...] = (),
    datasets: tuple[str, ...] = (),
) -> ModelCard:
    """Build a model's card from its configuration and what was measured.

    Args:
        repo_id: 'your-name/your-model'.
        config: Content of the model's config.json.
        metrics: Content of metrics.json; may be empty, the card then claims nothing.
        figures: Paths of pictures within the repository.
        data: What it was trained on.
        limits: What it can't do.
        license: An identifier of the Hub's.
        tags: Further tags.
        datasets: Names of data sets on the Hub.

    Returns:
        The card; its metadata holds a `model-index` where there are metrics.
    """
    writes = bool(config.get("is_encoder_decoder"))
    task = "summarization" if writes else "text-classification"
    name = repo_id.split("/")[1]
    base = str(metrics.get("base_model", ""))
    base = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}.get(base, base)
    tables = _tables(metrics)
    results = [
        EvalResult(
            task_type=task,
            dataset_type=datasets[0] if datasets and "real" not in where else "own-data",
            dataset_name=where,
            metric_type=kind,
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for where, metric, kind, value in _headline(metrics)
    ]
    about = ModelCardData(
        language="en",
        license=license,
        library_name="transformers",
        pipeline_tag=None if writes else task,
        tags=sorted({"small-model-cookbook", *(["keyword-extraction"] if writes else []), *tags}),
        datasets=list(datasets) or None,
        base_model=base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    labels = list((config.get("id2label") or {}).values()) if not writes else []
    target = metrics.get("target", "keywords")
    does = (
        f"It reads a short text and writes its {target}, separated by commas."
        if writes
        else f"It reads a short text and says which of these it is: {', '.join(labels)}."
    )
    parts = [f"# {name}", does]
    if base:
        parts.append(f"Fine-tuned from {base}.")
    parts += ["## How to use it", _usage(repo_id, writes)]
    rows = metrics.get("rows")
    if data or rows:
        sizes = ", ".join(f"{n:,} for {split}" for split, n in (rows or {}).items())
        parts += ["## Data", *([data] if data else []), *([f"Rows: {sizes}."] if sizes else [])]
    if tables:
        parts.append("## What was measured")
        for title, table in tables.items():
            parts += [f"{title}:", _markdown(table)]
    parts += [f"![{Path(path).stem.replace('_', ' ')}]({path})" for path in figures]
    if limits:
        parts += ["## Limits", limits]
    if "train_seconds" in metrics:
        settings = ", ".join(f"{key} {value}" for key, value in metrics.get("settings", {}).items())
        parts += [
            "## Training",
            f"{metrics['train_seconds']:.0f} seconds; {settings}.",
            f"```text\n{metrics.get('environment', '')}\n```",
        ]
    return ModelCard(f"---\n{about.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def dataset_card(
    repo_id: str,
    splits: DatasetDict,
    report: str,
    provenance: str,
    license: str,
    language: str,
    tags: tuple[str, ...],
    label: str | None,
    keywords: str | None,
) -> DatasetCard:
    """Build a data set's card: provenance, splits, quality report, a sample.

    Args:
        repo_id: 'your-name/your-data'.
        splits: The data.
        report: The printed quality report.
        provenance: Who or what wrote the texts, when, and what was done to them.
        license: An identifier of the Hub's.
        language: Code of the language.
        tags: Further tags.
        label: Column of the labels, or None.
        keywords: Column of the keywords, or None.

    Returns:
        The card.
    """
    rows = sum(map(len, splits.values()))
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
    about = DatasetCardData(
        language=language,
        license=license,
        task_categories=["text-classification"] if label else ["summarization"],
        tags=sorted({"small-model-cookbook", *(["keyword-extraction"] if keywords else []), *tags}),
        size_categories=names[sum(rows >= size for size in sizes)],
        pretty_name=repo_id.split("/")[1],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"data/{name}-*"} for name in splits],
            }
        ],
    )
    table = pd.DataFrame({"rows": {name: len(part) for name, part in splits.items()}})
    if label:
        feature = splits["train"].features[label]
        for name, part in splits.items():
            counts = pd.Series(feature.int2str(part[label][:])).value_counts()
            for value in feature.names:
                table.loc[name, value] = int(counts.get(value, 0))
        table = table.astype(int)
    sample: Any = splits["train"].select(range(min(5, len(splits["train"])))).to_pandas()
    if label:
        sample[label] = splits["train"].features[label].int2str(sample[label].tolist())
    use = f'from datasets import load_dataset\n\nsplits = load_dataset("{repo_id}")'
    parts = [
        f"# {repo_id.split('/')[1]}",
        f"```python\n{use}\n```",
        "## Where it comes from",
        provenance,
        "## Splits",
        _markdown(table),
        *(["## Quality", f"```text\n{report}\n```"] if report else []),
        "## A sample",
        _markdown(sample.set_index(sample.columns[0])),
    ]
    return DatasetCard(f"---\n{about.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _headline(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    """Yield what goes into the `model-index`: data set, name and type of the metric, value."""
    variant = metrics.get("variant")
    for key, where in _WHERE.items():
        scores = metrics.get(key)
        if not isinstance(scores, Mapping):
            continue
        if variant and "f1@M" in scores:
            for metric in ("f1@M", "precision@M", "recall@M"):
                yield where, f"{metric} ({variant})", metric.split("@")[0], scores[metric]
        elif "accuracy" in scores:
            yield where, "Accuracy", "accuracy", scores["accuracy"]
            yield where, "Macro F1", "f1", scores["f1_macro"]


_WHERE = {
    "test": "test split",
    "test_unfiltered": "test split, everything that generate() writes",
    "real": "real headlines, as written",
    "real_lower": "real headlines, in lower case",
}


def _tables(metrics: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return what was measured as tables by title."""
    scored = {where: metrics[key] for key, where in _WHERE.items() if key in metrics}
    tables = {}
    if variant := metrics.get("variant"):
        shown = ["f1@5", "f1@M", "precision@M", "recall@M", "present_f1@M", "absent_f1@M"]
        columns = {w: [s.get(name) for name in shown] for w, s in scored.items()}
        tables[f"Keyphrase scores ({variant})"] = pd.DataFrame(columns, index=shown).T
        groups = metrics.get("challenge", {})
        if groups:
            tables["F1@M on hard cases"] = pd.Series(groups, name="f1@M").to_frame()
    elif scored:
        plain = ["accuracy", "f1_macro"]
        columns = {w: [s[name] for name in plain] for w, s in scored.items()}
        tables["Scores"] = pd.DataFrame(columns, index=["accuracy", "macro F1"]).T
        kinds = ("precision", "recall", "f1", "support")
        per_label = {
            (where, label): [scores.get(f"{kind}_{label}") for kind in kinds]
            for where, scores in scored.items()
            for label in metrics.get("labels", [])
        }
        if per_label:
            table = pd.DataFrame(per_label, index=kinds).T
            table.index = [f"{label}, {where}" for where, label in table.index]
            tables["Per label"] = table
        if challenge := metrics.get("challenge"):
            frame = pd.DataFrame(challenge).T
            tables["Hard cases, share passed"] = frame[["rows", "passed"]]
        if len(seeds := pd.DataFrame(metrics.get("seeds", {})).T) > 1:
            tables[f"Spread over {len(seeds)} seeds"] = seeds.agg(["mean", "std"]).T
    return tables


def _usage(repo_id: str, writes: bool) -> str:
    if writes:
        code = (
            "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}")\n'
            f'model = AutoModelForSeq2SeqLM.from_pretrained("{repo_id}")\n'
            'batch = tokenizer(["We moved our shop from Vercel to a Raspberry Pi."], '
            'return_tensors="pt")\n'
            'answers = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"])\n'
            "print(tokenizer.batch_decode(answers, skip_special_tokens=True))"
        )
    else:
        code = (
            "from transformers import pipeline\n\n"
            f'classifier = pipeline("text-classification", model="{repo_id}")\n'
            'print(classifier(["This one trick will change how you cook rice"]))'
        )
    return f"```python\n{code}\n```"


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: Any) -> str:
        if isinstance(value, float):
            whole = value.is_integer() and abs(value) > 1
            return "" if value != value else f"{value:.0f}" if whole else f"{value:.3f}"
        return " ".join(str(value).replace("|", "\\|").split())

    lines = [["", *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    lines += [
        [cell(name), *map(cell, row)]
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _push(
    stage: Path,
    repo_id: str,
    kind: str,
    token: str | None,
    private: bool | None,
    revision: str | None,
    create_pr: bool,
    exist_ok: bool,
    message: str,
    dry_run: str | Path | None,
) -> str:
    token = token or get_token()
    _require_no_token(stage, token)
    if dry_run:
        files = sorted(path for path in stage.rglob("*") if path.is_file())
        listing = "\n".join(
            f"  {path.relative_to(stage)}  {path.stat().st_size:,}" for path in files
        )
        print(f"Nothing pushed. {repo_id} would get, in bytes:\n{listing}")  # noqa: T201
        return str(stage)
    api = HfApi(token=token)
    _require_right(api, token, repo_id, kind, exist_ok)
    with _explained(repo_id):
        sdk = "gradio" if kind == "space" else None
        _retry(
            api.create_repo,
            repo_id,
            repo_type=kind,
            private=private,
            exist_ok=True,
            space_sdk=sdk,
        )
        if revision and not create_pr:
            _retry(api.create_branch, repo_id, branch=revision, repo_type=kind, exist_ok=True)
        # A commit made twice is none; a pull request opened twice, for want of an answer, is two.
        upload = api.upload_folder if create_pr else partial(_retry, api.upload_folder)
        commit = upload(
            repo_id=repo_id,
            folder_path=stage,
            repo_type=kind,
            revision=revision,
            create_pr=create_pr,
            commit_message=message,
        )
    page = f"{api.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
    address = str(commit.pr_url or page)
    print(address)  # noqa: T201
    return address


def _require_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise ValueError(
            f"{repo_id!r} can't be a repository: write 'your-name/its-name', with letters, digits, "
            "'-', '_' and '.' (no two '-' or '.' in a row, none at an end), 96 characters at most."
        )


def _require_no_token(stage: Path, token: str | None) -> None:
    for path in stage.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if _TOKEN.search(content) or (token and token.encode() in content):
                raise ValueError(
                    f"{path.relative_to(stage)} holds a token of the Hub and was not pushed. Take "
                    "it out, and revoke it: https://huggingface.co/settings/tokens"
                )


def _require_right(api: HfApi, token: str | None, repo_id: str, kind: str, exist_ok: bool) -> None:
    """Ask whether the push can succeed, before any work."""
    owner = repo_id.split("/")[0]
    if not token:
        raise PermissionError(
            "You aren't logged in to the Hugging Face Hub. Run: hf auth login (in a notebook: from "
            "huggingface_hub import notebook_login; notebook_login()), or set HF_TOKEN, in Colab "
            "among the secrets."
        )
    with _explained(repo_id):
        try:
            me = _retry(api.whoami)
        except HfHubHTTPError as error:
            if error.response.status_code == 401:
                raise PermissionError(
                    "Your token isn't valid (any more). Run: hf auth login --force, with one from "
                    "https://huggingface.co/settings/tokens"
                ) from error
            raise
        role = me.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise PermissionError(
                "Your token may only read. Make one that may write at "
                "https://huggingface.co/settings/tokens and run: hf auth login --force"
            )
        owners = [me["name"], *(org["name"] for org in me.get("orgs", []))]
        if owner not in owners:
            raise PermissionError(
                f"You are {me['name']} and can't write to {owner!r}. Push to one of: "
                f"{', '.join(owners)}, or log in as {owner}: hf auth login --force"
            )
        # A Space may have its model's name, and many do.
        for other in {"model", "dataset"} - {kind} if kind != "space" else ():
            if _retry(api.repo_exists, repo_id, repo_type=other):
                raise ValueError(f"{repo_id} is a {other} already; name this {kind} otherwise.")
        if not exist_ok and _retry(api.repo_exists, repo_id, repo_type=kind):
            raise FileExistsError(f"{repo_id} is there already, and exist_ok is off.")


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, RepositoryNotFoundError):
        return False
    if isinstance(error, HfHubHTTPError):
        # 412: someone else pushed meanwhile; the next try starts from theirs.
        return error.response.status_code in (408, 412, 429, 500, 502, 503, 504)
    # The client's HTTP library has changed before, so its errors are known by their kind.
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__) or isinstance(
        error, (ConnectionError, TimeoutError)
    )


def _retry(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=30),
        stop=tenacity.stop_after_attempt(5),
        reraise=True,
    )
    return tries(call, *args, **options)


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise PermissionError(
                f"The Hub doesn't let this token write to {repo_id} ({status}): {error}"
            ) from error
        raise ConnectionError(
            f"The Hub answers {status}; {repo_id} is as it was before. Push again later. {error}"
        ) from error
    except Exception as error:
        if _may_pass(error) or isinstance(error, RuntimeError):  # of an upload that broke off
            raise ConnectionError(
                f"The upload broke off ({type(error).__name__}: {error}); {repo_id} is as it was "
                "before, or complete. Push again: what arrived isn't sent twice."
            ) from error
        raise
