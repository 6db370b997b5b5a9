"""What all tests share: the packaged models, and small ones fine-tuned once for every process.

Under `pytest -n` the processes share what is built: the first one builds it, the others wait.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

# The libraries read their environment on import. Tests use no network but loopback.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each, for the programs they start too
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from filelock import FileLock

# Everything else is imported where it is used: the process that only hands out tests needs none.

SHIPPED = Path(__file__).resolve().parent.parent / "data"
NO_BROWSER = "there is no Chromium with its chromedriver"
SLOW = {"trained", "keyword_model", "marker", "exported", "smollm", "browser", "runs"}  # fixtures
SLOW |= {"book", "dist"}
INSTALL_BROWSER = "apt-get install chromium chromium-driver"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Two processes at most: each loads a model or two."""
    return min(2, os.cpu_count() or 1)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: needs a model, a browser or a notebook's run")


def pytest_collection_modifyitems(items):
    """The longest files first; two processes take a file each (`--dist loadfile`)."""
    items.sort(key=lambda item: not item.path.stem.startswith(("test_notebooks", "test_training")))
    for item in items:
        if SLOW & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter):
    """Say once that there is no browser, and how to get one."""
    skipped = terminalreporter.stats.get("skipped", [])
    if count := sum(NO_BROWSER in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(
            f"{count} tests of the web page were skipped: {NO_BROWSER}. Run: {INSTALL_BROWSER}"
        )


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """`built(name, make)`: the folder that `make(folder)` filled, once for all processes."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def build(name, make):
        folder = root / name
        with FileLock(f"{folder}.lock"):
            if not (done := Path(f"{folder}.done")).exists():
                make(folder)
                done.touch()
        return folder

    return build


@pytest.fixture(scope="session")
def minilm():
    from cookbook import offline

    return offline.minilm()


@pytest.fixture(scope="session")
def tokenizer(minilm):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="session")
def titles():
    from cookbook import tables

    return tables.read(SHIPPED / "clickbait_titles.csv")


@pytest.fixture(scope="session")
def few_titles(titles):
    """300 titles of either label, in the order of the file."""
    return titles.groupby("label").head(300).reset_index(drop=True)


@pytest.fixture(scope="session")
def trained(few_titles, built):
    """MiniLM fine-tuned for two epochs on 480 titles: good enough to be right most of the time.

    `log`, `best`, `steps` and `warmup` are the Trainer's, `lengths` the tokens of each row, in
    the order of the batches; `splits` are the texts, `test` the rows to try it on.
    """
    from cookbook import data
    from tests import small

    splits = data.load_splits(few_titles, group="pair")

    def make(folder):
        with tempfile.TemporaryDirectory() as checkpoints:
            settings = {"num_train_epochs": 2, "learning_rate": 3e-4}
            trainer = small.classifier(splits, checkpoints, **settings)
            trainer.train()
            masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
            trainer.evaluate()
        trainer.save_model(folder / "model")
        state = trainer.state
        about = {"log": state.log_history, "best": state.best_metric, "steps": state.max_steps}
        about["warmup"] = trainer.args.get_warmup_steps(state.max_steps)
        about["lengths"] = [mask.sum(dim=1).tolist() for mask in masks]
        (folder / "about.json").write_text(json.dumps(about))

    folder = built("trained", make)
    return SimpleNamespace(
        folder=folder / "model",
        names=sorted(few_titles["label"].unique()),
        splits=splits,
        test=splits["test"].to_pandas(),
        **json.loads((folder / "about.json").read_text()),
    )


@pytest.fixture(scope="session")
def short_posts():
    """The 24 shortest posts whose keywords all stand in the text."""
    from tests import small

    return small.posts(24)


@pytest.fixture(scope="session")
def keyword_model(short_posts, built):
    """The folder of a small BART that has learnt the keywords of 24 short posts by heart."""

    from datasets import Dataset, DatasetDict

    from tests import small

    def make(folder):
        splits = DatasetDict(train=Dataset.from_pandas(short_posts))
        settings = {"batch_size": 8, "num_train_epochs": 15, "learning_rate": 1e-3}
        with tempfile.TemporaryDirectory() as checkpoints:
            trainer = small.writer(splits, checkpoints, **settings, **small.UNSCORED)
            trainer.train()
        trainer.model.generation_config.max_length = 40
        trainer.save_model(folder)

    return built("keyword-model", make)


@pytest.fixture(scope="session")
def marker(short_posts, built):
    """The folder of a MiniLM that has learnt to mark the keywords of 24 short posts by heart."""
    from datasets import Dataset, DatasetDict

    from tests import small

    def make(folder):
        splits = DatasetDict(train=Dataset.from_pandas(short_posts))
        settings = {"batch_size": 8, "num_train_epochs": 25, "learning_rate": 5e-4}
        with tempfile.TemporaryDirectory() as checkpoints:
            trainer = small.marker(splits, checkpoints, **settings, **small.UNSCORED)
            trainer.train()
        trainer.save_model(folder)

    return built("marker", make)


@pytest.fixture(scope="session")
def exported(trained, keyword_model, built):
    """The fixtures' models, exported: exact and int8."""

    from cookbook import export

    def make(folder):
        export.export_onnx(trained.folder, folder / "exact", int8=False)
        export.export_onnx(trained.folder, folder / "int8")
        export.export_ctranslate2(keyword_model, folder / "keywords")

    folder = built("exported", make)
    return SimpleNamespace(**{name: folder / name for name in ("exact", "int8", "keywords")})


@pytest.fixture
def numbers_for_names():
    """Label names may be numbers; some versions of transformers refuse a model that has such."""
    from transformers import BertConfig

    try:
        BertConfig(id2label={0: 1, 1: 2})
    except Exception as error:
        pytest.skip(f"transformers itself refuses label names that are numbers: {error}")


@pytest.fixture(scope="session")
def smollm():
    """SmolLM2 behind Ollama's routes."""
    from tests.servers import ollama

    with ollama.serving() as url:
        yield SimpleNamespace(url=url, model="smollm2")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip(NO_BROWSER)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        f"--window-size=1200,1000 --user-data-dir={tmp_path_factory.mktemp('profile')}"
    ).split():
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """`begin(notebook, last)`: what stands after the cells up to the one with `last`, run here."""
    import nbformat
    import pandas as pd

    from tests.running import ROOT

    monkeypatch.chdir(tmp_path)

    def run(name, last, **parameters):
        found = {}
        for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells:
            tags = cell.metadata.get("tags", [])
            if cell.cell_type == "code" and "install" not in tags:
                exec(cell.source, found)
                found |= parameters if "parameters" in tags else {}
                if last in cell.source:
                    return found
        raise ValueError(last)

    with pd.option_context("display.max_colwidth", None, "display.float_format", None):
        yield run
