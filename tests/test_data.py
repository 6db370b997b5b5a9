import gzip
import http.server
import re
import threading
from functools import partial

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from cookbook import data, quality, tables


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
    paired = titles[titles["pair"] != ""]
    assert (paired.groupby("pair")["label"].nunique() == 2).sum() == 800


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
    assert homes[homes["pair"] != ""].groupby("pair")["split"].nunique().max() == 1


def test_without_groups_pairs_would_leak(titles):
    splits = data.load_splits(titles)
    homes = pd.concat([part.to_pandas().assign(split=name) for name, part in splits.items()])
    assert homes[homes["pair"] != ""].groupby("pair")["split"].nunique().max() > 1


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


@pytest.mark.parametrize("column", ["label", "keywords"])
@pytest.mark.parametrize("there", [True, False])
def test_a_test_split_without_labels_or_without_their_column_is_dropped(column, there):
    test = frame(10).assign(**{column: "  "})
    source = {"train": frame(40, keywords="a, b"), "test": test}
    if not there:
        source["test"] = test.drop(columns=column)
    names = {"label": None, "keywords": None} | {column: column}
    with pytest.warns(UserWarning, match=f"Dropped split 'test': it has nothing in .*{column}"):
        splits = data.load_splits(source, **names)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }


def test_class_ids_in_another_order_are_matched_by_name():
    def part(order):
        texts = [f"Text {i} is {order[i % 2]}" for i in range(20)]
        rows = Dataset.from_dict({"text": texts, "label": [0, 1] * 10})
        return rows.cast_column("label", ClassLabel(names=order))

    source = DatasetDict(train=part(["no", "yes"]), test=part(["yes", "no"]))
    for split in data.load_splits(source).values():
        assert split.features["label"].names == ["no", "yes"]
        names = split.features["label"].int2str(split["label"][:])
        assert all(map(str.endswith, split["text"][:], names))


def test_splits_without_labels_are_dropped_and_made_anew():
    """The layout of imdb and GLUE: -1 where there is no label."""
    feature = ClassLabel(names=["neg", "pos"])
    source = DatasetDict(
        train=Dataset.from_dict({"text": list("abcdefghij") * 4, "label": [0, 1] * 20}),
        test=Dataset.from_dict({"text": ["x", "y"], "label": [-1, -1]}),
        unsupervised=Dataset.from_dict({"text": ["z"], "label": [-1]}),
    ).cast_column("label", feature)
    with pytest.warns(UserWarning, match="Dropped split '(test|unsupervised)': it has nothing in"):
        splits = data.load_splits(source)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }
    assert splits["test"].features["label"] == feature


def test_other_columns_are_renamed_to_what_the_trainer_wants():
    rows = frame(40).rename(columns={"text": "title", "label": "kind"})
    splits = data.load_splits(rows, text="title", label="kind")
    assert splits["train"].column_names == ["text", "label"]
    assert set(splits["train"]["label"][:]) == {"clickbait", "factual"}


def test_a_column_in_the_way_keeps_its_cells_under_another_name():
    rows = frame(40).rename(columns={"text": "title"})
    rows = rows.assign(text=[f"Article {i}" for i in range(40)])
    with pytest.warns(UserWarning, match=r"new names: \{'text': 'text_original'\}"):
        splits = data.load_splits(rows, text="title")
    found = pd.concat([part.to_pandas() for part in splits.values()])
    expected = dict(zip(rows["title"], rows["text"], strict=True))
    assert dict(zip(found["text"], found["text_original"], strict=True)) == expected


