"""A lake is answered part by part: in this process, on a cluster, from an object store."""

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from transformers import AutoTokenizer
from typer.testing import CliRunner

from cookbook import cli, export, inference, lake, offline, tables
from tests import small
from tests.servers.hub import serving

DEADLINE = 300  # for a hang: it takes seconds


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A BERT of some thousand weights that answers at random, exported; and another, in torch."""
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    root = tmp_path_factory.mktemp("models")
    about = {"problem_type": "single_label_classification"}
    for seed in (0, 1):
        names = ["clickbait", "factual"]
        small.tiny_several(root / f"{seed}", tokenizer, names, seed, **about)
    return export.export_onnx(root / "0", root / "exported", int8=False), root / "1"


@pytest.fixture
def tiny(models):
    return models[0]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def parts_of(folder, titles, parts, rows):
    """Write a lake of Parquet files in two folders; return its texts by name."""
    texts = {}
    for number in range(parts):
        name = f"{number % 2}/part-{number:02}.parquet"
        drawn = titles["text"].sample(rows, random_state=number, replace=True).tolist()
        texts[name] = [f"{text} {row}" for row, text in enumerate(drawn)]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"text": texts[name], "id": [f"{row:06}" for row in range(rows)]})
        pq.write_table(table, folder / name)
    return texts


def assert_whole(folder, texts, model):
    """Every part is there, in its order, with the answers of the model; and nothing else."""
    found = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))
    assert found == sorted(texts)
    for name, expected in texts.items():
        answers = pd.read_parquet(folder / name)
        assert answers["text"].tolist() == expected
        assert answers["id"].tolist() == [f"{row:06}" for row in range(len(expected))]
        first = inference.classify(expected[:20], model)
        assert np.allclose(answers["clickbait"][:20], first["clickbait"], atol=1e-5)


def test_files_of_all_kinds_are_answered_with_their_cells_as_they_stand(tiny, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "lang=en").mkdir(parents=True)
    (source / "a.csv").write_text("text;id;tag\nOne;007;NA\n;1e5;None\n", "utf-8")
    of_its_own = '{"text": "Two", "label": {"x": [1]}, "trend_predicted": 7}\n'
    (source / "lang=en" / "b.jsonl").write_text(of_its_own, "utf-8")
    (source / "c.tsv.gz").write_bytes(gzip.compress(b"text\tday\nThree\t2024-01-02\n"))
    (source / "_SUCCESS").touch()
    with (
        pytest.warns(UserWarning, match=r"a\.csv: 1 of 2 texts are blank"),
        pytest.warns(UserWarning, match=r"b\.jsonl has columns .* which are label_predicted there"),
    ):
        done = lake.answer_lake(source, target, tiny)
    assert done.ok
    assert (done.parts, done.answered, done.rows) == (3, 3, 4)
    csv = pd.read_csv(target / "a.csv", dtype=str, keep_default_na=False)
    assert csv[["text", "id", "tag"]].to_numpy().tolist() == [
        ["One", "007", "NA"],
        ["", "1e5", "None"],
    ]
    assert csv["label"][1] == ""
    nested = pd.read_json(target / "lang=en" / "b.jsonl", lines=True)
    assert nested["label"][0] == {"x": [1]}
    assert nested["label_predicted"].isin(["clickbait", "factual"]).all()
    assert pd.read_csv(target / "c.tsv", sep="\t", dtype=str)["day"].tolist() == ["2024-01-02"]


def test_a_part_that_cannot_be_read_is_set_aside_and_tried_again(tiny, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "good.csv").write_text("text\nA title\n")
    (source / "other.csv").write_text("headline\nA title\n")
    (source / "torn.parquet").write_bytes(b"PAR1" + bytes(100))
    command = ["answer", str(source), str(target), str(tiny)]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 1
    assert "1 of 3 parts are in" in result.output
    failed = pd.read_csv(target / "_failed.csv").set_index("part")["reason"]
    assert "has no column 'text'; it has: 'headline'" in failed["other.csv"]
    assert "torn.parquet" in failed.index
    (source / "other.csv").write_text("text\nA title\n")
    (source / "torn.parquet").unlink()
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0
    assert "Answered now: 1, with 1 rows" in result.output
    assert sorted(path.name for path in target.glob("[!.]*")) == [
        "_run.json",
        "good.csv",
        "other.csv",
    ]


def test_only_what_is_new_or_changed_is_answered(tiny, titles, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    texts = parts_of(source, titles, parts=3, rows=30)
    pattern = str(source / "*" / "*.parquet")
    lake.answer_lake(pattern, target, tiny)
    assert lake.answer_lake(pattern, target, tiny).answered == 0
    changed = next(iter(texts))
    texts[changed] = ["Another title"]
    pq.write_table(pa.table({"text": texts[changed], "id": ["000000"]}), source / changed)
    after = (target / changed).stat().st_mtime + 10
    os.utime(source / changed, (after, after))
    assert lake.answer_lake(pattern, target, tiny).answered == 1
    assert_whole(target, texts, tiny)


def test_answers_of_two_models_are_never_mixed(models, titles, tmp_path):
    source, target, tiny = tmp_path / "in", tmp_path / "out", models[0]
    parts_of(source, titles, parts=2, rows=10)
    lake.answer_lake(source, target, tiny)
    before = {path: path.read_bytes() for path in target.glob("*/*")}
    for model, options in ((models[1], {}), (tiny, {"text": "id"}), (tiny, {"max_length": 3})):
        with pytest.raises(ValueError, match="answers of another model"):
            lake.answer_lake(source, target, model, **options)
    assert {path: path.read_bytes() for path in target.glob("*/*")} == before


def test_what_would_lose_or_mix_rows_is_refused(tiny, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no files"):
        lake.answer_lake(source, tmp_path / "out", tiny)
    (source / "a.csv").write_text("text\nA\n")
    for pattern, target in ((source, source), (source, source / "out"), (source / "*.csv", source)):
        with pytest.raises(ValueError, match="part of the source itself"):
            lake.answer_lake(pattern, target, tiny)
    (source / "a.csv.gz").write_bytes(gzip.compress(b"text\nB\n"))
    with pytest.raises(ValueError, match=r"would both become a\.csv"):
        lake.answer_lake(source, tmp_path / "out", tiny)
    (source / "_delta_log").mkdir()
    (source / "_delta_log" / "0.json").touch()
    with pytest.raises(ValueError, match="Delta Lake"):
        lake.answer_lake(source, tmp_path / "out", tiny)
    with pytest.raises(ValueError, match="can't be sent to a cluster"):
        lake.answer_lake(source, tmp_path / "out", inference.load(tiny), ray="auto")


def test_a_target_is_known_by_whatever_name(tiny, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.csv").write_text("text\nA\n")
    (tmp_path / "link").symlink_to(source)
    for target in (source / ".." / "in" / "out", tmp_path / "link", tmp_path / "link" / "out"):
        with pytest.raises(ValueError, match="part of the source itself"):
            lake.answer_lake(source, target, tiny)
    with pytest.raises(ValueError, match=r"a\.csv is a file: of many tables"):
        lake.answer_lake(source, source / "a.csv", tiny)
    lake.answer_lake(source, tmp_path / "out", tiny)
    assert lake.answer_lake(tmp_path / "link", tmp_path / "out", tiny).answered == 0
    (tmp_path / "by_its_content").write_text("text\nA\n")
    (tmp_path / "named.csv").symlink_to("by_its_content")
    done = lake.answer_lake(tmp_path / "named.csv", tmp_path / "named", tiny)
    assert (done.ok, done.parts) == (True, 1)


def test_files_that_may_be_no_answers_are_not_taken_for_some(models, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.csv").write_text("text\nA\n")
    (source / "b.csv").write_text("text\nB\n")
    target.mkdir()
    (target / "a.csv").write_text("text\nA\n")
    with pytest.raises(ValueError, match=r"out holds a\.csv, and no note that a run put it there"):
        lake.answer_lake(source, target, models[0])
    (target / "a.csv").unlink()
    lake.answer_lake(source, target, models[0])
    (target / "_run.json").unlink()
    with pytest.raises(ValueError, match=r"delete the folder"):
        lake.answer_lake(source, target, models[1])


def test_answers_to_what_is_gone_or_changed_are_named(tiny, tmp_path, monkeypatch):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.csv").write_text("text\nA\n")
    (source / "b.csv").write_text("text\nB\n")
    lake.answer_lake(source, target, tiny)
    (source / "a.csv").rename(source / "c.csv")
    with pytest.warns(UserWarning, match=r"1 files in .* answer nothing .*such as a\.csv: delete"):
        assert lake.answer_lake(source, target, tiny).answered == 1
    (target / "a.csv").unlink()
    (source / "b.csv").write_text("headline\nB\n")
    later = (target / "b.csv").stat().st_mtime + 10
    os.utime(source / "b.csv", (later, later))
    reason = lake.answer_lake(source, target, tiny).failed.set_index("part")["reason"]["b.csv"]
    assert reason.endswith("Its answers are still those to what it was.")
    answer_pieces = lake.answer_pieces

    def slowly(path, *args, **options):
        yield from answer_pieces(path, *args, **options)
        path.write_text("text\nAnother\nAnd one\n")

    (source / "b.csv").write_text("text\nB\n")
    os.utime(source / "b.csv", (later, later))
    with monkeypatch.context() as patch:
        patch.setattr(lake, "answer_pieces", slowly)
        done = lake.answer_lake(source, target, tiny)
    assert "It changed while it was answered" in done.failed["reason"][0]
    os.utime(source / "b.csv", (later, later))
    assert lake.answer_lake(source, target, tiny).ok
    assert pd.read_csv(target / "b.csv")["text"].tolist() == ["Another", "And one"]


def test_every_folder_is_read_once_whatever_links_lead_there(tiny, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "2026").mkdir(parents=True)
    (source / "2026" / "a.csv").write_text("text\nA\n")
    (source / "2026" / "loop").symlink_to("..")
    (source / "latest").symlink_to("2026")
    (source / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
    os.mkfifo(source / "pipe.csv")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "b.csv").write_text("text\nB\n")
    (source / "more").symlink_to(tmp_path / "else")
    done = lake.answer_lake(source, target, tiny)
    assert (done.parts, done.answered) == (3, 2)
    assert done.failed["part"].tolist() == ["gone.csv"]
    assert sorted(path.name for path in target.glob("*/*.csv")) == ["a.csv", "b.csv"]
    with pytest.warns(UserWarning, match=r"such as gone\.csv"):
        assert lake.sample(source, "text", 10).tolist() == ["A", "B"]


def test_files_of_another_encoding_are_read_as_told(tiny, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.csv").write_bytes("text\nCafé\n".encode("cp1252"))
    command = ["answer", str(source), str(target), str(tiny)]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 1
    assert "pass encoding='cp1252'" in result.output
    for given, answers in ((source, "many/a.csv"), (source / "a.csv", "one.csv")):
        where = tmp_path / answers.removesuffix("/a.csv")
        command = ["answer", str(given), str(where), str(tiny), "--encoding", "cp1252"]
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == 0, result.output
        assert pd.read_csv(tmp_path / answers)["text"].tolist() == ["Café"]


def test_parts_without_rows_have_answers_without_rows(tiny, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "[a].csv").write_text("text;id\n")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), source / "[a].parquet")
    (source / "[a].ndjson").write_text('{"text": "A"}\n')
    (source / "[a].json").write_text('[{"text": "B"},\n{"text": "C"}]')
    (source / "b.csv").write_text("text\n\n")
    done = lake.answer_lake(source / "[a]*", target, tiny)
    assert (done.ok, done.parts, done.rows) == (True, 4, 3)
    for name in ("[a].csv", "[a].parquet"):
        with pytest.raises(tables.NoRows) as told:
            tables.read(target / name)
        added = ["label", "score", "clickbait", "factual"]
        assert told.value.table.column_names[-4:] == added
    assert tables.read(target / "[a].ndjson")["text"].tolist() == ["A"]
    assert tables.read(target / "[a].jsonl")["text"].tolist() == ["B", "C"]
    assert sorted(lake.sample(source / "[a]*", "text", 10)) == ["A", "B", "C"]


def wait_for(condition, run):
    """Wait for it, or for the end of the process or thread that is to bring it about."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        if isinstance(run, threading.Thread):
            run.join(0.01)
            if not run.is_alive():
                return
            continue
        with suppress(subprocess.TimeoutExpired):
            run.wait(0.01)
            return


