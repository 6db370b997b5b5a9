"""Run the notebooks from the command line.

`demo` runs those that fine-tune, with the models that pip brings, and leaves everything under
out/. `refresh` runs all, the ones that ask a language model against SmolLM2, and puts the outputs
into the notebooks themselves.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import nbformat
import pandas as pd
import papermill
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent

# What `make demo` sets differently from the defaults, which are the article's on a Colab T4.
DEMO: dict[str, dict[str, Any]] = {
    "clickbait/2_fine_tune_albert": {
        "base_model": "minilm",
        "learning_rate": 1.5e-4,
        "frozen_layers": 2,
        "seeds": [0],  # one of the three, so that it takes minutes
        "output_dir": "out/clickbait",
    },
    "keywords/2_fine_tune_bart": {
        "base_model": "minilm",
        "epochs": 0.62,  # as far as two and a half minutes go
        "learning_rate": 6e-4,
        "batch_size": 4,  # many small steps: there isn't time for many large ones
        "per_device_batch_size": 4,
        "evaluations": 2,
        "evaluate_writing": False,
        "frozen_layers": 3,
        "output_dir": "out/keywords",
    },
    "keywords/3_mark_keywords": {
        "base_model": "minilm",
        "epochs": 1,
        "unlabelled_posts": "none",
        "learning_rate": 4e-4,
        "frozen_layers": 1,
        "output_dir": "out/keywords_marked",
    },
}
# The notebooks that ask a language model: small numbers, for the smallest of models on one thread.
SMALL_LLM: dict[str, dict[str, Any]] = {
    "clickbait/1_generate_titles": {
        "model": "smollm2",
        "per_label": 30,
        "taste": 15,
        "concurrency": 1,
        "output_dir": "out/titles",
    },
    "keywords/1_annotate_texts": {
        "model": "smollm2",
        "n_texts": 30,
        "per_call": 3,
        "concurrency": 1,
        "output_dir": "out/annotations",
    },
}
# The notebook that takes a data set from the Hub: in its place a stand-in on this machine.
FROM_HUB: dict[str, dict[str, Any]] = {
    "your_own/hub_dataset": {
        "base_model": "minilm",
        "dataset": "maker/clickbait-titles",
        "max_tokens": 20,  # titles are short
        "learning_rate": 1.5e-4,
        "output_dir": "out/your_own",
    }
}
# The one that learns from texts without labels, from the start.
TAUGHT: dict[str, dict[str, Any]] = {
    "clickbait/4_learn_from_unlabelled": {
        "base_model": "minilm",
        "sizes": [500, 2000],
        "learning_rate": 1.5e-4,
        "frozen_layers": 2,
        "student_seeds": [0, 1],
        "llm": "smollm2",
        "output_dir": "out/clickbait_taught",
    }
}
# Several labels a text, many of them.
MANY: dict[str, dict[str, Any]] = {
    "your_own/many_labels": {
        "base_model": "minilm",
        "learning_rate": 4e-4,
        "frozen_layers": 1,
        "output_dir": "out/many_labels",
    }
}
# The guide, which no demo needs.
GUIDE: dict[str, dict[str, Any]] = {
    "guide/choose_a_model": {
        "base_model": "minilm",
        "learning_rate": 1.5e-4,
        "frozen_layers": 2,
        "output_dir": "out/guide",
    }
}
# Those that compare, with the model of the demo where it is there, and ask a language model too.
COMPARED: dict[str, dict[str, Any]] = {
    "clickbait/3_compare_and_deploy": {
        "base_model": "minilm",
        "learning_rate": 1.5e-4,
        "frozen_layers": 2,
        "llm": "smollm2",
        "llm_titles": 20,
        "curve_seeds": [0, 1],
        "output_dir": "out/clickbait_compared",
    },
    "clickbait/5_know_the_doubt": {
        "base_model": "minilm",
        "learning_rate": 1.5e-4,
        "frozen_layers": 2,
        "llm": "smollm2",
        "output_dir": "out/clickbait_doubt",
    },
    "keywords/4_compare_and_deploy": {
        "base_model": "minilm",
        "encoder": "minilm",
        "llm": "smollm2",
        "llm_posts": 12,
        "output_dir": "out/keywords_compared",
    },
}
EVERY = SMALL_LLM | DEMO | FROM_HUB | MANY | GUIDE | COMPARED | TAUGHT
# What the committed outputs are made with beyond that.
REFRESH: dict[str, dict[str, Any]] = {
    "clickbait/2_fine_tune_albert": {"seeds": [0, 1, 2]},
    "keywords/2_fine_tune_bart": {"epochs": 1.18},
    "keywords/3_mark_keywords": {"epochs": 3.5, "unlabelled_posts": ""},
}

# Pictures for the README, taken from the figures of a refreshed run.
PICTURES = {
    "clickbait/2_fine_tune_albert": {"challenge.png": "clickbait_challenge.png"},
    "clickbait/3_compare_and_deploy": {"learning_curve.png": "learning_curve.png"},
    "keywords/2_fine_tune_bart": {"top_keywords.png": "top_keywords.png"},
    "keywords/3_mark_keywords": {"trends.png": "keyword_trends.png"},
}


def execute(name: str, where: Path = ROOT, /, **parameters: Any) -> Path:
    """Run one notebook; return the executed copy, which lies in its `output_dir` beside the HTML.

    Args:
        name: Path below notebooks/, without the ending, such as `clickbait/2_fine_tune_albert`.
        where: Folder to run it in, from which its paths count.
        **parameters: Replace those above and those of the notebook's `parameters` cell.
    """
    settings = EVERY[name] | parameters
    folder = where / settings["output_dir"]
    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / f"{Path(name).name}.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb",
        executed,
        parameters=settings,
        kernel_name="python3",
        cwd=where,
        progress_bar=sys.stderr.isatty(),
        extra_arguments=["--IPKernelApp.log_level=40"],  # a warning on a machine of one's own
    )
    html, _ = HTMLExporter().from_filename(str(executed))
    executed.with_suffix(".html").write_text(html, "utf-8")
    return executed


def refresh(name: str, executed: Path) -> None:
    """Put the outputs of an executed copy into the notebook, its parameters left as they were.

    The seconds that it took go into its metadata, the pictures that the README shows beside it.
    """
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    run = nbformat.read(executed, as_version=4)
    cells = [c for c in run.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    count = 0
    for cell, done in zip(notebook.cells, cells, strict=True):
        if cell.cell_type == "code":
            # Progress bars are for those who wait; as widgets they don't render on GitHub either.
            cell.outputs = [out for out in done.outputs if not _is_progress(out)]
            # Counted anew, since the cell with the demo's parameters is left out.
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    notebook.metadata.pop("widgets", None)
    took = run.metadata.papermill
    about = {"seconds": round(took.duration), "date": took.start_time[:10]}
    notebook.metadata["cookbook"] = {**about, "cores": os.cpu_count()}
    nbformat.write(notebook, ROOT / "notebooks" / f"{name}.ipynb")
    folder = ROOT / "notebooks" / "pictures"
    folder.mkdir(exist_ok=True)
    for figure, picture in PICTURES.get(name, {}).items():
        shutil.copyfile(executed.parent / "figures" / figure, folder / picture)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    is_widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return is_widget or output.get("name") == "stderr"


def summary(metrics: dict[str, Any]) -> str:
    """Return a short table of what `metrics.json` holds."""
    if "distillation" in metrics:
        table = pd.DataFrame(metrics["distillation"]).T
        return f"{metrics['base_model']}, distilled\n{table.round(3).to_string()}"
    if "summary" in metrics:
        return f"{metrics['base_model']}\n{pd.DataFrame(metrics['summary']).T.round(3).to_string()}"
    if "test" not in metrics:
        return json.dumps(metrics, indent=1)
    test = metrics["test"]
    if "labels" in metrics:
        rows = {"accuracy": test["accuracy"], "macro F1": test["f1_macro"]}
        for label in metrics["labels"]:
            rows[f"accuracy {label}"] = test.get(f"accuracy_{label}", float("nan"))
    else:
        rows = {name: test[name] for name in ("f1@5", "f1@M", "precision@M", "recall@M")}
        rows["f1@M, challenge"] = metrics["challenge"]["all"]
    lines = [f"{name:<20} {value:.3f}" for name, value in rows.items()]
    lines.append(f"{'training':<20} {metrics['train_seconds']:.0f} s")
    return f"{metrics['base_model']}, on the synthetic test split\n" + "\n".join(lines)


@contextmanager
def small_llm() -> Iterator[str]:
    """Serve SmolLM2 as Ollama would; yield the address."""
    sys.path.insert(0, str(ROOT))
    from tests.servers.ollama import serving

    with serving() as url:
        yield url


@contextmanager
def small_hub() -> Iterator[Any]:
    """Serve a stand-in for the Hub with the shipped titles, which lack a validation split.

    Yields the hub. Until it closes, the processes that are started find it, and may write there.
    """
    sys.path.insert(0, str(ROOT))
    from tests.servers.hub import serving

    titles = pd.read_csv(ROOT / "data" / "clickbait_titles.csv")[["text", "label"]]
    parts = {"test": titles.iloc[::5], "train": titles.drop(index=titles.index[::5])}
    files = {f"{name}.csv": part.to_csv(index=False).encode() for name, part in parts.items()}
    with TemporaryDirectory() as cache, serving() as hub:
        hub.put("dataset", FROM_HUB["your_own/hub_dataset"]["dataset"], files)
        # The clients read these when they are imported, so they are for other processes.
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": cache, "HF_TOKEN": hub.tokens["write"]}
        settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        with mock.patch.dict(os.environ, settings):
            yield hub


@contextmanager
def surroundings(name: str) -> Iterator[dict[str, Any]]:
    """Start the servers that a notebook asks; yield the parameters that it needs for them."""
    if name in SMALL_LLM or name in COMPARED or name in TAUGHT:
        with small_llm() as url:
            yield {"host": url}
    elif name in FROM_HUB:
        with small_hub():
            yield {}
    else:
        yield {}


def show(name: str, folder: Path, seconds: float) -> None:
    """Print what a notebook measured and left, at once: who pipes this waits for it too."""
    results = json.loads((folder / "metrics.json").read_text("utf-8"))
    left = [f"{p.relative_to(ROOT)}{'/' if p.is_dir() else ''}" for p in sorted(folder.iterdir())]
    lines = [f"\n{name}: {summary(results)}", f"{'notebook':<20} {seconds:.0f} s\n", *left]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["demo", "refresh"])
    parser.add_argument("only", nargs="?", default="", help="run those whose path contains this")
    parser.add_argument("--real-headlines", help="CSV or address to measure on instead")
    parser.add_argument("--unlabelled", help="the same, to learn from without labels")
    parser.add_argument("--real-posts", help="the same, of posts with keywords")
    parser.add_argument("--unlabelled-posts", help="posts to learn from without keywords")
    arguments = parser.parse_args()
    again = arguments.task == "refresh"
    names = [name for name in (EVERY if again else DEMO) if arguments.only in name]
    if not names:
        parser.error(f"no notebook's path contains {arguments.only!r}: {', '.join(EVERY)}")
    for name in names:
        extra = dict(REFRESH.get(name, {})) if again else {}
        if arguments.real_headlines and re.match("clickbait/[2345]", name):
            extra["real_headlines"] = arguments.real_headlines
        if arguments.unlabelled and name in TAUGHT:
            extra["unlabelled"] = arguments.unlabelled
        if arguments.unlabelled_posts and name == "keywords/3_mark_keywords":
            extra["unlabelled_posts"] = arguments.unlabelled_posts
        if arguments.real_posts and name.startswith("keywords/") and name not in SMALL_LLM:
            extra["real_posts"] = arguments.real_posts
        if name in SMALL_LLM:  # what an earlier run wrote would be gone on from
            shutil.rmtree(ROOT / SMALL_LLM[name]["output_dir"], ignore_errors=True)
        sys.stdout.write(f"{name} …\n")
        sys.stdout.flush()
        start = time.perf_counter()
        with surroundings(name) as found:
            executed = execute(name, **extra, **found)
        seconds = time.perf_counter() - start
        if again:
            refresh(name, executed)
        show(name, executed.parent, seconds)


if __name__ == "__main__":
    main()
