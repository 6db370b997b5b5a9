import gzip
import http.server
import re
import threading
from functools import partial

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from cookbook import data


def frame(n=100, **columns):
    text = [f"Title number {i}" for i in range(n)]
    label = ["clickbait" if i % 2 else "factual" for i in range(n)]
    return pd.DataFrame({"text": text, "label": label, **columns})


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def test_shipped_titles_are_all_there(titles):
    assert titles["label"].value_counts().to_dict() == {"factual": 1793, "clickbait": 1788}
    assert list(titles.columns) == ["text", "label", "pair", "topic", "style"]
    assert (titles.groupby("pair")["label"].nunique() == 2).sum() == 800


def test_shipped_files_that_do_not_exist_name_those_that_do():
    with pytest.raises(FileNotFoundError, match=r"'nope.csv'.*clickbait_titles.csv"):
        data.shipped("nope.csv")


def test_splits_are_80_10_10_stratified_and_the_same_every_time(titles):
    first, second = (data.load_splits(titles, group="pair") for _ in range(2))
    sizes = {name: len(part) for name, part in first.items()}
    assert sum(sizes.values()) == 3581
    assert abs(sizes["validation"] - 358) <= 2
    assert abs(sizes["test"] - 358) <= 2
    for name, part in first.items():
        assert abs(part.to_pandas()["label"].eq("clickbait").mean() - 0.5) < 0.01
        assert part["text"][:] == second[name]["text"][:]


def test_another_seed_gives_another_split(titles):
    first = data.load_splits(titles, group="pair")["test"]["text"][:]
    assert first != data.load_splits(titles, group="pair", seed=1)["test"]["text"][:]


def test_a_pair_never_stands_on_both_sides(titles):
    splits = data.load_splits(titles, group="pair")
    homes = pd.concat([part.to_pandas().assign(split=name) for name, part in splits.items()])
    assert homes.dropna(subset="pair").groupby("pair")["split"].nunique().max() == 1


def test_without_groups_pairs_would_leak(titles):
    splits = data.load_splits(titles)
    homes = pd.concat([part.to_pandas().assign(split=name) for name, part in splits.items()])
    assert homes.dropna(subset="pair").groupby("pair")["split"].nunique().max() > 1


def test_only_the_missing_split_is_made():
    source = DatasetDict(train=Dataset.from_pandas(frame(80)), test=Dataset.from_pandas(frame(10)))
    splits = data.load_splits(source)
    assert splits["test"]["text"][:] == source["test"]["text"][:]
    assert (len(splits["train"]), len(splits["validation"])) == (72, 8)


@pytest.mark.parametrize("name", ["val", "valid", "dev"])
def test_other_names_of_the_validation_split_are_known(name):
    source = DatasetDict({"train": Dataset.from_pandas(frame(90)), name: Dataset.from_dict({})})
    source[name] = Dataset.from_pandas(frame(10))
    splits = data.load_splits(source)
    assert splits["validation"]["text"][:] == source[name]["text"][:]


def test_class_names_of_a_hub_data_set_survive():
    part = Dataset.from_dict({"text": list("abcdefghij") * 4, "label": [0, 1] * 20})
    part = part.cast_column("label", ClassLabel(names=["ham", "spam"]))
    splits = data.load_splits(part)
    assert splits["train"].features["label"].names == ["ham", "spam"]


def test_splits_without_labels_are_dropped_and_made_anew():
    """The layout of imdb and GLUE: -1 where there is no label."""
    feature = ClassLabel(names=["neg", "pos"])
    source = DatasetDict(
        train=Dataset.from_dict({"text": list("abcdefghij") * 4, "label": [0, 1] * 20}),
        test=Dataset.from_dict({"text": ["x", "y"], "label": [-1, -1]}),
        unsupervised=Dataset.from_dict({"text": ["z"], "label": [-1]}),
    ).cast_column("label", feature)
    with pytest.warns(UserWarning, match="Dropped split '(test|unsupervised)': it has no labels"):
        splits = data.load_splits(source)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }
    assert splits["test"].features["label"] == feature