def test_two_columns_may_swap_their_names_and_a_group_may_be_in_the_way():
    swapped = frame(40).rename(columns={"text": "label", "label": "text"})
    splits = data.load_splits(swapped, text="label", label="text")
    assert set(splits["test"]["label"][:]) == {"clickbait", "factual"}
    rows = frame(40).rename(columns={"text": "title"}).assign(text=[i // 4 for i in range(40)])
    with pytest.warns(UserWarning, match="text_original"):
        splits = data.load_splits(rows, text="title", group="text")
    homes = [set(part["text_original"][:]) for part in splits.values()]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 10


def test_columns_beside_text_and_label_come_out_as_they_stand(tmp_path):
    rows = [f"Title {i},{'ab'[i % 2]},{i:03},NA" for i in range(20)]
    path = write(tmp_path / "a.csv", "\n".join(["text,label,code,remark", *rows]))
    found = pd.concat([part.to_pandas() for part in data.load_splits(path).values()])
    assert sorted(found["code"]) == [f"{i:03}" for i in range(20)]
    assert set(found["remark"]) == {"NA"}


def test_a_column_of_several_types_is_named():
    with pytest.raises(ValueError, match=r"several types.*remark"):
        data.load_splits(frame(20).assign(remark=[1, "one"] * 10))


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
    with pytest.raises(ValueError, match="'validation' would be empty"):
        data.load_splits(rows.assign(label="x"), group="author")


def test_a_csv_without_the_columns_says_what_it_has(tmp_path):
    path = write(tmp_path / "a.csv", "title,kind\nHello,x\n")
    with pytest.raises(ValueError, match=r"no column 'text', 'label'; it has: 'title', 'kind'"):
        data.load_splits(path)


def test_a_group_column_that_is_missing_is_named():
    with pytest.raises(ValueError, match="no column 'pair'"):
        data.load_splits(frame(), group="pair")


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


def test_usable_rows_have_names_for_labels_and_keywords_as_one_string():
    rows = pd.DataFrame({"text": ["a", "b"], "label": [1.0, True], "keywords": [["x", "y"], "z;w"]})
    found = data.usable(rows, keywords="keywords")
    assert found["label"].tolist() == ["1", "True"]
    assert found["keywords"].tolist() == ["x, y", "z, w"]
    with pytest.raises(ValueError, match="no column 'labels'"):
        data.usable(rows, label="labels")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([True, False, np.True_], ["True", "False", "True"]),
        ([1, 2.0, np.int64(3), "4", "5.0"], ["1", "2", "3", "4", "5"]),
        ([0.5, "1.10", "007", "2.00"], ["0.5", "1.10", "007", "2.00"]),
        (pd.Categorical(["x", None, "y"], ["y", "x"]), ["x", None, "y"]),
        ([" news", "a\tb", "  ", "", None, float("nan"), pd.NA], ["news", "a b", *[None] * 5]),
        ([["one"], np.array(["two"]), [], "['three']"], ["one", "two", None, "three"]),
        (["[other]", "Caf\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}"], ["[other]", "Café"]),
    ],
)
def test_a_label_of_any_type_has_one_name(values, names):
    assert data.label_names(values).tolist() == names


@pytest.mark.parametrize("label", [True, 1, 2.0, 0.5, "007", "1.10", "NA"])
def test_a_table_and_its_csv_have_the_same_names(label, tmp_path):
    table = pd.DataFrame({"label": [label, label, None]})
    table.to_csv(tmp_path / "a.csv", index=False)
    read = tables.read(tmp_path / "a.csv")["label"]
    assert data.label_names(read).tolist() == data.label_names(table["label"]).tolist()


@pytest.mark.parametrize("cell", [["a", "b"], ("a", "b"), np.array(["a", "b"]), "['a', 'b']"])
def test_several_labels_in_a_row_are_refused_with_the_row(cell):
    with pytest.raises(ValueError, match=r"Row 1 of split 'test' has several labels, \['a', 'b'\]"):
        data.label_names(["a", cell], " of split 'test'")
    rows = frame(20)
    rows["label"] = [cell if i == 3 else "a" for i in range(20)]
    with pytest.raises(ValueError, match="Row 3 of split 'train' has several labels"):
        data.load_splits(rows)


def test_spellings_that_become_one_label_are_named_once():
    rows = frame(40).assign(label=["news", "sport", "news ", "sport"] * 10)
    with pytest.warns(UserWarning, match=r"one label: \['news'\]") as caught:
        splits = data.load_splits(rows)
    assert len(caught) == 1
    assert set(splits["train"]["label"][:]) == {"news", "sport"}


@pytest.mark.parametrize(
    ("names", "doubted"),
    [
        (["sport", "Sport", "news"], ["Sport"]),
        (["crime", "drama", "crime|drama"], ["crime|drama"]),
        (["crime;drama", "drama;crime"], ["crime;drama", "drama;crime"]),
        (["a, b", "b, c", "a, c"], ["a, b", "b, c", "a, c"]),
        (["C", "C++", "C#", "R&B", "Sci/Tech", "World", "Food & Drink", "Drinks"], []),
    ],
)
def test_labels_that_look_alike_or_joined_are_doubted(names, doubted):
    told = " ".join(data.doubtful_labels(names))
    assert bool(told) == bool(doubted)
    assert all(repr(name) in told for name in doubted)