def test_a_driver_killed_at_any_moment_goes_on(tiny, titles, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    texts = parts_of(source, titles, parts=20, rows=800)
    command = [sys.executable, "-m", "cookbook.cli", "answer", source, target, tiny]
    (tmp_path / "spare").mkdir()
    where = {**os.environ, "TMPDIR": str(tmp_path / "spare")}
    before, ends = {}, []
    for wanted in (0, 1, 3, 6, 10):
        run = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=where)
        try:
            wait_for((target / "_run.json").exists, run)
            wait_for(lambda wanted=wanted: len([*target.glob("[01]/*")]) >= wanted, run)
        finally:
            run.kill()
        ends.append(run.wait())
        now = {path: path.stat().st_mtime_ns for path in target.glob("[01]/*")}
        assert now.items() >= before.items()  # what was there is not answered again
        before = now
    assert ends[0] == -signal.SIGKILL
    assert lake.answer_lake(source, target, tiny).answered == 20 - len(before)
    assert_whole(target, texts, tiny)
    assert not (target / "_half").exists()


def test_texts_of_a_lake_are_drawn_as_those_of_one_table(titles, tmp_path):
    texts = parts_of(tmp_path / "in", titles, parts=4, rows=50)
    every = [text for name in sorted(texts) for text in texts[name]]
    pattern = f"{tmp_path}/in/*/*.parquet"
    assert lake.sample(pattern, "text", 1000).tolist() == every
    drawn = tables.sample(pd.DataFrame({"text": every}), "text", 30, seed=1)
    assert lake.sample(pattern, "text", 30, seed=1).tolist() == drawn.tolist()
    bad = tmp_path / "in" / "0" / "bad.parquet"
    bad.write_text("no Parquet")
    with pytest.warns(
        UserWarning, match=r"1 of 5 parts can't be read whole, such as 0/bad\.parquet"
    ):
        assert lake.sample(pattern, "text", 1000).tolist() == every
    with pytest.raises(ValueError, match="has no column 'title'"):
        lake.sample(pattern, "title", 10)
    with pytest.raises(FileNotFoundError, match="holds no files"):
        lake.sample(f"{tmp_path}/in/*.csv", "text", 10)