def test_other_columns_are_renamed_to_what_the_trainer_wants():
    rows = frame(40).rename(columns={"text": "title", "label": "kind"}).assign(label=7)
    splits = data.load_splits(rows, text="title", label="kind")
    assert splits["train"].column_names == ["text", "label"]
    assert set(splits["train"]["label"][:]) == {"clickbait", "factual"}


def test_groups_with_ever_other_labels_are_still_shared_out():
    rng = np.random.default_rng(0)
    author, label = rng.integers(0, 60, 2000), rng.integers(0, 20, 2000)
    rows = pd.DataFrame({"text": [f"t{i}" for i in range(2000)], "author": author, "label": label})
    splits = data.load_splits(rows, group="author")
    assert all(150 <= len(splits[name]) <= 250 for name in ("validation", "test"))
    homes = pd.concat([part.to_pandas().assign(split=name) for name, part in splits.items()])
    assert homes.groupby("author")["split"].nunique().max() == 1


@pytest.mark.parametrize("seed", range(6))
def test_one_huge_group_does_not_fill_the_test_split(seed):
    rows = frame(1000).assign(author=["one"] * 500 + [f"a{i}" for i in range(500)])
    sizes = {k: len(part) for k, part in data.load_splits(rows, group="author", seed=seed).items()}
    assert sizes["train"] >= 800
    assert sizes["test"] == sizes["validation"] == 50  # a tenth of what can be shared out


def test_empty_groups_tie_nothing():
    rows = frame(100).assign(author="")
    assert len(data.load_splits(rows, group="author")["test"]) == 10


def test_a_split_that_would_be_empty_is_an_error():
    rows = frame(100).assign(author="one")
    with (
        pytest.warns(UserWarning, match="Too few rows"),
        pytest.raises(ValueError, match="'validation' would be empty"),
    ):
        data.load_splits(rows.assign(label="x"), group="author")


def test_a_csv_without_the_columns_says_what_it_has(tmp_path):
    path = write(tmp_path / "a.csv", "title,kind\nHello,x\n")
    with pytest.raises(ValueError, match=r"no column 'text', 'label'; it has: 'title', 'kind'"):
        data.load_splits(path)


def test_a_group_column_that_is_missing_is_named():
    with pytest.raises(ValueError, match="no column 'pair'"):
        data.load_splits(frame(), group="pair")