def test_nothing_usable_is_an_error():
    with pytest.raises(ValueError, match="No usable row is left"):
        data.load_splits(pd.DataFrame({"text": [1, 2], "label": ["a", "b"]}))


def test_a_class_with_one_row_goes_to_train_with_a_warning():
    rows = pd.concat([frame(50), pd.DataFrame({"text": ["Odd"], "label": ["rare"]})])
    with pytest.warns(UserWarning, match=r"'test' has none of 1 labels \(rare\)"):
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


@pytest.mark.parametrize(("classes", "each"), [(150, 3), (77, 6), (40, 4)])
def test_many_small_classes_leave_train_its_share_and_those_a_split_lacks_are_named(classes, each):
    n = classes * each
    rows = frame(n).assign(label=[f"topic {i % classes}" for i in range(n)])
    with pytest.warns(UserWarning, match=r"'validation' has none of \d+ labels \(topic"):
        splits = data.load_splits(rows)
    assert len(splits["train"]) >= 0.7 * n
    assert len(set(splits["train"]["label"][:])) == classes
    assert all(0.08 * n <= len(splits[name]) <= 0.15 * n for name in ("validation", "test"))


@pytest.mark.filterwarnings("error")
def test_a_few_small_classes_are_in_every_split():
    rows = frame(200).assign(label=["a", "b"] * 97 + ["rare"] * 3 + ["seldom"] * 3)
    for part in data.load_splits(rows).values():
        assert set(part["label"][:]) == {"a", "b", "rare", "seldom"}


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


def test_a_server_without_the_public_headlines():
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
    challenge = tables.read(data.shipped("clickbait_challenge.csv"))
    assert len(challenge) >= 150
    assert set(challenge["label"]) == {"clickbait", "factual"}
    forms = challenge[challenge["group"].isin(["as_written", "lower_case", "title_case"])]
    assert (forms.groupby("case")["text"].agg(lambda s: s.str.lower().nunique()) == 1).all()
    sober = challenge.loc[challenge["group"] == "sober_clickbait", "text"]
    assert not sober.map(lambda text: bool(re.search(r"[!?\d]", text))).any()
    pairs = challenge[challenge["group"] == "minimal_pair"].groupby("case")["label"]
    assert (pairs.nunique() == 2).all()


def test_no_challenge_title_stands_among_the_training_titles(titles):
    challenge = tables.read(data.shipped("clickbait_challenge.csv"))
    more = tables.read(data.shipped("clickbait_titles_more.csv"))
    known = pd.concat([titles, more])["text"]
    both = pd.concat([known, challenge["text"]], ignore_index=True)
    copies = quality.near_duplicates(both)
    assert not ((copies["row"] >= len(known)) & (copies["of"] < len(known))).any()


def test_rows_without_keywords_are_dropped_and_counted():
    frame = pd.DataFrame(
        {
            "text": [f"text {i}" for i in range(40)],
            "keywords": ["a; b", ["c", "d"], "", None, float("nan"), " , "] + ["x, y"] * 34,
            "topic": ["t"] * 40,
        }
    )
    with pytest.warns(
        UserWarning, match=r"Dropped 4 of 40 rows of split 'train': 4 without keywords \(first at"
    ):
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


def test_the_public_posts_come_with_the_columns_that_are_needed(tmp_path, website):
    header = "id,text,url,timestamp,keywords,topic,summary"
    row = '1,"Go, again",x,2023-11-06,"Go, NA",Web,New Go'
    (tmp_path / "posts.csv").write_text(f"{header}\n{row}\n")
    found = data.read_posts(f"{website}/posts.csv")
    assert found.to_dict("records") == [
        {
            "text": "Go, again",
            "keywords": "Go, NA",
            "topic": "Web",
            "summary": "New Go",
            "timestamp": "2023-11-06",
        }
    ]
    with pytest.raises(ConnectionError, match=r"missing.csv can't be reached"):
        data.read_posts(f"{website}/missing.csv")
