"""What a lake costs beside one file, as it grows, and on a cluster; one line a figure.

Ratios come from one run. Run on an idle machine: `make bench`; `--million` takes a million rows
too. It takes the model that `make demo` saved, or fine-tunes one for half a minute.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from bench_inference import SAVED, trained_classifier
from datasets import disable_progress_bars
from transformers import AutoTokenizer
from transformers.utils import logging

from cookbook import data, export, inference, lake, offline, tables

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.small import tiny_several

ROUNDS = 3
PART = 2_500
LAKE = (
    "import re, resource, sys; from cookbook import lake; lake.answer_lake(*sys.argv[1:4]);"
    "used = resource.getrusage(resource.RUSAGE_SELF);"
    # Not getrusage's, which counts what the process was before exec: this one, torch and all.
    "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1];"
    "print(used.ru_utime + used.ru_stime, int(peak) / 1024)"
)


def fill(folder, parts, rows):
    """Write that many Parquet files of shipped titles, each with as many rows."""
    titles = tables.read(data.shipped("clickbait_titles.csv"))["text"]
    folder.mkdir()
    for part in range(parts):
        drawn = titles.sample(rows, random_state=part, replace=True)
        pd.DataFrame({"text": drawn}).to_parquet(folder / f"part-{part:02}.parquet", index=False)
    return folder


def one_file(model, folder):
    """Measure one file, as a file and as a lake of one part; they take turns."""
    source = fill(folder / "one", 1, 20_000)
    took = {"file": float("inf"), "lake": float("inf")}
    for number in range(ROUNDS):
        for name, way, target in (
            ("file", inference.answer_file, folder / f"one-{number}.parquet"),
            ("lake", lake.answer_lake, folder / f"one-{number}"),
        ):
            start = time.perf_counter()
            way(source / "part-00.parquet" if name == "file" else source, target, model)
            took[name] = min(took[name], time.perf_counter() - start)
    for name, each in took.items():
        yield f"lake_one_{name}_titles_per_second", 20_000 / each
    yield "lake_one_file_ratio", took["file"] / took["lake"]


def growth(folder):
    """Measure time and memory of a model that takes next to none, so that the rest is seen."""
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    about = {"problem_type": "single_label_classification"}
    tiny_several(folder / "tiny", tokenizer, ["clickbait", "factual"], **about)
    model = export.export_onnx(folder / "tiny", folder / "tiny-onnx", int8=False)
    parts, took = 64, {}
    for rows in (100_000, 1_000_000):
        source = fill(folder / f"{rows}", parts, rows // parts)
        command = [sys.executable, "-c", LAKE, source, folder / f"{rows}-out", model]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        took[rows], megabytes = map(float, re.findall(r"[\d.]+", run.stdout))
        yield f"lake_{rows}_cpu_seconds", took[rows]
        yield f"lake_{rows}_peak_megabytes", megabytes
    yield "lake_growth", took[1_000_000] / took[100_000]


def on_cluster(model, folder):
    """Measure two machines of Ray on this one, a core each, beside this process with both cores.

    Their workers have started and loaded the model before.
    """
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    source, few = fill(folder / "in", 16, PART), fill(folder / "few", 8, 200)
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        lake.answer_lake(few, folder / "warm", model, ray=cluster.address)
        took = {"alone": 0.0, "cluster": 0.0}
        for number in range(ROUNDS):
            for way, address in (("alone", None), ("cluster", cluster.address)):
                target = folder / f"{way}-{number}"
                start = time.perf_counter()
                lake.answer_lake(source, target, model, ray=address)
                took[way] += time.perf_counter() - start
        for way, each in took.items():
            yield f"lake_{way}_titles_per_second", ROUNDS * 16 * PART / each
        yield "lake_cluster_engine_share", 1 - took["alone"] / took["cluster"]
    finally:
        ray.shutdown()
        cluster.shutdown()


def main():
    """Measure and print."""
    disable_progress_bars()
    logging.set_verbosity_error()
    os.environ.pop("RAY_ADDRESS", None)
    with TemporaryDirectory() as name:
        folder = Path(name)
        classifier = SAVED / "clickbait" / "model"
        if not classifier.is_dir():
            classifier = trained_classifier(folder / "trained")
        model = export.export_onnx(classifier, folder / "int8")
        figures = [one_file(model, folder), on_cluster(model, folder)]
        if "--million" in sys.argv:
            figures.append(growth(folder))
        for each in figures:
            for figure, value in each:
                print(f"{figure}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