@pytest.mark.parametrize(
    ("content", "message"), [("", "is empty"), ("text,label\n", "a header but no rows")]
)
def test_an_empty_file_is_called_empty(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        data.load_splits(write(tmp_path / "a.csv", content))


def test_a_wrong_encoding_says_which_byte_and_what_to_do(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nCafé öffnet,factual\nWow,clickbait\n", "cp1252")
    with pytest.raises(ValueError, match=r"byte 14.*encoding=\"cp1252\""):
        data.read_csv(path)
    assert data.read_csv(path, encoding="cp1252")["text"][0] == "Café öffnet"


def test_excel_utf8_with_its_mark_is_read(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nHi,factual\n", "utf-8-sig")
    assert list(data.read_csv(path).columns) == ["text", "label"]


def test_a_crooked_csv_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"Hi,factual\n')
    with pytest.raises(ValueError, match="isn't a regular CSV"):
        data.read_csv(path)


def test_text_that_looks_like_something_else_stays_text(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n007,factual\nNA,clickbait\n1.50,factual\n")
    assert data.read_csv(path)["text"].tolist() == ["007", "NA", "1.50"]


def test_what_is_no_text_is_dropped_and_counted():
    rows = frame(20).astype({"text": object})
    rows.loc[3, "text"] = float("nan")
    rows.loc[5, "text"] = 42
    rows["text"] = rows["text"].where(rows.index != 7, pd.Series([["a", "list"]] * 20))
    rows.loc[9, "text"] = "  "
    rows.loc[11, "label"] = None
    with pytest.warns(UserWarning, match="Dropped 5 of 20 rows") as caught:
        splits = data.load_splits(rows)
    message = str(caught[0].message)
    assert "3 where 'text' is not a string" in message
    assert "1 where 'text' is empty" in message
    assert "1 without a label" in message
    assert "rows 3, 5, 7, 9, 11" in message
    assert sum(map(len, splits.values())) == 15


def test_nothing_usable_is_an_error():
    with pytest.raises(ValueError, match="No usable row is left"):
        data.load_splits(pd.DataFrame({"text": [1, 2], "label": ["a", "b"]}))


def test_a_class_with_one_row_goes_to_train_with_a_warning():
    rows = pd.concat([frame(50), pd.DataFrame({"text": ["Odd"], "label": ["rare"]})])
    with pytest.warns(UserWarning, match=r"all went to train: 'rare'"):
        splits = data.load_splits(rows)
    assert "rare" in splits["train"]["label"][:]


def test_twenty_classes_1_to_50_are_all_in_every_split():
    sizes = [10 + 490 * i // 19 for i in range(20)]
    rows = pd.DataFrame(
        [(f"text {i} of {c}", f"class {c}") for c, size in enumerate(sizes) for i in range(size)],
        columns=["text", "label"],
    )
    splits = data.load_splits(rows)
    for part in splits.values():
        assert len(set(part["label"][:])) == 20
    counts = splits["test"].to_pandas()["label"].value_counts()
    assert counts["class 19"] / counts["class 0"] == 50


@pytest.mark.parametrize("shares", [{"validation": 0.5, "test": 0.5}, {"test": 0}])
def test_shares_must_leave_something_to_train_on(shares):
    with pytest.raises(ValueError, match="shares must be positive"):
        data.load_splits(frame(), **shares)


def test_emoji_and_other_alphabets_pass_unchanged(tmp_path):
    texts = ["🤯🤯🤯", "日本語の見出し", "Заголовок новости", "عنوان الخبر", "e\u0301te\u0301"]
    path = tmp_path / "a.csv"
    frame(10).assign(text=texts * 2).to_csv(path, index=False)
    splits = data.load_splits(path)
    found = pd.concat([part.to_pandas() for part in splits.values()])["text"]
    assert sorted(found) == sorted(texts * 2)


def test_no_internet_and_a_wrong_name_are_explained():
    with pytest.raises(ConnectionError, match=r"'someone/no-such-set' is no file here.*internet"):
        data.load_splits("someone/no-such-set")


def test_a_server_that_is_not_there():
    with pytest.raises(ConnectionError, match="can't be reached"):
        data.read_csv("http://127.0.0.1:9/titles.csv")
    with pytest.raises(ConnectionError, match="can't be read"):
        data.read_chakraborty("http://127.0.0.1:9")


@pytest.fixture
def website(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_public_headlines_are_read_from_their_two_files(tmp_path, website):
    (tmp_path / "clickbait_data.gz").write_bytes(gzip.compress(b"Wow\n\nYou too\n"))
    (tmp_path / "non_clickbait_data.gz").write_bytes(gzip.compress(b"Rate rises\n"))
    found = data.read_chakraborty(website)
    assert found.values.tolist() == [
        ["Wow", "clickbait"],
        ["You too", "clickbait"],
        ["Rate rises", "factual"],
    ]


def test_a_csv_of_headlines_is_read_from_a_path_or_an_address(tmp_path, website):
    frame(4).to_csv(tmp_path / "real.csv", index=False)
    assert data.read_csv(tmp_path / "real.csv").equals(data.read_csv(f"{website}/real.csv"))


def test_a_download_that_breaks_off_is_a_connection_error(tmp_path, website):
    whole = gzip.compress(b"Rate rises\n" * 1000)
    (tmp_path / "clickbait_data.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConnectionError, match=r"clickbait_data.gz can't be read"):
        data.read_chakraborty(website)


def test_samples_show_names_not_ids(titles):
    part = Dataset.from_dict({"text": list("abcd"), "label": [0, 1, 0, 1]})
    part = part.cast_column("label", ClassLabel(names=["x", "y"]))
    assert data.show_samples(part, n=1)["label"].tolist() == ["x", "y"]
    assert data.show_samples(titles, n=5)["label"].value_counts().tolist() == [5, 5]


def test_the_challenge_set_is_what_the_card_says():
    challenge = data.read_csv(data.shipped("clickbait_challenge.csv"))
    assert len(challenge) >= 150
    assert set(challenge["label"]) == {"clickbait", "factual"}
    forms = challenge[challenge["group"].isin(["as_written", "lower_case", "title_case"])]
    assert (forms.groupby("case")["text"].agg(lambda s: s.str.lower().nunique()) == 1).all()
    sober = challenge.loc[challenge["group"] == "sober_clickbait", "text"]
    assert not sober.map(lambda text: bool(re.search(r"[!?\d]", text))).any()
    pairs = challenge[challenge["group"] == "minimal_pair"].groupby("case")["label"]
    assert (pairs.nunique() == 2).all()


def test_no_challenge_title_stands_among_the_training_titles(titles):
    from cookbook import quality

    challenge = data.read_csv(data.shipped("clickbait_challenge.csv"))
    more = data.read_csv(data.shipped("clickbait_titles_more.csv"))
    known = pd.concat([titles, more])["text"]
    both = pd.concat([known, challenge["text"]], ignore_index=True)
    copies = quality.near_duplicates(both)
    assert not ((copies["row"] >= len(known)) & (copies["of"] < len(known))).any()


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("Go, Redis", ["Go", "Redis"]),
        ("Go; Redis;", ["Go", "Redis"]),
        ("Go\nRedis", ["Go", "Redis"]),
        (["Go", "Redis, Inc", None], ["Go", "Redis Inc"]),
        ("['Go' 'Redis']", ["Go", "Redis"]),
        ("['Go', \"Redis\"]", ["Go", "Redis"]),
        ("[not a list", ["[not a list"]),
        ("[broken, list]", ["[broken", "list]"]),
        (" go , GO,, go", ["go"]),
        (float("nan"), []),
        (None, []),
        ("", []),
        (7, []),
    ],
)
def test_keywords_are_read_however_they_are_written_down(cell, found):
    assert data.split_keywords(cell) == found


def test_rows_without_keywords_are_dropped_and_counted():
    frame = pd.DataFrame(
        {
            "text": [f"text {i}" for i in range(40)],
            "keywords": ["a; b", ["c", "d"], "", None, float("nan"), " , "] + ["x, y"] * 34,
            "topic": ["t"] * 40,
        }
    )
    with pytest.warns(UserWarning, match=r"Dropped 4 of 40 rows: 4 without keywords \(first at"):
        splits = data.load_splits(frame, label=None, keywords="keywords")
    rows = pd.concat([part.to_pandas() for part in splits.values()])
    assert len(rows) == 36
    assert set(rows["keywords"]) == {"a, b", "c, d", "x, y"}
    assert set(rows.columns) == {"text", "keywords", "topic"}


def test_the_shipped_keywords_split_without_labels():
    splits = data.load_splits(
        data.shipped("tech_keywords.csv"), label=None, keywords="keywords", seed=1
    )
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 2951,
        "validation": 369,
        "test": 369,
    }


def test_a_csv_without_keywords_is_an_error_that_names_the_column(tmp_path):
    (tmp_path / "a.csv").write_text("text,tags\nx,y\n")
    with pytest.raises(ValueError, match=r"has no column 'keywords'; it has: 'text', 'tags'"):
        data.load_splits(tmp_path / "a.csv", label=None, keywords="keywords")