@pytest.fixture(scope="module")
def cluster():
    """Two machines of Ray on this one, with a core each."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", str(DEADLINE))
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        from ray.cluster_utils import Cluster

        memory = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=memory)
        second = made.add_node(**memory)
        yield SimpleNamespace(address=made.address, second=second, remove=made.remove_node)
        made.shutdown()


@pytest.mark.slow
def test_a_cluster_loses_a_machine_and_no_row(cluster, tiny, titles, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    texts = parts_of(source, titles, parts=12, rows=2500)
    (source / "bad.csv").write_text("headline\nA\n")
    found = []
    run = threading.Thread(
        target=lambda: found.append(
            lake.answer_lake(source, target, tiny, ray=cluster.address, resources={"num_cpus": 0.6})
        )
    )
    run.start()
    wait_for(lambda: len([*target.glob("[01]/*.parquet")]) >= 2, run)
    cluster.remove(cluster.second, allow_graceful=False)
    run.join(DEADLINE)
    (done,) = found
    assert done.failed["part"].tolist() == ["bad.csv"]
    assert (done.answered, done.rows) == (12, 30000)
    assert_whole(target, texts, tiny)


@pytest.fixture
def store(monkeypatch):
    """S3 on loopback; its bucket is called lake."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    files = fs.S3FileSystem(endpoint_override=f"http://{host}:{port}", allow_bucket_creation=True)
    files.create_dir("lake")
    yield files
    server.stop()


