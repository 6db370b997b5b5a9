import csv
import gzip
import io
import json
import multiprocessing
import pickle
import threading
import tracemalloc
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from cookbook import tables


def rows(frame):
    return frame.to_numpy().tolist()


@pytest.fixture
def file(tmp_path):
    def make(content, name="titles.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return make


def test_every_cell_of_a_csv_stays_as_it_stands(file):
    path = file("text,code,version,country\nA,007,1.10,NA\n'B',010,1.9,null\n,,,\n")
    assert rows(tables.read(path)) == [
        ["A", "007", "1.10", "NA"],
        ["'B'", "010", "1.9", "null"],
        ["", "", "", ""],
    ]


def test_a_blank_line_is_a_row_and_a_short_row_is_said(file):
    assert rows(tables.read(file("text\nA\n\nB\n"))) == [["A"], [""], ["B"]]
    with pytest.warns(UserWarning, match=r"titles.csv: 1 rows end early \(first: line 3\)"):
        assert rows(tables.read(file("text,label\nA,x\nB\n")))[1] == ["B", ""]


def test_cells_beyond_the_header_are_refused_unless_they_are_empty(file):
    path = file("text,label\nA,x\nMayor, 40, resigns,y\n")
    with pytest.raises(ValueError, match=r"line 3: 4 cells under 2 columns.*double quotes"):
        tables.read(path)
    assert rows(tables.read(file("text,label\nA,x,\nB,y,,\n"))) == [["A", "x"], ["B", "y"]]


@pytest.mark.parametrize("later", ['Says "yes" to it,y', '"Another one,y', "No more marks,y"])
def test_a_quotation_mark_that_is_never_closed_is_refused(file, later):
    path = file(f'text,label\nA,x\n"Never again says chef,x\nB,y\n{later}\nC,x\n')
    with pytest.raises(ValueError, match="line 3: a quotation mark isn't closed"):
        tables.read(path)


def test_a_cell_that_swallowed_rows_is_questioned(file):
    path = file('text,label\n"Never again,x\nA,y\nB,x\nthe end",y\n')
    with pytest.warns(UserWarning, match=r"line 2: a cell of 4 lines looks like rows"):
        assert len(tables.read(path)) == 1


def test_a_post_of_several_lines_is_nothing_to_talk_about(file, recwarn):
    path = file('text,label\n"Dear all,\n\nDocker, Redis, Go.\n\nBye",x\n')
    assert tables.read(path)["text"][0].count("\n") == 4
    assert not recwarn


@pytest.mark.parametrize("sep", [";", "\t", "|", ","])
def test_the_separator_is_seen_from_the_header(file, sep):
    path = file(f'id{sep}text\n1{sep}"Cats, dogs; birds | fish\tmice"\n')
    assert rows(tables.read(path, ["text"])) == [["1", "Cats, dogs; birds | fish\tmice"]]


def test_a_name_with_a_separator_in_it_doesnt_mislead(file):
    path = file("text;note, if any, for us\nA;B\n")
    assert rows(tables.read(path, ["text"])) == [["A", "B"]]


def test_excels_word_on_the_separator_is_no_row(file):
    assert rows(tables.read(file("sep=;\ntext;label\nA;x\n"))) == [["A", "x"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings_that_say_so_are_read(file, encoding):
    text = "text,label\nCafé in Zürich,x\n"
    raw = ("\ufeff" + text if encoding == "utf-16-be" else text).encode(encoding)
    assert rows(tables.read(file(raw), ["text"])) == [["Café in Zürich", "x"]]


def test_another_encoding_is_named_or_given(file):
    path = file("text,label\nA,x\nCafé,y\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"titles.csv isn't utf-8.*cp1252"):
        tables.read(path)
    assert tables.read(path, encoding="cp1252")["text"][1] == "Café"
    empty = pickle.loads(pickle.dumps(tables.NoRows("a.csv", pa.table({"text": []}))))
    assert str(empty) == "a.csv has no rows."
    with pytest.raises(TypeError, match=r"has \['encodign'\]; a CSV has sep and encoding"):
        tables.read(path, encodign="cp1252")
    with pytest.raises(ValueError, match="UTF-16, pass encoding"):
        tables.read(file("text\nA\n", encoding="utf-16-le"))


def workbook():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # Without the time of day: these bytes are in the test's name, the same in every process.
        archive.writestr(zipfile.ZipInfo("xl/workbook.xml"), "<workbook/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (workbook(), "Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"text,label\n", "has no rows"),
        (b"text,text\nA,B\n", "more than one column called 'text'"),
        (b'{"text": 1}\n{"text"', "isn't JSON"),
        (b'{"text": 1}\n{"text": "A"}', "several kinds"),
    ],
)
def test_what_cant_be_read_is_called_what_it_is(file, content, told):
    with pytest.raises(ValueError, match=told) as error:
        tables.read(file(content))
    assert "titles.csv" in str(error.value)


def test_a_missing_column_names_those_that_are_there(file):
    with pytest.raises(ValueError, match=r"no column 'headline'; it has: 'text', ' label'"):
        tables.read(file("text, label\nA,x\n"), ["headline"])
    with pytest.raises(ValueError, match="more than one column called 'a'"):
        tables.read(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_the_content_says_what_a_file_is_not_its_name(tmp_path, file):
    frame = pd.DataFrame({"text": ["A", None], "n": [2**60 + 1, 3], "tags": [["x"], []]})
    frame.to_parquet(tmp_path / "titles.csv")
    read = tables.read(tmp_path / "titles.csv")
    assert read["n"].tolist() == [2**60 + 1, 3]
    assert pd.isna(read["text"][1])
    assert list(read["tags"][0]) == ["x"]
    path = file('{"text": "007", "n": 1}\n{"text": "NA", "tags": ["x"]}\n', "titles.jsonl")
    assert tables.read(path)["text"].tolist() == ["007", "NA"]
    assert tables.read(path)["n"].tolist() == [1, None]
    assert rows(tables.read(file('[{"text": "A"}]', "titles.json"))) == [["A"]]
    assert rows(tables.read(file(gzip.compress(b"text\nA\n"), "titles.csv.gz"))) == [["A"]]


@pytest.fixture
def address(tmp_path):
    """Serve the folder over HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_is_read_like_a_file(file, address):
    file("text,code\nA,007\n")
    file(gzip.compress(b"text\nA\n"), "more.csv.gz")
    assert rows(tables.read(f"{address}/titles.csv?raw=1", ["text"])) == [["A", "007"]]
    assert list(tables.read_splits(f"{address}/more.csv.gz")["train"]["text"]) == ["A"]
    with pytest.raises(ConnectionError, match=r"nothing\.csv can't be reached: .*404"):
        tables.read(f"{address}/nothing.csv")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9/a\.csv can't be reached"):
        tables.read("http://127.0.0.1:9/a.csv")


def test_bytes_are_read_as_the_text_that_they_are(tmp_path):
    table = pa.table({"text": pa.array(["Zürich"]).cast(pa.binary()), "raw": [b"\xff\xfe"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert tables.read(tmp_path / "a.parquet", ["text"])["text"].tolist() == ["Zürich"]
    with pytest.raises(ValueError, match="'raw' holds bytes"):
        tables.read(tmp_path / "a.parquet", ["raw"])


def test_class_ids_come_as_their_names_in_their_order():
    ids = Dataset.from_dict({"text": list("abc"), "label": [1, -1, 0]})
    ids = ids.cast_column("label", ClassLabel(names=["zebra", "ant"]))
    label = tables.read(ids)["label"]
    assert label.cat.categories.tolist() == ["zebra", "ant"]
    assert label.fillna("zebra").tolist() == ["ant", "zebra", "zebra"]
    assert list(tables.read_splits(DatasetDict(train=ids, test=ids))) == ["train", "test"]


def test_what_isnt_there_is_said():
    with pytest.raises(FileNotFoundError, match=r"nothing.csv isn't there"):
        tables.read("nothing.csv")
    with pytest.raises(ConnectionError, match=r"no file here.*hf auth login"):
        tables.read_splits("nobody/nothing")


def test_pieces_are_the_whole(file, tmp_path):
    path = file("text,n\n" + "".join(f"title {i},{i}\n" for i in range(25)))
    pieces = list(tables.chunks(path, ["text"], rows=10))
    assert [len(piece) for piece in pieces] == [10, 10, 5]
    assert pa.concat_tables(pieces)["n"].to_pylist() == [str(i) for i in range(25)]
    parquet = tables.write(iter(pieces), tmp_path / "a.parquet")
    assert [len(piece) for piece in tables.chunks(parquet, rows=10)] == [10, 10, 5]
    assert tables.row_count(parquet) == 25
    assert tables.row_count(path) is None
    with pytest.raises(ValueError, match="no column 'headline'"):
        next(tables.chunks(parquet, ["headline"]))


def test_json_lines_are_read_in_pieces_of_one_schema(file):
    lines = [{"text": f"t{i}"} for i in range(12)]
    lines[7]["n"], lines[10]["n"], lines[11]["tags"] = 1, 2.5, ["x"]
    path = file("\n\n".join(map(json.dumps, lines)), "titles.jsonl")
    pieces = list(tables.chunks(path, ["text"], 5))
    assert [len(piece) for piece in pieces] == [5, 5, 2]
    assert {piece.schema for piece in pieces} == {pieces[0].schema}
    whole = pa.concat_tables(pieces).to_pylist()
    assert whole[0] == {"text": "t0", "n": None, "tags": None}
    assert [row["n"] for row in whole[7:]] == [1, None, None, 2.5, None]
    path = file("\n".join(map(json.dumps, [*lines, {"text": 3}])), "titles.jsonl")
    with pytest.raises(ValueError, match="several kinds"):
        list(tables.chunks(path, ["text"], 5))


@pytest.mark.parametrize("name", ["pool.csv", "pool.jsonl", "pool.parquet"])
def test_a_sample_is_drawn_in_the_memory_of_a_sample(name, tmp_path):
    rows = pd.DataFrame({"text": [f"{i} " + "long " * 800 for i in range(20_000)], "n": "x"})
    rows.loc[::2, "text"] = " "
    path = tables.write(rows, tmp_path / name)
    tracemalloc.start()
    drawn = tables.sample(path, "text", 100, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    numbers = [int(text.split()[0]) for text in drawn]
    assert len(numbers) == 100
    assert numbers == sorted(numbers)
    assert all(number % 2 for number in numbers)
    assert 7_000 < sum(numbers) / 100 < 13_000
    assert tables.sample(path, "text", 100, seed=1).equals(drawn)
    assert not tables.sample(path, "text", 100, seed=2).equals(drawn)
    if name != "pool.parquet":
        assert peak < path.stat().st_size / 2
    assert len(tables.sample(path, "text", 50_000)) == 10_000


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.tsv", "a.jsonl", "a.parquet"])
def test_what_is_written_is_read_back(tmp_path, name):
    texts = ["NA", "007", 'says "no", \r twice', "line\nline", " blank ", "", "\r", "ü"]
    path = tables.write(pd.DataFrame({"text": texts, "": texts}), tmp_path / name)
    assert rows(tables.read(path)) == [[text, text] for text in texts]
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_lists_are_whole_in_a_csv(tmp_path):
    table = pa.table({"text": ["A"], "vector": [list(range(2000))], "none": pa.nulls(1)})
    path = tables.write(table, tmp_path / "a.csv")
    assert tables.read(path)["vector"][0] == str(list(range(2000)))
    assert tables.read(path)["none"][0] == ""


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tables.write(pd.DataFrame({"text": ["A"]}), tmp_path / "a.csv")

    def broken():
        yield pa.table({"text": ["B"]})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tables.write(broken(), path)
    assert path.read_text() == "text\nA\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"a.xlsx ends in none of"):
        tables.write(pd.DataFrame({"text": ["A"]}), tmp_path / "a.xlsx")


def test_an_appender_goes_on_with_its_own_file(tmp_path):
    path = tmp_path / "deep" / "a.csv"
    long = "x" * 200_000
    with tables.Appender(path, ["text", "n"]) as first:
        assert first.before.empty
        first.write(["one\rtwo", 1], ['"three"', None], [long, 3])
        assert path.read_bytes().count(b"\n") == 4  # on disk before the end
    with tables.Appender(path, ["text", "n"]) as second:
        assert rows(second.before) == [["one\rtwo", "1"], ['"three"', ""], [long, "3"]]
        second.write(["four", 4])
    assert tables.read(path)["text"].tolist() == ["one\rtwo", '"three"', long, "four"]


@pytest.mark.parametrize("torn", ["four,", 'four,"a\nb', '"four\n\nfive'])
def test_a_torn_line_is_taken_off_and_said(tmp_path, torn):
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,n\n"one\ntwo",1\n' + torn.encode())
    with (
        pytest.warns(UserWarning, match="torn line"),
        tables.Appender(path, ["text", "n"]) as again,
    ):
        assert rows(again.before) == [["one\ntwo", "1"]]
    assert path.read_bytes() == b'text,n\n"one\ntwo",1\n'


@pytest.mark.parametrize(
    "content",
    [
        b"The only copy of my notes",
        b'name,size\nscrew,6\nnail,5"\nbolt,7\n',
        b"text,n,more\nA,1,2\n",
        b"text;n\nA;1\n",
        b"\xff\xfet\x00e\x00",
        b"\n",
        b"text,n\nA,1,2\nB,3\n",
        b"text,n\nA,1,2\nB,",
        "text,n\nCafé,1\n".encode("cp1252"),
    ],
)
def test_a_file_that_isnt_its_own_is_left_byte_for_byte(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.csv"), tables.Appender(path, ["text", "n"]):
        pass
    assert path.read_bytes() == content


def hold(path, entered, leave):
    with tables.lock(path):
        entered.set()
        leave.wait(60)


@pytest.mark.parametrize("kind", [threading.Thread, multiprocessing.get_context("spawn").Process])
def test_two_runs_at_once_are_told(tmp_path, kind):
    make = (
        threading.Event if kind is threading.Thread else multiprocessing.get_context("spawn").Event
    )
    entered, leave = make(), make()
    other = kind(target=hold, args=(tmp_path / "a.csv", entered, leave))
    other.start()
    assert entered.wait(60)
    with (
        pytest.raises(RuntimeError, match=r"Another run is writing .*a\.csv"),
        tables.Appender(tmp_path / "a.csv", ["text"]),
    ):
        pass
    leave.set()
    other.join()
    with tables.Appender(tmp_path / "a.csv", ["text"]) as rows_:
        rows_.write(["A"])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["text"], ["A"]]


@pytest.mark.parametrize("texts", ["one string", ["A", None], ["A", b"B"], [1.0]])
def test_texts_are_a_list_of_strings(texts):
    with pytest.raises(ValueError, match=r"put 'one string'|Text [01] is"):
        tables.strings(texts)


def test_an_added_column_is_in_nobodys_way():
    assert tables.free_name("label", ["label", "label_predicted"]) == "label_predicted_predicted"