def test_an_object_store_is_read_and_written(store, tiny, titles, tmp_path):
    texts = parts_of(tmp_path / "in", titles, parts=3, rows=50)
    fs.copy_files(str(tmp_path / "in"), "lake/in", fs.LocalFileSystem(), store)
    with store.open_output_stream("lake/in/0/bad.parquet") as file:
        file.write(b"no table")
    command = ["answer", "s3://lake/in/*/*.parquet", "s3://lake/out", str(tiny)]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 1
    assert "3 of 4 parts are in s3://lake/out" in result.output
    store.delete_file("lake/in/0/bad.parquet")
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0
    assert "Answered now: 0, with 0 rows" in result.output
    with store.open_output_stream("lake/out/_half/another") as file:
        file.write(b"half")  # another run's
    assert lake.answer_lake(command[1], command[2], tiny).answered == 0
    store.delete_file("lake/out/_half/another")
    fs.copy_files("lake/in/0", "lake/100% new", store, store)
    assert (
        lake.answer_lake("s3://lake/100% new?region=us-east-1", "s3://lake/more", tiny).answered
        == 2
    )
    under = fs.FileSelector("lake/out", recursive=True)
    names = {info.path for info in store.get_file_info(under) if info.is_file}
    assert names == {"lake/out/_run.json", *(f"lake/out/{name}" for name in texts)}
    fs.copy_files("lake/out", str(tmp_path / "out"), store, fs.LocalFileSystem())
    assert_whole(tmp_path / "out", texts, tiny)


def test_a_data_set_of_the_hub_is_read(tiny, tmp_path, monkeypatch):
    with serving() as server:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        there = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", there)
        monkeypatch.setenv("HF_TOKEN", server.tokens["write"])
        api = huggingface_hub.HfApi(server.url, server.tokens["write"])
        api.create_repo("maker/titles", repo_type="dataset")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.csv").write_text("text,id\nOne,007\n")
        where = {"repo_id": "maker/titles", "repo_type": "dataset"}
        api.upload_folder(**where, folder_path=tmp_path, allow_patterns="data/*")
        huggingface_hub.HfFileSystem.clear_instance_cache()
        source = "hf://datasets/maker/titles/data/*.csv"
        done = lake.answer_lake(source, tmp_path / "out", tiny)
        assert done.ok, str(done)
        assert lake.answer_lake(source, tmp_path / "out", tiny).answered == 0
    answers = pd.read_csv(tmp_path / "out" / "a.csv", dtype=str)
    assert answers[["text", "id"]].to_numpy().tolist() == [["One", "007"]]
